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

"""The RPC API of guest-agent-compute, for nova-api and the conductor.

Version history of the API:

    * 1.0 - Initial version: work, agent_status, agent_details, read_output,
      open_file, read_chunk, write_chunk, commit, abort.
    * 1.1 - read_stream, write_stream, resize, signal.
"""

import base64
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypedDict

import oslo_messaging

from guest_agent_ext import exception
from guest_agent_ext import rpc

TOPIC = 'guest_agent_compute'
#: The version that a service of this release offers.
VERSION = '1.1'
#: The version of a call that names none: every release offers it. A call that
#: was added later names the version that it came with, so that services that
#: are not upgraded yet accept all others.
BASE_VERSION = '1.0'
_STREAMS_VERSION = '1.1'

#: Seconds to wait for an answer.
TIMEOUT = 15
#: Seconds to wait for the opening of a file: the host asks its conductor and,
#: more than once, the guest.
OPEN_TIMEOUT = 45
#: Seconds to wait for an answer about an attached command, and that a host
#: may be asked to wait for output or room: in most calls of a session nothing
#: comes.
STREAM_TIMEOUT = 10
MAX_STREAM_WAIT = 5.0
#: Seconds to wait for the details of a guest: the host asks the guest for one
#: part after the other.
DETAILS_TIMEOUT = 30

#: Bytes of a file or a stream that one message carries.
READ_CHUNK = 256 * 1024
WRITE_CHUNK = 128 * 1024


class AgentStatus(TypedDict):
    """The status of a guest's agent."""

    #: Why no command can run, in words for the tenant; None if one can.
    reason: str | None
    version: str | None
    os: str | None
    supported_commands: list[str] | None
    #: launcher.Execution
    execution: str | None
    #: The types of commands that work in the guest; None if not known.
    command_types: list[str] | None
    #: Why attached commands cannot be run, by ``attach`` and ``terminal``;
    #: None if not known.
    unavailable: dict[str, str] | None


class Details(TypedDict):
    """What a guest's agent tells of the guest."""

    #: Why nothing is told, in words for the tenant, or None.
    reason: str | None
    #: Parts of details.PARTS by their names.
    details: dict[str, Any]
    #: Why a part is not told, in words for the tenant, by its name.
    unavailable: dict[str, str]


class Output(TypedDict):
    """A piece of what a command has written, as sent."""

    #: base64
    data: str
    #: Why the output cannot be read, in words for the tenant, or None.
    reason: str | None


class Refusal(TypedDict):
    """Why a transfer cannot be made, or cannot go on."""

    kind: exception.RefusalKind
    #: In words for the tenant.
    message: str


class Opened(TypedDict):
    """A file that was opened, as sent."""

    refusal: Refusal | None
    #: Size in bytes of a file to read; 0 for a file to write.
    size: int
    #: The whole file to read, in base64, if it has at most READ_CHUNK bytes:
    #: then its transfer has completed. Otherwise None.
    data: str | None


class Chunk(TypedDict):
    """A piece of a file, as sent."""

    refusal: Refusal | None
    #: base64
    data: str


class Progress(TypedDict):
    """The progress of a transfer, as sent."""

    refusal: Refusal | None
    #: Whether the step is complete; if not, ask again.
    done: bool


class StreamRefusal(TypedDict):
    """Why a call for an attached command is refused."""

    kind: exception.StreamRefusalKind
    #: In words for the tenant.
    message: str


class StreamPiece(TypedDict):
    """A piece of a stream, as sent."""

    refusal: StreamRefusal | None
    #: base64
    data: str
    #: Whether the offset that was asked for is the stream's end.
    complete: bool


class StreamProgress(TypedDict):
    """What a command has accepted, as sent."""

    refusal: StreamRefusal | None
    next_offset: int
    closed: bool


class Done(TypedDict):
    """Whether a call was carried out, as sent."""

    refusal: StreamRefusal | None


class Client(NamedTuple):
    """Who is attached to a command.

    :ivar name: name that the client has given itself
    :ivar takes_over: whether to take the place of another
    """

    name: str
    takes_over: bool


class StreamOutput(NamedTuple):
    """Output of an attached command.

    :ivar is_complete: whether the offset that was asked for is the stream's
        end
    """

    data: bytes
    is_complete: bool


class Accepted(NamedTuple):
    """Input of an attached command.

    :ivar next_offset: offset of what is to be sent next
    :ivar is_closed: whether the command takes no more
    """

    next_offset: int
    is_closed: bool


class OpenedFile(NamedTuple):
    """A file that was opened.

    :ivar size: size in bytes of a file to read; 0 for a file to write
    :ivar data: whole file to read, if it has at most READ_CHUNK bytes: then
        its transfer has completed. Otherwise None.
    """

    size: int
    data: bytes | None


