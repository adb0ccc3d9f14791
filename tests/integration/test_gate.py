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

import pytest

from tools import gate
from tools.testbed import processes

ROOT = pathlib.Path(__file__).parents[2]
ISOLATE = ROOT / 'tools/isolate'

#: Says in a file that it runs, and leaves behind what nobody waits for.
LINGER = 'setsid sleep 600 & setsid sleep 600 & echo >$TMPDIR/runs; wait'


def test_gate_has_every_group_of_the_makefile() -> None:
    printed = subprocess.run(
        ['make', '--no-print-directory', '--eval',
         'print: ; @echo $(INTEGRATION)', 'print'], cwd=ROOT,
        capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) == {
        part.name for part in gate.PARTS if 'integration' in part.name}


@pytest.fixture
def isolated(tmp_path: pathlib.Path
             ) -> Iterator['subprocess.Popen[bytes]']:
    process = subprocess.Popen(
        [ISOLATE, tmp_path / 'one', 'sh', '-c', LINGER])
    processes.wait_for((tmp_path / 'one/runs').exists, 60, 'the command')
    yield process
    process.kill()
    process.wait()


def sleepers(process: 'subprocess.Popen[bytes]') -> list[pathlib.Path]:
    """Return the processes that an isolated one has started, as seen here."""
    (unshare,) = children(process.pid)
    (first,) = children(unshare)
    (shell,) = children(first)
    return [pathlib.Path(f'/proc/{pid}') for pid in children(shell)]


def children(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(
        f'/proc/{pid}/task/{pid}/children').read_text().split()]


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_it(isolated: 'subprocess.Popen[bytes]',
                             number: int) -> None:
    left = sleepers(isolated)
    assert len(left) == 2
    isolated.send_signal(number)
    isolated.wait(20)
    processes.wait_for(lambda: not any(path.exists() for path in left), 20,
                       'the end of what it left behind')


def test_directory_is_one_runs_at_a_time(
        isolated: 'subprocess.Popen[bytes]', tmp_path: pathlib.Path) -> None:
    second = subprocess.run([ISOLATE, tmp_path / 'one', 'true'],
                            capture_output=True)
    assert second.returncode == 1
    assert b'another run' in second.stderr
    assert (tmp_path / 'one/runs').exists()
    isolated.kill()
    isolated.wait()
    processes.wait_for(
        lambda: subprocess.run([ISOLATE, tmp_path / 'one', 'true'],
                               stderr=subprocess.DEVNULL).returncode == 0,
        20, 'the directory')
    assert not (tmp_path / 'one/runs').exists()


def test_ports_are_its_own(tmp_path: pathlib.Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        inside = subprocess.run(
            [ISOLATE, tmp_path / 'one', 'python3', '-c',
             'import socket, sys; '
             f'server = socket.create_server(("127.0.0.1", {port})); '
             f'socket.create_connection(("127.0.0.1", {port})); sys.exit(7)'])
    assert inside.returncode == 7


def test_mounts_and_namespaces_are_its_own(tmp_path: pathlib.Path) -> None:
    subprocess.run(
        [ISOLATE, tmp_path / 'one', 'sh', '-ec',
         'ip netns add ga-mine; mount -t tmpfs none /srv; echo >/srv/ga-mine'],
        check=True)
    assert not pathlib.Path('/srv/ga-mine').exists()
    assert 'ga-mine' not in subprocess.run(
        ['ip', 'netns'], capture_output=True, text=True).stdout
