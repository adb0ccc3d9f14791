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


"""Drives the transfer of a file, which its host makes."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import hashlib
import threading
import time
from typing import Any
from typing import TypeVar

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext.api import raw
from guest_agent_ext.compute import rpcapi

LOG = logging.getLogger(__name__)

#: Chunks of one transfer that are on their way at once.
IN_FLIGHT = 2
#: Seconds for which what a host did not do is asked for again, and between
#: two times.
PATIENCE = 30.0
RETRY_GAP = 0.5

_Answer = TypeVar('_Answer', bound=Any)


class Refused(Exception):
    """The host, or the guest, refuses.

    :ivar kind: rpcapi.RefusalKind
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NoAnswer(Exception):
    """The host does not answer: what became of a request is not known."""


class BodyEnded(Exception):
    """The client has sent less than it said."""


class Transfer:
    """A transfer, as its host makes it.

    :param transport: oslo.messaging transport of the server's cell
    :param row: models.Command
    """

    def __init__(self, transport: Any, row: Any) -> None:
        self.uuid: str = row.uuid
        self._host: str = row.host
        self._instance_uuid: str = row.instance_uuid
        self._compute = rpcapi.ComputeAPI(transport)
        self._given_up = threading.Event()
        self._is_over = False

    def open(self) -> rpcapi.Opened:
        """Have the host begin.

        :raises Refused: it will not
        :raises NoAnswer: it may have begun
        """
        try:
            opened = self._compute.open_file(
                self._host, self._instance_uuid, self.uuid
            )
        except oslo_messaging.MessagingException as error:
            raise self._no_answer(error) from None
        _check(opened['refusal'])
        self._is_over = opened['data'] is not None
        return opened

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a file from ``start`` to ``stop``.

        :raises Refused: they cannot be had
        :raises NoAnswer: likewise
        """
        pieces = iter(range(start, stop, rpcapi.READ_CHUNK))

        def ask(offset: int) -> bytes:
            size = min(rpcapi.READ_CHUNK, stop - offset)
            answer = self._patiently(
                lambda: self._compute.read_chunk(
                    self._host, self.uuid, offset, size
                )
            )
            return rpcapi.data_of(answer)

        with self._in_flight() as pool:
            waiting = collections.deque(
                pool.submit(ask, offset)
                for _, offset in zip(range(IN_FLIGHT), pieces, strict=False)
            )
            while waiting:
                data = waiting.popleft().result()
                for offset in pieces:
                    waiting.append(pool.submit(ask, offset))
                    break
                yield data

    def write(self, body: raw.Body, size: int) -> str:
        """Write a body.

        :returns: its SHA-256 in hexadecimal
        :raises BodyEnded: it is shorter than ``size``
        :raises Refused: it cannot be written
        :raises NoAnswer: likewise
        """
        digest = hashlib.sha256()
        waiting: collections.deque[futures.Future[Any]] = collections.deque()
        with self._in_flight() as pool:
            for offset in range(0, size, rpcapi.WRITE_CHUNK):
                data = _next_piece(body, offset, size)
                digest.update(data)
                if len(waiting) == IN_FLIGHT:
                    waiting.popleft().result()
                waiting.append(pool.submit(self._write, offset, data))
            for written in waiting:
                written.result()
        return digest.hexdigest()

    def commit(self, size: int, sha256: str = '') -> None:
        """Complete it.

        :raises Refused: it cannot be
        :raises NoAnswer: it may be completed, or not
        """
        while not self._patiently(
            lambda: self._compute.commit(self._host, self.uuid, size, sha256)
        )['done']:
            pass
        self._is_over = True

    def abort(self, error: str) -> None:
        """Give it up, unless it is over.

        A host that does not hear of it finds out by itself.
        """
        if self._is_over:
            return
        self._is_over = True
        self._given_up.set()
        try:
            self._compute.abort(self._host, self.uuid, error)
        except oslo_messaging.MessagingException as problem:
            LOG.info(
                'Host %(host)s was not told to abort %(uuid)s: %(problem)s',
                {'host': self._host, 'uuid': self.uuid, 'problem': problem},
            )

    def _write(self, offset: int, data: bytes) -> None:
        self._patiently(
            lambda: self._compute.write_chunk(
                self._host, self.uuid, offset, data
            )
        )

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[futures.ThreadPoolExecutor]:
        """Have calls made while others are answered."""
        pool = futures.ThreadPoolExecutor(
            IN_FLIGHT, thread_name_prefix='guest-agent-file'
        )
        try:
            yield pool
        except BaseException:
            # Nobody waits for what is still asked for.
            self._given_up.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _patiently(self, call: Callable[[], _Answer]) -> _Answer:
        """Make a call, and make it again where that may help."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = call()
                _check(answer['refusal'])
                return answer
            except oslo_messaging.MessagingException as error:
                problem: Exception = self._no_answer(error)
            except Refused as refusal:
                problem = refusal
                if refusal.kind != 'later':
                    raise
            if time.monotonic() > deadline or self._given_up.wait(RETRY_GAP):
                raise problem

    def _no_answer(self, error: Exception) -> NoAnswer:
        LOG.warning(
            'Host %(host)s does not answer about %(uuid)s: %(error)s',
            {'host': self._host, 'uuid': self.uuid, 'error': error},
        )
        return NoAnswer(
            'The guest agent service of the host of server %s does not '
            'answer; try again later' % self._instance_uuid
        )


def _check(refusal: rpcapi.Refusal | None) -> None:
    if refusal is not None:
        raise Refused(refusal['kind'], refusal['message'])


def _next_piece(body: raw.Body, offset: int, size: int) -> bytes:
    wanted = min(rpcapi.WRITE_CHUNK, size - offset)
    try:
        data = body.read(wanted)
    except OSError:
        data = b''
    if len(data) < wanted:
        raise BodyEnded(
            'The body ended after %d of %d bytes' % (offset + len(data), size)
        )
    return data
