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
#

"""Attached commands under the shells of this machine.

As in test_launcher.py the agent is played by this process, with C's own files
behind its handles.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import hashlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import attached
from guest_agent_ext.guest.launchers import base as launcher
from tests.integration import test_launcher
from tools.testbed import processes

MIB = 1024 * 1024
#: Seconds that anything may take here.
PATIENCE = 120


class FlakyAgent(test_launcher.HostAgent):
    """Loses requests and replies, and what it holds, when it is told to.

    :ivar loss: share of the calls about files that are lost
    :ivar life: calls until it dies, and is started anew
    """

    loss = 0.0
    life = 10**9
    lost = deaths = 0

    def __init__(self) -> None:
        super().__init__()
        self.dice = random.Random(19)

    def file_open(self, path: str, mode: str) -> int:
        return self._met(lambda: super(FlakyAgent, self).file_open(path, mode))

    def file_read(self, handle: int, count: int) -> bytes:
        return self._met(
            lambda: super(FlakyAgent, self).file_read(handle, count)
        )

    def file_write(self, handle: int, data: bytes) -> int:
        return self._met(
            lambda: super(FlakyAgent, self).file_write(handle, data)
        )

    def file_seek(self, handle: int, offset: int, whence: str) -> int:
        return self._met(
            lambda: super(FlakyAgent, self).file_seek(handle, offset, whence)
        )

    def file_flush(self, handle: int) -> None:
        return self._met(lambda: super(FlakyAgent, self).file_flush(handle))

    def file_close(self, handle: int) -> None:
        return self._met(lambda: super(FlakyAgent, self).file_close(handle))

    def _met(self, call: Callable[[], Any]) -> Any:
        lot = self.dice.random()
        if self.calls and self.calls % self.life == 0:
            self.deaths += 1
            self.die()
        if lot < self.loss / 2:
            self.lost += 1
            self.calls += 1
            raise exception.AgentUnresponsive()
        answer = call()
        if lot < self.loss:
            self.lost += 1
            raise exception.AgentUnresponsive()
        return answer


class Session:
    """What a host knows of an attached command that it launched."""

    def __init__(
        self,
        guest: test_launcher.Guest,
        *argv: str,
        terminal: launcher.Terminal | None = None,
        **values: Any,
    ) -> None:
        self.guest = guest
        self.has_terminal = terminal is not None
        self.order = guest.order(
            *argv, attach=launcher.Attach(terminal), **values
        )
        self.pid = guest.launcher.launch(self.order)
        self.got: dict[str, bytes] = {}
        self.sent = 0
        self.refused = False
        self.resume()
        self.is_renewed = False

    @property
    def id(self) -> str:
        return self.order.id

    def resume(self) -> None:
        """Forget all but what a client knows."""
        self.is_renewed = True
        self.streams = self.guest.launcher.attached(
            self.id, terminal=self.has_terminal
        )
        for name in self.streams.names:
            self.got.setdefault(name, b'')

    def wait_to_begin(self) -> None:
        processes.wait_for(
            lambda: self.streams.follow() or self.streams.has_begun,
            PATIENCE,
            'the first news',
        )

    def turn(
        self, source: bytes = b'', *, end: bool = True, read: bool = True
    ) -> bool:
        """Do once what there is to do; tell whether there was anything."""
        heard = self.streams.follow()
        if not self.streams.has_begun:
            return False
        before = self.sent
        if end or self.sent < len(source):
            piece = source[self.sent : self.sent + attached.MAX_INPUT]
            is_last = self.sent + len(piece) == len(source)
            if piece or (end and not self.streams.is_input_closed):
                # What feeds the command may have yet to take what was sent.
                with contextlib.suppress(exception.AgentBusy):
                    self.sent = self.streams.write(
                        self.sent, piece, end=end and is_last
                    )
        got = 0
        for name in self.streams.names if read else ():
            offset = len(self.got[name])
            output = self.streams.read(name, offset)
            assert output.offset == offset
            self.got[name] += output.data
            got += len(output.data)
            self.streams.acknowledge(name, len(self.got[name]))
        return heard or bool(got) or self.sent > before

    def communicate(
        self,
        source: bytes = b'',
        *,
        end: bool = True,
        renewed_every: int = 10**9,
    ) -> launcher.Ended:
        """Feed and drain the command, and return its end."""
        deadline = time.monotonic() + PATIENCE
        turns = 0
        while not self.streams.is_drained:
            assert time.monotonic() < deadline, self._status()
            turns += 1
            if turns % renewed_every == 0:
                self.resume()
            try:
                is_busy = self.turn(source, end=end)
            except exception.AgentUnresponsive:
                continue
            if not is_busy:
                time.sleep(0.005)
        return self.ended()

    def has_exited(self) -> bool:
        outcome = self.guest.launcher.recover(self.id)
        if isinstance(outcome, launcher.Running):
            return outcome.has_exited
        return isinstance(outcome, launcher.Ended)

    def ended(self) -> launcher.Ended:
        try:
            outcome = self.guest.wait(self.pid)
        except exception.AgentRefused:
            outcome = self.guest.recovered(self.id)
        assert isinstance(outcome, launcher.Ended), outcome
        return outcome

    def finish(self) -> None:
        """Release it; nothing is left of it then."""
        self.streams.close()
        assert (
            self.is_renewed
            or self.guest.agent.lost
            or not [
                file
                for file in self.guest.agent.files.values()
                if self.id in file.path
            ]
        )
        self.guest.launcher.release([self.id])
        assert not self.left()
        processes.wait_for(
            lambda: not self.helpers(), PATIENCE, 'the end of the launcher'
        )

    def left(self) -> list[str]:
        return [
            path.name
            for path in self.guest.directory.iterdir()
            if path.name.startswith(self.id)
        ]

    def helpers(self) -> list[str]:
        """Return pids of what has the launcher's mark."""
        mark = 2 * int(self.id.rpartition('-')[2], 16) + 1
        found = []
        for path in pathlib.Path('/proc').glob('[0-9]*/limits'):
            with contextlib.suppress(OSError):
                limits = re.search(r'file locks +(\d+)', path.read_text())
                if (
                    limits
                    and int(limits[1]) == mark
                    and test_launcher.is_alive(path.parent.name)
                ):
                    found.append(path.parent.name)
        return found

    def until(self, expected: bytes, *, stream: str = 'out') -> bytes:
        """Read until something is there, and forget what came up to it."""
        deadline = time.monotonic() + PATIENCE
        while expected not in self.got[stream][self.seen :]:
            assert time.monotonic() < deadline, (
                expected,
                self.got[stream][self.seen :],
                self._status(),
            )
            if not self.turn(end=False):
                time.sleep(0.01)
        at = self.got[stream].index(expected, self.seen) + len(expected)
        shown = self.got[stream][self.seen : at]
        self.seen = at
        return shown

    seen = 0

    def type(self, keys: bytes) -> None:
        while keys:
            accepted = self.streams.write(self.sent, keys)
            keys = keys[accepted - self.sent :]
            self.sent = accepted

    def _status(self) -> object:
        news = self.guest.directory / f'{self.id}.news'
        return (
            self.sent,
            {name: (len(got), got[-300:]) for name, got in self.got.items()},
            news.read_text()[-300:] if news.exists() else None,
            self.left(),
        )


