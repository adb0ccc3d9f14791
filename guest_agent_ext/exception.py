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

"""The errors of guest_agent_ext.

::

    GuestAgentExtError
    ├── AnswerBroken                an answer cannot be sent to its end
    ├── TooManyUnfinished           a bound of unfinished commands is reached
    │   ├── ServerIsFull            that of the server
    │   ├── ServerIsAttached        that of its attached commands
    │   ├── HostIsAttached          that of its host's attached commands
    │   └── ProjectIsFull           that of its project
    ├── TooManyRuns                 the bound of a project's runs is reached
    ├── NoTurn                      a project's turn has no row to wait for
    ├── HostError                   a service cannot be removed
    │   ├── HostNotFound            there is no service of that name
    │   └── HostInUse               the service is up, or has work
    ├── CellReadError               a cell's database was read in vain
    │   ├── ReadNotBegun            too many reads of the cell are under way
    │   ├── ReadNotEnded            the cell did not answer in time
    │   └── CellIsDown              either, or the cell failed a moment ago
    ├── ServiceError                an RPC message did not get its answer
    │   ├── HostUnreachable         from guest-agent-compute of a host
    │   └── ConductorUnreachable    from guest-agent-conductor
    ├── OutputUnavailable           a running command's output cannot be read
    ├── StreamRefused               a stream cannot be read or written
    ├── StreamUnanswered            the same, but not now
    ├── TransferError               a file transfer cannot begin, or go on
    │   ├── TransferRefused         the host or the guest refuses
    │   ├── TransferUnanswered      the host does not answer
    │   ├── CommitUnanswered        the same at the end: it may be written
    │   ├── TooManyTransfers        the host or this process has no slot
    │   ├── BodyEnded               the client sent less than announced
    │   └── DigestMismatch          the client sent other bytes
    └── GuestError                  the guest did not do what was asked
        ├── HypervisorUnavailable   libvirt does not answer
        ├── DomainNotFound          no such domain on this host
        ├── DomainNotRunning        paused or shut off
        ├── DomainMigrating         on its way to another host
        ├── LauncherUnavailable     no command can be run in this guest
        ├── StreamError             a stream of an attached command is broken
        │   ├── StreamLost          the guest lost bytes, or can take no more
        │   ├── OutputGone          the output was acknowledged, and removed
        │   └── InputGap            earlier input has not arrived
        ├── FileError               a file was neither read nor written
        │   ├── FileMissing         there is no such file
        │   ├── FileUnsuitable      a directory, or a special file
        │   └── FileRefused         the guest's system refuses
        └── AgentError
            ├── AgentNotConfigured  no channel to an agent
            ├── AgentNotConnected   no agent at the guest's end of it
            ├── AgentUnresponsive   no answer in time
            ├── AgentBusy           occupied by others, for a while
            ├── AgentReplyTooLarge  libvirt could not carry the answer
            ├── ScriptKilled        the guest killed what was to answer
            └── AgentRefused        the agent answered with an error
                └── AgentCommandDisabled    its settings do not allow it

The text of each may be shown to the caller, but that of a ServiceError is for
the log.
"""

from typing import Literal

#: Why an RPC message did not get its answer.
Cause = Literal[
    # Nobody answered: what was asked may have been done, or may be done yet.
    'no answer',
    # The service answered that it failed; its log has the reason.
    'failed',
    # The release of the service does not offer the call; nothing was done.
    'not offered',
]

