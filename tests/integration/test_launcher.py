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

import base64
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any
import uuid

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import scripted
from tools.testbed import processes

SHELLS = {'dash': 'dash', 'ash': 'busybox', 'bash': 'bash'}
KEEP = 102400
#: 32 and 33, which glibc keeps for itself: what it spawns for make ignores
#: them, and so does all that this starts.
LIBRARYS_SIGNALS = 3 << 31


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


#: qemu-ga's files are those of C's library, with what that holds back.
LIBC = ctypes.CDLL(None, use_errno=True)
for _function in (LIBC.fdopen, LIBC.fread, LIBC.fwrite, LIBC.ftell):
    _function.restype = ctypes.c_void_p
LIBC.fread.restype = LIBC.fwrite.restype = ctypes.c_size_t
LIBC.ftell.restype = ctypes.c_long
MODES = {
    'r': os.O_RDONLY,
    'r+': os.O_RDWR,
    'w': os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
}
WHENCE = {'set': 0, 'cur': 1, 'end': 2}


class HostFile:
    """A file that qemu-ga 7.2 has open."""

    def __init__(self, path: str, mode: str) -> None:
        self.path = path
        # It sets O_NONBLOCK, so that no FIFO hangs it.
        try:
            self.descriptor = os.open(path, MODES[mode] | os.O_NONBLOCK)
        except OSError as error:
            raise exception.AgentRefused(
                f"failed to open file '{path}' (mode: '{mode}'): "
                f'{error.strerror}'
            ) from None
        self.file = ctypes.c_void_p(
            LIBC.fdopen(self.descriptor, mode.encode())
        )
        self.state = ''

    def read(self, count: int) -> bytes:
        if self.state == 'writing':
            self._check(LIBC.fflush(self.file) == 0, 'flush file')
        buffer = ctypes.create_string_buffer(count)
        got = LIBC.fread(
            buffer, ctypes.c_size_t(1), ctypes.c_size_t(count), self.file
        )
        self._check(not LIBC.ferror(self.file), 'read file')
        LIBC.clearerr(self.file)
        self.state = 'reading'
        return buffer.raw[:got]

    def write(self, data: bytes) -> int:
        if self.state == 'reading':
            LIBC.fseek(self.file, ctypes.c_long(0), 1)
        count = LIBC.fwrite(
            data, ctypes.c_size_t(1), ctypes.c_size_t(len(data)), self.file
        )
        self._check(not LIBC.ferror(self.file), 'write to file')
        self.state = 'writing'
        return int(count)

    def seek(self, offset: int, whence: str) -> int:
        ended = LIBC.fseek(self.file, ctypes.c_long(offset), WHENCE[whence])
        self._check(ended == 0, 'seek file')
        self.state = ''
        return int(LIBC.ftell(self.file))

    def flush(self) -> None:
        self._check(LIBC.fflush(self.file) == 0, 'flush file')
        self.state = ''

    def close(self) -> None:
        self._check(LIBC.fclose(self.file) == 0, 'close handle')

    def _check(self, is_well: bool, what: str) -> None:
        if not is_well:
            words = os.strerror(ctypes.get_errno())
            LIBC.clearerr(self.file)
            raise exception.AgentRefused(f'failed to {what}: {words}')