@pytest.fixture(params=test_launcher.SHELLS)
def guest(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[test_launcher.Guest]:
    with test_launcher.shell_named_sh(request.param) as shell:
        guest = test_launcher.Guest(shell, tmp_path / 'commands', FlakyAgent())
        yield guest
        for started in guest.agent.execs.values():
            started.process.kill()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('end', ['head', 'tail'])
def test_streams_and_end_are_the_commands_own(
    guest: test_launcher.Guest, end: str
) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'read word; echo "out $word"; echo err >&2; exit 3',
        keep_end=end,
    )
    ended = session.communicate(b'hello\n')
    assert session.got == {'out': b'out hello\n', 'err': b'err\n'}
    assert (ended.exitcode, ended.signal) == (3, None)
    assert (ended.out, ended.out_bytes) == (b'out hello\n', 10)
    assert (ended.err, ended.err_bytes) == (b'err\n', 4)
    session.finish()


def test_binary_both_ways(guest: test_launcher.Guest) -> None:
    source = random.Random(1).randbytes(8 * MIB)
    session = Session(guest, '/bin/cat')
    ended = session.communicate(source)
    assert sha256(session.got['out']) == sha256(source)
    assert (ended.exitcode, ended.out_bytes) == (0, len(source))
    assert ended.out == source[: test_launcher.KEEP]
    session.finish()


def test_lost_requests_and_replies_lose_and_double_nothing(
    guest: test_launcher.Guest,
) -> None:
    """One in ten, of a guest whose agent dies now and then besides."""
    source = random.Random(2).randbytes(4 * MIB)
    session = Session(guest, '/bin/cat')
    guest.agent.loss, guest.agent.life = 0.1, 97
    ended = session.communicate(source)
    guest.agent.loss, guest.agent.life = 0, 10**9
    assert sha256(session.got['out']) == sha256(source)
    assert (ended.exitcode, ended.out_bytes) == (0, len(source))
    assert guest.agent.lost > 10 and guest.agent.deaths > 1
    session.finish()


def test_lost_keys_come_once_and_in_order(guest: test_launcher.Guest) -> None:
    source = bytes(range(256)) * 4
    session = Session(guest, '/bin/cat')
    session.wait_to_begin()
    guest.agent.loss, guest.agent.life = 0.1, 53
    at = 0
    while at < len(source):
        with contextlib.suppress(exception.AgentUnresponsive):
            at = session.streams.write(at, source[at : at + 1])
    session.sent = at
    session.communicate(source)
    guest.agent.loss, guest.agent.life = 0, 10**9
    assert session.got['out'] == source
    session.finish()


def test_handles_that_are_lost_are_opened_again(
    guest: test_launcher.Guest,
) -> None:
    source = random.Random(3).randbytes(4 * MIB)
    session = Session(guest, '/bin/cat')
    # Longer than what one piece takes: who starts again and again gives up.
    guest.agent.life = 11
    session.communicate(source)
    guest.agent.life = 10**9
    assert sha256(session.got['out']) == sha256(source)
    assert guest.agent.deaths > 10
    session.finish()


def test_new_host_process_goes_on(guest: test_launcher.Guest) -> None:
    source = random.Random(4).randbytes(6 * MIB)
    session = Session(guest, '/bin/cat')
    session.communicate(source, renewed_every=7)
    assert sha256(session.got['out']) == sha256(source)
    session.streams.close()


