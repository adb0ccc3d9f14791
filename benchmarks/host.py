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

"""What one compute host gets done.

Commands over real guests, beside a bare loop with the same launcher in each
of them. Then over guests whose agents answer at once, see standin/: what a
command costs compute service and conductor, and what commands that run cost.
"""

from collections.abc import Sequence
from concurrent import futures
import os
import pathlib
import time

from benchmarks import bare
from benchmarks import clouds
from benchmarks import measure
from benchmarks import profile
from benchmarks import rows
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest.launchers import posix
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import libvirtd
from tools.testbed.parts import nova

#: Of real guests at once, and commands that each of them gets in a round.
GUESTS = (1, 2, 4, 8)
COMMANDS, ROUNDS = 8, 2
#: Of guests that answer at once, and commands over all of them.
STANDINS, MANY = 126, 1000
#: Commands that run at once, in all of those but one: eight in each at most.
RUNNING = (1, 100, 1000)
LATENCIES = 20


def run() -> measure.Report:
    report = measure.Report('One compute host')
    with clouds.running(max_unfinished_per_project=-1) as cloud:
        _real(report, cloud)
        cloud.compute.stop()
        cloud.nova = cloud.nova.with_environment(clouds.STANDIN)
        _standins(report, cloud)
    return report


def _real(report: measure.Report, cloud: testbed_cloud.Cloud) -> None:
    clients = [
        cloud.client(),
        *(cloud.add(libvirtd.Guest()) for _ in range(GUESTS[-1] - 1)),
    ]
    guests = connection.Connection(cloud.hypervisor.uri, GUESTS[-1])
    for client in clients:
        client.run('/bin/true')
    for count in GUESTS:
        loops, ours = [], []
        for _ in range(ROUNDS):
            loops.append(_bare(guests, clients[:count]))
            ours.append(_commands(cloud, clients[:count]))
        of = 'guest' if count == 1 else 'guests'
        report.series += [
            measure.Series(f'bare loops, {count} {of}', '1/s', loops),
            measure.Series(f'commands, {count} {of}', '1/s', ours),
        ]
        loop, command = report.series[-2:]
        report.goals.append(
            measure.Goal(
                f'commands a second of {count} {of} by bare loops',
                command.median / loop.median,
                0.9,
                at_most=False,
            )
        )


def _bare(
    guests: connection.Connection, clients: Sequence[http.Client]
) -> float:
    """Return commands a second of a loop for each guest."""

    def loop(client: http.Client) -> None:
        launcher = posix.PosixLauncher(
            guest_agent.Agent(guests, client.server_id)
        )
        for _ in range(COMMANDS):
            bare.launched(launcher)

    began = time.monotonic()
    with futures.ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(loop, clients))
    return len(clients) * COMMANDS / (time.monotonic() - began)


def _commands(
    cloud: testbed_cloud.Cloud, clients: Sequence[http.Client]
) -> float:
    """Return commands a second of those that wait when the host wakes up."""
    cloud.compute.pause()
    for client in clients:
        for _ in range(COMMANDS):
            client.start('/bin/true')
    cloud.compute.resume()
    began = time.monotonic()
    _wait_for_ends(cloud)
    return len(clients) * COMMANDS / (time.monotonic() - began)


def _wait_for_ends(
    cloud: testbed_cloud.Cloud, status: str = 'RUNNING', left: int = 0
) -> None:
    def ended() -> bool:
        ((count,),) = rows.query(
            cloud.mariadb,
            f'SELECT COUNT(*) FROM {rows.TABLE} '
            "WHERE status IN ('PENDING', %s)",
            status,
        )
        return bool(count <= left)

    processes.wait_for(ended, 300, 'the end of all commands')


def _standins(report: measure.Report, cloud: testbed_cloud.Cloud) -> None:
    servers = [
        nova.Server(libvirtd.Guest().uuid, testbed_cloud.HOST)
        for _ in range(STANDINS)
    ]
    cloud.nova.prepare(servers)
    clients = [cloud.nova.client('member', server.uuid) for server in servers]
    template = clients[0].start('/bin/true')
    cloud.start_compute()
    clients[0].wait(template)
    _throughput(report, cloud, template, clients)
    _many_running(report, cloud, clients)


