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
    └── GuestError                  the guest did not do what was asked
        ├── HypervisorUnavailable   libvirt does not answer
        ├── DomainNotFound          no such domain on this host
        ├── DomainNotRunning        paused or shut off
        ├── LauncherUnavailable     no command can be run in this guest
        ├── FileError               nothing came of a file
        │   ├── FileMissing         there is no such file
        │   ├── FileUnsuitable      a directory, or a special file
        │   └── FileRefused         the guest's system refuses
        └── AgentError
            ├── AgentNotConfigured  no channel to an agent
            ├── AgentNotConnected   no agent at the guest's end of it
            ├── AgentUnresponsive   no answer in time
            ├── AgentBusy           occupied by others, for a while
            ├── AgentReplyTooLarge  libvirt could not carry the answer
            └── AgentRefused        the agent answered with an error
                └── AgentCommandDisabled    its settings do not allow it

The text of each may be shown to the tenant.
"""


class GuestAgentExtError(Exception):
    """The root."""


class GuestError(GuestAgentExtError):
    """The guest did not do what was asked.

    :ivar may_have_run: whether the request may have reached the agent, or
        may reach it yet
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

    :ivar state: of the domain, in libvirt's words
    """

    message = 'The server is not running'

    def __init__(self, state: str = 'shutoff') -> None:
        super().__init__(f'{self.message} ({state})')
        self.state = state


class LauncherUnavailable(GuestError):
    """No command can be run in this guest."""

    message = 'Commands cannot be run in this guest'


class FileError(GuestError):
    """Nothing came of a file."""


class FileMissing(FileError):
    """There is no such file."""


class FileUnsuitable(FileError):
    """It is no regular file."""


class FileRefused(FileError):
    """The guest's system refuses, or what arrived there is not right."""


class AgentError(GuestError):
    """The guest agent did not do what was asked."""


class AgentNotConfigured(AgentError):
    """The domain has no channel to an agent."""

    message = (
        'The server has no guest agent channel: its image needs the '
        'property hw_qemu_guest_agent=yes when it is created'
    )


class AgentNotConnected(AgentError):
    """Nobody is at the guest's end of the channel."""

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
    """libvirt could not carry the answer; it is lost."""

    message = 'The answer of the guest agent was too large'
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
        'BLACKLIST_RPC) in the server'
    )