def test_new_host_process_reads_again_what_was_not_acknowledged(
    guest: test_launcher.Guest,
) -> None:
    session = Session(guest, '/bin/sh', '-c', 'echo one; read x; echo two')
    session.until(b'one\n')
    session.resume()
    session.wait_to_begin()
    assert session.streams.read('out', 0).data == b'one\n'
    session.got['out'] = b''
    session.communicate(b'\n')
    assert session.got['out'] == b'one\ntwo\n'
    session.finish()


def test_input_that_an_earlier_process_sent_is_not_asked_for_again(
    guest: test_launcher.Guest,
) -> None:
    """The command has not read it, so the guest does not tell of it yet."""
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'read x <fifo; exec cat',
        cwd=str(guest.fifo('fifo')),
    )
    session.wait_to_begin()
    source = random.Random(5).randbytes(300 * 1024)
    session.sent = session.streams.write(0, source[: 200 * 1024])
    assert session.sent == 200 * 1024
    session.resume()
    session.wait_to_begin()
    assert session.streams.input_taken < 200 * 1024
    session.sent = session.streams.write(session.sent, source[session.sent :])
    assert session.sent == len(source)
    guest.open_fifo('fifo')
    session.communicate(source)
    assert sha256(session.got['out']) == sha256(source)
    session.finish()


@pytest.mark.parametrize('end', ['head', 'tail'])
def test_reader_that_is_away_stops_the_command(
    guest: test_launcher.Guest, end: str
) -> None:
    """And the guest's disk holds two segments, and what is kept."""
    size = 6 * MIB
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        f'yes 0123456789abcde | head -c {size}; yes | head -c 3000000 >&2',
        keep_end=end,
    )

    def held(name: str) -> int:
        size = 0
        for path in guest.directory.glob(f'{session.id}.{name}.[0-9]*'):
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        return size

    processes.wait_for(
        lambda: held('out') == 2 * MIB, PATIENCE, 'two segments'
    )
    time.sleep(1)
    assert held('out') == 2 * MIB
    assert isinstance(guest.launcher.recover(session.id), launcher.Running)
    most = [0, 0]
    while not session.streams.is_drained:
        session.turn()
        most = [max(most[0], held('out')), max(most[1], held('err'))]
    assert most[0] == 2 * MIB >= most[1]
    ended = session.ended()
    assert session.got['out'] == b'0123456789abcde\n' * (size // 16)
    assert session.got['err'] == b'y\n' * 1500000
    assert (ended.out_bytes, ended.err_bytes) == (size, 3000000)
    assert len(ended.out) == len(ended.err) == test_launcher.KEEP
    session.finish()


def test_end_is_told_when_all_has_been_acknowledged(
    guest: test_launcher.Guest,
) -> None:
    session = Session(guest, '/bin/sh', '-c', 'echo out; exit 3')
    ended = session.ended()
    assert ended.exitcode == 3
    session.streams.follow()
    assert session.streams.has_ended and not session.streams.is_drained
    output = session.streams.read('out', 0)
    assert (output.data, output.is_complete) == (b'out\n', True)
    assert session.streams.read('err', 0).is_complete
    session.streams.acknowledge('err', 0)
    assert not session.streams.is_drained
    session.streams.acknowledge('out', 4)
    assert session.streams.is_drained
    session.finish()


@pytest.mark.parametrize(
    'script',
    [
        'exec <&-; sleep 0.5; echo x',
        'head -c 5 >/dev/null; sleep 0.5; echo x',
        'exec </dev/null; echo x',
    ],
)
def test_command_that_closes_stdin_is_no_failure(
    guest: test_launcher.Guest, script: str
) -> None:
    source = random.Random(6).randbytes(2 * MIB)
    session = Session(guest, '/bin/sh', '-c', script)
    ended = session.communicate(source)
    assert (ended.exitcode, session.got['out']) == (0, b'x\n')
    session.finish()


def test_keys_for_a_closed_stdin_are_dropped(
    guest: test_launcher.Guest,
) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'exec <&-; echo x; read y <fifo',
        cwd=str(guest.fifo('fifo')),
    )
    session.until(b'x\n')
    while not session.streams.is_input_closed:
        session.type(b'k')
        session.streams.follow()
    session.type(b'more')
    guest.open_fifo('fifo')
    assert session.communicate(end=False).exitcode == 0
    session.finish()


def test_window_of_input_is_bounded(guest: test_launcher.Guest) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'read x <fifo; exec cat',
        cwd=str(guest.fifo('fifo')),
    )
    session.wait_to_begin()
    source = random.Random(7).randbytes(3 * MIB)
    for _ in range(30):
        session.sent = session.streams.write(
            session.sent, source[session.sent :][: attached.MAX_INPUT]
        )
    assert session.sent <= MIB + 65536
    assert (guest.directory / f'{session.id}.ring').stat().st_size <= MIB
    with pytest.raises(exception.InputGap):
        session.streams.write(session.sent + 1, b'x')
    assert session.streams.write(0, source[:100]) == 100
    guest.open_fifo('fifo')
    session.communicate(source)
    assert sha256(session.got['out']) == sha256(source)
    session.finish()


def test_keys_that_nobody_reads_are_bounded(
    guest: test_launcher.Guest,
) -> None:
    """A FIFO takes no more, and lines in it must not be torn."""
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'read x <fifo; exec cat',
        cwd=str(guest.fifo('fifo')),
    )
    session.wait_to_begin()
    source = bytes(range(256)) * 600
    for number in range(600):
        if number % 20 == 0:
            session.resume()
            session.streams.follow()
        session.sent = session.streams.write(
            session.sent, source[session.sent : session.sent + 500]
        )
    assert session.sent < len(source)
    guest.open_fifo('fifo')
    session.communicate(source)
    assert session.got['out'] == source
    session.finish()


