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

"""Reads what a command has written, also while the command runs."""

import dataclasses

from guest_agent_ext import command
from guest_agent_ext import nova_types
from guest_agent_ext.api import servers
from guest_agent_ext.db import models


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of a stream.

    :ivar offset: number of bytes that the command wrote before the piece
    :ivar is_complete: whether nothing follows, now or later
    """

    offset: int
    data: bytes = dataclasses.field(repr=False)
    is_complete: bool

    def headers(self) -> dict[str, str]:
        """Return the headers that describe the piece."""
        prefix = 'OpenStack-Guest-Agent-'
        return {
            prefix + 'Offset': str(self.offset),
            prefix + 'Next-Offset': str(self.offset + len(self.data)),
            prefix + 'Complete': str(self.is_complete).lower(),
        }


def read(
    server: nova_types.InstanceMapping,
    row: models.Command,
    stream: str,
    offset: int,
) -> Piece:
    """Return what is kept of a stream behind an offset.

    :param row: command, read with its output
    :param stream: ``out`` or ``err``
    :raises webob.exc.HTTPConflict: the host does not answer
    :raises exception.OutputUnavailable: the guest does not answer
    """
    if row.status in command.ENDED:
        return recorded(row, stream, offset)
    if row.started_at is None or row.arguments.get('output_keep') == 'tail':
        # Which bytes are the tail is known at the end.
        return Piece(offset, b'', is_complete=False)
    with servers.asked(server, row.host) as host:
        data = host.read_output(
            row.host, row.instance_uuid, row.uuid, stream, offset
        )
    return Piece(offset, data, is_complete=False)


def recorded(row: models.Command, stream: str, offset: int) -> Piece:
    """Return what the database holds of a stream behind an offset.

    :param row: command that has ended, read with its output
    :param stream: ``out`` or ``err``
    """
    data: bytes = getattr(row, stream + '_data') or b''
    start = 0
    if row.arguments.get('output_keep') == 'tail':
        written: int = getattr(row, stream + '_bytes') or 0
        start = max(0, written - len(data))
    first = max(offset, start)
    return Piece(first, data[first - start :], is_complete=True)
