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


"""The user's terminal, lent to a program in a server."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import re
import signal
import termios
import tty

from guest_agent_ext.sdk import process

#: Character behind a line's beginning that escapes, and what ends a session.
ESCAPE, END = b'~', b'.'
#: What the API takes for a terminal.
_LARGEST = 1000
_TERM = re.compile('[A-Za-z0-9._+-]{1,64}')
_NEW_LINES = b'\r\n'


class Escapes:
    """Looks for ``~.`` at the beginning of a line among what is typed.

    :ivar is_over: True once ``~.`` was typed
    """

    def __init__(self) -> None:
        self.is_over = False
        self._at_beginning = True
        self._is_held = False

    def filter(self, data: bytes) -> bytes:
        """Return what is to be sent of some bytes that were typed."""
        sent = bytearray()
        for char in (data[i : i + 1] for i in range(len(data))):
            if self._is_held:
                self._is_held = False
                if char == END:
                    self.is_over = True
                    break
                sent += ESCAPE
                if char == ESCAPE:
                    # Typed twice for itself.
                    self._at_beginning = False
                    continue
            elif self._at_beginning and char == ESCAPE:
                self._is_held = True
                continue
            sent += char
            self._at_beginning = char in _NEW_LINES
        return bytes(sent)


@contextlib.contextmanager
def raw(number: int) -> Iterator[None]:
    """Pass each key on as it is, and restore the terminal at the end.

    :param number: file descriptor of the terminal
    """
    before = termios.tcgetattr(number)
    try:
        # What was typed ahead is kept.
        tty.setraw(number, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextlib.contextmanager
def resized(call: Callable[[], None]) -> Iterator[None]:
    """Call a function, in the main thread, when the terminal is resized."""
    before = signal.signal(signal.SIGWINCH, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def of(number: int) -> process.Terminal:
    """Return what the user's terminal is like.

    :param number: file descriptor of the terminal
    """
    try:
        columns, rows = os.get_terminal_size(number)
    except OSError:
        columns = rows = 0
    term = os.environ.get('TERM', '')
    return process.Terminal(
        # Some terminals, and all that are none, say 0 by 0.
        min(columns or 80, _LARGEST),
        min(rows or 24, _LARGEST),
        term if _TERM.fullmatch(term) else 'xterm',
    )