def _throughput(
    report: measure.Report,
    cloud: testbed_cloud.Cloud,
    template: str,
    clients: Sequence[http.Client],
) -> None:
    """Measure what MANY commands take of the two services."""
    services = {
        'guest-agent-compute': cloud.compute,
        'guest-agent-conductor': cloud.conductor,
    }
    cloud.compute.pause()
    _write(cloud, template, clients)
    before = {name: cpu(process) for name, process in services.items()}
    cloud.compute.resume()
    clients[0].start('/bin/true')  # rings
    began = time.monotonic()
    with profile.of(services) as profiles:
        _wait_for_ends(cloud)
    seconds = time.monotonic() - began
    report.series.append(
        measure.Series(
            'commands, agents that answer at once', '1/s', [MANY / seconds]
        )
    )
    for name, process in services.items():
        milliseconds = (cpu(process) - before[name]) * 1000 / MANY
        report.facts[f'CPU of {name} for a command, ms'] = round(
            milliseconds, 2
        )
        report.facts[f'commands a second of one {name}, by its CPU'] = round(
            1000 / milliseconds
        )
        if process is cloud.conductor:
            report.goals.append(
                measure.Goal(
                    'ms of CPU of guest-agent-conductor for a command',
                    milliseconds,
                    6.0,
                )
            )
    report.facts.update(profiles)


def _write(
    cloud: testbed_cloud.Cloud, template: str, clients: Sequence[http.Client]
) -> None:
    """Write commands as POST would: all that it does is no part of this."""
    uuids = ', '.join(f"'{client.server_id}'" for client in clients)
    rows.copy(
        cloud.mariadb,
        template,
        MANY,
        {
            'uuid': 'UUID()',
            'status': "'PENDING'",
            'attempt': 'NULL',
            'instance_uuid': f'ELT(1 + seq %% {len(clients)}, {uuids})',
            'created_at': 'UTC_TIMESTAMP(6)',
            'started_at': 'NULL',
            'finished_at': 'NULL',
            'audit_at': 'NULL',
            'audited': 'NULL',
            'start_by': 'UTC_TIMESTAMP(6) + INTERVAL 300 SECOND',
        },
    )


def _many_running(
    report: measure.Report,
    cloud: testbed_cloud.Cloud,
    clients: Sequence[http.Client],
) -> None:
    """Measure one more command beside those that run."""
    # One of its own, so that it need not wait for a place in its guest.
    idle, *busy = clients
    started = 0
    for count in RUNNING:
        for number in range(started, count):
            busy[number % len(busy)].start('/bin/sleep', '1000')
        started = count
        _wait_for_ends(cloud, 'PENDING')
        before, began = cpu(cloud.compute), time.monotonic()
        series = measure.Series(
            f'a command beside {count} that run',
            'ms',
            [measure.timed(lambda: _waited(idle)) for _ in range(LATENCIES)],
        )
        time.sleep(5)
        share = (cpu(cloud.compute) - before) / (time.monotonic() - began)
        report.series.append(series)
        report.facts[f'guest-agent-compute with {count} running'] = (
            f'{threads(cloud.compute)} threads, '
            f'{cloud.compute.memory("VmRSS") / 2**20:.0f} MiB, '
            f'{share:.0%} of a CPU'
        )


def _waited(client: http.Client) -> None:
    answer = client.send(
        'GET',
        f'{client.commands}/{client.start("/bin/true")}',
        headers={'Prefer': 'wait=30'},
    )
    assert b'COMPLETED' in answer.body, answer.body


def cpu(process: processes.Process) -> float:
    """Return the seconds of CPU that a process has had."""
    stat = pathlib.Path(f'/proc/{process.pid}/stat').read_text()
    fields = stat.rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def threads(process: processes.Process) -> int:
    return len(list(pathlib.Path(f'/proc/{process.pid}/task').iterdir()))


if __name__ == '__main__':
    print(run().as_text())