def test_gap_that_a_new_process_cannot_see_is_refused_by_the_guest(
    guest: test_launcher.Guest,
) -> None:
    session = Session(guest, '/bin/cat')
    session.wait_to_begin()
    session.type(b'abc')
    processes.wait_for(
        lambda: session.streams.follow() and session.streams.input_taken == 3,
        PATIENCE,
        'input',
    )
    session.resume()
    session.wait_to_begin()
    session.streams.write(7, b'x')
    with pytest.raises(exception.InputGap) as caught:
        for _ in range(200):
            time.sleep(0.02)
            session.streams.follow()
            session.streams.write(8, b'y')
    assert caught.value.expected == 3
    session.sent = 3
    session.communicate(b'abcdef')
    assert session.got['out'] == b'abcdef'
    session.finish()


def test_acknowledged_output_is_gone(guest: test_launcher.Guest) -> None:
    session = Session(guest, '/bin/sh', '-c', 'yes | head -c 4000000')
    session.communicate()
    session.resume()
    session.streams.follow()
    with pytest.raises(exception.OutputGone):
        session.streams.read('out', 0)
    assert session.streams.read('out', 3999998).data == b'y\n'
    session.streams.close()
    session.finish()


def test_two_sessions_at_once(guest: test_launcher.Guest) -> None:
    sources = [random.Random(seed).randbytes(2 * MIB) for seed in (8, 9)]
    sessions = [Session(guest, '/bin/cat') for _ in sources]
    pending = list(zip(sessions, sources, strict=True))
    while pending:
        for session, source in pending:
            session.turn(source)
        pending = [
            (session, source)
            for session, source in pending
            if not session.streams.is_drained
        ]
    for session, source in zip(sessions, sources, strict=True):
        assert sha256(session.got['out']) == sha256(source)
        assert session.ended().exitcode == 0
        session.streams.close()
        session.finish()


@pytest.mark.parametrize('name', launcher.SIGNALS)
def test_signal_meets_the_process_group(
    guest: test_launcher.Guest, name: str
) -> None:
    session = Session(
        guest,
        '/bin/bash',
        '-c',
        f'trap "echo shell" {name}\n'
        f"bash -c \"trap 'echo child; exit' {name}; echo begun; "
        'while :; do sleep 0.1; done"\nexit 5',
    )
    session.until(b'begun\n')
    assert guest.launcher.signal(session.id, name)
    ended = session.communicate()
    assert session.got['out'] == b'begun\nchild\nshell\n'
    assert ended.exitcode == 5
    assert not guest.launcher.signal(session.id, name)
    session.finish()


def test_signal_to_a_command_that_is_not_attached(
    guest: test_launcher.Guest,
) -> None:
    order = guest.order('/bin/sleep', '60')
    assert not guest.launcher.signal(order.id, 'TERM')
    pid = guest.launcher.launch(order)
    guest.running(order.id)
    assert guest.launcher.signal(order.id, 'INT')
    ended = guest.wait(pid)
    assert isinstance(ended, launcher.Ended)
    assert (ended.signal, ended.killed) == (signal.SIGINT, None)


def test_kill_of_the_tree_ends_the_streams(guest: test_launcher.Guest) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'trap "" TERM; echo x; setsid sleep 600 & sleep 600',
    )
    session.until(b'x\n')
    assert guest.launcher.signal_tree(session.id, 'TERM', 'TIMED_OUT') >= 2
    guest.launcher.signal_tree(session.id, 'KILL', 'TIMED_OUT')
    ended = session.communicate()
    assert (ended.signal, ended.killed) == (signal.SIGKILL, 'TIMED_OUT')
    session.finish()


def test_kill_while_nobody_reads_ends_when_output_is_dropped(
    guest: test_launcher.Guest,
) -> None:
    session = Session(guest, '/bin/sh', '-c', 'yes; sleep 600')
    session.wait_to_begin()
    last = guest.directory / f'{session.id}.out.1'
    processes.wait_for(
        lambda: last.exists() and last.stat().st_size == MIB,
        PATIENCE,
        'segments',
    )
    guest.launcher.signal_tree(session.id, 'KILL', 'CANCELLED')
    time.sleep(0.5)
    assert isinstance(guest.launcher.recover(session.id), launcher.Running)
    session.streams.drop_output()
    ended = session.ended()
    assert (ended.signal, ended.killed) == (signal.SIGKILL, 'CANCELLED')
    assert len(ended.out) == test_launcher.KEEP
    session.finish()


@pytest.mark.parametrize('end', ['head', 'tail'])
def test_child_that_keeps_a_stream_can_be_left_behind(
    guest: test_launcher.Guest, end: str, tmp_path: pathlib.Path
) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        f'echo mine; sleep 600 & echo $! >{tmp_path}/child; exit 7',
        keep_end=end,
    )
    session.until(b'mine\n')
    processes.wait_for(
        lambda: guest.running(session.id).has_exited, PATIENCE, 'the end'
    )
    assert not session.streams.is_drained
    guest.launcher.unhold(session.id)
    ended = session.communicate()
    assert session.got == {'out': b'mine\n', 'err': b''}
    assert (ended.exitcode, ended.out_bytes) == (7, 5)
    os.kill(int((tmp_path / 'child').read_text()), signal.SIGKILL)
    session.finish()


