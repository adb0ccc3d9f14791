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

"""A thousand compute services on one RabbitMQ and one conductor.

What their reports take, how long a command takes from POST to its end beside
them, and how soon all are heard again after a restart of the broker.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import sys
import time
import uuid

from benchmarks import clouds
from benchmarks import command
from benchmarks import host
from benchmarks import measure
from benchmarks import rows
from benchmarks import simulated
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import nova

HOSTS, PROCESSES = 1000, 4
SERVERS, ROUNDS = 10, 5
#: Seconds that the load of the reports is looked at.
QUIET = 30
PATIENCE = 300


def run() -> measure.Report:
    report = measure.Report(f'{HOSTS} compute services')
    with clouds.running() as cloud:
        cloud.compute.stop()
        clients = _servers(cloud)
        with simulated_hosts(cloud, 1, 1):
            wait_until_heard(cloud, 1)
            alone = _commands(clients[:1])
        with simulated_hosts(cloud, HOSTS, PROCESSES) as fleet:
            report.facts['seconds until all are up'] = round(
                wait_until_heard(cloud, HOSTS)
            )
            report.facts.update(_load(cloud))
            report.series = [
                measure.Series('a command, one host', 'ms', alone),
                measure.Series(
                    f'a command, {HOSTS} hosts', 'ms', _commands(clients)
                ),
            ]
            cloud.rabbitmq.stop()
            cloud.rabbitmq.start()
            seconds = wait_until_heard(cloud, HOSTS)
            report.facts['threads of a simulated host'] = round(
                sum(host.threads(process) for process in fleet) / HOSTS, 1
            )
    report.goals.append(
        measure.Goal(
            'seconds until all are heard after a restart of the broker, of '
            'service_down_time',
            seconds / 60,
            1.0,
        )
    )
    return report


def _servers(cloud: testbed_cloud.Cloud) -> Sequence[http.Client]:
    servers = [
        nova.Server(
            str(uuid.uuid4()), simulated.name(number * HOSTS // SERVERS)
        )
        for number in range(SERVERS)
    ]
    cloud.nova.prepare(servers)
    return [cloud.nova.client('member', server.uuid) for server in servers]


@contextlib.contextmanager
def simulated_hosts(
    cloud: testbed_cloud.Cloud, count: int, split: int
) -> Iterator[list[processes.Process]]:
    directory = cloud.nova.directory
    share = count // split
    started = [
        processes.start(
            'simulated hosts',
            [
                sys.executable,
                '-m',
                'benchmarks.simulated',
                directory / f'{testbed_cloud.HOST}.conf',
                str(first),
                str(share),
            ],
            directory / f'simulated-{first}.log',
            clouds.STANDIN,
        )
        for first in range(0, count, share)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.stop()


def wait_until_heard(cloud: testbed_cloud.Cloud, count: int) -> float:
    """Return the seconds until so many hosts were heard of, from now on."""
    began = time.monotonic()
    ((now,),) = rows.query(cloud.mariadb, 'SELECT UTC_TIMESTAMP(6)')

    def heard() -> bool:
        ((found,),) = rows.query(
            cloud.mariadb,
            'SELECT COUNT(*) FROM guest_agent_hosts WHERE '
            "host LIKE 'simulated-%%' AND last_seen_at > %s",
            now,
        )
        return bool(found >= count)

    processes.wait_for(heard, PATIENCE, f'{count} hosts')
    return time.monotonic() - began


def _load(cloud: testbed_cloud.Cloud) -> Mapping[str, str]:
    """Return what share of a CPU the reports take."""
    parts = {
        'guest-agent-conductor': cloud.conductor,
        'RabbitMQ': cloud.rabbitmq.process,
        'MariaDB': cloud.mariadb.process,
    }
    before = {name: host.cpu(process) for name, process in parts.items()}
    time.sleep(QUIET)
    loads = {}
    for name, process in parts.items():
        share = (host.cpu(process) - before[name]) / QUIET
        memory = process.memory('VmRSS') / 2**20
        loads[f'{name} with {HOSTS} hosts that report'] = (
            f'{share:.0%} of a CPU, {memory:.0f} MiB'
        )
    return loads


def _commands(clients: Sequence[http.Client]) -> list[float]:
    return [
        measure.timed(functools.partial(command.waited, client))
        for _ in range(ROUNDS * SERVERS // len(clients))
        for client in clients
    ]


if __name__ == '__main__':
    print(run().as_text())
