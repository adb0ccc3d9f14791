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

"""What requests that wait cost others, under uwsgi.

200 requests wait at once for a command that runs on, of which nova-api lets
as many wait as it may; all others are answered at once. Meanwhile another
client's requests are timed, and beside them without waiters.
"""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import os
import sys
import time

from benchmarks import clouds
from benchmarks import measure
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

THREADS = 32
WAITERS = 16
REQUESTS = 200
#: Seconds that they ask to wait.
WAIT = 20
#: Of the other client, with waiters and without, so many times in turns.
OTHERS, ROUNDS = 150, 2


def run() -> measure.Report:
    report = measure.Report('Requests that wait')
    with clouds.running(max_waiters=WAITERS, max_wait=WAIT) as cloud:
        command = cloud.client().start('/bin/sleep', '1000')
        cloud.client().wait(command, 'RUNNING')
        with uwsgi(cloud, THREADS) as client:
            _with_threads(report, client, command)
        with uwsgi(cloud, 1) as client:
            applied, _ = wait(client, command, 4)
        report.goals.append(
            measure.Goal('waiting where there is one thread', applied, 0)
        )
    return report


def _with_threads(
    report: measure.Report, client: http.Client, command: str
) -> None:
    taken: dict[str, list[float]] = {'alone': [], 'beside waiters': []}
    applied, at_once = 0, 0
    others(client, command, 20)
    for _ in range(ROUNDS):
        taken['alone'] += others(client, command, OTHERS)
        with futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait, client, command, REQUESTS)
            # Those that may not wait have had their answer by then.
            time.sleep(5)
            began = time.monotonic()
            taken['beside waiters'] += others(client, command, OTHERS)
            assert time.monotonic() - began < WAIT - 5, 'Nobody waited so long'
            applied, at_once = waiting.result()
    report.series = [
        measure.Series(f'GET command, {name}', 'ms', values)
        for name, values in taken.items()
    ]
    alone, beside = (item.quantile(95) for item in report.series)
    report.facts = {'waited': applied, 'answered at once': at_once}
    report.goals = [
        measure.Goal('p95 beside waiters by p95 alone', beside / alone, 1.3),
        measure.Goal('waiting, of max_waiters', applied / WAITERS, 1.0),
        measure.Goal(
            'answered at once, of the others',
            at_once / (REQUESTS - WAITERS),
            1.0,
            at_most=False,
        ),
    ]


def wait(client: http.Client, command: str, requests: int) -> tuple[int, int]:
    """Have many wait for a command.

    :returns: how many were let wait, and how many were answered at once
    """

    def ask(_: int) -> bool:
        answer = client.send(
            'GET',
            f'{client.commands}/{command}',
            headers={'Prefer': f'wait={WAIT}'},
        )
        assert answer.status == 200, answer.body
        return 'Preference-Applied' in answer.headers

    with futures.ThreadPoolExecutor(requests) as pool:
        applied = sum(pool.map(ask, range(requests)))
    return applied, requests - applied


def others(client: http.Client, command: str, requests: int) -> list[float]:
    """Return how long requests took that do not wait, in milliseconds."""
    return [
        measure.timed(lambda: client.show(command)) for _ in range(requests)
    ]


@contextlib.contextmanager
def uwsgi(cloud: testbed_cloud.Cloud, threads: int) -> Iterator[http.Client]:
    """Run one more nova-api, a process with so many threads."""
    port = processes.free_port()
    process = processes.start(
        'nova-api under uwsgi',
        [
            os.path.join(sys.prefix, 'bin/uwsgi'),
            '--http-socket',
            f'127.0.0.1:{port}',
            '--virtualenv',
            sys.prefix,
            '--module',
            'nova.wsgi.osapi_compute:application',
            '--threads',
            str(threads),
            '--master',
            '--lazy-apps',
            '--enable-threads',
            '--die-on-term',
            '--need-app',
            '--disable-logging',
            '--buffer-size',
            '65535',
        ],
        cloud.nova.directory / f'uwsgi-{threads}.log',
        {'OS_NOVA_CONFIG_DIR': str(cloud.nova.directory)},
    )
    client = cloud.nova.client('member', cloud.server_id, port)
    try:
        processes.wait_for(lambda: _answers(client), 60, 'nova-api', process)
        yield client
    finally:
        process.stop()


def _answers(client: http.Client) -> bool:
    # uwsgi listens before the application is loaded.
    try:
        return client.request('GET', '/servers')[0] == 200
    except OSError:
        return False


if __name__ == '__main__':
    print(run().as_text())