def test_what_cannot_be_executed_says_why(guest: test_launcher.Guest) -> None:
    session = Session(guest, '/no/such/binary')
    ended = session.ended()
    assert ended.never_ran and '/no/such/binary' in str(ended.error)
    session.finish()


def test_nothing_of_the_launcher_is_left_in_the_command(
    guest: test_launcher.Guest,
) -> None:
    session = Session(
        guest,
        '/bin/bash',
        '-c',
        'ls /proc/self/fd; umask; ulimit -f; '
        'sed -n "/^Sig[BI]/p" /proc/self/status; env',
    )
    session.communicate()
    *words, ignored = session.got['out'].decode().split()[:10]
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
    assert int(ignored, 16) & ~test_launcher.LIBRARYS_SIGNALS == 0
    assert b'GUEST_AGENT_SCRIPT' not in session.got['out']
    session.finish()


def test_user_has_the_streams(guest: test_launcher.Guest) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'id -u; cat /dev/stdin; echo e >/dev/stderr',
        user='nobody',
    )
    session.communicate(b'in\n')
    assert session.got == {'out': b'65534\nin\n', 'err': b'e\n'}
    session.finish()


def test_large_command_travels_in_pieces(guest: test_launcher.Guest) -> None:
    argument = '\x01' * 65000 + 'x' * 60000
    session = Session(
        guest, '/bin/sh', '-c', 'printf %s "$0" | wc -c; cat', argument
    )
    session.communicate(b'in')
    assert session.got['out'] == b'125000\nin'
    session.finish()


def edit(
    guest: test_launcher.Guest,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
) -> None:
    """Have the guest run other words of a script of ours."""
    execute = guest.agent.exec

    def edited(
        path: str,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        stdin: bytes = b'',
        capture: bool = True,
    ) -> int:
        return execute(
            path,
            args,
            env=[item.replace(old, new) for item in env],
            stdin=stdin,
            capture=capture,
        )

    monkeypatch.setattr(guest.agent, 'exec', edited)


HOLDERS = 'for holder in python3 script; do'