#: Why a file transfer is refused.
RefusalKind = Literal[
    # The guest has no such file.
    'missing',
    # The path leads to no file: to a directory, to a device.
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

#: Why a call for an attached command is refused.
StreamRefusalKind = Literal[
    # Another client is attached.
    'taken',
    # The bytes were acknowledged, or the guest has lost them.
    'gone',
    # Input before that which is written has not come.
    'gap',
    # The guest, or the command, has no such means.
    'unable',
    # Not now. The same call may be made again.
    'later',
    # The command has ended; its row knows how.
    'ended',
]


class GuestAgentExtError(Exception):
    """The root of all errors of guest_agent_ext."""


class AnswerBroken(GuestAgentExtError):
    """An answer cannot be sent to its end; the log has the reason.

    A WSGI server then breaks the connection, and so the client knows.
    """


class TooManyUnfinished(GuestAgentExtError):
    """A bound of unfinished commands is reached; nothing was recorded."""


class ServerIsFull(TooManyUnfinished):
    """The bound of the server's unfinished commands is reached."""


class ServerIsAttached(TooManyUnfinished):
    """The bound of the server's attached commands is reached."""


class HostIsAttached(TooManyUnfinished):
    """The bound of the host's attached commands is reached."""


class ProjectIsFull(TooManyUnfinished):
    """The bound of the project's unfinished commands is reached."""


class TooManyRuns(GuestAgentExtError):
    """The bound of the project's runs is reached; nothing was recorded."""


class NoTurn(GuestAgentExtError):
    """The turn of a project has no row yet, or has one no longer."""


class HostError(GuestAgentExtError):
    """A guest-agent-compute service cannot be removed."""


class HostNotFound(HostError):
    """There is no service of that name."""


class HostInUse(HostError):
    """The service is up, has commands, or has a name of several cells."""


class CellReadError(GuestAgentExtError):
    """A cell's database was read in vain."""


class ReadNotBegun(CellReadError):
    """As many reads of the cell as may be are under way.

    This tells nothing of the cell.
    """


class ReadNotEnded(CellReadError):
    """The cell did not answer in time; the read goes on meanwhile."""


class CellIsDown(CellReadError):
    """The cell cannot be read now; the log has the reason."""


class ServiceError(GuestAgentExtError):
    """An RPC message did not get its answer.

    :param detail: words for the log
    :param cause: why
    :ivar cause: why
    """

    def __init__(self, detail: str, cause: Cause = 'no answer') -> None:
        super().__init__(detail)
        self.cause = cause


class HostUnreachable(ServiceError):
    """guest-agent-compute of a host did not do what was asked."""


class ConductorUnreachable(ServiceError):
    """guest-agent-conductor did not do what was asked."""


class OutputUnavailable(GuestAgentExtError):
    """What a running command has written cannot be read now."""


class StreamRefused(GuestAgentExtError):
    """A call for an attached command is refused.

    :param kind: kind of the refusal
    :param message: words for the tenant
    :ivar kind: kind of the refusal
    """

    def __init__(self, kind: StreamRefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StreamUnanswered(GuestAgentExtError):
    """The host or the guest does not answer now; the call may be repeated."""


class TransferError(GuestAgentExtError):
    """A file transfer cannot begin, or cannot go on.

    :param message: words for the tenant
    :param command_uuid: uuid of the transfer's command, if it is recorded
    :ivar command_uuid: uuid of the transfer's command, if it is recorded
    """

    def __init__(self, message: str, command_uuid: str | None = None) -> None:
        super().__init__(message)
        self.command_uuid = command_uuid


class TransferRefused(TransferError):
    """The host, or the guest, refuses.

    :param kind: kind of the refusal
    :param message: words for the tenant
    :ivar kind: kind of the refusal
    """

    def __init__(self, kind: RefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class TransferUnanswered(TransferError):
    """The host does not answer: what became of a request is not known."""


class CommitUnanswered(TransferError):
    """The host did not answer at the end: the file may have been written."""


class TooManyTransfers(TransferError):
    """The host or this process has no slot for another transfer."""


class BodyEnded(TransferError):
    """The body is shorter than the client announced."""


class DigestMismatch(TransferError):
    """The body has another SHA-256 than the client announced."""


class GuestError(GuestAgentExtError):
    """The guest did not do what was asked.

    :ivar may_have_run: whether the request may have reached the agent, or
        may still do so
    """

    message = 'The guest did not answer as expected'
    may_have_run = False

    def __init__(
        self, message: str | None = None, *, may_have_run: bool | None = None
    ) -> None:
        super().__init__(message or self.message)
        if may_have_run is not None:
            self.may_have_run = may_have_run


class HypervisorUnavailable(GuestError):
    """libvirt does not answer."""

    message = 'The hypervisor of the server does not answer'


class DomainNotFound(GuestError):
    """No such domain on this host."""

    message = 'The server is not on this host'


class DomainNotRunning(GuestError):
    """The domain is paused or shut off.

    :ivar state: state of the domain, in libvirt's words
    """

    message = 'The server is not running'

    def __init__(self, state: str = 'shutoff') -> None:
        super().__init__(f'{self.message} ({state})')
        self.state = state


class DomainMigrating(GuestError):
    """The domain is on its way to another host.

    A call during a migration may cut the domain off from its agent for good.
    """

    message = 'The server is being migrated; try again later'


class LauncherUnavailable(GuestError):
    """No command can be run in this guest."""

    message = 'Commands cannot be run in this guest'


class StreamError(GuestError):
    """A stream of an attached command cannot go on so."""


class StreamLost(StreamError):
    """The guest lost some of it, or cannot take more: asking is in vain."""


class OutputGone(StreamError):
    """The output was acknowledged, and the guest has removed it."""

    message = 'This output was acknowledged before, and is gone'


class InputGap(StreamError):
    """Input before that which is written has not come.

    :ivar expected: offset of the input that is to come
    """

    def __init__(self, expected: int) -> None:
        super().__init__(
            f'Input is missing: the command has it up to offset {expected}'
        )
        self.expected = expected


class FileError(GuestError):
    """A file was neither read nor written."""


class FileMissing(FileError):
    """There is no such file."""


class FileUnsuitable(FileError):
    """The path leads to no regular file."""


class FileRefused(FileError):
    """The guest's system refuses, or the written bytes are wrong."""


class AgentError(GuestError):
    """The guest agent did not do what was asked."""


class AgentNotConfigured(AgentError):
    """The domain has no channel to an agent."""

    message = (
        'The server has no guest agent channel: its image needs the '
        'property hw_qemu_guest_agent=yes when it is created'
    )


class AgentNotConnected(AgentError):
    """No agent is connected to the guest's end of the channel."""

    message = (
        'The guest agent is not connected: qemu-guest-agent must be '
        'installed and running in the server'
    )


class AgentUnresponsive(AgentError):
    """No answer in time; the request may have come through."""

    message = 'The guest agent does not answer'
    may_have_run = True


class AgentBusy(AgentError):
    """The way to the agent, or the agent itself, is occupied for a while."""

    message = 'The guest agent is busy with another call'


class AgentReplyTooLarge(AgentError):
    """libvirt could not carry the answer, which is lost."""

    message = 'The answer of the guest agent was too large'
    may_have_run = True


class ScriptKilled(AgentError):
    """Somebody in the guest killed a script of ours before it answered."""

    message = (
        'What was run in the guest on behalf of the guest agent was '
        'killed there'
    )
    may_have_run = True


class AgentRefused(AgentError):
    """The agent answered with an error."""

    message = 'The guest agent refused'


class AgentCommandDisabled(AgentRefused):
    """The guest's administrator has disabled the call."""

    message = (
        'The guest does not allow its agent to run commands: '
        'guest-exec and guest-exec-status must be enabled in the '
        'configuration of qemu-guest-agent (allow-rpcs, block-rpcs or '
        'BLACKLIST_RPC) in the server; where SELinux confines the agent '
        '(virt_qemu_ga_t), its policy must permit what commands do, too'
    )
