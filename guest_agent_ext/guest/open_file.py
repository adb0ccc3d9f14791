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


"""A file that a guest's agent has open."""

import contextlib

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent

#: Maximum bytes of one call to the agent. A larger request jams the channel.
READ_CHUNK = 256 * 1024
WRITE_CHUNK = 128 * 1024


class OpenFile:
    """A file that a guest's agent has open.

    Offsets are bytes from the beginning of the file. Every method may be
    called again if its answer was lost, and raises exception.GuestError if no
    answer came.

    :ivar number: the agent's handle of the file, valid while the agent lives
    :param agent: the guest's agent
    """

    def __init__(self, agent: guest_agent.Agent, number: int) -> None:
        self.number = number
        self._agent = agent
        #: The agent's position in the file; None if not known.
        self._position: int | None = None
        self._is_closing = False

    def size(self) -> int:
        """Return the size of the file in bytes, as found by seeking."""
        self._position = None
        self._position = self._agent.file_seek(self.number, 0, 'end')
        return self._position

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset on, fewer only at the file's end.

        :param offset: position of the first byte
        :param size: number of bytes
        """
        self._go_to(offset)
        data = bytearray()
        while len(data) < size:
            self._position = None
            piece = self._agent.file_read(
                self.number, min(size - len(data), READ_CHUNK)
            )
            if not piece:
                return bytes(data)
            data += piece
            self._position = offset + len(data)
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset."""
        self._go_to(offset)
        written = 0
        while written < len(data):
            self._position = None
            count = self._agent.file_write(
                self.number, data[written : written + WRITE_CHUNK]
            )
            if count <= 0:
                raise exception.AgentError(
                    'The guest agent wrote nothing and gave no reason'
                )
            written += count
            self._position = offset + written

    def close(self) -> None:
        """Write the agent's buffer and close the file.

        :raises exception.AgentRefused: the buffer could not be written
        """
        may_be_closed, self._is_closing = self._is_closing, True
        try:
            self._agent.file_flush(self.number)
            self._agent.file_close(self.number)
        except exception.AgentRefused:
            if not may_be_closed:
                raise

    def discard(self) -> None:
        """Close the file without making sure that all is written."""
        # The file may be closed already, or gone with the agent.
        with contextlib.suppress(exception.AgentRefused):
            self._agent.file_close(self.number)

    def _go_to(self, offset: int) -> None:
        if self._position == offset:
            return
        self._position = None
        self._position = self._agent.file_seek(self.number, offset, 'set')