class HostAgent:
    """Plays qemu-ga."""

    def __init__(self) -> None:
        self.execs: dict[int, Exec] = {}
        self.files: dict[int, HostFile] = {}
        self.handle = 1000
        self.calls = 0

    def file_open(self, path: str, mode: str) -> int:
        self.calls += 1
        opened = HostFile(path, mode)
        self.handle += 1
        self.files[self.handle] = opened
        return self.handle

    def file_read(self, handle: int, count: int) -> bytes:
        return self._file(handle).read(count)

    def file_write(self, handle: int, data: bytes) -> int:
        return self._file(handle).write(data)

    def file_seek(self, handle: int, offset: int, whence: str) -> int:
        return self._file(handle).seek(offset, whence)

    def file_flush(self, handle: int) -> None:
        self._file(handle).flush()

    def file_close(self, handle: int) -> None:
        self._file(handle).close()
        del self.files[handle]

    def _file(self, handle: int) -> HostFile:
        self.calls += 1
        try:
            return self.files[handle]
        except KeyError:
            raise exception.AgentRefused(
                f"handle '{handle}' has not been found"
            ) from None

    def die(self) -> None:
        """Lose what a qemu-ga loses that is killed, but for processes."""
        for file in self.files.values():
            os.close(file.descriptor)
        self.files.clear()

    def exec(
        self,
        path: str,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        stdin: bytes = b'',
        capture: bool = True,
    ) -> int:
        self.calls += 1
        started = Exec([path, *args], env, stdin)
        self.execs[started.process.pid] = started
        return started.process.pid

    def exec_status(self, pid: int) -> agent.ExecStatus:
        self.calls += 1
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

    def __init__(
        self,
        shell: pathlib.Path,
        directory: pathlib.Path,
        agent: HostAgent | None = None,
    ) -> None:
        self.directory = directory
        self.agent = agent or HostAgent()
        # This machine's own control groups are left alone.
        self.launcher = posix.PosixLauncher(
            self.agent, str(directory), '/no/control/group', str(shell)
        )

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
                    user=None,
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

    def helpers(self, command: str) -> dict[str, int]:
        """Return the pids of a launcher's processes when it runs."""
        record = self.directory / command

        def read() -> dict[str, int]:
            words = (
                [line.split() for line in record.read_text().splitlines()]
                if record.exists()
                else []
            )
            found = {line[0]: line[1:] for line in words}
            if 'command' not in found:
                return {}
            names = ('out_keeper', 'err_keeper', 'witness')
            return {
                'shell': int(found['launcher'][1]),
                **dict(zip(names, map(int, found['helpers']), strict=True)),
            }

        processes.wait_for(lambda: bool(read()), 10, 'the launcher')
        return read()

    def fifo(self, name: str) -> pathlib.Path:
        """Make a FIFO that a command can wait for, in a directory of it."""
        path = self.directory.parent / 'fifos'
        path.mkdir(exist_ok=True)
        os.mkfifo(path / name)
        return path

    def open_fifo(self, name: str) -> None:
        """Have the command go on that waits for a FIFO."""
        path = self.directory.parent / 'fifos' / name

        def is_read() -> bool:
            try:
                writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return False
            os.write(writer, b'\n')
            os.close(writer)
            return True

        processes.wait_for(is_read, 20, 'who reads the FIFO')

    def has_written(self, command: str, output: bytes) -> None:
        """Wait until a command has written to stdout."""
        processes.wait_for(
            lambda: self.launcher.output(command, 'stdout', 0) == output,
            10,
            'output',
        )

    def recovered(self, command: str) -> launcher.Ended:
        """Look until a command has ended."""
        deadline = time.monotonic() + 20
        while not isinstance(
            ended := self.launcher.recover(command), launcher.Ended
        ):
            assert time.monotonic() < deadline, ended
            time.sleep(0.02)
        return ended

    def is_running(self, command: str) -> bool:
        return self.launcher.signal_tree(command, '0', 'LOST') > 0

    def gone(self, pid: int) -> None:
        """Wait until the agent has seen the end of a launcher."""
        processes.wait_for(
            lambda: not self.agent.execs[pid].thread.is_alive(),
            20,
            'the end of the launcher',
        )

    def running(self, command: str) -> launcher.Running:
        """Wait until a command runs."""
        deadline = time.monotonic() + 10
        while True:
            outcome = self.launcher.recover(command)
            if isinstance(outcome, launcher.Running) and outcome.pid:
                return outcome
            assert time.monotonic() < deadline, outcome
            time.sleep(0.02)


@contextlib.contextmanager
def shell_named_sh(name: str) -> Iterator[pathlib.Path]:
    """Have one of SHELLS as it is ``/bin/sh``: one of that name is POSIX's."""
    with tempfile.TemporaryDirectory() as directory:
        # Other users may get there.
        pathlib.Path(directory).chmod(0o755)
        shell = pathlib.Path(directory, 'sh')
        shell.symlink_to(str(shutil.which(SHELLS[name])))
        yield shell


@pytest.fixture(params=SHELLS)
def guest(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[Guest]:
    with shell_named_sh(request.param) as shell:
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
    guest.launcher.probe()
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
    assert [path.name for path in guest.directory.iterdir()] == ['name.id']


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


#: Signals that people send to processes by their names, and which of them
#: a launcher cannot outlive.
SENT = ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'ALRM', 'TERM', 'CONT']


