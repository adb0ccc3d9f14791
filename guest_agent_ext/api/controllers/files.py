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

"""Files in and out of servers, as streams of bytes."""

from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import hashlib

from oslo_log import log as logging
from oslo_utils import uuidutils
import webob
import webob.exc

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext.api import acceptance
from guest_agent_ext.api import command_request
from guest_agent_ext.api import errors
from guest_agent_ext.api import http_fields
from guest_agent_ext.api import raw
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import slots
from guest_agent_ext.api import transfer_client
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import commands

CONF = conf.CONF
LOG = logging.getLogger(__name__)

UUID_HEADER = errors.UUID_HEADER
#: Seconds after acceptance within which a host must have begun a transfer.
START_TIMEOUT = 60

#: Parameters that become what the file has in the guest.
_ATTRIBUTES = ('mode', 'owner', 'group')

CLIENT_GONE = 'The client closed the connection after %d of %d bytes'

_slots = slots.Slots()


class FilesController(wsgi.Controller):
    """``/servers/{server_id}/guest-agent/file-read`` and ``file-write``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409, 416, 429, 503)
    @servers.authorized(policies.FILE_READ)
    @validation.query_schema(schemas.file_read_query)
    def read(
        self, req: nova_types.Request, server: nova_types.InstanceMapping
    ) -> webob.Response:
        """Send a file, or a range of a file."""
        order = _order(command.FILE_READ, {'path': req.GET['path']})
        with contextlib.ExitStack() as ends:
            transfer, opened = _begin(req, server, order, ends)
            part = _part_of(req, transfer, opened.size)
            if opened.data is not None:
                return part.response(opened.data[part.start : part.stop])
            # The stream outlives this call, and so does its slot.
            return part.streamed(transfer, ends.pop_all())

    @wsgi.response(204)
    @wsgi.expected_errors(400, 403, 404, 409, 411, 413, 429, 503)
    @servers.authorized(policies.FILE_WRITE)
    @validation.query_schema(schemas.file_write_query)
    def write(
        self, req: nova_types.Request, server: nova_types.InstanceMapping
    ) -> webob.Response:
        """Write a file; 204 says that the file is complete and in place."""
        size = _size_of(req)
        digest = http_fields.sha256_of(req.headers)
        arguments: dict[str, object] = {'path': req.GET['path'], 'size': size}
        arguments.update(
            {name: req.GET[name] for name in _ATTRIBUTES if name in req.GET}
        )
        if 'append' in req.GET:
            arguments['append'] = req.GET['append'] == 'true'
        order = _order(command.FILE_WRITE, arguments)
        with contextlib.ExitStack() as ends:
            transfer, _ = _begin(req, server, order, ends)
            with _aborted_on_failure(transfer):
                written = transfer.write(raw.body_of(req), size, digest)
            _commit(transfer, size, written)
            return webob.Response(
                status=204, headers={UUID_HEADER: transfer.uuid}
            )


def _order(kind: str, arguments: dict[str, object]) -> command_request.Order:
    return command_request.Order(
        kind, arguments, None, CONF.guest_agent.transfer_timeout, START_TIMEOUT
    )


def _begin(
    req: nova_types.Request,
    server: nova_types.InstanceMapping,
    order: command_request.Order,
    ends: contextlib.ExitStack,
) -> tuple[transfer_client.TransferClient, rpcapi.OpenedFile]:
    """Record a transfer and open its file.

    :param ends: stack that holds a slot of this process from now on
    """
    limit: int | None = CONF.guest_agent.max_transfers
    if limit is None:
        limit = max(1, slots.threads(req.environ) // 2)
    if not ends.enter_context(_slots.one(limit)):
        raise exception.TooManyTransfers(
            'This nova-api has as many file transfers as it may have at once; '
            'try again'
        )
    row = acceptance.accept(
        wsgi.context_of(req), server, uuidutils.generate_uuid(), order
    )
    assert server.cell_mapping is not None
    transfer = transfer_client.TransferClient(
        servers.transport(server.cell_mapping), row
    )
    return transfer, _open(transfer)


def _open(transfer: transfer_client.TransferClient) -> rpcapi.OpenedFile:
    """Open the file of a transfer; end its command if that fails."""
    try:
        return transfer.open()
    except exception.TransferUnanswered as error:
        transfer.abort(str(error))
        problem: exception.TransferError = error
    except exception.TransferRefused as refusal:
        if refusal.kind == 'busy' and commands.withdraw(transfer.uuid):
            raise exception.TooManyTransfers(str(refusal)) from None
        problem = refusal
    # A host that has claimed the command ends it itself.
    commands.end(
        transfer.uuid,
        source=command.PENDING,
        status=command.FAILED,
        error=str(problem),
    )
    raise problem


@contextlib.contextmanager
def _aborted_on_failure(
    transfer: transfer_client.TransferClient,
) -> Iterator[None]:
    try:
        yield
    except exception.TransferError as error:
        transfer.abort(str(error))
        raise
    except Exception:
        transfer.abort('nova-api failed during the transfer')
        raise


def _commit(
    transfer: transfer_client.TransferClient, size: int, sha256: str
) -> None:
    try:
        transfer.commit(size, sha256)
    except exception.TransferRefused as refusal:
        transfer.abort(str(refusal))
        raise
    except exception.TransferUnanswered:
        raise exception.CommitUnanswered(
            'The host of the server did not answer when the file was to be '
            'moved to its destination: it may have been written. The status '
            'of command %s will tell' % transfer.uuid,
            transfer.uuid,
        ) from None


def _size_of(req: nova_types.Request) -> int:
    size = req.content_length
    if size is None:
        raise webob.exc.HTTPLengthRequired(
            explanation='Content-Length is missing; it must be the number of '
            'bytes of the body'
        )
    bound: int = CONF.guest_agent.max_file_size
    if size > bound:
        raise webob.exc.HTTPRequestEntityTooLarge(
            explanation='The file must have at most %d bytes, not %d'
            % (bound, size)
        )
    return size


class Part:
    """The part of a file that is sent.

    :param uuid: uuid of the command
    :param size: size of the file in bytes
    :param is_range: whether a range was asked for
    :ivar start: offset of the first byte
    :ivar stop: offset of the byte behind the last
    """

    def __init__(
        self, uuid: str, start: int, stop: int, size: int, *, is_range: bool
    ) -> None:
        self.start = start
        self.stop = stop
        self._status = 206 if is_range else 200
        self._headers = {UUID_HEADER: uuid, 'Accept-Ranges': 'bytes'}
        if is_range:
            self._headers['Content-Range'] = 'bytes %d-%d/%d' % (
                start,
                stop - 1,
                size,
            )

    def response(self, data: bytes) -> webob.Response:
        """Answer bytes that have been read."""
        digest = http_fields.content_digest(hashlib.sha256(data).digest())
        return raw.response(
            data, {**self._headers, 'Content-Digest': digest}, self._status
        )

    def streamed(
        self,
        transfer: transfer_client.TransferClient,
        ends: contextlib.ExitStack,
    ) -> webob.Response:
        """Answer bytes while they are read.

        :param ends: stack to close with the answer
        """
        chunks = _chunks(transfer, self.start, self.stop)
        # Where nothing was read at all, closing them does nothing.
        ends.callback(
            transfer.abort, CLIENT_GONE % (0, self.stop - self.start)
        )
        ends.callback(chunks.close)
        return raw.streamed(
            raw.Stream(chunks, ends.close),
            self.stop - self.start,
            self._headers,
            self._status,
        )


def _part_of(
    req: nova_types.Request,
    transfer: transfer_client.TransferClient,
    size: int,
) -> Part:
    """Return the part of a file that a request asks for.

    :raises webob.exc.HTTPRequestRangeNotSatisfiable: the range is outside the
        file
    """
    asked = http_fields.byte_range(req.headers, size)
    if asked is None:
        return Part(transfer.uuid, 0, size, size, is_range=False)
    start, stop = asked
    if start >= stop:
        message = 'The file has %d bytes; the range is outside the file' % size
        transfer.abort(message)
        raise webob.exc.HTTPRequestRangeNotSatisfiable(
            explanation=message,
            headers={
                UUID_HEADER: transfer.uuid,
                'Content-Range': 'bytes */%d' % size,
            },
        )
    return Part(transfer.uuid, start, stop, size, is_range=True)


def _chunks(
    transfer: transfer_client.TransferClient, start: int, stop: int
) -> Generator[bytes, None, None]:
    """Yield a file's bytes, and end its transfer.

    A failure here breaks the connection: the client has been told the file's
    size, and must not take fewer bytes for the whole file.
    """
    sent = 0
    try:
        for data in transfer.read(start, stop):
            yield data
            sent += len(data)
        transfer.commit(stop - start)
    except GeneratorExit:
        transfer.abort(CLIENT_GONE % (sent, stop - start))
        raise
    except exception.TransferError as error:
        LOG.warning(
            'Transfer %(uuid)s broke after %(sent)d bytes: %(error)s',
            {'uuid': transfer.uuid, 'sent': sent, 'error': error},
        )
        transfer.abort(str(error))
        raise exception.AnswerBroken(str(error)) from None
