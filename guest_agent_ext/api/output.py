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

"""What a command has written, also while it runs."""

import base64
import dataclasses
from typing import Any

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext.api import servers
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import models

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of a stream.

    :ivar offset: of its first byte, counted in what the command wrote
    :ivar is_complete: nothing follows, now or later
    """

    offset: int
    data: bytes = dataclasses.field(repr=False)
    is_complete: bool

    def headers(self) -> dict[str, str]:
        """Return what tells of the piece."""
        prefix = 'OpenStack-Guest-Agent-'
        return {
            prefix + 'Offset': str(self.offset),
            prefix + 'Next-Offset': str(self.offset + len(self.data)),
            prefix + 'Complete': str(self.is_complete).lower(),
        }


def read(server: Any, row: models.Command, stream: str, offset: int) -> Piece:
    """Return what there is of a stream from an offset on.

    :param row: read with its output
    :param stream: ``out`` or ``err``
    :raises webob.exc.HTTPConflict: the guest, which has it, does not tell
    """
    if row.status in command.ENDED:
        return _recorded(row, stream, offset)
    if row.started_at is None or row.arguments.get('output_keep') == 'tail':
        # What the tail will be is known at the end.
        return Piece(offset, b'', is_complete=False)
    return Piece(offset, _ask(server, row, stream, offset), is_complete=False)


def _recorded(row: models.Command, stream: str, offset: int) -> Piece:
    data: bytes = getattr(row, stream + '_data') or b''
    start = 0
    if row.arguments.get('output_keep') == 'tail':
        written: int = getattr(row, stream + '_bytes') or 0
        start = max(0, written - len(data))
    first = max(offset, start)
    return Piece(first, data[first - start :], is_complete=True)


def _ask(server: Any, row: models.Command, stream: str, offset: int) -> bytes:
    try:
        answer = rpcapi.ComputeAPI(
            servers.transport(server.cell_mapping)
        ).read_output(row.host, row.instance_uuid, row.uuid, stream, offset)
    except oslo_messaging.MessagingException as error:
        LOG.warning(
            'Host %(host)s does not tell output: %(error)s',
            {'host': row.host, 'error': error},
        )
        servers.conflict(
            'The guest agent service of the host of server %s does not '
            'answer; try again later' % row.instance_uuid
        )
    if answer['reason'] is not None:
        servers.conflict(
            'The output cannot be read now: %s' % answer['reason']
        )
    return base64.b64decode(answer['data'])
