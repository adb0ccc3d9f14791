#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""One command in a thousand servers: a run, beside threads that post.

The servers are on simulated hosts whose agents answer at once, see standin/.
Meanwhile a member of another project posts commands for a server on one of
these hosts: the longest time that one of the requests takes is the longest
pause, and the time to a command's end tells of fairness.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
import threading
import time
import uuid

from benchmarks import clouds
from benchmarks import fleet
from benchmarks import host
from benchmarks import measure
from benchmarks import profile
from benchmarks import rows
from benchmarks import simulated
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import nova

SERVERS, HOSTS, PROCESSES = 1000, 100, 2
THREADS, ROUNDS = 16, 3
PATIENCE = 300
#: Seconds between two commands of the other project, and that it is alone.
GAP, ALONE = 0.1, 5

POSTED, RUN = f'{SERVERS} commands, {THREADS} threads', f'a run of {SERVERS}'
FEW = f'a run of {SERVERS}, 50 at a time'


@dataclasses.dataclass
class _Found:
    """What was measured of one way, in milliseconds.

    :ivar all: times until all commands had ended
    :ivar posts: times of POSTs of the other project
    :ivar ends: times from these POSTs to the ends of their commands
    :ivar cpu: seconds of the conductor's processor
    """

    all: list[float] = dataclasses.field(default_factory=list)
    posts: list[float] = dataclasses.field(default_factory=list)
    ends: list[float] = dataclasses.field(default_factory=list)
    cpu: float = 0.0


def run() -> measure.Report:
    report = measure.Report(f'One command in {SERVERS} servers')
    # On a busy machine nothing counts as down.
    with clouds.running(
        max_unfinished_per_project=-1, cell_timeout=60, service_down_time=600
    ) as cloud:
        cloud.compute.stop()
        clients = _servers(cloud)
        other = _of_another_project(cloud, clients.pop())
        with fleet.simulated_hosts(cloud, HOSTS, PROCESSES):
            fleet.wait_until_heard(cloud, HOSTS)
            with futures.ThreadPoolExecutor(THREADS) as pool:
                _measure(report, cloud, clients, other, pool)
    report.goals = [
        measure.Goal(f'{RUN} by {POSTED}', report.ratio(RUN, POSTED), 0.7),
        measure.Goal(
            'seconds of the longest POST of another project beside a run',
            max(report['POST of another project, a run'].values) / 1000,
            0.1,
        ),
    ]
    return report


def _servers(cloud: testbed_cloud.Cloud) -> list[http.Client]:
    servers = [
        nova.Server(str(uuid.uuid4()), simulated.name(number % HOSTS))
        for number in range(SERVERS + 1)
    ]
    cloud.nova.prepare(servers)
    return [cloud.nova.client('member', server.uuid) for server in servers]


def _of_another_project(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> http.Client:
    """Give a server to another project, and return its member's client."""
    project_id = cloud.nova.identities['other'].project_id
    cloud.update(client.server_id, project_id=project_id)
    rows.query(
        cloud.mariadb,
        'UPDATE instance_mappings SET project_id = %s '
        'WHERE instance_uuid = %s',
        project_id,
        client.server_id,
    )
    return cloud.nova.client('other', client.server_id)


def _measure(
    report: measure.Report,
    cloud: testbed_cloud.Cloud,
    clients: Sequence[http.Client],
    other: http.Client,
    pool: futures.ThreadPoolExecutor,
) -> None:
    ways: dict[str, tuple[str, Callable[[], object]]] = {
        POSTED: (
            'threads',
            lambda: list(
                pool.map(lambda item: item.start('/bin/true'), clients)
            ),
        ),
        RUN: ('a run', lambda: _post_run(clients, SERVERS)),
        FEW: ('50 at a time', lambda: _post_run(clients, 50)),
    }
    # The first of all knows no connection, no plan and no boot of a guest.
    ways[POSTED][1]()
    _wait_for_ends(cloud)
    found = {name: _Found() for name in ways}
    with profile.of({'guest-agent-conductor': cloud.conductor}) as profiles:
        for _ in range(ROUNDS):
            for name, (_, ask) in ways.items():
                with _posting(other, found[name]):
                    before = host.cpu(cloud.conductor)
                    began = time.monotonic()
                    ask()
                    _wait_for_ends(cloud)
                    found[name].all.append((time.monotonic() - began) * 1000)
                    found[name].cpu += host.cpu(cloud.conductor) - before
    alone = _Found()
    with _posting(other, alone):
        time.sleep(ALONE)
    report.series.append(
        measure.Series('command of another project, alone', 'ms', alone.ends)
    )
    for name, (words, _) in ways.items():
        report.series += [
            measure.Series(name, 'ms', found[name].all),
            measure.Series(
                f'POST of another project, {words}', 'ms', found[name].posts
            ),
            measure.Series(
                f'command of another project, {words}', 'ms', found[name].ends
            ),
        ]
        report.facts[f'CPU of guest-agent-conductor for a target, {words}'] = (
            f'{found[name].cpu * 1000 / ROUNDS / SERVERS:.2f} ms'
        )
    report.facts.update(profiles)


def _post_run(clients: Sequence[http.Client], concurrency: int) -> None:
    status, body = clients[0].request(
        'POST',
        '/guest-agent/runs',
        {
            'run': {
                'targets': {'servers': [item.server_id for item in clients]},
                'max_concurrency': concurrency,
                'type': 'exec',
                'arguments': {'command': ['/bin/true']},
            }
        },
    )
    assert status == 202, body


def _wait_for_ends(cloud: testbed_cloud.Cloud) -> None:
    def ended() -> bool:
        ((commands, runs),) = rows.query(
            cloud.mariadb,
            f'SELECT (SELECT COUNT(*) FROM {rows.TABLE} WHERE status IN '
            "('PENDING', 'RUNNING') AND project_id <> %s), (SELECT COUNT(*) "
            "FROM guest_agent_runs WHERE status = 'RUNNING')",
            cloud.nova.identities['other'].project_id,
        )
        return not commands and not runs

    processes.wait_for(ended, PATIENCE, 'the end of all', gap=0.05)


@contextlib.contextmanager
def _posting(client: http.Client, found: _Found) -> Iterator[None]:
    """Run commands in another project, and note how long each takes."""
    stopping = threading.Event()

    def post() -> None:
        while not stopping.wait(GAP):
            began = time.monotonic()
            uuid = client.start('/bin/true')
            found.posts.append((time.monotonic() - began) * 1000)
            answer = client.send(
                'GET',
                f'{client.commands}/{uuid}',
                headers={'Prefer': 'wait=30'},
            )
            assert b'COMPLETED' in answer.body, answer.body
            found.ends.append((time.monotonic() - began) * 1000)

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


if __name__ == '__main__':
    print(run().as_text())
