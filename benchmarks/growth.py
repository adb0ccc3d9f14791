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

"""What a full table costs.

The same requests are timed with few and with many commands in the table, in
turns with one of Nova's own, which knows nothing of them: what counts is how
their ratio to it grows. Then a million rows are removed while they go on.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import subprocess
import sys
import time
import uuid

from benchmarks import clouds
from benchmarks import measure
from benchmarks import reporting
from benchmarks import rows
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import ini
from tools.testbed.parts import nova

SIZES = (1_000, 100_000, 3_000_000)
ROUNDS = 50
METADATA = 'GET metadata'
#: What of the growing table is whose.
SERVERS = 20
#: Seconds in which the commands ended; a third of them is kept no longer.
SPREAD = 130_000


def run() -> measure.Report:
    report = measure.Report('Growth of the table')
    # The conductor removes nothing.
    with (
        clouds.running(retention=10**7) as cloud,
        reporting.host(cloud) as host,
    ):
        client = cloud.client()
        fill = _filler(cloud, client)
        for size in SIZES:
            fill(size)
            report.series += [
                measure.Series(
                    f'{item.name}, {size:,} rows', 'ms', item.values
                )
                for item in measure.side_by_side(
                    _ways(client, host), ROUNDS, warm_up=10
                )
            ]
        report.goals = [
            measure.Goal(
                f'{name} at {size:,} rows by {SIZES[0]:,}, each by {METADATA}',
                _share(report, name, size) / _share(report, name, SIZES[0]),
                1.2,
            )
            for size in SIZES[1:]
            for name in ('POST', 'claim', 'GET', 'list')
        ]
        _purge(cloud, report)
    return report


def _filler(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> Callable[[int], None]:
    """Return what has the table grow."""
    template = client.start('/bin/true')
    client.cancel(template)
    servers = [
        nova.Server(str(uuid.uuid4()), testbed_cloud.HOST)
        for _ in range(SERVERS)
    ]
    cloud.nova.prepare(servers)
    uuids = ', '.join(
        f"'{uuid}'"
        for uuid in (client.server_id, *(server.uuid for server in servers))
    )
    columns = {
        'uuid': 'UUID()',
        'instance_uuid': f'ELT(1 + seq %% {SERVERS + 1}, {uuids})',
        'created_at': f'created_at - INTERVAL seq %% {SPREAD} SECOND',
        'finished_at': f'finished_at - INTERVAL seq %% {SPREAD} SECOND',
        'audit_at': 'NULL',
    }
    filled = 0

    def fill(size: int) -> None:
        nonlocal filled
        rows.copy(cloud.mariadb, template, size - filled, columns)
        filled = size
        rows.query(cloud.mariadb, f'ANALYZE TABLE {rows.TABLE}')

    return fill


def _share(report: measure.Report, name: str, size: int) -> float:
    return report.ratio(f'{name}, {size:,} rows', f'{METADATA}, {size:,} rows')


def _ways(
    client: http.Client, host: reporting.Host
) -> dict[str, Callable[[], object]]:
    attempt = str(uuid.uuid4())
    posted: list[str] = []

    def claim() -> None:
        assert host.conductor.claim(
            host.service, posted[-1], attempt, 'boot', 10**6, 30.0
        )

    def finish() -> None:
        host.conductor.finish(
            host.service,
            posted[-1],
            attempt,
            {'status': 'COMPLETED', 'age': 0.0},
        )

    return {
        METADATA: lambda: client.request(
            'GET', f'/servers/{client.server_id}/metadata'
        ),
        'POST': lambda: posted.append(client.start('/bin/true')),
        'claim': claim,
        'finish': finish,
        'GET': lambda: client.show(posted[-1]),
        'list': lambda: client.request('GET', f'{client.commands}?limit=20'),
    }


def _purge(cloud: testbed_cloud.Cloud, report: measure.Report) -> None:
    """Remove many rows, and time others' requests meanwhile."""
    client = cloud.client()
    known = client.start('/bin/true')
    client.cancel(known)
    taken: dict[str, list[float]] = {'alone': [], 'beside a purge': []}
    _others(client, known, taken['alone'], time.monotonic() + 20)
    began = time.monotonic()
    with _purging(cloud) as purge:
        while purge.poll() is None:
            _others(
                client, known, taken['beside a purge'], time.monotonic() + 1
            )
    seconds = time.monotonic() - began
    report.series += [
        measure.Series(f'GET, {name}', 'ms', values)
        for name, values in taken.items()
    ]
    ((left,),) = rows.query(
        cloud.mariadb, f'SELECT COUNT(*) FROM {rows.TABLE}'
    )
    report.facts['rows removed'] = SIZES[-1] - left
    report.facts['rows removed in a second'] = round(
        (SIZES[-1] - left) / seconds
    )
    alone, beside = report.series[-2:]
    report.goals.append(
        measure.Goal(
            'longest pause by a purge, seconds',
            (max(beside.values) - max(alone.values)) / 1000,
            0.1,
        )
    )


def _others(
    client: http.Client, known: str, taken: list[float], until: float
) -> None:
    while time.monotonic() < until:
        taken.append(measure.timed(lambda: client.show(known)))
        posted = client.start('/bin/true')
        client.cancel(posted)


@contextlib.contextmanager
def _purging(cloud: testbed_cloud.Cloud) -> Iterator[subprocess.Popen[bytes]]:
    directory = cloud.nova.directory
    ini.write(directory / 'purge.conf', {'guest_agent': {'retention': 86400}})
    with (directory / 'purge.log').open('wb') as log:
        purge = subprocess.Popen(
            [
                os.path.join(sys.prefix, 'bin/guest-agent-manage'),
                '--config-file',
                directory / 'nova.conf',
                '--config-file',
                directory / 'purge.conf',
                'purge',
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield purge
    finally:
        purge.kill()
        purge.wait()
    assert purge.returncode == 0, (directory / 'purge.log').read_text()


if __name__ == '__main__':
    print(run().as_text())