@pytest.mark.parametrize('name', SENT)
def test_launcher_outlives_what_is_sent_to_it(guest: Guest, name: str) -> None:
    order = guest.order(
        '/bin/sh',
        '-c',
        'echo out; read x <fifo; exit 7',
        cwd=str(guest.fifo('fifo')),
    )
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    for helper in guest.helpers(order.id).values():
        os.kill(helper, getattr(signal, 'SIG' + name))
    guest.open_fifo('fifo')
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.out) == (7, b'out\n')


@pytest.mark.parametrize(
    'names',
    [
        ['shell'],
        ['witness'],
        ['out_keeper', 'err_keeper'],
        ['witness', 'out_keeper', 'err_keeper'],
    ],
)
def test_killed_part_of_a_launcher(guest: Guest, names: list[str]) -> None:
    """The command runs to its end; all that can be known of that is."""
    order = guest.order(
        '/bin/sh',
        '-c',
        'echo out; read x <fifo; exit 7',
        cwd=str(guest.fifo('fifo')),
    )
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    guest.has_written(order.id, b'out\n')
    helpers = guest.helpers(order.id)
    for name in names:
        os.kill(helpers[name], signal.SIGKILL)
    guest.open_fifo('fifo')
    ended = guest.recovered(order.id)
    guest.wait(pid)
    assert ended.out == b'out\n'
    # Its parent knows it, or whoever reads the zombie's status.
    assert ended.exitcode in ((7, None) if names == ['shell'] else (7,))


@pytest.mark.parametrize(
    'names',
    [
        ['shell'],
        ['witness'],
        ['out_keeper', 'err_keeper'],
        ['shell', 'witness', 'out_keeper', 'err_keeper'],
    ],
)
def test_stopped_part_of_a_launcher_goes_on(
    guest: Guest, names: list[str]
) -> None:
    order = guest.order('/bin/sh', '-c', 'yes | head -c 200000; exit 7')
    pid = guest.launcher.launch(order)
    helpers = guest.helpers(order.id)
    for name in names:
        with contextlib.suppress(ProcessLookupError):
            os.kill(helpers[name], signal.SIGSTOP)
            processes.wait_for(
                lambda name=name: state(helpers[name]) in 'TZ', 10, 'its stop'
            )
    ended = guest.recovered(order.id)
    assert (ended.exitcode, ended.out_bytes) == (7, 200000)
    guest.wait(pid)


def test_launcher_killed_before_its_record_died(guest: Guest) -> None:
    order = guest.order('/bin/sh', '-c', 'echo out; exec sleep 30')
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    guest.has_written(order.id, b'out\n')
    helpers = guest.helpers(order.id)
    os.kill(helpers['witness'], signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    guest.gone(pid)
    assert guest.launcher.recover(order.id) == launcher.Died()
    assert guest.launcher.signal_tree(order.id, 'KILL', 'LOST') == 1
    processes.wait_for(lambda: not guest.is_running(order.id), 10, 'its end')
    ended = guest.launcher.recover(order.id)
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.signal, ended.out) == (None, None, b'out\n')
    assert ended.out_bytes is None
    processes.wait_for(
        lambda: not any(map(is_alive, map(str, helpers.values()))),
        10,
        'the end of its keepers',
    )


def test_record_that_nobody_will_sign_died(guest: Guest) -> None:
    """Its maker was killed; while that lives it may sign."""
    order = guest.order('true')
    record = guest.directory / order.id
    record.touch()
    mark = 2 * int(order.id.rpartition('-')[2], 16) + 1
    with subprocess.Popen(
        ['bash', '-c', f'ulimit -x {mark}; echo; exec sleep 60'],
        stdout=subprocess.PIPE,
    ) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()
        outcome = guest.launcher.recover(order.id)
        maker.kill()
    assert isinstance(outcome, launcher.Running) and outcome.pid is None
    assert guest.launcher.recover(order.id) == launcher.Died()


