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

"""Drives the transfer of a file from nova-api; the server's host makes it."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import hashlib
import threading
import time
from typing import TypeVar

from oslo_context import context as oslo_context
from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import exception
from guest_agent_ext import rpc
from guest_agent_ext.api import raw
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import models

LOG = logging.getLogger(__name__)

#: Chunks of one transfer that are on their way at once.
IN_FLIGHT = 2
#: Seconds for which a call that failed is repeated.
PATIENCE = 30.0
#: Seconds between two such calls.
RETRY_GAP = 0.5

_Answer = TypeVar('_Answer')


class TransferClient:
    """Drives a transfer that is recorded.

    Its errors name the transfer's command.

    :param transport: oslo.messaging transport of the server's cell
    :param row: command of the transfer
    :ivar uuid: uuid of the command
    """

    def __init__(
        self, transport: oslo_messaging.Transport, row: models.Command
    ) -> None:
        self.uuid = row.uuid
        self._host = row.host
        self._instance_uuid = row.instance_uuid
        self._compute = rpcapi.ComputeAPI(transport)
        self._given_up = threading.Event()
        self._is_over = False

    def open(self) -> rpcapi.OpenedFile:
        """Begin the transfer.

        :raises exception.TransferRefused: the host will not begin
        :raises exception.TransferUnanswered: the host may have begun
        """
        with self._errors():
            opened = self._compute.open_file(
                self._host, self._instance_uuid, self.uuid
            )
        self._is_over = opened.data is not None
        return opened

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a file in pieces.

        :param start: offset of the first byte
        :param stop: offset of the byte behind the last
        :raises exception.TransferRefused: the bytes cannot be read
        :raises exception.TransferUnanswered: the host does not answer
        """
        pieces = iter(range(start, stop, rpcapi.READ_CHUNK))

        def ask(offset: int) -> bytes:
            size = min(rpcapi.READ_CHUNK, stop - offset)
            return self._patiently(
                lambda: self._compute.read_chunk(
                    self._host, self.uuid, offset, size
                )
            )

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

    def write(self, body: raw.Body, size: int, sha256: bytes | None) -> str:
        """Write a body.

        :param size: number of bytes that the client announced
        :param sha256: SHA-256 that the client announced, if any
        :returns: its SHA-256 in hexadecimal
        :raises exception.BodyEnded: the body is shorter than ``size``
        :raises exception.DigestMismatch: the body has another SHA-256
        :raises exception.TransferRefused: the bytes cannot be written
        :raises exception.TransferUnanswered: the host does not answer
        """
        digest = hashlib.sha256()
        waiting: collections.deque[futures.Future[None]] = collections.deque()

        def send(offset: int, data: bytes) -> None:
            self._patiently(
                lambda: self._compute.write_chunk(
                    self._host, self.uuid, offset, data
                )
            )

        with self._in_flight() as pool:
            for offset in range(0, size, rpcapi.WRITE_CHUNK):
                data = self._next_piece(body, offset, size)
                digest.update(data)
                if len(waiting) == IN_FLIGHT:
                    waiting.popleft().result()
                waiting.append(pool.submit(send, offset, data))
            for written in waiting:
                written.result()
        if sha256 is not None and sha256 != digest.digest():
            raise exception.DigestMismatch(
                'The body has the SHA-256 %s, not %s as Content-Digest says'
                % (digest.hexdigest(), sha256.hex()),
                self.uuid,
            )
        return digest.hexdigest()

    def commit(self, size: int, sha256: str = '') -> None:
        """Complete the transfer.

        :param size: number of bytes that were read or written
        :param sha256: SHA-256 of what was written, in hexadecimal; empty for
            a read
        :raises exception.TransferRefused: the transfer cannot be completed
        :raises exception.TransferUnanswered: it may be completed, or not
        """
        while not self._patiently(
            lambda: self._compute.commit(self._host, self.uuid, size, sha256)
        ):
            pass
        self._is_over = True

    def abort(self, error: str) -> None:
        """Abort the transfer, unless the end has come.

        A host that this does not reach ends the transfer by itself.

        :param error: reason, in words for the tenant
        """
        if self._is_over:
            return
        self._is_over = True
        self._given_up.set()
        try:
            self._compute.abort(self._host, self.uuid, error)
        except exception.HostUnreachable as problem:
            LOG.info(
                'Host %(host)s was not told to abort %(uuid)s: %(problem)s',
                {'host': self._host, 'uuid': self.uuid, 'problem': problem},
            )

    def _next_piece(self, body: raw.Body, offset: int, size: int) -> bytes:
        wanted = min(rpcapi.WRITE_CHUNK, size - offset)
        try:
            data = body.read(wanted)
        except OSError:
            data = b''
        if len(data) < wanted:
            raise exception.BodyEnded(
                'The body ended after %d of %d bytes'
                % (offset + len(data), size),
                self.uuid,
            )
        return data

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[futures.ThreadPoolExecutor]:
        """Yield threads for calls that are under way at the same time."""
        pool = futures.ThreadPoolExecutor(
            IN_FLIGHT,
            thread_name_prefix='guest-agent-file',
            initializer=_log_as,
            initargs=(oslo_context.get_current(),),
        )
        try:
            yield pool
        except BaseException:
            # Nobody waits for the calls that are still repeated.
            self._given_up.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _patiently(self, call: Callable[[], _Answer]) -> _Answer:
        """Make a call, again while that may help.

        :param call: a call that may be made more than once
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._errors():
                    return call()
            except exception.TransferUnanswered as error:
                problem: exception.TransferError = error
            except exception.TransferRefused as refusal:
                problem = refusal
                if refusal.kind != 'later':
                    raise
            if time.monotonic() > deadline or self._given_up.wait(RETRY_GAP):
                raise problem

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise the errors of a call so that they name the command."""
        try:
            yield
        except exception.TransferRefused as refusal:
            refusal.command_uuid = self.uuid
            raise
        except exception.HostUnreachable as error:
            LOG.warning(
                'Host %(host)s does not answer about %(uuid)s: %(error)s',
                {'host': self._host, 'uuid': self.uuid, 'error': error},
            )
            raise exception.TransferUnanswered(
                rpc.no_answer(self._instance_uuid, error), self.uuid
            ) from None


def _log_as(request: oslo_context.RequestContext | None) -> None:
    """Make the log lines of this thread name a request and its user.

    :param request: context of the request, None outside of one
    """
    if request is not None:
        request.update_store()