@pytest.fixture(params=['python3', 'script'])
def holder(
    request: pytest.FixtureRequest,
    guest: test_launcher.Guest,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Have the guest one of what can hold a terminal."""
    edit(guest, monkeypatch, HOLDERS, f'for holder in {request.param}; do')
    return str(request.param)


TERMINAL = launcher.Terminal(columns=99, rows=33, term='vt220')


def end_terminal(session: Session, holder: str) -> launcher.Ended:
    """Do what a host does when it sees that the command has ended."""
    if holder == 'script':
        processes.wait_for(session.has_exited, PATIENCE, 'the end')
        session.guest.launcher.unhold(session.id)
    return session.communicate(end=False)


def test_terminal(guest: test_launcher.Guest, holder: str) -> None:
    session = Session(
        guest,
        '/bin/bash',
        '--norc',
        '--noediting',
        '-i',
        terminal=TERMINAL,
        env={'PS1': 'prompt> '},
    )
    session.until(b'prompt> ')
    session.type(b'stty size; echo $TERM; test -t 2 && echo yes-$((6*7))\r')
    assert b'33 99\r\nvt220\r\nyes-42\r\n' in session.until(b'yes-42\r\n')
    session.until(b'prompt> ')
    session.type(b'sh -c \'echo be""gun; exec sleep 100\'\r')
    session.until(b'begun\r\n')
    session.type(b'\x03')
    session.until(b'prompt> ')
    session.type(b'sh -c \'echo be""gun; exec sleep 100\'\r')
    session.until(b'begun\r\n')
    session.type(b'\x1a')
    session.until(b'Stopped')
    session.until(b'prompt> ')
    session.type(b'kill %1; echo killed-$?\r')
    session.until(b'killed-0\r\n')
    session.until(b'prompt> ')
    session.type(
        b'sh -c \'trap "stty size; exit" WINCH; echo be""gun; '
        b"while :; do sleep 0.1; done'\r"
    )
    session.until(b'begun\r\n')
    assert guest.launcher.resize(session.id, 132, 50)
    session.until(b'50 132\r\n')
    session.until(b'prompt> ')
    session.type(b'cat\rabc\r\x04')
    session.until(b'abc\r\nabc\r\n')
    session.until(b'prompt> ')
    session.type(b'exit 42\r')
    ended = end_terminal(session, holder)
    assert (ended.exitcode, ended.signal, ended.err) == (42, None, b'')
    assert ended.out_bytes == len(session.got['out'])
    session.finish()


def test_signal_that_ends_a_command_in_a_terminal(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(
        guest, '/bin/sh', '-c', 'echo begun; exec sleep 100', terminal=TERMINAL
    )
    session.until(b'begun\r\n')
    session.type(b'\x03')
    ended = end_terminal(session, holder)
    assert (ended.exitcode, ended.signal) == (None, signal.SIGINT)
    session.finish()


def test_end_of_input_is_ctrl_d_in_a_terminal(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(guest, '/bin/cat', terminal=TERMINAL)
    session.wait_to_begin()
    while session.sent < 4:
        with contextlib.suppress(exception.AgentBusy):
            session.sent = session.streams.write(
                session.sent, b'abc\n', end=True
            )
    session.until(b'abc\r\nabc\r\n')
    assert end_terminal(session, holder).exitcode == 0
    session.finish()


def test_all_that_a_terminal_shows_arrives(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(
        guest, '/bin/sh', '-c', 'stty -onlcr; seq 300000', terminal=TERMINAL
    )
    session.wait_to_begin()
    expected = b''.join(b'%d\n' % number for number in range(1, 300001))
    deadline = time.monotonic() + PATIENCE
    while len(session.got['out']) < len(expected):
        assert time.monotonic() < deadline, session._status()
        session.turn(end=False)
    ended = end_terminal(session, holder)
    assert session.got['out'] == expected
    assert (ended.exitcode, ended.out_bytes) == (0, len(expected))
    session.finish()


def test_reader_of_a_terminal_that_is_away(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(
        guest, '/bin/sh', '-c', 'stty -onlcr; seq 600000', terminal=TERMINAL
    )
    session.wait_to_begin()
    processes.wait_for(
        lambda: (
            sum(
                path.stat().st_size
                for path in guest.directory.glob(f'{session.id}.out.[0-9]*')
            )
            == 2 * MIB
        ),
        PATIENCE,
        'segments',
    )
    expected = b''.join(b'%d\n' % number for number in range(1, 600001))
    deadline = time.monotonic() + PATIENCE
    while len(session.got['out']) < len(expected):
        assert time.monotonic() < deadline, session._status()
        session.turn(end=False)
    end_terminal(session, holder)
    assert session.got['out'] == expected
    session.finish()


def test_user_has_a_terminal(guest: test_launcher.Guest, holder: str) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'id -u; echo x >/dev/tty; echo y >/dev/stderr;'
        'stat -c %u $(tty); read z </dev/tty; echo "got $z"',
        user='nobody',
        terminal=TERMINAL,
    )
    session.until(b'65534\r\nx\r\ny\r\n65534\r\n')
    session.type(b'z\r')
    session.until(b'got z\r\n')
    assert end_terminal(session, holder).exitcode == 0
    session.finish()


@pytest.mark.parametrize(
    'argv',
    [['no-such-binary'], ['/no/such/binary'], ['/etc/passwd'], ['/etc']],
)
def test_what_cannot_be_executed_in_a_terminal_says_why(
    guest: test_launcher.Guest, holder: str, argv: list[str]
) -> None:
    session = Session(guest, *argv, terminal=TERMINAL)
    ended = end_terminal(session, holder)
    assert ended.never_ran and argv[0] in str(ended.error)
    assert session.got['out'] == b''
    session.finish()


def test_bad_interpreter_in_a_terminal(
    guest: test_launcher.Guest, holder: str, tmp_path: pathlib.Path
) -> None:
    script = tmp_path / 'script'
    script.write_text('#!/no/such/interpreter\n')
    script.chmod(0o755)
    session = Session(guest, str(script), terminal=TERMINAL)
    assert end_terminal(session, holder).never_ran
    session.finish()


def test_kill_of_what_runs_in_a_terminal(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(
        guest,
        '/bin/bash',
        '--norc',
        '-i',
        terminal=TERMINAL,
        env={'PS1': 'prompt> '},
    )
    session.until(b'prompt> ')
    session.type(b'trap "" TERM HUP; sleep 600 & sleep 600\r')
    session.until(b'sleep 600\r\n')
    time.sleep(0.3)
    guest.launcher.signal_tree(session.id, 'TERM', 'CANCELLED')
    time.sleep(0.3)
    guest.launcher.signal_tree(session.id, 'KILL', 'CANCELLED')
    ended = end_terminal(session, holder)
    assert (ended.signal, ended.killed) == (signal.SIGKILL, 'CANCELLED')
    session.finish()


def test_child_that_keeps_a_terminal_can_be_left_behind(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(
        guest,
        '/bin/bash',
        '-c',
        'trap "" HUP; set -m; sleep 5 & echo mine; exit 7',
        terminal=TERMINAL,
    )
    session.until(b'mine\r\n')
    processes.wait_for(
        lambda: guest.running(session.id).has_exited, PATIENCE, 'the end'
    )
    guest.launcher.unhold(session.id)
    ended = session.communicate(end=False)
    assert (ended.exitcode, session.got['out']) == (7, b'mine\r\n')
    session.finish()


@pytest.mark.parametrize(
    ('old', 'new', 'terminal', 'lacking'),
    [
        (HOLDERS, 'for holder in no-such; do', TERMINAL, 'script/python3'),
        ('for tool in stty', 'for tool in no-stty stty', TERMINAL, 'no-stty'),
        ('for tool in mkfifo', 'for tool in no-mkfifo', None, 'no-mkfifo'),
        ('-E -s -S -c', '--no-such-option', TERMINAL, 'script/python3'),
    ],
)
def test_what_the_guest_lacks_is_told_at_once(
    guest: test_launcher.Guest,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    terminal: launcher.Terminal | None,
    lacking: str,
) -> None:
    edit(guest, monkeypatch, old, new)
    session = Session(guest, 'true', terminal=terminal)
    assert guest.wait(session.pid) == launcher.Refused(lacking)
    assert not session.left()
    processes.wait_for(lambda: not session.helpers(), PATIENCE, 'their end')
    assert guest.launcher.recover(session.id) == launcher.NotStarted()


@pytest.mark.parametrize(
    ('old', 'new', 'kinds'),
    [
        ('', '', []),
        (
            'for tool in mkfifo',
            'for tool in no-mkfifo',
            ['attach', 'terminal'],
        ),
        ('for tool in stty', 'for tool in no-stty stty', ['terminal']),
        ('in python3 script', 'in no-python3 no-script', ['terminal']),
    ],
)
def test_what_the_guest_lacks_is_told_before(
    guest: test_launcher.Guest,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    kinds: list[str],
) -> None:
    edit(guest, monkeypatch, old, new)
    told = guest.launcher.unattachable()
    assert list(told) == kinds
    if kinds:
        tool = new.split()[3] if 'tool' in new else 'script/python3'
        assert told['terminal'].endswith(f'no usable {tool}')


def test_no_terminal_to_resize(guest: test_launcher.Guest) -> None:
    session = Session(guest, '/bin/cat')
    session.wait_to_begin()
    assert not guest.launcher.resize(session.id, 80, 24)
    session.communicate()
    session.finish()


#: Prints how many processes a program starts in a PID namespace of its own.
COUNT = """
import subprocess, sys
def last():
    with open("/proc/sys/kernel/ns_last_pid") as file:
        return int(file.read())
before = last()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(last() - before)
"""


def started(
    guest: test_launcher.Guest, monkeypatch: pytest.MonkeyPatch, **values: Any
) -> int:
    """Return how many processes the launch of a silent command starts."""
    order = guest.order('true', **values)
    counts: list[int] = []

    def execute(
        path: str,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        stdin: bytes = b'',
        capture: bool = True,
    ) -> int:
        counts.append(
            int(
                subprocess.run(
                    [
                        'unshare',
                        '--pid',
                        '--fork',
                        '--mount-proc',
                        sys.executable,
                        '-c',
                        COUNT,
                        path,
                        *args,
                    ],
                    env=dict(item.split('=', 1) for item in env),
                    input=stdin,
                    stdout=subprocess.PIPE,
                    check=True,
                ).stdout
            )
        )
        return 0

    with monkeypatch.context() as patches:
        patches.setattr(guest.agent, 'exec', execute)
        guest.launcher.launch(order)
    return counts[0]


def test_process_starts_of_a_launch(
    guest: test_launcher.Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more for each that waits; none more where nothing is attached."""
    assert started(guest, monkeypatch) == 5
    assert started(guest, monkeypatch, keep_end='tail') == 7
    pipes = launcher.Attach()
    # What the tools are like is asked once.
    assert started(guest, monkeypatch, attach=pipes) <= 21
    assert started(guest, monkeypatch, attach=pipes) <= 11
    assert started(guest, monkeypatch, attach=launcher.Attach(TERMINAL)) <= 12


def test_idle_session_does_nothing(guest: test_launcher.Guest) -> None:
    """Nothing of it polls: no process of it runs, or is started."""
    session = Session(guest, '/bin/cat', terminal=TERMINAL)
    session.until(b'')
    session.wait_to_begin()
    session.type(b'x\r')
    session.until(b'x\r\nx\r\n')
    time.sleep(0.5)

    def ran() -> dict[str, str]:
        return {
            pid: next(
                line
                for line in pathlib.Path(f'/proc/{pid}/status')
                .read_text()
                .splitlines()
                if line.startswith('voluntary_ctxt_switches')
            )
            for pid in session.helpers()
        }

    before = ran()
    assert len(before) >= 7
    time.sleep(2)
    assert ran() == before
    session.type(b'\x04')
    end_terminal(session, 'script')
    session.finish()


@pytest.mark.parametrize('tools', ['records tail', 'records dd', 'head tail'])
def test_other_tools(guest: test_launcher.Guest, tools: str) -> None:
    """Those that are there can do less, too."""
    guest.launcher.probe()
    (guest.directory / 'attach.tools').write_text(f'{tools}\n')
    source = random.Random(10).randbytes(3 * MIB)
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'yes | head -n 300 | while read x; do echo $x; done; exec cat',
    )
    ended = session.communicate(source)
    assert sha256(session.got['out']) == sha256(b'y\n' * 300 + source)
    assert ended.exitcode == 0
    session.finish()