def test_release_that_is_cut_off_leaves_the_lock(guest: Guest) -> None:
    """What is left is found by the next probe, and nothing runs again."""
    order = guest.order('true')
    guest.wait(guest.launcher.launch(order))
    removed = subprocess.run(
        [
            'sh',
            '-c',
            'rm() { echo "$@"; }\n' + scripted.text('posix/release.sh'),
            'sh',
            guest.directory,
            order.id,
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    names = [word.rpartition('/')[2] for word in removed]
    assert {f'{order.id}.stdout', f'{order.id}.stderr'} < set(names)
    assert names[-1] == order.id


#: What guests do to the directory while a command runs, and undo at its end.
COVERINGS = {
    'removed': ('rm -rf {0}', ':'),
    'emptied': ('rm -f {0}/*', ':'),
    'renamed': ('mv {0} {0}.away', 'mv {0}.away {0}'),
    'covered': ('mount -t tmpfs none {0}', 'umount -l {0}'),
    'closed': ('chmod 000 {0}', 'chmod 700 {0}'),
    'replaced': (
        'rm -rf {0}; mkdir {0}; touch {0}/$GUEST_AGENT_COMMAND',
        'rm -rf {0}',
    ),
}


@pytest.mark.parametrize('how', COVERINGS)
def test_command_that_harms_the_directory_ends_as_it_does(
    guest: Guest, how: str, tmp_path: pathlib.Path
) -> None:
    do, undo = (text.format(guest.directory) for text in COVERINGS[how])
    try:
        ended = guest.sh(
            f'echo x >>{tmp_path}/ran; {do}; echo out; echo err >&2; exit 5'
        )
    finally:
        subprocess.run(['sh', '-c', undo], check=True)
    assert (ended.exitcode, ended.out, ended.err) == (5, b'out\n', b'err\n')
    assert (tmp_path / 'ran').read_text() == 'x\n'


@pytest.mark.parametrize('how', COVERINGS)
def test_harmed_directory_hides_no_running_command(
    guest: Guest, how: str, tmp_path: pathlib.Path
) -> None:
    """Nor is it run again while its lock is not to be seen."""
    do, undo = (text.format(guest.directory) for text in COVERINGS[how])
    order = guest.order(
        '/bin/sh',
        '-c',
        f'echo x >>{tmp_path}/ran; read x <fifo; echo out',
        cwd=str(guest.fifo('fifo')),
    )
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    subprocess.run(
        ['sh', '-c', f'GUEST_AGENT_COMMAND={order.id}; {do}'], check=True
    )
    try:
        assert isinstance(guest.launcher.recover(order.id), launcher.Running)
        guest.launcher.probe()
        assert isinstance(guest.launcher.fence(order.id), launcher.Running)
        again = guest.wait(guest.launcher.launch(order))
        assert again in (launcher.Refused('boot'), launcher.Taken())
        guest.open_fifo('fifo')
        ended = guest.wait(pid)
    finally:
        subprocess.run(['sh', '-c', undo], check=True)
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.out) == (0, b'out\n')
    assert (tmp_path / 'ran').read_text() == 'x\n'


def test_search_for_a_record_reads_no_files_of_others(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    """Which may have no line that ends, or be endless."""
    endless = tmp_path / 'endless'
    with endless.open('wb') as file:
        file.truncate(2**40)
    with subprocess.Popen(['sh', '-c', f'exec sleep 60 3<{endless}']) as other:
        try:
            order = guest.order('true')
            assert guest.launcher.recover(order.id) == launcher.NotStarted()
        finally:
            other.kill()


THREADS = (
    'import ctypes, os, threading, time\n'
    'def work():\n    time.sleep(1.5); os.write(1, b"done"); os._exit(5)\n'
    'threading.Thread(target=work).start()\n'
    # The first thread ends alone.
    'ctypes.CDLL(None).syscall(60, 7)'
)


def test_command_whose_first_thread_ends_has_not_ended(guest: Guest) -> None:
    order = guest.order(sys.executable, '-c', THREADS)
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    time.sleep(0.7)
    running = guest.launcher.recover(order.id)
    assert isinstance(running, launcher.Running) and not running.has_exited
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.out) == (5, b'done')


def test_command_that_changes_its_mark_is_killed(guest: Guest) -> None:
    order = guest.order('bash', '-c', 'ulimit -x 5; echo x; exec sleep 60')
    pid = guest.launcher.launch(order)
    guest.has_written(order.id, b'x\n')
    assert guest.launcher.signal_tree(order.id, 'KILL', 'TIMED_OUT') == 1
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.signal, ended.killed) == (signal.SIGKILL, 'TIMED_OUT')


def test_emptied_record_loses_no_end(guest: Guest) -> None:
    order = guest.order(
        '/bin/sh',
        '-c',
        f': >{guest.directory}/$GUEST_AGENT_COMMAND; echo out; exit 5',
    )
    ended = guest.wait(guest.launcher.launch(order))
    assert isinstance(ended, launcher.Ended)
    assert (ended.exitcode, ended.out) == (5, b'out\n')


