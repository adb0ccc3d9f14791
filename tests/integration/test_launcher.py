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

"""The launcher's scripts under the shells of this machine.

The agent is played by this process: it starts what guest-exec asks for as
qemu-ga does (the environment replaced, ``/`` as directory, output captured).
test_exec.py has the real one.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
from typing import Any
import uuid

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import posix
from guest_agent_ext.guest import scripts
from tools.testbed import processes

SHELLS = {'dash': ['dash'], 'ash': ['busybox', 'ash'], 'bash': ['bash']}
KEEP = 102400


class Exec:
    """One guest-exec."""

    def __init__(
        self, argv: Sequence[str], env: Sequence[str], stdin: bytes
    ) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd='/',
            env=dict(item.split('=', 1) for item in env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            executable=shutil.which(argv[0]),
        )
        self.out = self.err = b''
        self.thread = threading.Thread(
            target=self._read, args=(stdin,), daemon=True
        )
        self.thread.start()

    def _read(self, stdin: bytes) -> None:
        # A test that plays the agent's death closes the pipes.
        with contextlib.suppress(OSError):
            self.out, self.err = self.process.communicate(stdin)


class HostAgent:
    """Plays qemu-ga; ``/bin/sh`` is one of SHELLS."""

    def __init__(self, shell: Sequence[str]) -> None:
        self._shell = shell
        self.execs: dict[int, Exec] = {}

    def exec(
        self,
        path: str,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        stdin: bytes = b'',
        capture: bool = True,
    ) -> int:
        assert path == '/bin/sh'
        started = Exec([*self._shell, *args], env, stdin)
        self.execs[started.process.pid] = started
        return started.process.pid

    def exec_status(self, pid: int) -> agent.ExecStatus:
        running = self.execs.get(pid)
        if running is None:
            raise exception.AgentRefused("Invalid parameter 'pid'")
        if running.thread.is_alive():
            return agent.ExecStatus(False, None, None, b'', b'')
        del self.execs[pid]
        code = running.process.returncode
        return agent.ExecStatus(
            True, max(code, 0), None, running.out, running.err
        )


class Guest:
    """The launcher on this machine, in a directory of its own."""

    def __init__(self, shell: Sequence[str], directory: pathlib.Path) -> None:
        self.directory = directory
        self.agent = HostAgent(shell)
        self.launcher = posix.PosixLauncher(self.agent, str(directory))

    def order(self, *argv: str, **values: Any) -> launcher.Launch:
        probe = self.launcher.probe()
        return launcher.Launch(
            **(
                dict(
                    id=str(uuid.uuid4()),
                    argv=argv,
                    env={},
                    stdin=b'',
                    cwd=None,
                    boot_id=probe.boot_id,
                    ticket=probe.uptime + 3000,
                    keep=KEEP,
                    keep_end='head',
                )
                | values
            )
        )

    def wait(self, pid: int, timeout: float = 60) -> launcher.Outcome:
        deadline = time.monotonic() + timeout
        while (outcome := self.launcher.poll(pid)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return outcome

    def run(self, *argv: str, **values: Any) -> launcher.Ended:
        outcome = self.wait(self.launcher.launch(self.order(*argv, **values)))
        assert isinstance(outcome, launcher.Ended), outcome
        return outcome

    def sh(self, script: str, **values: Any) -> launcher.Ended:
        return self.run('/bin/sh', '-c', script, **values)

    def running(self, command: str) -> launcher.Running:
        """Wait until a command runs."""
        deadline = time.monotonic() + 10
        while True:
            outcome = self.launcher.recover(command)
            if isinstance(outcome, launcher.Running) and outcome.pid:
                return outcome
            assert time.monotonic() < deadline, outcome
            time.sleep(0.02)


@pytest.fixture(params=SHELLS)
def guest(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[Guest]:
    shell = SHELLS[request.param]
    # A shell named sh keeps to POSIX.
    if len(shell) == 1:
        link = tmp_path / 'sh'
        link.symlink_to(str(shutil.which(shell[0])))
        shell = [str(link)]
    guest = Guest(shell, tmp_path / 'commands')
    yield guest
    for started in guest.agent.execs.values():
        started.process.kill()


def test_end_is_the_commands_own(guest: Guest) -> None:
    ended = guest.sh('echo out $$; echo err >&2; exit 3')
    assert (ended.exitcode, ended.signal, ended.never_ran) == (3, None, False)
    assert ended.out == b'out %d\n' % ended.pid
    assert (ended.err, ended.err_bytes) == (b'err\n', 4)


@pytest.mark.parametrize('code', [0, 1, 126, 127, 128, 137, 255])
def test_exit_codes(guest: Guest, code: int) -> None:
    ended = guest.sh(f'exit {code}')
    assert (ended.exitcode, ended.signal, ended.never_ran) == (
        code,
        None,
        False,
    )


@pytest.mark.parametrize('number', [1, 2, 3, 6, 9, 11, 13, 15, 64])
def test_signals(guest: Guest, number: int) -> None:
    ended = guest.sh(f'ulimit -c 0; kill -{number} $$')
    assert (ended.exitcode, ended.signal) == (None, number)
    # The shell's own word on it ("Killed") is not the command's output.
    assert (ended.err, ended.err_bytes) == (b'', 0)


@pytest.mark.parametrize(
    ('argv', 'values', 'word'),
    [
        (['/no/such/binary'], {}, '/no/such/binary'),
        (['no-such-binary'], {}, 'no-such-binary'),
        (['/etc/passwd'], {}, '/etc/passwd'),
        (['/bin/true'], {'cwd': '/no/such/directory'}, '/no/such/directory'),
    ],
)
def test_what_was_never_executed_says_why(
    guest: Guest, argv: list[str], values: dict[str, Any], word: str
) -> None:
    ended = guest.run(*argv, **values)
    assert ended.never_ran
    assert ended.error is not None and word in ended.error


def test_bad_interpreter_was_never_executed(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    script = tmp_path / 'script'
    script.write_text('#!/no/such/interpreter\n')
    script.chmod(0o755)
    assert guest.run(str(script)).never_ran


def test_awkward_arguments_and_environment(guest: Guest) -> None:
    awkward = ['', ' ', '-n', "it's", '"$HOME" `id` \\', 'a\nb', 'grün', '*']
    env = {f'V{number}': value for number, value in enumerate(awkward)}
    ended = guest.run(
        '/bin/sh',
        '-c',
        r'printf "%s\0" "$@" "$V4" "$V5"',
        'sh',
        *awkward,
        env=env,
    )
    assert ended.out.decode().split('\0')[:-1] == awkward + awkward[4:6]


def test_environment_is_sane_and_free_of_ours(guest: Guest) -> None:
    names = {
        line.split('=', 1)[0]
        for line in guest.run('env', env={'MINE': '1'})
        .out.decode()
        .splitlines()
    }
    assert {'PATH', 'HOME', 'LANG', 'MINE', 'GUEST_AGENT_COMMAND'} <= names
    assert not [name for name in names if name.startswith('GA_')]


def test_tenants_path_does_not_break_the_launcher(guest: Guest) -> None:
    ended = guest.run(
        '/bin/sh', '-c', 'echo "$PATH"', env={'PATH': '/nowhere'}
    )
    assert ended.out == b'/nowhere\n'


def test_binary_stdin_arrives_whole(guest: Guest) -> None:
    stdin = bytes(range(256)) * 256
    assert guest.run('cat', stdin=stdin).out == stdin


@pytest.mark.parametrize('end', ['head', 'tail'])
@pytest.mark.parametrize('size', [0, 1, KEEP - 1, KEEP, KEEP + 1, 5_000_000])
def test_output_is_bounded_and_counted(
    guest: Guest, end: str, size: int
) -> None:
    ended = guest.sh(f'yes 0123456 | head -c {size}; exit 5', keep_end=end)
    whole = (b'0123456\n' * (size // 8 + 1))[:size]
    kept = whole[:KEEP] if end == 'head' else whole[-KEEP:] if size else b''
    assert ended.out == kept
    assert (ended.out_bytes, ended.exitcode) == (size, 5)


def test_both_streams_are_counted_apart(guest: Guest) -> None:
    ended = guest.sh('yes e | head -c 200000 >&2; yes o | head -c 1000')
    assert (ended.out_bytes, ended.err_bytes) == (1000, 200000)
    assert (len(ended.out), len(ended.err)) == (1000, KEEP)


def test_disk_of_the_guest_holds_no_more_than_is_kept(guest: Guest) -> None:
    guest.sh('yes | head -c 20000000; yes | head -c 20000000 >&2')
    assert (
        sum(path.stat().st_size for path in guest.directory.iterdir())
        < 2 * KEEP + 1000
    )


def test_kill_0_meets_only_the_command(guest: Guest) -> None:
    assert guest.sh('kill -TERM 0; sleep 30').signal == signal.SIGTERM


def test_same_launch_runs_once(guest: Guest, tmp_path: pathlib.Path) -> None:
    order = guest.order('/bin/sh', '-c', f'echo x >>{tmp_path}/ran; sleep 1')
    pids = [guest.launcher.launch(order) for _ in range(20)]
    outcomes = [guest.wait(pid) for pid in pids]
    assert (tmp_path / 'ran').read_text() == 'x\n'
    assert outcomes.count(launcher.Taken()) == 19


@pytest.mark.parametrize(
    ('values', 'reason'),
    [({'boot_id': str(uuid.uuid4())}, 'boot'), ({'ticket': 1}, 'ticket')],
)
def test_other_boot_and_late_ticket_are_refused(
    guest: Guest, values: dict[str, Any], reason: str, tmp_path: pathlib.Path
) -> None:
    order = guest.order('touch', str(tmp_path / 'ran'), **values)
    assert guest.wait(guest.launcher.launch(order)) == launcher.Refused(reason)
    assert not (tmp_path / 'ran').exists()
    assert guest.launcher.recover(order.id) == launcher.NotStarted()


def test_fenced_command_does_not_run(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    order = guest.order('touch', str(tmp_path / 'ran'))
    assert guest.launcher.fence(order.id) == launcher.Fenced()
    assert guest.wait(guest.launcher.launch(order)) == launcher.Taken()
    assert guest.launcher.recover(order.id) == launcher.Fenced()
    assert not (tmp_path / 'ran').exists()


@pytest.fixture
def full(guest: Guest) -> Iterator[None]:
    """Have the guest's file system be full."""
    guest.directory.mkdir()
    subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'full', guest.directory],
        check=True,
    )
    filling = guest.directory / 'filling.file'
    with contextlib.suppress(OSError), filling.open('wb') as file:
        file.write(bytes(2**20))
    yield
    subprocess.run(['umount', '-l', guest.directory], check=True)