def mount(guest: test_launcher.Guest, size: str) -> None:
    guest.directory.mkdir()
    subprocess.run(
        [
            'mount',
            '-t',
            'tmpfs',
            '-o',
            f'size={size}',
            'guest',
            guest.directory,
        ],
        check=True,
    )


def unmount(guest: test_launcher.Guest) -> None:
    guest.agent.die()
    subprocess.run(['umount', '-l', guest.directory], check=True)


def test_full_file_system_is_told(guest: test_launcher.Guest) -> None:
    mount(guest, '512k')
    try:
        session = Session(
            guest, '/bin/sh', '-c', 'head -c 3000000 /dev/zero; exec sleep 600'
        )
        session.wait_to_begin()
        with pytest.raises(exception.StreamLost, match='no room'):
            session.communicate(end=False)
        assert set(session.got['out']) <= {0}
        guest.launcher.signal_tree(session.id, 'KILL', 'LOST')
        processes.wait_for(
            lambda: not session.helpers(), PATIENCE, 'their end'
        )
    finally:
        unmount(guest)


def test_full_file_system_before_the_start_is_refused(
    guest: test_launcher.Guest,
) -> None:
    mount(guest, '64k')
    try:
        guest.launcher.probe()
        with contextlib.suppress(OSError):
            (guest.directory / 'filling.file').write_bytes(bytes(MIB))
        session = Session(guest, 'true')
        outcome = guest.wait(session.pid)
        assert outcome == launcher.Refused(str(guest.directory))
        assert not session.left()
    finally:
        unmount(guest)