@pytest.mark.parametrize('content', ['', '\n', 'name of somebody\n'])
def test_name_that_is_none_is_made_anew(guest: Guest, content: str) -> None:
    guest.launcher.probe()
    (guest.directory / 'name.id').write_text(content)
    assert guest.sh('exit 3').exitcode == 3


def test_output_that_goes_on_after_the_end_is_not_counted(
    guest: Guest,
) -> None:
    order = guest.order('/bin/sh', '-c', 'yes & echo $!; exit 7')
    pid = guest.launcher.launch(order)
    while not guest.running(order.id).has_exited:
        time.sleep(0.02)
    guest.launcher.unhold(order.id)
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert ended.exitcode == 7
    guest.launcher.signal_tree(order.id, 'KILL', 'LOST')
    subprocess.run(['pkill', '-x', 'yes'], check=False)


def test_nothing_of_the_launcher_is_left_in_the_command(guest: Guest) -> None:
    """No descriptor, no ignored signal, no limit but its mark."""
    ended = guest.run(
        '/bin/bash',
        '-c',
        'ls /proc/self/fd; umask; ulimit -f; '
        'sed -n "/^Sig[BI]/p" /proc/self/status',
    )
    *words, ignored = ended.out.decode().split()
    assert words == [
        '0',
        '1',
        '2',
        '3',
        '0022',
        'unlimited',
        'SigBlk:',
        '0' * 16,
        'SigIgn:',
    ]
    assert int(ignored, 16) & ~LIBRARYS_SIGNALS == 0


def test_directory_that_was_made_anew_has_another_name(guest: Guest) -> None:
    before = guest.launcher.probe()
    assert guest.launcher.probe().boot_id == before.boot_id
    shutil.rmtree(guest.directory)
    after = guest.launcher.probe()
    assert after.boot_id != before.boot_id
    assert not after.was_rebooted(before.boot_id)


def test_whose_directory_cannot_be_made_says_so(guest: Guest) -> None:
    guest.directory.write_text('')
    with pytest.raises(exception.LauncherUnavailable, match='cannot write to'):
        guest.launcher.probe()


SECRET = 'no-such-service-zq9'


def test_no_word_of_the_tenants_stands_on_a_command_line(guest: Guest) -> None:
    order = guest.order(
        '/bin/sh',
        '-c',
        'while read word; do :; done; read x <fifo',
        SECRET,
        env={SECRET.replace('-', '_'): SECRET},
        stdin=SECRET.encode() * 9000,
        cwd=str(guest.fifo('fifo')),
    )
    seen: set[str] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
                with contextlib.suppress(OSError):
                    seen.add(path.read_text())

    watcher = threading.Thread(target=look)
    watcher.start()
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    guest.open_fifo('fifo')
    guest.wait(pid)
    is_over.set()
    watcher.join()
    told = {line for line in seen if SECRET in line}
    assert told <= {'\0'.join(order.argv) + '\0'}
    # Nor does a script: pkill -f meets words of it.
    assert not [line for line in seen if 'keep_head' in line]


@pytest.mark.parametrize(
    ('argv', 'code'),
    [
        (['/usr/bin/setsid', 'sh', '-c', 'exit 4'], 0),
        (['/usr/bin/setsid', '-w', 'sh', '-c', 'exit 4'], 4),
        (['/usr/bin/setsid', '-f', 'sh', '-c', 'exit 4'], 0),
        (['/usr/bin/setsid', '-w', 'no-such-binary'], 127),
        (['/bin/sh', '-c', 'setsid -w sh -c "exit 4"'], 4),
        (['/bin/sh', '-c', 'echo x; setsid -w sh -c "exit 4"'], 4),
        (['/bin/sh', '-c', 'exec no-such-binary'], 127),
        (['/usr/bin/env', 'no-such-binary'], 127),
    ],
)
def test_command_that_runs_another_ends_by_its_own_code(
    guest: Guest, argv: list[str], code: int
) -> None:
    ended = guest.run(*argv)
    assert (ended.exitcode, ended.signal, ended.never_ran) == (
        code,
        None,
        False,
    )


