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

"""The interface of all launchers, and the outcomes that they report.

A launcher runs commands in one guest: ``posix.py`` where there is ``/bin/sh``,
``windows.py`` where there is PowerShell, ``direct.py`` where there is neither
and the operator permits it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Literal
from typing import Protocol

from guest_agent_ext import command
from guest_agent_ext.guest import attached

#: ``guarded``: a launcher in the guest runs a command at most once, bounds its
#: output, can kill its whole process tree, and keeps its end until that is
#: recorded. ``direct``: none of this is promised.
Execution = Literal['guarded', 'direct']


ATTACHED_KINDS = 'attach', 'terminal'
NOT_ATTACHABLE = (
    'Commands in this server cannot be attached: that needs /bin/sh and /proc'
)

#: Error for a command that needs a tool that the guest does not have.
LACKS = 'Commands cannot be run in this guest: it has no usable %s'

#: Signals that the process group of a command can be sent.
SIGNALS = command.SIGNALS


@dataclasses.dataclass(frozen=True)
class Terminal:
    """A terminal to run a command in.

    :ivar term: value of TERM, unless the command's environment has its own
    """

    columns: int
    rows: int
    term: str


@dataclasses.dataclass(frozen=True)
class Attach:
    """That a command is attached: its streams are those of attached().

    :ivar terminal: None for three pipes
    """

    terminal: Terminal | None = None


@dataclasses.dataclass(frozen=True)
class Launch:
    """A command to run.

    :ivar id: UUID of the command
    :ivar cwd: working directory; None for the root directory of the system
    :ivar user: name or number of the guest's user that the command runs as;
        None for the agent's own
    :ivar boot_id: name of the only boot that the command may run in
    :ivar ticket: guest uptime (centiseconds) after which the command may not
        start
    :ivar keep: maximum number of bytes to keep of each stream
    :ivar keep_end: ``head`` or ``tail``, the end of a stream that is kept
    :ivar attach: attachment of the streams, which leaves stdin unused; None
        if they are not attached
    """

    id: str
    argv: Sequence[str] = dataclasses.field(repr=False)
    env: Mapping[str, str] = dataclasses.field(repr=False)
    stdin: bytes = dataclasses.field(repr=False)
    cwd: str | None = dataclasses.field(repr=False)
    user: str | None = dataclasses.field(repr=False)
    boot_id: str
    ticket: int
    keep: int
    keep_end: str
    attach: Attach | None = None


@dataclasses.dataclass(frozen=True)
class Probe:
    """A guest's answer to a probe.

    :ivar boot_id: name of the guest's boot; the part behind the last ``-``
        names the directory of commands, which may be replaced without a reboot
    :ivar uptime: guest uptime (centiseconds)
    :ivar ids: UUIDs of the commands that the guest keeps files of
    """

    boot_id: str
    uptime: int
    ids: Sequence[str]

    def was_rebooted(self, boot_id: str) -> bool:
        """Tell whether the guest was rebooted since a boot.

        :param boot_id: name of that boot, from an earlier probe
        """
        return _kernels_part(self.boot_id) != _kernels_part(boot_id)


def _kernels_part(boot_id: str) -> str:
    return boot_id.rpartition('-')[0] or boot_id


@dataclasses.dataclass(frozen=True)
class Refused:
    """The launcher ran nothing and did not take the lock.

    :ivar reason: ``boot``, ``ticket``, or the name of what the guest lacks
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """Another launcher holds or held the lock."""


@dataclasses.dataclass(frozen=True)
class NotStarted:
    """No launcher has taken the lock yet."""


@dataclasses.dataclass(frozen=True)
class Fenced:
    """The host holds the lock: no launcher will run the command."""


