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

"""Reads the databases of cells, each cell's in threads of its own.

Nova's own pool serves all cells with five threads: reads of one cell that
hangs would occupy all five, and no server of any other cell could be read.
"""

from collections.abc import Callable
from concurrent import futures
import os
import threading
import time
from typing import TypeVar

from oslo_log import log as logging

from guest_agent_ext import exception

LOG = logging.getLogger(__name__)

#: Reads of one cell that are under way at once in this process, including
#: those that nobody waits for any longer.
MAX_READS = 8
#: Requests that wait for a read of one cell to begin.
MAX_WAITING = 128

_Found = TypeVar('_Found')


class Reads:
    """The reads of one cell, each in a thread of its own."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(MAX_READS)
        self._queue = threading.BoundedSemaphore(MAX_WAITING)

    def run(self, read: Callable[[], _Found], seconds: float) -> _Found:
        """Run a read in a thread; return its result or raise its error.

        :param read: function that reads
        :param seconds: seconds to wait altogether; a read that begins has at
            least half of them
        :raises exception.ReadNotBegun: too many reads are under way, which
            tells nothing of the cell
        :raises exception.ReadNotEnded: the cell did not answer in time
        """
        deadline = time.monotonic() + seconds
        if not self._queue.acquire(blocking=False):
            raise exception.ReadNotBegun
        try:
            if not self._slots.acquire(timeout=seconds / 2):
                raise exception.ReadNotBegun
        finally:
            self._queue.release()
        found: futures.Future[_Found] = futures.Future()
        self._start(read, found)
        futures.wait([found], deadline - time.monotonic())
        if not found.done():
            raise exception.ReadNotEnded
        return found.result()

    def _start(
        self, read: Callable[[], _Found], found: futures.Future[_Found]
    ) -> None:
        # A daemon thread: a cell that hangs must not delay the process's end.
        thread = threading.Thread(
            target=self._read,
            args=(read, found),
            daemon=True,
            name='guest-agent-cell-read',
        )
        try:
            thread.start()
        except RuntimeError as exc:
            LOG.warning('No thread to read a cell: %s', exc)
            self._slots.release()
            raise exception.ReadNotBegun from None

    def _read(
        self, read: Callable[[], _Found], found: futures.Future[_Found]
    ) -> None:
        try:
            found.set_result(read())
        except Exception as exc:
            # run() raises it, if somebody still waits.
            found.set_exception(exc)
        finally:
            self._slots.release()


_reads: dict[tuple[int, str], Reads] = {}


def of(cell_uuid: str) -> Reads:
    """Return the reads of a cell."""
    # By process: after a fork the threads are gone, but their slots are not.
    return _reads.setdefault((os.getpid(), cell_uuid), Reads())
