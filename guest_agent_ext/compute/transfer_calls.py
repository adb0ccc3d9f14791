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

"""The mailbox between nova-api's calls for one file and the file's task.

A call waits in a thread of the RPC server while the lane makes the step that
answers it.
"""

import collections
from collections.abc import Callable
from concurrent import futures
import contextlib
import dataclasses
import threading

from guest_agent_ext import clock as system_clock
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi

CONF = conf.CONF

#: Seconds that nova-api waits for a file to be opened, and for an answer to
#: any other call: less than its RPC calls wait, so that it hears why.
OPEN_WAIT = rpcapi.OPEN_TIMEOUT - 5.0
ANSWER_WAIT = rpcapi.TIMEOUT - 5.0

NOT_IN_TIME = 'The server is busy with other commands; try again later'

_ENDED: rpcapi.Refusal = {'kind': 'ended', 'message': 'The transfer has ended'}
_NO_ANSWER: rpcapi.Refusal = {
    'kind': 'later',
    'message': 'The guest agent does not answer',
}
_NOT_IN_TIME: rpcapi.Refusal = {'kind': 'later', 'message': NOT_IN_TIME}


@dataclasses.dataclass(frozen=True)
class Request:
    """A chunk that nova-api waits for.

    :ivar offset: bytes of the transfer before the chunk
    :ivar size: bytes of the chunk
    :ivar data: chunk to be written, None for one to be read
    :ivar answer: chunk that was read, empty for one that was written
    """

    offset: int
    size: int
    data: bytes | None = dataclasses.field(repr=False)
    answer: 'futures.Future[bytes]' = dataclasses.field(
        default_factory=futures.Future
    )


class TransferCalls:
    """The calls for one file.

    Threads of the RPC server call open(), read(), write(), commit() and
    abort(), and wait in all but the last; ``lease_until``, ``to_commit`` and
    ``aborted`` are theirs to write. The task calls the other methods, in the
    lane's thread or, under the lane's lock, in the report's; ``refusal`` and
    ``_is_closed`` are its to write. What both sides write (the requests, the
    answers, the end) are a deque, futures and an event, which need no lock.

    :param clock: clock that waits are measured with
    :param rouse: function that makes the task's next step due
    :ivar lease_until: time from which on nova-api is taken to be gone
    :ivar to_commit: size in bytes and SHA-256 that nova-api asked to commit,
        None before
    :ivar aborted: reason that nova-api gave the transfer up for, None if it
        did not
    :ivar refusal: reason that the transfer ended for, None before and for one
        that is completed
    """

    def __init__(
        self, clock: system_clock.Clock, rouse: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._rouse = rouse
        self.lease_until = self._grace_from_now()
        self.to_commit: tuple[int, str] | None = None
        self.aborted: str | None = None
        self._opened: futures.Future[rpcapi.OpenedFile] = futures.Future()
        self._requests: collections.deque[Request] = collections.deque()
        self._ended = threading.Event()
        self._is_closed = False
        self.refusal: rpcapi.Refusal | None = None

    # Threads of the RPC server.

    def open(self) -> rpcapi.OpenedFile:
        """Wait until the file is open.

        :raises exception.TransferRefused: the file cannot be opened, or not
            in time
        """
        try:
            return self._opened.result(OPEN_WAIT)
        except futures.TimeoutError:
            self.abort(NOT_IN_TIME)
            raise exception.TransferRefused(**_NOT_IN_TIME) from None

    def read(self, offset: int, size: int) -> bytes:
        """Return a chunk of the file.

        :param offset: bytes of the file before the chunk
        :param size: bytes of the chunk
        :raises exception.TransferRefused: the chunk cannot be read, or not now
        """
        return self._ask(Request(offset, size, None))

    def write(self, offset: int, data: bytes) -> None:
        """Write a chunk of the file.

        :param offset: bytes of the transfer before the chunk
        :param data: chunk
        :raises exception.TransferRefused: the chunk cannot be written, or not
            now
        """
        self._ask(Request(offset, len(data), data))

    def commit(self, size: int, sha256: str) -> bool:
        """Complete the transfer, and wait a while for its end.

        :param size: bytes that were read or written
        :param sha256: hexadecimal hash of what was written; empty for a read
        :returns: whether the transfer is completed
        :raises exception.TransferRefused: the transfer has ended otherwise
        """
        self.to_commit = (size, sha256)
        self._renew()
        if not self._ended.wait(ANSWER_WAIT):
            return False
        if self.refusal is not None:
            raise exception.TransferRefused(**self.refusal)
        return True

    def abort(self, error: str) -> None:
        """End the transfer as FAILED.

        :param error: reason, in words for the tenant
        """
        self.aborted = self.aborted or error
        self._renew()

    def _ask(self, request: Request) -> bytes:
        self._requests.append(request)
        # Only now: whoever closes the mailbox refuses what was queued before.
        if self._is_closed:
            self._refuse_requests(self.refusal or _ENDED)
        self._renew()
        try:
            return request.answer.result(ANSWER_WAIT)
        except futures.TimeoutError:
            # Its step is not made any more, unless it is under way.
            request.answer.cancel()
            raise exception.TransferRefused(**_NO_ANSWER) from None

    def _renew(self) -> None:
        """Renew the lease, and have the task make a step."""
        self.lease_until = self._grace_from_now()
        self._rouse()

    # The task.

    @property
    def is_asked(self) -> bool:
        """Whether nova-api waits for a chunk."""
        return any(
            not request.answer.cancelled() for request in tuple(self._requests)
        )

    def next_request(self) -> Request | None:
        """Take the next chunk that nova-api still waits for."""
        # Threads of the RPC server take from the queue too, to refuse.
        with contextlib.suppress(IndexError):
            while True:
                request = self._requests.popleft()
                if request.answer.set_running_or_notify_cancel():
                    return request
        return None

    def answer_open(self, opened: rpcapi.OpenedFile) -> None:
        """Tell nova-api that the file is open.

        :param opened: size of the file, and all of it if it is small
        """
        self._opened.set_result(opened)

    def refuse(self, refusal: rpcapi.Refusal) -> None:
        """Refuse what nova-api waits for, but for the end of the transfer.

        :param refusal: kind and reason
        """
        # The lane and whoever drops the transfer may both want to tell.
        with contextlib.suppress(futures.InvalidStateError):
            self._opened.set_exception(exception.TransferRefused(**refusal))
        self._refuse_requests(refusal)

    def close(self, refusal: rpcapi.Refusal | None) -> None:
        """Refuse chunks from now on: the transfer is about to end.

        Who waits for the file to be opened, or for the end, is answered when
        the end is recorded.

        :param refusal: kind and reason, None for a transfer that completes
        """
        self.refusal = refusal
        self._is_closed = True
        self._refuse_requests(refusal or _ENDED)

    def end(self, refusal: rpcapi.Refusal | None) -> None:
        """Tell nova-api that the transfer has ended.

        :param refusal: kind and reason, unless the transfer was closed with
            others; None for a transfer that is completed
        """
        self._is_closed = True
        if refusal is not None:
            self.refusal = self.refusal or refusal
            self.refuse(refusal)
        self._ended.set()

    def _refuse_requests(self, refusal: rpcapi.Refusal) -> None:
        while (request := self.next_request()) is not None:
            request.answer.set_exception(exception.TransferRefused(**refusal))

    def _grace_from_now(self) -> float:
        return self._clock.now() + float(CONF.guest_agent.transfer_grace)
