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

"""Ends of the client's own life, as exceptions."""

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import types
from typing import BinaryIO

HANGUP, PIPE = signal.SIGHUP, signal.SIGPIPE
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal, or the closed end of a pipe, that asks the client to end.

    :ivar number: number of the signal; SIGPIPE for a pipe
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raise ``Interrupted`` in the main thread when a signal arrives.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    before = {
        number: signal.getsignal(number)
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        for number in before:
            signal.signal(number, _raise)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def close(stream: BinaryIO) -> None:
    """Send all that is written to a closed pipe from now on to nowhere.

    Python flushes once more at its exit, and would complain.
    """
    with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def write(stream: BinaryIO, data: bytes) -> None:
    """Write to a stream at once.

    :raises Interrupted: nobody reads the other end of the pipe
    """
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        close(stream)
        raise Interrupted(PIPE) from None


def tell(text: str) -> None:
    """Write a line to stderr if there is somebody who can read it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + '\n')
        sys.stderr.flush()


def _raise(number: int, _frame: types.FrameType | None) -> None:
    raise Interrupted(number)
