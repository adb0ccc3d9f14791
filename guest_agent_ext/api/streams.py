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

"""The streams of attached commands, by calls of their hosts.

A request that waits holds a thread of this process, and asks the host again
and again by calls that are answered within a second or so. Everything may be
repeated, as each byte has its offset.
"""

from collections.abc import Callable
import time
from typing import TypeVar

from oslo_log import log as logging
import webob.exc

from guest_agent_ext import backoff
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import nova_types
from guest_agent_ext import rpc
from guest_agent_ext.api import output
from guest_agent_ext.api import raw
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation
from guest_agent_ext.api import waiting
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF
LOG = logging.getLogger(__name__)

_Answer = TypeVar('_Answer')

#: Seconds until a host is asked again that had nothing, by the time that was
#: waited so far.
GAPS = backoff.Proportional(shortest=0.02, longest=1.0, share=0.1)
#: Seconds that a request for input waits for a host that cannot take it now.
INPUT_WAIT = 5.0

_GONE = 'The output of %s before offset %d was acknowledged, and is gone'
_NOT_NOW = (
    'The guest agent service of the host does not answer now; repeat the '
    'request unchanged, nothing is lost'
)


def read(
    req: nova_types.Request,
    server: nova_types.InstanceMapping,
    row: models.Command,
    stream: str,
    offset: int,
) -> output.Piece:
    """Return output of an attached command, and acknowledge all before it.

    :param row: command, read with its output
    :param stream: ``out`` or ``err``
    :param offset: number of bytes of the stream before
    :raises exception.StreamRefused: it is gone, or another client is attached
    :raises exception.StreamUnanswered: the host does not answer now
    """
    seconds = min(int(req.GET.get('wait') or 0), CONF.guest_agent.max_wait)
    with waiting.slot(req.environ) as has_slot:
        request = _Request(req, server, row, seconds if has_slot else 0)
        while request.goes_on():
            if request.row.status in command.ENDED:
                return _recorded(request.row, stream, offset)
            found = request.ask_for(stream, offset)
            if found is not None and (found.data or found.is_complete):
                return output.Piece(offset, found.data, found.is_complete)
    if request.is_unanswered:
        raise exception.StreamUnanswered(_NOT_NOW)
    return output.Piece(offset, b'', is_complete=False)


def write(
    req: nova_types.Request,
    server: nova_types.InstanceMapping,
    row: models.Command,
) -> rpcapi.Accepted:
    """Hand the body of a request to an attached command as input.

    :raises exception.StreamRefused: input before it is missing, or another
        client is attached
    :raises exception.StreamUnanswered: the host does not answer now
    """
    data = _body_of(req)
    first = int(req.GET.get('offset') or 0)
    _check_attached(row)
    ends = req.GET.get('end') == 'true'
    accepted = rpcapi.Accepted(first, is_closed=False)
    request = _Request(req, server, row, INPUT_WAIT)
    while request.goes_on():
        if request.row.status in command.ENDED:
            servers.conflict('Command %s has already ended' % row.uuid)
        rest = data[accepted.next_offset - first :]
        answer = request.hand_over(accepted.next_offset, rest, ends)
        if answer is None:
            continue
        is_full = answer.next_offset == accepted.next_offset
        accepted = answer
        if is_full or accepted.next_offset >= first + len(data):
            return accepted
    if request.is_unanswered and accepted.next_offset == first:
        raise exception.StreamUnanswered(_NOT_NOW)
    return accepted


def resize(
    server: nova_types.InstanceMapping,
    row: models.Command,
    size: dict[str, int],
) -> None:
    """Set the size of the terminal of an attached command.

    :param size: columns and rows
    :raises exception.StreamRefused: it has none
    :raises exception.StreamUnanswered: the guest does not answer now
    """
    if 'terminal' not in row.arguments:
        servers.conflict('Command %s has no terminal' % row.uuid)
    _act(
        server,
        row,
        lambda host: host.resize(
            row.host,
            row.instance_uuid,
            row.uuid,
            size['columns'],
            size['rows'],
        ),
    )


def signal(
    server: nova_types.InstanceMapping, row: models.Command, name: str
) -> None:
    """Send a signal to the process group of a command.

    :param name: one of command.SIGNALS
    :raises exception.StreamRefused: there is none
    :raises exception.StreamUnanswered: the guest does not answer now
    """
    if row.type != command.EXEC:
        servers.conflict('Command %s runs no program' % row.uuid)
    _act(
        server,
        row,
        lambda host: host.signal(row.host, row.instance_uuid, row.uuid, name),
    )


def _act(
    server: nova_types.InstanceMapping,
    row: models.Command,
    act: Callable[[rpcapi.ComputeAPI], None],
) -> None:
    if row.status in command.ENDED:
        servers.conflict('Command %s has already ended' % row.uuid)
    if row.status == command.PENDING:
        servers.conflict('Command %s has not started yet' % row.uuid)
    with servers.asked(server, row.host) as host:
        try:
            act(host)
        except exception.StreamRefused as refusal:
            if refusal.kind != 'later':
                raise
            raise exception.StreamUnanswered(str(refusal)) from None