#: Names that a shell or a launcher may have for itself.
NAMES = {
    'variables': '7',
    'own': 'x',
    'GA_1': 'A=b',
    'value': 'v',
    'line': 'l',
    'fields': '0',
    'newline': 'n',
    'id': 'i',
    'mark': 'm',
    'signals': '15',
    'GUEST_AGENT_SCRIPT': 'exit',
    'GUEST_AGENT_TOKEN': 't',
    'IFS': 'o/',
    'OPTIND': 'abc',
    'OPTARG': '-',
    'UID': '1000',
    'EUID': '7',
    'GID': '1000',
    'PPID': '1',
    'RANDOM': 'r',
    'SECONDS': 's',
    'LINENO': 'l',
    '_': 'under',
    'SHLVL': '41',
    'PWD': '/nowhere',
    'OLDPWD': '/else',
    'PS4': '$(id)',
    'SHELLOPTS': 'xtrace',
    'BASHOPTS': 'x',
    'BASH_VERSION': '0',
    'BASH_ENV': '/no',
    'ENV': '/no',
    'HISTFILE': '/no',
    'LC_ALL': 'xx_YY',
    'LANG': 'zz',
    'LC_CTYPE': 'q',
    'TZ': 'No/Where',
    'POSIXLY_CORRECT': '',
    'HOME': '/h',
    'TERM': 'none',
    'COLUMNS': 'x',
    'FUNCNAME': 'f',
    'EPOCHSECONDS': '0',
    'GROUPS': 'g',
    'DIRSTACK': 'd',
    'CDPATH': '/usr',
    'EXECIGNORE': '*',
    'GLOBIGNORE': '*',
    'TMOUT': '1',
    'BASH_XTRACEFD': '1',
}


@pytest.mark.parametrize(
    'names', [[name] for name in NAMES] + [[*NAMES]], ids=[*NAMES, 'all']
)
def test_environment_arrives_whatever_its_names(
    guest: Guest, names: list[str]
) -> None:
    env = {name: NAMES[name] for name in names}
    ended = guest.run('/usr/bin/env', '-0', env=env)
    assert (ended.exitcode, ended.err) == (0, b'')
    found = dict(
        item.split('=', 1) for item in ended.out.decode().split('\0')[:-1]
    )
    assert {name: found.get(name) for name in env} == env


def test_no_directory_before_is_in_the_environment(guest: Guest) -> None:
    assert b'OLDPWD' not in guest.run('env', cwd='/tmp').out


def test_mark_is_not_the_tenants(guest: Guest) -> None:
    order = guest.order(
        '/bin/sh',
        '-c',
        'echo $GUEST_AGENT_COMMAND',
        env={'GUEST_AGENT_COMMAND': 'mine'},
    )
    ended = guest.wait(guest.launcher.launch(order))
    assert isinstance(ended, launcher.Ended)
    assert ended.out.decode() == f'{order.id}\n'


@pytest.mark.parametrize('cwd', ['-', '-P', '--', '-L x', 'link/..', "it's"])
def test_cwd_is_a_directory_as_for_chdir(
    guest: Guest, tmp_path: pathlib.Path, cwd: str
) -> None:
    (tmp_path / 'far' / 'away').mkdir(parents=True)
    (tmp_path / 'link').symlink_to('far/away')
    for name in ('-', '-P', '--', '-L x', "it's"):
        (tmp_path / name).mkdir()
    expected = os.path.realpath(tmp_path / cwd)
    ended = guest.run('/bin/pwd', '-P', cwd=f'{tmp_path}/{cwd}')
    assert ended.out.decode() == f'{expected}\n'
    # Relative ones begin where the agent is: in the root.
    ended = guest.run('/bin/pwd', '-P', cwd=f'{tmp_path}/{cwd}'[1:])
    assert ended.out.decode() == f'{expected}\n'
    never = guest.run('/bin/pwd', '-P', cwd=cwd)
    assert never.never_ran and cwd in str(never.error)


@pytest.mark.parametrize('end', ['head', 'tail'])
def test_large_command_travels_in_pieces(guest: Guest, end: str) -> None:
    argument, stdin = '\x01' * 65000, bytes(range(256)) * 4096
    script = 'printf %s "$0" | cksum; cksum; echo "$0" | wc -c'
    ended = guest.run(
        '/bin/sh', '-c', script, argument, stdin=stdin, keep_end=end
    )
    expected = subprocess.run(
        [
            'sh',
            '-c',
            'printf %s "$0" | cksum; cksum; echo "$0" | wc -c',
            argument,
        ],
        input=stdin,
        capture_output=True,
        check=True,
    )
    assert ended.out == expected.stdout
    assert not [
        path for path in guest.directory.iterdir() if '.in.' in path.name
    ]


