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

"""Attached commands.

From a key to its echo, in a terminal of the ``openstack`` command and in one
of ssh, typed in turns into the same guest; how fast stdin and stdout are,
beside a loop over the guest's part of it without a service; and what sessions
cost in which nobody types.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import os
import pathlib
import pty
import select
import subprocess
import sys
import tempfile
import threading
import time
import uuid

from keystoneauth1 import adapter
from keystoneauth1 import session
from keystoneauth1 import token_endpoint

from benchmarks import bare
from benchmarks import clouds
from benchmarks import host
from benchmarks import measure
from benchmarks import neighbours
from benchmarks import ssh
from guest_agent_ext import command
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import attached
from guest_agent_ext.guest import connection
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.sdk import process
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd

MIB = 1024 * 1024
#: Keys, and seconds between two of them.
KEYS, THINKING = 60, 0.3
#: Bytes that go through a stream in a round.
SIZE, ROUNDS = 8 * MIB, 3
#: Sessions in which nobody types, and guests that have them.
SESSIONS, GUESTS = 100, 4
#: Seconds until those sessions are at rest, and that they are measured.
REST, MEASURED = 60, 60
#: Seconds that anything may take.
PATIENCE = 120
_OPENSTACK = pathlib.Path(sys.executable).with_name('openstack')


class Terminal:
    """A program in a terminal, whose other end echoes each key.

    :param argv: the program and its arguments
    :param env: environment
    """

    def __init__(
        self, argv: Sequence[str], env: dict[str, str] | None = None
    ) -> None:
        self._number, inner = pty.openpty()
        self._process = subprocess.Popen(
            argv,
            env=env,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)

    def wait_for(self, text: bytes) -> None:
        """Wait until a text is shown."""
        shown, until = b'', time.monotonic() + PATIENCE
        while text not in shown:
            left = until - time.monotonic()
            if not select.select([self._number], [], [], max(0, left))[0]:
                raise TimeoutError(shown)
            shown += os.read(self._number, 65536)

    def key(self) -> None:
        """Type a key, and wait for its echo."""
        os.write(self._number, b'k')
        self.wait_for(b'k')

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._number)


class Bare:
    """A loop over the guest's part of an attached command.

    :param guest: launcher of the guest
    """

    def __init__(self, guest: posix.PosixLauncher, *argv: str) -> None:
        self._guest = guest
        probe = guest.probe()
        self._id = str(uuid.uuid4())
        self._pid = guest.launch(
            launcher.Launch(
                id=self._id,
                argv=argv,
                env={},
                stdin=b'',
                cwd=None,
                user=None,
                boot_id=probe.boot_id,
                ticket=probe.uptime + 6000,
                keep=command.MAX_OUTPUT_BYTES,
                keep_end='head',
                attach=launcher.Attach(),
            )
        )
        self._streams = guest.attached(self._id, terminal=False)

    def run(self, data: bytes = b'') -> int:
        """Move all that goes through; return the number of bytes read."""
        offsets = dict.fromkeys(self._streams.names, 0)
        sent = 0
        while not self._streams.is_drained:
            moved = self._read(offsets)
            if not self._streams.is_input_closed:
                until = self._streams.write(
                    sent,
                    data[sent : sent + attached.MAX_INPUT],
                    end=sent + attached.MAX_INPUT >= len(data),
                )
                moved, sent = moved or until > sent, until
            if not moved and not self._streams.follow():
                time.sleep(bare.GAP)
        while self._guest.poll(self._pid) is None:
            time.sleep(bare.GAP)
        self._streams.close()
        self._guest.release([self._id])
        return offsets['out']

    def _read(self, offsets: dict[str, int]) -> bool:
        found = self._streams.read('out', offsets['out'])
        names = ['out'] if found.data else list(self._streams.names)
        for name in names:
            if name != 'out':
                found = self._streams.read(name, offsets[name])
            offsets[name] = found.next_offset
            self._streams.acknowledge(name, found.next_offset)
        return len(names) == 1


def run() -> measure.Report:
    report = measure.Report('Attached commands')
    with (
        tempfile.TemporaryDirectory() as directory,
        clouds.running(
            max_unfinished_per_server=SESSIONS,
            max_running_per_server=SESSIONS,
            max_attached_per_server=SESSIONS,
            max_attached_per_host=2 * SESSIONS,
            max_waiters=4 * SESSIONS,
        ) as cloud,
    ):
        ways_in, guests, clients = [], [], []
        for number in range(GUESTS):
            place = pathlib.Path(directory, str(number))
            place.mkdir()
            ways_in.append(ssh.Ssh(place))
            guests.append(libvirtd.Guest(memory=256, ssh=ways_in[-1].guest))
            clients.append(cloud.add(guests[-1]))
        ways_in[0].wait()
        _keys(report, cloud, clients[0], ways_in[0])
        _throughput(report, cloud, guests[0])
        _idle(report, cloud, guests)
    return report


def _keys(
    report: measure.Report,
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    way_in: ssh.Ssh,
) -> None:
    env = {
        **os.environ,
        'OS_AUTH_TYPE': 'admin_token',
        'OS_TOKEN': client.token,
        'OS_ENDPOINT': cloud.nova.url,
        'TERM': 'vt100',
    }
    exec_argv = [str(_OPENSTACK), 'server', 'guest', 'exec', '-t']
    with contextlib.ExitStack() as stack:
        ours = Terminal([*exec_argv, client.server_id, '--', 'cat'], env)
        stack.callback(ours.close)
        ours.wait_for(b'beginning of a line')
        theirs = Terminal(way_in.terminal('cat'))
        stack.callback(theirs.close)
        for terminal in (ours, theirs):
            # What was said before is behind this.
            time.sleep(5)
            terminal.key()
        stack.enter_context(
            neighbours.nova_compute(cloud.rabbitmq.transport_url())
        )
        report.series += measure.side_by_side(
            {
                'key to echo, openstack': ours.key,
                'key to echo, ssh': theirs.key,
                "Nova's os-getConsoleOutput": functools.partial(
                    neighbours.console, client
                ),
                'a moment between two keys': lambda: time.sleep(THINKING),
            },
            KEYS,
            warm_up=3,
        )[:-1]
    report.goals.append(
        measure.Goal(
            'key to echo by ssh',
            report.ratio('key to echo, openstack', 'key to echo, ssh'),
            5.0,
        )
    )
    report.facts["share of one of Nova's own calls in a key to its echo"] = (
        round(
            report.ratio(
                "Nova's os-getConsoleOutput", 'key to echo, openstack'
            ),
            2,
        )
    )


def _throughput(
    report: measure.Report, cloud: testbed_cloud.Cloud, guest: libvirtd.Guest
) -> None:
    agent = guest_agent.Agent(
        connection.Connection(cloud.hypervisor.uri), guest.uuid
    )
    bare_guest = posix.PosixLauncher(agent)
    compute = _compute(cloud)
    data = os.urandom(SIZE)
    writes = ('sh', '-c', f'head -c {SIZE} /dev/zero')
    reads = ('sh', '-c', 'cat >/dev/null')

    def bare_stdout() -> None:
        assert Bare(bare_guest, *writes).run() == SIZE

    def bare_stdin() -> None:
        Bare(bare_guest, *reads).run(data)

    def stdout() -> None:
        with process.Process(compute, guest.uuid, writes) as program:
            program.stdin.close()
            assert _length(program) == SIZE
            assert program.wait() == 0

    def stdin() -> None:
        with process.Process(compute, guest.uuid, reads) as program:
            program.stdin.write(data)
            program.stdin.close()
            assert _length(program) == 0
            assert program.wait() == 0

    ways: dict[str, Callable[[], object]] = {
        'stdout': stdout,
        'bare loop, stdout': bare_stdout,
        'stdin': stdin,
        'bare loop, stdin': bare_stdin,
    }
    report.series += [
        measure.Series(
            item.name,
            'MiB/s',
            [SIZE / MIB / (value / 1000) for value in item.values],
        )
        for item in measure.side_by_side(ways, ROUNDS)
    ]
    report.goals += [
        measure.Goal(
            f'{name} by bare loop',
            report.ratio(name, f'bare loop, {name}'),
            0.8,
            at_most=False,
        )
        for name in ('stdout', 'stdin')
    ]


def _length(program: process.Process) -> int:
    """Read both streams to their ends; return the length of stdout."""
    assert program.stderr is not None
    errors = threading.Thread(target=program.stderr.read, daemon=True)
    errors.start()
    size = 0
    while data := program.stdout.read(MIB):
        size += len(data)
    errors.join()
    return size


def _idle(
    report: measure.Report,
    cloud: testbed_cloud.Cloud,
    guests: Sequence[libvirtd.Guest],
) -> None:
    compute = _compute(cloud)
    services = {
        'nova-api': cloud.api,
        'guest-agent-conductor': cloud.conductor,
        'guest-agent-compute': cloud.compute,
        'libvirtd': cloud.hypervisor.process,
    }
    for number in range(SESSIONS):
        program = process.Process(
            compute,
            guests[number % GUESTS].uuid,
            ['cat'],
            terminal=process.Terminal(),
        )
        # Reads for ever: what is here ends with this process.
        threading.Thread(
            target=program.stdout.read, args=(1,), daemon=True
        ).start()
    for client in _clients(cloud, guests):
        _wait_until_running(client, SESSIONS // GUESTS)
    time.sleep(REST)
    before = {name: host.cpu(item) for name, item in services.items()}
    broker = host.cpu(cloud.rabbitmq.process)
    began = time.monotonic()
    time.sleep(MEASURED)
    seconds = time.monotonic() - began
    shares = {
        name: (host.cpu(item) - before[name]) / seconds
        for name, item in services.items()
    }
    for name, share in shares.items():
        report.facts[f'{name} with {SESSIONS} idle sessions'] = (
            f'{share:.1%} of a CPU'
        )
    report.facts['RabbitMQ beside them'] = (
        f'{(host.cpu(cloud.rabbitmq.process) - broker) / seconds:.1%} of a CPU'
    )
    report.goals.append(
        measure.Goal(
            f'CPUs of services and libvirtd, {SESSIONS} idle sessions',
            sum(shares.values()),
            0.2,
        )
    )


def _clients(
    cloud: testbed_cloud.Cloud, guests: Sequence[libvirtd.Guest]
) -> Iterator[http.Client]:
    for guest in guests:
        yield cloud.nova.client('member', guest.uuid)


def _wait_until_running(client: http.Client, count: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        _, body = client.request(
            'GET', f'{client.commands}?status=RUNNING&limit={count}'
        )
        if len(body['commands']) >= count:
            return
        if time.monotonic() > until:
            raise TimeoutError(f'{len(body["commands"])} of {count} run')
        time.sleep(1)


def _compute(cloud: testbed_cloud.Cloud) -> adapter.Adapter:
    """Return an adapter of the API, with a token of a member's."""
    token = cloud.nova.identities['member'].token
    return adapter.Adapter(
        session.Session(token_endpoint.Token(cloud.nova.url, token)), 'compute'
    )


if __name__ == '__main__':
    print(run().as_text())
