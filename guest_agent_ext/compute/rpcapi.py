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

"""What nova-api and the conductor ask of guest-agent-compute.

Version history of the API:

    * 1.0 - Initial version: work, agent_status, read_output, open_file,
      read_chunk, write_chunk, commit, abort.
"""

import base64
from typing import Any
from typing import Literal
from typing import TypedDict

import oslo_messaging

from guest_agent_ext import rpc

TOPIC = 'guest_agent_compute'
#: What the other side offers at most.
VERSION = '1.0'
#: What a call asks for that names no version of its own: what every release
#: offers. A call that came later names the version that it came with, so that
#: all others are taken by services that are not upgraded yet.
BASE_VERSION = '1.0'

#: Seconds that a call waits for its answer.
TIMEOUT = 15
#: Likewise, for the opening of a file: its host asks its conductor and, more
#: than once, the guest.
OPEN_TIMEOUT = 45

#: Bytes of a file that one message carries.
READ_CHUNK = 256 * 1024
WRITE_CHUNK = 128 * 1024

#: Why a transfer cannot be made, or cannot go on.
RefusalKind = Literal[
    # The guest has no such file.
    'missing',
    # It is no file: a directory, a device.
    'unsuitable',
    # The guest's system or its agent refuses.
    'refused',
    # The host has as many transfers as it may have.
    'busy',
    # Not now: the guest does not answer. The same call may be made again.
    'later',
    # There is no such transfer, or it has ended; the command's row knows why.
    'ended',
]


class AgentStatus(TypedDict):
    """What is known of a guest's agent."""

    #: Why no command can be run there, in words for the tenant; None if one
    #: can.
    reason: str | None
    version: str | None
    os: str | None
    supported_commands: list[str] | None
    #: launcher.Execution
    execution: str | None


class Output(TypedDict):
    """Some of what a command has written."""

    #: base64
    data: str
    #: Why it cannot be read, in words for the tenant; None if it was.
    reason: str | None


class Refusal(TypedDict):
    """Why a transfer cannot be made, or cannot go on."""

    kind: RefusalKind
    #: In words for the tenant.
    message: str


class Opened(TypedDict):
    """A file that was opened."""

    refusal: Refusal | None
    #: Bytes of a file to be read; 0 for one to be written.
    size: int
    #: The whole file to be read, in base64, where it has at most READ_CHUNK
    #: bytes: then its transfer has completed. Otherwise None.
    data: str | None


class Chunk(TypedDict):
    """A piece of a file."""

    refusal: Refusal | None
    #: base64
    data: str


def data_of(chunk: Chunk) -> bytes:
    """Return the bytes of a piece of a file."""
    return base64.b64decode(chunk['data'])


class Progress(TypedDict):
    """How far a transfer is."""

    refusal: Refusal | None
    #: Whether what was asked for is done; otherwise ask again.
    done: bool


def unavailable(reason: str | None) -> AgentStatus:
    """Return the status of an agent of which no more is known."""
    return {
        'reason': reason,
        'version': None,
        'os': None,
        'supported_commands': None,
        'execution': None,
    }


class ComputeAPI:
    """Client of the compute services of one cell.

    :param transport: oslo.messaging transport of the cell
    """

    def __init__(self, transport: Any) -> None:
        # Nothing is tried again here: a call that waits for a broker to come
        # back would wait for ever.
        self._client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(topic=TOPIC, version=BASE_VERSION),
            retry=0,
        )

    def work(self, host: str) -> None:
        """Ring the doorbell: tell a host that it has work.

        It carries nothing: the host asks its conductor what there is.

        :raises oslo_messaging.MessagingException: the broker did not take it
        """
        self._cast(host, 'work')

    def agent_status(self, host: str, instance_uuid: str) -> AgentStatus:
        """Ask for the state of a guest's agent.

        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: AgentStatus = self._call(
            host, 'agent_status', instance_uuid=instance_uuid
        )
        return answer

    def read_output(
        self,
        host: str,
        instance_uuid: str,
        uuid: str,
        stream: str,
        offset: int,
    ) -> Output:
        """Ask for what a running command has written.

        :param stream: ``out`` or ``err``
        :param offset: bytes to leave out
        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: Output = self._call(
            host,
            'read_output',
            instance_uuid=instance_uuid,
            uuid=uuid,
            stream=stream,
            offset=offset,
        )
        return answer

    def open_file(self, host: str, instance_uuid: str, uuid: str) -> Opened:
        """Have a host begin a transfer, which stands in the database.

        :param uuid: of the command
        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: Opened = self._call(
            host,
            'open_file',
            OPEN_TIMEOUT,
            instance_uuid=instance_uuid,
            uuid=uuid,
        )
        return answer

    def read_chunk(
        self, host: str, uuid: str, offset: int, size: int
    ) -> Chunk:
        """Read a piece of a file; it may be read again.

        :param size: bytes, at most READ_CHUNK. What comes is as long, or the
            chunk is refused: a file that has become shorter is an error.
        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: Chunk = self._call(
            host, 'read_chunk', uuid=uuid, offset=offset, size=size
        )
        return answer

    def write_chunk(
        self, host: str, uuid: str, offset: int, data: bytes
    ) -> Progress:
        """Write a piece of a file; it may be written again.

        :param offset: from the beginning of what is written
        :param data: at most WRITE_CHUNK bytes
        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: Progress = self._call(
            host,
            'write_chunk',
            uuid=uuid,
            offset=offset,
            data=base64.b64encode(data).decode(),
        )
        return answer

    def commit(self, host: str, uuid: str, size: int, sha256: str) -> Progress:
        """Complete a transfer: put a written file in its place.

        To be called until it says that it is done: a large file takes the
        guest its time. A refusal is final, and the old file as it was.

        :param size: bytes that were read or written
        :param sha256: of what was written, in hexadecimal; empty for a read
        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: Progress = self._call(
            host, 'commit', uuid=uuid, size=size, sha256=sha256
        )
        return answer

    def abort(self, host: str, uuid: str, error: str) -> None:
        """Give a transfer up; a written file is as it was before.

        Nothing is waited for. A host that does not hear of it finds out when
        the transfer's lease ends.

        :param error: why, in words for the tenant
        :raises oslo_messaging.MessagingException: the broker did not take it
        """
        self._cast(host, 'abort', uuid=uuid, error=error)

    def _call(
        self, host: str, method: str, timeout: int = TIMEOUT, **arguments: Any
    ) -> Any:
        client = self._client.prepare(server=host, timeout=timeout)
        with rpc.errors():
            return client.call({}, method, **arguments)

    def _cast(self, host: str, method: str, **arguments: Any) -> None:
        with rpc.errors():
            self._client.prepare(server=host).cast({}, method, **arguments)