def test_command_whose_pieces_are_gone_is_refused(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = guest.order('cat', stdin=bytes(300000))
    put = guest.launcher._put

    def remove(*args: Any) -> bool:
        is_there = put(*args)
        shutil.rmtree(guest.directory)
        return is_there

    monkeypatch.setattr(guest.launcher, '_put', remove)
    pid = guest.launcher.launch(order)
    assert guest.wait(pid) == launcher.Refused('boot')


def test_request_of_the_largest_command_is_small(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its bytes become in JSON: 218 kB jam an agent."""
    sent: list[int] = []
    execute = guest.agent.exec

    def measured(
        path: str,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        stdin: bytes = b'',
        capture: bool = True,
    ) -> int:
        sent.append(
            len(
                json.dumps([path, args, env, base64.b64encode(stdin).decode()])
            )
        )
        return execute(path, args, env=env, stdin=stdin, capture=capture)

    monkeypatch.setattr(guest.agent, 'exec', measured)
    guest.run(
        'true',
        *['\x01'] * 1000,
        '\x02' * 30000,
        env={'A': '\x03' * 34000},
        stdin=bytes(1024 * 1024),
    )
    assert len(sent) > 9
    assert max(sent) < 218000 * 0.9


def test_user_of_the_guest(guest: Guest) -> None:
    ended = guest.sh(
        'id -u; id -g; echo $HOME $USER $LOGNAME $SHELL; pwd; '
        'echo x >/dev/stdout; cat; echo e >/dev/stderr',
        user='nobody',
        stdin=b'in',
    )
    assert ended.out == (
        b'65534\n65534\n/nonexistent nobody nobody /usr/sbin/nologin\n/\nx\nin'
    )
    assert (ended.exitcode, ended.err) == (0, b'e\n')


def test_user_by_number_with_its_groups(guest: Guest) -> None:
    ended = guest.sh('id -un; id -G', user='7')
    assert (
        ended.out
        == subprocess.run(
            ['sh', '-c', 'id -un lp; id -G lp'],
            capture_output=True,
            check=True,
        ).stdout
    )


def test_users_own_home_is_replaced_by_the_tenants(guest: Guest) -> None:
    ended = guest.sh('echo $HOME', user='nobody', env={'HOME': '/mine'})
    assert ended.out == b'/mine\n'


@pytest.mark.parametrize('user', ['no-such-user', '4242'])
def test_no_such_user(guest: Guest, user: str) -> None:
    ended = guest.run('id', user=user)
    assert ended.never_ran
    assert f'There is no user {user}' in str(ended.error)


def test_user_who_may_not_enter_the_directory(
    guest: Guest, tmp_path: pathlib.Path
) -> None:
    closed = tmp_path / 'closed'
    closed.mkdir(mode=0o700)
    ended = guest.run('pwd', user='nobody', cwd=str(closed))
    assert ended.never_ran and str(closed) in str(ended.error)


def test_loss_of_the_agent_loses_no_result(guest: Guest) -> None:
    order = guest.order('/bin/sh', '-c', 'sleep 1; yes | head -c 300000')
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    process = guest.agent.execs[pid].process
    with open(os.devnull, 'rb') as nothing:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            # Not closed: its thread would read from who gets its number.
            os.dup2(nothing.fileno(), stream.fileno())
    process.wait()
    ended = guest.recovered(order.id)
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


def state(pid: int | str) -> str:
    """Return the letter of a process's state, Z if it is gone."""
    try:
        stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return 'Z'
    return stat.rpartition(') ')[2][0]


def is_alive(pid: str) -> bool:
    return state(pid) != 'Z'


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
    script = scripted.text('posix/launch.sh')
    assert 'Licensed' not in script and 'exec "$@"' in script
    assert not [
        line for line in script.splitlines() if line.startswith(('#', ' '))
    ]


def test_launch_shows_no_secret() -> None:
    order = launcher.Launch(
        id='id',
        argv=['secret'],
        env={'A': 'secret'},
        stdin=b'secret',
        cwd='secret',
        user=None,
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
