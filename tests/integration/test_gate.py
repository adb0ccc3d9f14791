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

"""What the gate stands on.

``tools/isolate``: what it starts meets nobody, and does not outlive it.
"""

from collections.abc import Iterator
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from tools import gate
from tools.testbed import processes

ROOT = pathlib.Path(__file__).parents[2]
ISOLATE = ROOT / 'tools/isolate'

#: Says in a file that it runs, and leaves behind what nobody waits for.
LINGER = 'setsid sleep 600 & setsid sleep 600 & echo >$TMPDIR/runs; wait'


def test_gate_has_every_group_of_the_makefile() -> None:
    printed = subprocess.run(
        [
            'make',
            '--no-print-directory',
            '--eval',
            'print: ; @echo $(INTEGRATION)',
            'print',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(printed.split()) == {
        part.name for part in gate.PARTS if 'integration' in part.name
    }


@pytest.fixture
def isolated(tmp_path: pathlib.Path) -> Iterator['subprocess.Popen[bytes]']:
    process = subprocess.Popen([ISOLATE, tmp_path / 'one', 'sh', '-c', LINGER])
    processes.wait_for((tmp_path / 'one/runs').exists, 60, 'the command')
    yield process
    process.kill()
    process.wait()


def sleepers(isolate: int) -> list[pathlib.Path]:
    """Return the processes that an isolated one has started, as seen here."""
    (unshare,) = children(isolate)
    (first,) = children(unshare)
    (shell,) = children(first)
    return [pathlib.Path(f'/proc/{pid}') for pid in children(shell)]


def children(pid: int) -> list[int]:
    return [
        int(child)
        for child in pathlib.Path(f'/proc/{pid}/task/{pid}/children')
        .read_text()
        .split()
    ]


def assert_end(left: list[pathlib.Path]) -> None:
    processes.wait_for(
        lambda: not any(path.exists() for path in left),
        20,
        'the end of what it left behind',
    )


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_it(
    isolated: 'subprocess.Popen[bytes]', number: int
) -> None:
    left = sleepers(isolated.pid)
    assert len(left) == 2
    isolated.send_signal(number)
    isolated.wait(20)
    assert_end(left)


def test_it_does_not_outlive_who_started_it(tmp_path: pathlib.Path) -> None:
    """As make, when the gate is killed."""
    starter = subprocess.Popen(
        [
            'sh',
            '-c',
            '"$@"; :',
            'sh',
            ISOLATE,
            tmp_path / 'one',
            'sh',
            '-c',
            LINGER,
        ]
    )
    processes.wait_for((tmp_path / 'one/runs').exists, 60, 'the command')
    (isolate,) = children(starter.pid)
    left = sleepers(isolate)
    assert len(left) == 2
    starter.kill()
    starter.wait()
    assert_end(left)


def test_directory_is_one_runs_at_a_time(
    isolated: 'subprocess.Popen[bytes]', tmp_path: pathlib.Path
) -> None:
    second = subprocess.run(
        [ISOLATE, tmp_path / 'one', 'true'], capture_output=True
    )
    assert second.returncode == 1
    assert b'another run' in second.stderr
    assert (tmp_path / 'one/runs').exists()
    isolated.kill()
    isolated.wait()
    processes.wait_for(
        lambda: (
            subprocess.run(
                [ISOLATE, tmp_path / 'one', 'true'], stderr=subprocess.DEVNULL
            ).returncode
            == 0
        ),
        20,
        'the directory',
    )
    assert not (tmp_path / 'one/runs').exists()


def test_ports_are_its_own(tmp_path: pathlib.Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        inside = subprocess.run(
            [
                ISOLATE,
                tmp_path / 'one',
                'python3',
                '-c',
                'import socket, sys; '
                f'server = socket.create_server(("127.0.0.1", {port})); '
                f'socket.create_connection(("127.0.0.1", {port})); '
                f'sys.exit(7)',
            ]
        )
    assert inside.returncode == 7


def test_mounts_and_namespaces_are_its_own(tmp_path: pathlib.Path) -> None:
    subprocess.run(
        [
            ISOLATE,
            tmp_path / 'one',
            'sh',
            '-ec',
            'ip netns add ga-mine; mount -t tmpfs none /srv; echo '
            '>/srv/ga-mine',
        ],
        check=True,
    )
    assert not pathlib.Path('/srv/ga-mine').exists()
    assert (
        'ga-mine'
        not in subprocess.run(
            ['ip', 'netns'], capture_output=True, text=True
        ).stdout
    )


IGNORED = """
import subprocess
from tools.testbed import processes
{call}
subprocess.run(['grep', 'SigIgn', '/proc/self/status'], check=True)
"""


@pytest.mark.parametrize(
    ('call', 'ignored'),
    [
        ('', {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}),
        ('processes.take_ignored_signals()', set()),
    ],
)
def test_children_take_what_a_terminal_sends(
    call: str, ignored: set[signal.Signals]
) -> None:
    """Also where it is ignored: under nohup, from cron, in the background."""
    told = subprocess.run(
        [
            'sh',
            '-c',
            'trap "" HUP INT QUIT; exec "$0" -c "$1"',
            sys.executable,
            IGNORED.format(call=call),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    mask = int(told.split()[1], 16)
    assert {
        number
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
        if mask & 1 << number - 1
    } == ignored


def test_no_port_is_given_twice() -> None:
    """To whichever runs: nobody listens on them yet."""
    taking = [
        subprocess.Popen(
            [
                sys.executable,
                '-c',
                'from tools.testbed import processes; '
                'print(*(processes.free_port() for _ in range(100)))',
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    taken = [
        int(port)
        for process in taking
        for port in process.communicate(timeout=60)[0].split()
    ]
    assert len(set(taken)) == len(taken) == 300
    # Connections get theirs from above.
    first = int(
        pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range')
        .read_text()
        .split()[0]
    )
    assert max(taken) < first