class _Request:
    """One request, which may ask its host more than once.

    :param seconds: seconds to wait
    :ivar row: command as it is
    :ivar is_unanswered: whether the host did not answer the last call
    """

    def __init__(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        row: models.Command,
        seconds: float,
    ) -> None:
        self.row = row
        self.is_unanswered = False
        #: Whether the row may say why the host has nothing.
        self._is_stale = False
        self._server = server
        self._name = req.GET.get('client') or ''
        self._takes_over = req.GET.get('take_over') == 'true'
        self._began = time.monotonic()
        self._seconds = seconds
        self._asked_at: float | None = None
        self._compute_api: rpcapi.ComputeAPI | None = None

    def goes_on(self) -> bool:
        """Wait until the host is to be asked again.

        :returns: whether it is; else the time is over
        """
        now = time.monotonic()
        if self._asked_at is None:
            return True
        if now - self._began >= self._seconds:
            return False
        gap = GAPS.gap(now - self._began)
        if self._is_stale:
            self._read_again()
        # A call that took long has waited itself.
        time.sleep(max(0.0, self._asked_at + gap - time.monotonic()))
        return True

    def ask_for(self, stream: str, offset: int) -> rpcapi.StreamOutput | None:
        """Ask for output; None if the host does not answer now."""
        return self._asked(
            lambda host: host.read_stream(
                self.row.host,
                self.row.instance_uuid,
                self.row.uuid,
                self._client(),
                stream,
                offset,
                self._wait(),
            )
        )

    def hand_over(
        self, offset: int, data: bytes, ends: bool
    ) -> rpcapi.Accepted | None:
        """Hand over input; None if the host does not answer now."""
        piece = data[: rpcapi.WRITE_CHUNK]
        return self._asked(
            lambda host: host.write_stream(
                self.row.host,
                self.row.instance_uuid,
                self.row.uuid,
                self._client(),
                offset,
                piece,
                ends and len(piece) == len(data),
                self._wait(),
            )
        )

    def _host_of(self, cell: nova_types.CellMapping) -> rpcapi.ComputeAPI:
        if self._compute_api is None:
            self._compute_api = rpcapi.ComputeAPI(servers.transport(cell))
        return self._compute_api

    def _client(self) -> rpcapi.Client:
        return rpcapi.Client(self._name, self._takes_over)

    def _wait(self) -> float:
        left = self._began + self._seconds - time.monotonic()
        return max(0.0, min(rpcapi.MAX_STREAM_WAIT, left))

    def _asked(
        self, call: Callable[[rpcapi.ComputeAPI], _Answer]
    ) -> _Answer | None:
        self._asked_at = time.monotonic()
        cell = self._server.cell_mapping
        if cell is None or self.row.host == models.NOWHERE:
            # The server has no host yet, so the command has not started.
            self.is_unanswered, self._is_stale = False, True
            return None
        try:
            answer = call(self._host_of(cell))
        except exception.HostUnreachable as error:
            if error.cause == 'not offered':
                # To ask again is in vain.
                servers.conflict(rpc.no_answer(self.row.instance_uuid, error))
            LOG.debug('Host %s does not answer: %s', self.row.host, error)
            self.is_unanswered = self._is_stale = True
            return None
        except exception.StreamRefused as refusal:
            if refusal.kind not in ('later', 'ended'):
                raise
            self.is_unanswered, self._is_stale = False, True
            return None
        self.is_unanswered = self._is_stale = False
        # Once: who has lost the place since must not take it again.
        self._takes_over = False
        return answer

    def _read_again(self) -> None:
        # It may have ended, or its server moved.
        row = commands.get(self.row.uuid, with_output=True)
        if row is None:
            raise webob.exc.HTTPNotFound(
                explanation='Command %s could not be found.' % self.row.uuid
            )
        self.row = row


def _check_attached(row: models.Command) -> None:
    if not row.is_attached:
        servers.conflict(
            'Command %s is not attached: its request must say so' % row.uuid
        )


def _body_of(req: nova_types.Request) -> bytes:
    size = req.content_length
    if size is None:
        raise webob.exc.HTTPLengthRequired(
            explanation='Content-Length is missing; it must be the number of '
            'bytes of the body'
        )
    if size > command.MAX_STREAM_BYTES:
        raise webob.exc.HTTPRequestEntityTooLarge(
            explanation='The body must have at most %d bytes, not %d'
            % (command.MAX_STREAM_BYTES, size)
        )
    data = raw.body_of(req).read(size)
    if len(data) < size:
        validation.bad_request(
            'The body ended after %d of %d bytes' % (len(data), size)
        )
    return data


def _recorded(row: models.Command, stream: str, offset: int) -> output.Piece:
    """Return what is recorded of an ended command behind an offset."""
    kept = output.recorded(row, stream, offset)
    written: int = getattr(row, stream + '_bytes') or 0
    until = kept.offset + len(kept.data)
    if row.status != command.COMPLETED or until >= written:
        return kept
    if not kept.data or kept.offset > offset:
        raise exception.StreamRefused('gone', _GONE % (stream, written))
    return output.Piece(kept.offset, kept.data, is_complete=False)