@pytest.mark.usefixtures('full')
def test_full_file_system_is_refused_and_can_be_fenced(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    order = guest.order('touch', str(tmp_path / 'ran'))
    outcome = guest.wait(guest.launcher.launch(order))
    assert outcome == launcher.Refused(str(guest.directory))
    assert guest.launcher.recover(order.id) == launcher.NotStarted()
    assert guest.launcher.fence(order.id) == launcher.Fenced()
    assert guest.wait(guest.launcher.launch(order)) == launcher.Taken()
    assert guest.launcher.recover(order.id) == launcher.Fenced()
    assert not (tmp_path / 'ran').exists()
    guest.launcher.release([order.id])
    assert guest.launcher.probe().ids == ()


def test_file_system_that_fills_up_while_it_runs(guest: Guest) -> None:
    """Its end is recorded all the same, and says what is missing."""
    guest.directory.mkdir()
    subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=128k', 'fills', guest.directory],
        check=True,
    )
    try:
        ended = guest.sh(
            f'head -c 1000000 /dev/zero >{guest.directory}/'
            'filling.file; echo out; exit 7'
        )
    finally:
        subprocess.run(['umount', '-l', guest.directory], check=True)
    assert (ended.exitcode, ended.out_bytes) == (7, 4)
    assert ended.out in (b'', b'out\n')


