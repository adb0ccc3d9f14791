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


"""A terminal with a client on it, and somebody who types."""

from collections.abc import Callable
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time


class Screen:
    """A terminal that somebody sits at.

    :ivar shown: what was shown behind what was expected last
    :param start: function that starts the client, with arguments of Popen
    """

    def __init__(
        self, start: Callable[..., subprocess.Popen[bytes]], *argv: str
    ) -> None:
        self.outer, self._inner = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self._inner)
        self.shown = b''
        self.process = start(
            *argv,
            stdin=self._inner,
            stdout=self._inner,
            stderr=self._inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.set_blocking(self.outer, False)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(
            self._inner,
            termios.TIOCSWINSZ,
            struct.pack('4H', rows, columns, 0, 0),
        )

    def expect(self, pattern: bytes) -> bytes:
        """Wait until something is shown; return all up to its end."""
        deadline = time.monotonic() + 180
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, self.shown[-3000:]
            time.sleep(0.02)
            # All that there is: it is searched from its beginning each time.
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self.outer, 65536):
                    self.shown += data
        self.shown = self.shown[found.end() :]
        return found.string[: found.end()]

    def type(self, keys: bytes) -> None:
        os.write(self.outer, keys)

    def end(self) -> int:
        """Wait for the end of the client, whose terminal is sane again."""
        code = self.process.wait(180)
        assert termios.tcgetattr(self._inner) == self.before
        os.close(self.outer)
        os.close(self._inner)
        return code