def refusal_of(error: exception.TransferRefused) -> Refusal:
    """Return a refusal in the form of an answer."""
    return {'kind': error.kind, 'message': str(error)}


def stream_refusal_of(error: exception.StreamRefused) -> StreamRefusal:
    """Return a refusal in the form of an answer."""
    return {'kind': error.kind, 'message': str(error)}


def unavailable(reason: str | None) -> AgentStatus:
    """Return the status of an agent of which nothing else is known.

    :param reason: reason why no command can run, in words for the tenant
    """
    return {
        'reason': reason,
        'version': None,
        'os': None,
        'supported_commands': None,
        'execution': None,
        'command_types': None,
        'unavailable': None,
    }


class ComputeAPI:
    """Client of the compute services of one cell.

    :param transport: oslo.messaging transport of the cell
    """

    def __init__(self, transport: oslo_messaging.Transport) -> None:
        # No retries: a call that waits for a broker to come back would wait
        # for ever.
        self._client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(topic=TOPIC, version=BASE_VERSION),
            retry=0,
        )

    def work(self, host: str) -> None:
        """Ring the doorbell of a host that has work.

        The message carries no work: the host asks its conductor.

        :raises exception.HostUnreachable: the broker did not take it
        """
        self._cast(host, 'work')

    def agent_status(self, host: str, instance_uuid: str) -> AgentStatus:
        """Return the status of a guest's agent.

        :raises exception.HostUnreachable: the host did not answer
        """
        answer: AgentStatus = self._call(
            host, 'agent_status', instance_uuid=instance_uuid
        )
        return answer

    def agent_details(
        self,
        host: str,
        instance_uuid: str,
        fields: Sequence[str],
        user: str | None,
    ) -> Details:
        """Return what a guest's agent tells of the guest.

        :param fields: names of the parts to ask for
        :param user: user of the guest whose ssh keys are asked for
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: Details = self._call(
            host,
            'agent_details',
            DETAILS_TIMEOUT,
            instance_uuid=instance_uuid,
            fields=list(fields),
            user=user,
        )
        return answer

    def read_output(
        self,
        host: str,
        instance_uuid: str,
        uuid: str,
        stream: str,
        offset: int,
    ) -> bytes:
        """Return what a running command has written.

        :param stream: ``out`` or ``err``
        :param offset: number of bytes to leave out
        :raises exception.OutputUnavailable: the guest does not tell
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: Output = self._call(
            host,
            'read_output',
            instance_uuid=instance_uuid,
            uuid=uuid,
            stream=stream,
            offset=offset,
        )
        if answer['reason'] is not None:
            raise exception.OutputUnavailable(
                'The output cannot be read now: ' + answer['reason']
            )
        return base64.b64decode(answer['data'])

    def open_file(
        self, host: str, instance_uuid: str, uuid: str
    ) -> OpenedFile:
        """Begin a transfer that is recorded in the database.

        :param uuid: uuid of the command
        :raises exception.TransferRefused: the transfer cannot begin
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: Opened = self._call(
            host,
            'open_file',
            OPEN_TIMEOUT,
            instance_uuid=instance_uuid,
            uuid=uuid,
        )
        _check(answer['refusal'])
        data = answer['data']
        return OpenedFile(
            answer['size'], None if data is None else base64.b64decode(data)
        )

    def read_chunk(
        self, host: str, uuid: str, offset: int, size: int
    ) -> bytes:
        """Read a piece of a file; the same piece may be read again.

        :param size: number of bytes, at most READ_CHUNK. What comes is as
            long, or is refused: a file that has become shorter is an error.
        :raises exception.TransferRefused: the piece cannot be read
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: Chunk = self._call(
            host, 'read_chunk', uuid=uuid, offset=offset, size=size
        )
        _check(answer['refusal'])
        return base64.b64decode(answer['data'])

    def write_chunk(
        self, host: str, uuid: str, offset: int, data: bytes
    ) -> None:
        """Write a piece of a file; the same piece may be written again.

        :param offset: number of bytes before the piece
        :param data: piece, at most WRITE_CHUNK bytes
        :raises exception.TransferRefused: the piece cannot be written
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: Progress = self._call(
            host,
            'write_chunk',
            uuid=uuid,
            offset=offset,
            data=base64.b64encode(data).decode(),
        )
        _check(answer['refusal'])

    def commit(self, host: str, uuid: str, size: int, sha256: str) -> bool:
        """Complete a transfer: move a written file to its destination.

        A refusal is final, and the old file as it was.

        :param size: number of bytes that were read or written
        :param sha256: SHA-256 of what was written, in hexadecimal; empty for
            a read
        :returns: whether the transfer is complete; if not, call again: a
            large file takes the guest its time
        :raises exception.TransferRefused: the transfer cannot be completed
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: Progress = self._call(
            host, 'commit', uuid=uuid, size=size, sha256=sha256
        )
        _check(answer['refusal'])
        return answer['done']

    def abort(self, host: str, uuid: str, error: str) -> None:
        """Abort a transfer; a file that was to be written stays unchanged.

        Nobody waits for an answer. A host that this does not reach aborts when
        the transfer's lease ends.

        :param error: reason, in words for the tenant
        :raises exception.HostUnreachable: the broker did not take it
        """
        self._cast(host, 'abort', uuid=uuid, error=error)

    def read_stream(
        self,
        host: str,
        instance_uuid: str,
        uuid: str,
        client: Client,
        stream: str,
        offset: int,
        wait: float,
    ) -> StreamOutput:
        """Read output of an attached command, at most READ_CHUNK bytes.

        :param uuid: uuid of the command
        :param stream: ``out`` or ``err``
        :param offset: number of bytes before; the guest may forget those
        :param wait: seconds to wait if there is none yet, at most
            MAX_STREAM_WAIT
        :raises exception.StreamRefused: there is none, or not now
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: StreamPiece = self._stream_call(
            host,
            'read_stream',
            instance_uuid=instance_uuid,
            uuid=uuid,
            client=client.name,
            take_over=client.takes_over,
            stream=stream,
            offset=offset,
            wait=wait,
        )
        return StreamOutput(
            base64.b64decode(answer['data']), answer['complete']
        )

    def write_stream(
        self,
        host: str,
        instance_uuid: str,
        uuid: str,
        client: Client,
        offset: int,
        data: bytes,
        end: bool,
        wait: float,
    ) -> Accepted:
        """Hand input to an attached command.

        :param uuid: uuid of the command
        :param offset: number of bytes of input before data
        :param data: at most WRITE_CHUNK bytes
        :param end: whether the input ends behind data
        :param wait: seconds to wait if the window is full, at most
            MAX_STREAM_WAIT
        :raises exception.StreamRefused: it is not accepted, or not now
        :raises exception.HostUnreachable: the host did not answer
        """
        answer: StreamProgress = self._stream_call(
            host,
            'write_stream',
            instance_uuid=instance_uuid,
            uuid=uuid,
            client=client.name,
            take_over=client.takes_over,
            offset=offset,
            data=base64.b64encode(data).decode(),
            end=end,
            wait=wait,
        )
        return Accepted(answer['next_offset'], answer['closed'])

    def resize(
        self, host: str, instance_uuid: str, uuid: str, columns: int, rows: int
    ) -> None:
        """Set the size of a command's terminal.

        :param uuid: uuid of the command
        :raises exception.StreamRefused: it has none, or not now
        :raises exception.HostUnreachable: the host did not answer
        """
        self._stream_call(
            host,
            'resize',
            instance_uuid=instance_uuid,
            uuid=uuid,
            columns=columns,
            rows=rows,
        )

    def signal(
        self, host: str, instance_uuid: str, uuid: str, name: str
    ) -> None:
        """Send a signal to a command's process group.

        :param uuid: uuid of the command
        :param name: one of command.SIGNALS
        :raises exception.StreamRefused: there is none, or not now
        :raises exception.HostUnreachable: the host did not answer
        """
        self._stream_call(
            host, 'signal', instance_uuid=instance_uuid, uuid=uuid, name=name
        )

    def _stream_call(self, host: str, method: str, **arguments: Any) -> Any:
        answer = self._call(
            host, method, STREAM_TIMEOUT, _STREAMS_VERSION, **arguments
        )
        refusal = answer['refusal']
        if refusal is not None:
            raise exception.StreamRefused(refusal['kind'], refusal['message'])
        return answer

    def _call(
        self,
        host: str,
        method: str,
        timeout: int = TIMEOUT,
        version: str = BASE_VERSION,
        **arguments: Any,
    ) -> Any:
        client = self._client.prepare(
            server=host, timeout=timeout, version=version
        )
        with rpc.errors(exception.HostUnreachable):
            return client.call({}, method, **arguments)

    def _cast(self, host: str, method: str, **arguments: Any) -> None:
        with rpc.errors(exception.HostUnreachable):
            self._client.prepare(server=host).cast({}, method, **arguments)


def _check(refusal: Refusal | None) -> None:
    if refusal is not None:
        # Not by its keys: those of a later release may be more.
        raise exception.TransferRefused(refusal['kind'], refusal['message'])