def test_lost_reply_is_recovered_until_it_is_released(guest: Guest) -> None:
    order = guest.order('/bin/sh', '-c', 'echo out; echo err >&2; exit 3')
    ended = guest.wait(guest.launcher.launch(order))
    assert guest.launcher.probe().ids == (order.id,)
    assert guest.launcher.recover(order.id) == ended
    assert guest.launcher.fence(order.id) == ended
    guest.launcher.release([order.id])
    assert guest.launcher.probe().ids == ()
    assert list(guest.directory.iterdir()) == []


def test_running_command_is_known_with_pid_and_start(guest: Guest) -> None:
    order = guest.order('sleep', '5')
    pid = guest.launcher.launch(order)
    running = guest.running(order.id)
    assert running.pid is not None
    # The pid is known a moment before it executes.
    name = pathlib.Path(f'/proc/{running.pid}/comm')
    processes.wait_for(lambda: name.read_text() == 'sleep\n', 10, 'exec')
    assert 0 <= running.uptime - running.started < 500
    os.kill(running.pid, signal.SIGKILL)
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.signal, ended.pid) == (signal.SIGKILL, running.pid)


def test_command_that_ends_under_our_eyes_never_seems_to_have_died(
    guest: Guest,
) -> None:
    order = guest.order('/bin/sleep', '0.3')
    guest.launcher.launch(order)
    deadline = time.monotonic() + 20
    while not isinstance(
        outcome := guest.launcher.recover(order.id), launcher.Ended
    ):
        assert not isinstance(outcome, launcher.Died)
        assert time.monotonic() < deadline