def test_full_file_system_takes_no_input(guest: test_launcher.Guest) -> None:
    mount(guest, '512k')
    try:
        session = Session(
            guest,
            '/bin/sh',
            '-c',
            'read x <fifo; exec cat',
            cwd=str(guest.fifo('fifo')),
        )
        session.wait_to_begin()
        with pytest.raises(exception.StreamLost, match='no room'):
            for _ in range(4):
                session.sent = session.streams.write(
                    session.sent, bytes(attached.MAX_INPUT)
                )
        guest.launcher.signal_tree(session.id, 'KILL', 'LOST')
    finally:
        unmount(guest)


@pytest.mark.parametrize('is_agent_lost', [False, True])
@pytest.mark.parametrize('how', test_launcher.COVERINGS)
def test_harmed_directory_is_told_or_does_no_harm(
    guest: test_launcher.Guest, how: str, is_agent_lost: bool
) -> None:
    """Nothing is wrong, and nothing is waited for in vain."""
    do, undo = (
        text.format(guest.directory) for text in test_launcher.COVERINGS[how]
    )
    size = 3 * MIB
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        f'read x; yes 0123456789abcde | head -c {size}; exit 5',
    )
    session.wait_to_begin()
    session.turn(end=False)
    subprocess.run(
        ['sh', '-c', f'GUEST_AGENT_COMMAND={session.id}; {do}'], check=True
    )
    if is_agent_lost:
        guest.agent.die()
    try:
        with contextlib.suppress(exception.StreamLost):
            ended = session.communicate(b'\n')
            assert (ended.exitcode, len(session.got['out'])) == (5, size)
    finally:
        subprocess.run(['sh', '-c', undo], check=True)
    whole = b'0123456789abcde\n' * (size // 16)
    assert whole.startswith(session.got['out'])
    if not session.streams.is_drained:
        guest.launcher.signal_tree(session.id, 'KILL', 'LOST')
    processes.wait_for(lambda: not session.helpers(), PATIENCE, 'their end')


def parts(session: Session) -> dict[str, list[str]]:
    """Return the pids of a launcher's processes by what they have open."""
    found: dict[str, list[str]] = {}
    for pid in session.helpers():
        names = set()
        for path in pathlib.Path(f'/proc/{pid}/fd').iterdir():
            with contextlib.suppress(OSError):
                names.add(os.readlink(path).rpartition('.')[2])
        for name in ('bell', 'credit', 'hold'):
            if name in names:
                found.setdefault(name, []).append(pid)
    return found


@pytest.mark.parametrize('part', ['bell', 'credit'])
def test_killed_part_of_a_launcher_is_told(
    guest: test_launcher.Guest, part: str
) -> None:
    """Or, for the pump, is the end of stdin."""
    session = Session(guest, '/bin/sh', '-c', 'cat; yes | head -c 5000000')
    session.wait_to_begin()
    session.type(b'x')
    session.until(b'x')
    for pid in parts(session)[part]:
        os.kill(int(pid), signal.SIGKILL)
    if part == 'bell':
        session.communicate(end=False)
        assert len(session.got['out']) == 5000001
        session.finish()
        return
    session.sent = session.streams.write(session.sent, b'', end=True)
    session.ended()
    session.streams.expect_end()
    with pytest.raises(exception.StreamLost, match='was killed'):
        session.communicate(end=False)


def test_stopped_part_of_a_launcher_goes_on(
    guest: test_launcher.Guest,
) -> None:
    source = random.Random(11).randbytes(2 * MIB)
    session = Session(guest, '/bin/cat')
    session.wait_to_begin()
    pids = [pid for found in parts(session).values() for pid in found]
    for pid in pids:
        os.kill(int(pid), signal.SIGSTOP)
    # A process that waits for a processor is not stopped before it has one.
    processes.wait_for(
        lambda: all(test_launcher.state(pid) in 'TZ' for pid in pids),
        PATIENCE,
        'their stop',
    )
    session.turn(source)
    guest.launcher.recover(session.id)
    session.communicate(source)
    assert sha256(session.got['out']) == sha256(source)
    session.finish()


def test_lost_command_leaves_no_process(guest: test_launcher.Guest) -> None:
    session = Session(guest, '/bin/bash', '--norc', '-i', terminal=TERMINAL)
    session.until(b'$' if os.geteuid() else b'#')
    guest.launcher.signal_tree(session.id, 'KILL', 'LOST')
    processes.wait_for(lambda: not session.helpers(), PATIENCE, 'their end')
    session.streams.close()
    guest.launcher.release([session.id])
    assert not session.left()


SECRET = 'no-such-service-zq8'


def test_no_word_of_the_tenants_stands_on_a_command_line(
    guest: test_launcher.Guest, holder: str
) -> None:
    session = Session(
        guest,
        '/bin/sh',
        '-c',
        'while read word; do :; done',
        SECRET,
        terminal=TERMINAL,
        env={'A': SECRET},
    )
    session.wait_to_begin()
    for key in SECRET.encode():
        session.type(bytes([key]))
    session.type(b'\r')
    session.until(SECRET.encode())
    argv = '\0'.join(session.order.argv) + '\0'
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            line = path.read_text()
            assert SECRET not in line or line == argv
            assert 'keep_segments' not in line
            assert 'openpty' not in line
    session.type(b'\x04')
    end_terminal(session, holder)
    session.finish()
