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


"""A program in a server, attached to the client's own streams."""

from collections.abc import Callable
import contextlib
import io
import os
import queue
import sys
import threading

from openstack import exceptions as sdk_exceptions

from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import terminal
from guest_agent_ext.sdk import process

#: Exit codes for commands that end without one: see exec.
CODES = {'TIMED_OUT': 124, 'CANCELLED': 130}
FAILED = 255
#: Bytes that are read at once.
_PIECE = 64 * 1024
#: Events of a session: a stream has ended, the terminal has another size,
#: ``~.`` was typed.
_ENDED, _RESIZED, _OVER = 'ended', 'resized', 'over'

_Event = str | BaseException


class Session:
    """Copies streams between a program and this process until its end.

    :ivar last_words: what the user is told when the terminal is restored
    :param program: the program
    :param is_terminal: True if ``~.`` ends the session
    :param detach: True if the program is left running when this process is to
        end
    """

    def __init__(
        self, program: process.Process, is_terminal: bool, detach: bool
    ) -> None:
        self.last_words = ''
        self._program = program
        self._detach = detach
        self._escapes = terminal.Escapes() if is_terminal else None
        # Signal handlers may put into a SimpleQueue.
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()

    def run(self) -> int:
        """Return the exit code at the end."""
        try:
            return self._run()
        except interrupts.Interrupted as error:
            return self._leave(128 + error.number)

    def resized(self) -> None:
        """Tell the program soon that the terminal has another size."""
        self._events.put(_RESIZED)

    def _run(self) -> int:
        self._start(self._copy_in)
        outputs = [(self._program.stdout, sys.stdout)]
        if self._program.stderr is not None:
            outputs.append((self._program.stderr, sys.stderr))
        for source, to in outputs:
            self._start(self._copy_out, source, getattr(to, 'buffer', None))
        left = len(outputs)
        while left:
            # Without a bound Python would not see signals on some systems.
            with contextlib.suppress(queue.Empty):
                left -= self._handle(self._events.get(timeout=1))
        try:
            code = self._program.wait()
        except process.NoExitCode as error:
            self.last_words = error.error
            return CODES.get(error.status, FAILED)
        return code if code >= 0 else 128 - code

    def _handle(self, event: _Event) -> int:
        """Act on an event; return the number of streams that ended by it."""
        if isinstance(event, BaseException):
            raise event
        if event == _RESIZED:
            size = terminal.of(0)
            with contextlib.suppress(sdk_exceptions.ConflictException):
                self._program.resize(size.columns, size.rows)
        if event == _OVER:
            raise interrupts.Interrupted(interrupts.HANGUP)
        return int(event == _ENDED)

    def _leave(self, code: int) -> int:
        """Cancel the program, or leave it if the user said so."""
        if self._detach:
            self._program.leave()
            self.last_words = f'Command {self._program.id} goes on'
            return code
        with contextlib.suppress(interrupts.Interrupted):
            self._program.kill()
        return code

    def _start(self, target: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                target(*args)
            except BaseException as error:
                # The main thread raises it.
                self._events.put(error)

        # A thread that waits for a key has no end of its own.
        threading.Thread(target=run, daemon=True).start()

    def _copy_in(self) -> None:
        try:
            while data := self._read():
                self._program.stdin.write(data)
            if self._escapes is None or not self._escapes.is_over:
                self._program.stdin.close()
        except BrokenPipeError:
            # The program has ended: its streams tell the rest.
            return

    def _read(self) -> bytes:
        """Return what is to be sent next; nothing at the end."""
        while True:
            # A stdin that was closed from the beginning is None, and its
            # number belongs to something else.
            if sys.stdin is None:
                return b''
            try:
                data = os.read(0, _PIECE)
            except OSError:
                # The terminal has gone away.
                return b''
            if not data or self._escapes is None:
                return data
            sent = self._escapes.filter(data)
            if self._escapes.is_over:
                self._events.put(_OVER)
                return b''
            if sent:
                return sent

    def _copy_out(
        self, source: io.RawIOBase, to: io.BufferedWriter | None
    ) -> None:
        while data := source.read(_PIECE):
            if to is None:
                continue
            try:
                to.write(data)
                to.flush()
            except BrokenPipeError:
                interrupts.close(to)
                raise interrupts.Interrupted(interrupts.PIPE) from None
        self._events.put(_ENDED)


Start = Callable[[process.Terminal | None], process.Process]


def run(start: Start, wants_terminal: bool, detach: bool) -> int:
    """Run a program, attached to this process's streams.

    :param start: function that starts the program with a terminal or without
    :param wants_terminal: True if the program gets a terminal
    :param detach: True if the program is left running when this process is to
        end
    :returns: exit code
    """
    is_tty = wants_terminal and sys.stdin is not None and os.isatty(0)
    size = terminal.of(0) if wants_terminal else None
    with interrupts.raised(), contextlib.ExitStack() as stack:
        try:
            program = start(size)
            session = Session(program, is_tty, detach)
            if is_tty:
                interrupts.tell(
                    f'Command {program.id}: ~. at the beginning of a line '
                    + ('leaves it' if detach else 'cancels it')
                )
                stack.enter_context(terminal.resized(session.resized))
                stack.enter_context(terminal.raw(0))
        except interrupts.Interrupted as error:
            return 128 + error.number
        code = session.run()
    if session.last_words:
        interrupts.tell(session.last_words)
    return code