def test_launcher_killed_before_its_record_died(guest: Guest) -> None:
    order = guest.order('sleep', '30')
    pid = guest.launcher.launch(order)
    running = guest.running(order.id)
    assert running.pid is not None
    os.kill(running.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    guest.agent.execs[pid].process.wait()
    assert guest.launcher.recover(order.id) == launcher.Died()
    guest.launcher.signal_tree(order.id, 'KILL', 'LOST')


def test_loss_of_the_agent_loses_no_result(guest: Guest) -> None:
    order = guest.order('/bin/sh', '-c', 'sleep 1; yes | head -c 300000')
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    process = guest.agent.execs[pid].process
    assert process.stdout is not None and process.stderr is not None
    os.close(process.stdout.fileno())
    os.close(process.stderr.fileno())
    process.wait()
    ended = guest.launcher.recover(order.id)
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.out_bytes) == (0, 300000)


def test_whole_tree_is_signalled(guest: Guest, tmp_path: pathlib.Path) -> None:
    order = guest.order(
        '/bin/sh',
        '-c',
        f"""
        trap "" TERM
        setsid sh -c 'echo $$ >>{tmp_path}/pids; sleep 60' &
        (env -i /bin/sh -c 'echo $$ >>{tmp_path}/pids; sleep 60; :') &
        echo $$ >>{tmp_path}/pids
        while :; do sleep 60; done""",
    )
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    pids = tmp_path / 'pids'
    while not pids.exists() or len(pids.read_text().split()) < 3:
        time.sleep(0.02)
    assert guest.launcher.signal_tree(order.id, 'TERM', 'CANCELLED') >= 3
    assert guest.launcher.signal_tree(order.id, 'KILL', 'CANCELLED') >= 1
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.signal, ended.killed) == (signal.SIGKILL, 'CANCELLED')
    assert guest.launcher.recover(order.id) == ended
    processes.wait_for(
        lambda: not any(map(is_alive, pids.read_text().split())),
        10,
        'the end of the tree',
    )


def is_alive(pid: str) -> bool:
    try:
        return ') Z ' not in pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False


def test_signal_meets_nobody_after_the_end(guest: Guest) -> None:
    order = guest.order('/bin/true')
    guest.wait(guest.launcher.launch(order))
    assert guest.launcher.signal_tree(order.id, 'KILL', 'LOST') == 0


@pytest.mark.parametrize('end', ['head', 'tail'])
def test_child_that_keeps_a_stream_can_be_left_behind(
    guest: Guest, end: str, tmp_path: pathlib.Path
) -> None:
    order = guest.order(
        '/bin/sh',
        '-c',
        f'echo mine; sleep 600 & echo $! >{tmp_path}/child; exit 7',
        keep_end=end,
    )
    pid = guest.launcher.launch(order)
    while not guest.running(order.id).has_exited:
        time.sleep(0.02)
    assert guest.launcher.poll(pid) is None
    guest.launcher.unhold(order.id)
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.out, ended.out_bytes) == (7, b'mine\n', 5)
    os.kill(int((tmp_path / 'child').read_text()), signal.SIGKILL)


def test_command_that_closes_its_streams_is_waited_for(guest: Guest) -> None:
    ended = guest.sh('exec >&- 2>&-; sleep 1; exit 9')
    assert ended.exitcode == 9


def test_scripts_are_sent_without_prose() -> None:
    script = scripts.text('posix/launch.sh')
    assert 'Licensed' not in script and 'exec "$@"' in script
    assert not [
        line for line in script.splitlines() if line.startswith(('#', ' '))
    ]
    assert len(script) < 4096


def test_launch_shows_no_secret() -> None:
    order = launcher.Launch(
        id='id',
        argv=['secret'],
        env={'A': 'secret'},
        stdin=b'secret',
        cwd='secret',
        boot_id='boot',
        ticket=1,
        keep=1,
        keep_end='head',
    )
    assert 'secret' not in repr(order)


def test_output_of_a_running_command(guest: Guest) -> None:
    order = guest.order(
        '/bin/sh', '-c', 'echo 0123456789; echo err >&2; exec sleep 30'
    )
    guest.launcher.launch(order)
    guest.running(order.id)
    deadline = time.monotonic() + 10
    while guest.launcher.output(order.id, 'stderr', 0) != b'err\n':
        assert time.monotonic() < deadline
    output = guest.launcher.output
    assert output(order.id, 'stdout', 0) == b'0123456789\n'
    assert output(order.id, 'stdout', 8) == b'89\n'
    assert (
        output(order.id, 'stdout', 11)
        == output(order.id, 'stdout', 10**17)
        == b''
    )
    assert output('no-such-command', 'stdout', 0) == b''
    guest.launcher.signal_tree(order.id, 'KILL', 'LOST')


def test_complaint_speaks_of_no_line_of_ours(guest: Guest) -> None:
    error = guest.run('/bin/true', cwd='/no/such/directory').error
    assert error is not None
    assert 'guest-agent' not in error
    assert not any(character.isdigit() for character in error)
