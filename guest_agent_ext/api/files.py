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

import base64
import binascii
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import hashlib
import re
from typing import Any
from typing import NoReturn

from oslo_log import log as logging
from oslo_utils import uuidutils
import webob.exc

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import policies
from guest_agent_ext.api import places
from guest_agent_ext.api import raw
from guest_agent_ext.api import recording
from guest_agent_ext.api import requests
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import transfers
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import commands

CONF = conf.CONF
LOG = logging.getLogger(__name__)

UUID_HEADER = 'X-Guest-Agent-Command-UUID'
#: Seconds from its record within which a host must have begun a transfer.
START_TIMEOUT = 60
_RETRY = {'Retry-After': '5'}

CLIENT_GONE = 'The client closed the connection after %d of %d bytes'

_ERRORS: Mapping[str, type[webob.exc.HTTPError]] = {
    'missing': webob.exc.HTTPNotFound,
    'unsuitable': webob.exc.HTTPBadRequest,
}
#: One range of bytes, as RFC 9110 has it. webob takes the first of many, and
#: finds a suffix that is longer than the file outside of it.
_RANGE = re.compile(r'bytes=(?!-$)(\d{0,18})-(\d{0,18})')
#: What a client sends of RFC 9530.
_DIGEST = re.compile(r'(?:^|,)\s*sha-256\s*=\s*([^,]*?)\s*(?=,|$)')

_places = places.Places()


class FilesController(wsgi.Controller):
    """``/servers/{server_id}/guest-agent/file-read`` and ``file-write``

    ``server`` is a nova.objects.InstanceMapping, found by servers.authorized.
    """

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409, 416, 429, 503)
    @servers.authorized(policies.FILE_READ)
    @validation.query_schema(schemas.file_read_query)
    def read(self, req: Any, server: Any) -> Any:
        """Send a file, or a range of it."""
        order = requests.Order(
            command.FILE_READ,
            {'path': req.GET['path']},
            None,
            CONF.guest_agent.transfer_timeout,
            START_TIMEOUT,
        )
        with contextlib.ExitStack() as ends:
            transfer, opened = _begin(req, server, order, ends)
            part = _part_of(req, transfer, opened)
            if opened['data'] is not None:
                data = base64.b64decode(opened['data'])
                return part.response(data[part.start : part.stop])
            # The stream outlives this call, and so does its place.
            return part.streamed(transfer, ends.pop_all())

    @wsgi.response(204)
    @wsgi.expected_errors(400, 403, 404, 409, 411, 413, 429, 503)
    @servers.authorized(policies.FILE_WRITE)
    @validation.query_schema(schemas.file_write_query)
    def write(self, req: Any, server: Any) -> Any:
        """Write a file; 204 says that it is written and in its place."""
        size = _size_of(req)
        digest = _digest_of(req)
        arguments = {'path': req.GET['path'], 'size': size}
        if 'mode' in req.GET:
            arguments['mode'] = req.GET['mode']
        if 'append' in req.GET:
            arguments['append'] = req.GET['append'] == 'true'
        order = requests.Order(
            command.FILE_WRITE,
            arguments,
            None,
            CONF.guest_agent.transfer_timeout,
            START_TIMEOUT,
        )
        with contextlib.ExitStack() as ends:
            transfer, _ = _begin(req, server, order, ends)
            with _refusals(transfer):
                written = transfer.write(raw.body_of(req), size)
                _check_digest(transfer, digest, written)
            _commit(transfer, size, written)
            return webob.Response(
                status=204, headers={UUID_HEADER: transfer.uuid}
            )


def _begin(
    req: Any, server: Any, order: requests.Order, ends: contextlib.ExitStack
) -> tuple[transfers.Transfer, rpcapi.Opened]:
    """Record a transfer and have it opened.

    :param ends: keeps a place of this process for it
    """
    if not ends.enter_context(_places.one(_limit(req.environ))):
        raise webob.exc.HTTPTooManyRequests(
            explanation='This nova-api has as many file transfers as it may '
            'have at once; try again',
            headers=_RETRY,
        )
    row = recording.accept(
        req.environ['nova.context'], server, uuidutils.generate_uuid(), order
    )
    transfer = transfers.Transfer(servers.transport(server.cell_mapping), row)
    try:
        return transfer, transfer.open()
    except transfers.NoAnswer as error:
        transfer.abort(str(error))
        _refuse_begun(transfer, 'later', str(error))
    except transfers.Refused as refusal:
        _refuse_begun(transfer, refusal.kind, str(refusal))


def _refuse_begun(
    transfer: transfers.Transfer, kind: str, message: str
) -> NoReturn:
    """Refuse what its host has not begun."""
    if kind == 'busy' and commands.withdraw(transfer.uuid):
        raise webob.exc.HTTPTooManyRequests(
            explanation=message, headers=_RETRY
        )
    # A host that has claimed it ends it itself.
    commands.end(
        transfer.uuid,
        source=command.PENDING,
        status=command.FAILED,
        error=message,
    )
    _refuse(transfer, kind, message)


def _refuse(transfer: transfers.Transfer, kind: str, message: str) -> NoReturn:
    error = _ERRORS.get(kind, webob.exc.HTTPConflict)
    raise error(
        explanation=message, headers={UUID_HEADER: transfer.uuid}
    ) from None