@dataclasses.dataclass(frozen=True)
class Running:
    """The command runs, or is about to.

    :ivar pid: PID of the command's process; None while the launcher prepares
        it
    :ivar started: guest uptime (centiseconds) at the start
    :ivar uptime: guest uptime (centiseconds) now
    :ivar has_exited: True if the command's own process has ended and a child
        of it still holds its stdout or stderr
    """

    pid: int | None
    started: int
    uptime: int
    has_exited: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
    """The command has ended.

    :ivar start_ticks: guest uptime (centiseconds) at the start
    :ivar exitcode: exit code; None if a signal ended the process, or if its
        end was not observed
    :ivar signal: number of the signal that ended the process, if one did
    :ivar never_ran: True if it is proven that nothing was executed; ``error``
        is the reason
    :ivar out_bytes: number of bytes written to stdout, kept or not; None if
        they were not counted
    :ivar err_bytes: number of bytes written to stderr, likewise
    :ivar killed: status passed to signal_tree(), if it killed a live process
    :ivar is_torn: True if less output arrived than the guest should have kept:
        the sender was killed, or the guest's file system is full
    """

    pid: int
    start_ticks: int
    exitcode: int | None
    signal: int | None
    never_ran: bool
    error: str | None
    out: bytes = dataclasses.field(repr=False)
    err: bytes = dataclasses.field(repr=False)
    out_bytes: int | None
    err_bytes: int | None
    killed: str | None = None
    is_torn: bool = False


@dataclasses.dataclass(frozen=True)
class Died:
    """The command's end was not observed and cannot be found out.

    :ivar reason: explanation for the tenant; None if the launcher was killed
        before it could record the end
    """

    reason: str | None = None


Outcome = Refused | Taken | NotStarted | Fenced | Running | Ended | Died


class Watch(Protocol):
    """Polls a process without a trace in the guest's logs."""

    def has_exited(self) -> bool:
        """Tell whether the process has ended."""

    def close(self) -> None:
        """Stop watching the process."""


class Launcher(Protocol):
    """Runs commands in one guest.

    Every method raises exception.GuestError if the guest did not answer. An
    ``id`` is the UUID of a command.
    """

    @property
    def execution(self) -> Execution:
        """Whether commands are guarded by a launcher in the guest."""

    def probe(self) -> Probe:
        """Ask the guest for its boot and uptime.

        :raises exception.LauncherUnavailable: the guest lacks what the
            launcher needs
        """

    def launch(self, launch: Launch) -> int:
        """Send a command to the guest without waiting for its start.

        :returns: PID to poll
        """

    def poll(self, pid: int) -> Outcome | None:
        """Poll a launch for its end.

        The agent forgets the process as soon as it has reported its end.

        :param pid: PID that launch() returned
        :returns: the outcome; None while the launch is under way
        :raises exception.AgentRefused: the agent does not know the PID
        """

    def recover(self, id: str) -> Outcome:
        """Find out from the guest's files what became of a command."""

    def fence(self, id: str) -> Outcome:
        """Take a command's lock unless a launcher was first."""

    def signal_tree(self, id: str, signal: str, status: str) -> int:
        """Send a signal to a command and all its descendants.

        :param signal: ``TERM``, ``KILL``, or ``0`` to send none
        :param status: state that the command ends in if the signal kills it.
            The guest keeps it, as another service may ask for the end. With
            LOST the launcher is killed too.
        :returns: number of processes that were alive
        """

    def signal(self, id: str, name: str) -> bool:
        """Send a signal to a command's process group.

        :param name: one of SIGNALS
        :returns: whether there was one; not before it runs, nor after its end
        :raises exception.AgentRefused: this guest has no such means
        """

    def attached(self, id: str, *, terminal: bool) -> attached.Attached:
        """Return the streams of an attached command; asks the guest nothing.

        :raises exception.LauncherUnavailable: it cannot have any
        """

    def unattachable(self) -> dict[str, str]:
        """Return why attached commands cannot be run in the guest.

        :returns: reasons by ATTACHED_KINDS; empty if both kinds can be run
        """

    def resize(self, id: str, columns: int, rows: int) -> bool:
        """Set the size of an attached command's terminal.

        :returns: whether it has one
        :raises exception.LauncherUnavailable: it cannot have any
        """

    def unhold(self, id: str) -> None:
        """End a command whose children still hold its streams.

        Of an attached command no output of its own is lost if everything was
        read before.
        """

    def watch(self, pid: int) -> Watch | None:
        """Start watching a process.

        :param pid: PID of a command's process
        :returns: None if the guest offers no means of watching
        """

    def release(self, ids: Sequence[str]) -> None:
        """Remove the files that the guest keeps of commands."""