@contextlib.contextmanager
def _refusals(transfer: transfers.Transfer) -> Iterator[None]:
    """Give a transfer up when something fails, and answer what."""
    try:
        yield
    except transfers.BodyEnded as error:
        transfer.abort(str(error))
        _refuse(transfer, 'unsuitable', str(error))
    except transfers.Refused as refusal:
        transfer.abort(str(refusal))
        _refuse(transfer, refusal.kind, str(refusal))
    except transfers.NoAnswer as error:
        transfer.abort(str(error))
        _refuse(transfer, 'later', str(error))
    except Exception:
        transfer.abort('nova-api failed during the transfer')
        raise


def _commit(transfer: transfers.Transfer, size: int, sha256: str) -> None:
    try:
        transfer.commit(size, sha256)
    except transfers.Refused as refusal:
        transfer.abort(str(refusal))
        _refuse(transfer, refusal.kind, str(refusal))
    except transfers.NoAnswer:
        raise webob.exc.HTTPServiceUnavailable(
            explanation='The host of the server did not answer when the file '
            'was to be put in its place: it may have been '
            'written. Command %s will tell.' % transfer.uuid,
            headers={UUID_HEADER: transfer.uuid, **_RETRY},
        ) from None


def _limit(environ: Mapping[str, Any]) -> int:
    limit: int | None = CONF.guest_agent.max_transfers
    return max(1, places.threads(environ) // 2) if limit is None else limit


def _size_of(req: Any) -> int:
    size: int | None = req.content_length
    if size is None:
        raise webob.exc.HTTPLengthRequired(
            explanation='Content-Length must be there: the bytes of the body'
        )
    bound: int = CONF.guest_agent.max_file_size
    if size > bound:
        raise webob.exc.HTTPRequestEntityTooLarge(
            explanation='The file must have at most %d bytes, not %d'
            % (bound, size)
        )
    return size


def _digest_of(req: Any) -> bytes | None:
    """Return the SHA-256 that a body is said to have, if it is said.

    :raises webob.exc.HTTPBadRequest: it is none
    """
    found = _DIGEST.search(req.headers.get('Content-Digest', ''))
    if found is None:
        return None
    text = found[1]
    digest = b''
    with contextlib.suppress(binascii.Error):
        digest = base64.b64decode(text[1:-1], validate=True)
    if text != _digest_item(digest) or len(digest) != 32:
        validation.bad_request(
            'sha-256 of Content-Digest must be the base64 of a SHA-256 '
            'between colons, as RFC 9530 has it'
        )
    return digest


def _digest_item(digest: bytes) -> str:
    return ':%s:' % base64.b64encode(digest).decode()


def _check_digest(
    transfer: transfers.Transfer, wanted: bytes | None, written: str
) -> None:
    if wanted is None or wanted.hex() == written:
        return
    raise transfers.Refused(
        'unsuitable',
        'The body has the SHA-256 %s, not %s as Content-Digest '
        'says' % (written, wanted.hex()),
    )


class Part:
    """What of a file is sent.

    :ivar start: its first byte
    :ivar stop: the byte behind its last
    :param uuid: of the command
    :param size: bytes of the file
    :param is_range: whether a range was asked for
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

    def response(self, data: bytes) -> Any:
        """Answer bytes that are here."""
        digest = _digest_item(hashlib.sha256(data).digest())
        return raw.response(
            data,
            {**self._headers, 'Content-Digest': 'sha-256=' + digest},
            self._status,
        )

    def streamed(
        self, transfer: transfers.Transfer, ends: contextlib.ExitStack
    ) -> Any:
        """Answer bytes as they come.

        :param ends: closed with the answer
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
    req: Any, transfer: transfers.Transfer, opened: rpcapi.Opened
) -> Part:
    """Return what a request asks for of a file.

    :raises webob.exc.HTTPRequestRangeNotSatisfiable: nothing that it has
    """
    size = opened['size']
    # With no validator of ours If-Range never holds.
    asked = _RANGE.fullmatch(req.headers.get('Range', ''))
    if (
        asked is None
        or 'If-Range' in req.headers
        or asked[1]
        and asked[2]
        and int(asked[1]) > int(asked[2])
    ):
        return Part(transfer.uuid, 0, size, size, is_range=False)
    start, stop = _bounds_of(asked[1], asked[2], size)
    if start >= stop:
        message = 'The file has %d bytes; the range is outside of it' % size
        transfer.abort(message)
        raise webob.exc.HTTPRequestRangeNotSatisfiable(
            explanation=message,
            headers={
                UUID_HEADER: transfer.uuid,
                'Content-Range': 'bytes */%d' % size,
            },
        )
    return Part(transfer.uuid, start, stop, size, is_range=True)


def _bounds_of(first: str, last: str, size: int) -> tuple[int, int]:
    """Return where a range begins, and where it has ended."""
    if not first:
        return max(0, size - int(last)), size
    stop = min(int(last) + 1, size) if last else size
    return int(first), stop


def _chunks(
    transfer: transfers.Transfer, start: int, stop: int
) -> Generator[bytes, None, None]:
    """Yield a file's bytes, and end its transfer.

    What fails here breaks the connection: the client has been told how long
    the file is, and must not take less for all of it.
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
    except (transfers.Refused, transfers.NoAnswer) as error:
        LOG.warning(
            'Transfer %(uuid)s broke after %(sent)d bytes: %(error)s',
            {'uuid': transfer.uuid, 'sent': sent, 'error': error},
        )
        transfer.abort(str(error))
        raise
