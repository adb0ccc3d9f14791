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

"""What every launcher does, and what it says of a command.

A launcher runs commands in one guest: ``posix.py`` where there is ``/bin/sh``,
``windows.py`` where there is PowerShell, ``direct.py`` where there is neither
and the operator permits it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Literal
from typing import Protocol

#: Whether a command's launcher keeps what was promised of it: at most once,
#: bounded output, its whole tree killed, its end kept until it is recorded.
Execution = Literal['guarded', 'direct']


@dataclasses.dataclass(frozen=True)
class Launch:
    """A command to run.

    :ivar id: its uuid
    :ivar boot_id: the only boot of the guest that it may run in
    :ivar ticket: guest uptime (centiseconds) after which it may not start
    :ivar keep: bytes to keep of each stream
    :ivar keep_end: ``head`` or ``tail``
    """

    id: str
    argv: Sequence[str] = dataclasses.field(repr=False)
    env: Mapping[str, str] = dataclasses.field(repr=False)
    stdin: bytes = dataclasses.field(repr=False)
    cwd: str | None = dataclasses.field(repr=False)
    boot_id: str
    ticket: int
    keep: int
    keep_end: str


@dataclasses.dataclass(frozen=True)
class Probe:
    """A guest's boot, its uptime (centiseconds), and ids left in it."""

    boot_id: str
    uptime: int
    ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Refused:
    """The launcher ran nothing, and left the lock alone.

    :ivar reason: ``boot``, ``ticket``, or what it lacks
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """Another launcher has or had the lock."""


@dataclasses.dataclass(frozen=True)
class NotStarted:
    """No launcher has come yet."""


@dataclasses.dataclass(frozen=True)
class Fenced:
    """The lock is ours: no launcher will run the command."""


@dataclasses.dataclass(frozen=True)
class Running:
    """It runs.

    :ivar pid: of the command, None while its launcher prepares it
    :ivar started: guest uptime (centiseconds) when it started
    :ivar uptime: guest uptime (centiseconds) now
    :ivar has_exited: its own process has ended, but a child of it still has
        its stdout or stderr
    """

    pid: int | None
    started: int
    uptime: int
    has_exited: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
    """It has ended.

    :ivar start_ticks: guest uptime (centiseconds) when it started
    :ivar exitcode: None if a signal ended it; then ``signal`` is set. Both are
        None if nobody saw how it ended.
    :ivar never_ran: proven: nothing was executed; ``error`` says why
    :ivar out_bytes: bytes that it wrote, kept or not
    :ivar killed: what signal_tree() was told that it ends as, if that met it
        alive
    """

    pid: int
    start_ticks: int
    exitcode: int | None
    signal: int | None
    never_ran: bool
    error: str | None
    out: bytes = dataclasses.field(repr=False)
    err: bytes = dataclasses.field(repr=False)
    out_bytes: int
    err_bytes: int
    killed: str | None = None


@dataclasses.dataclass(frozen=True)
class Died:
    """Nobody saw its end, and nobody will.

    :ivar reason: why, in words for the tenant; None if its launcher was
        killed before it could record the end
    """

    reason: str | None = None


Outcome = Refused | Taken | NotStarted | Fenced | Running | Ended | Died


class Launcher(Protocol):
    """Runs commands in one guest.

    Every method raises exception.GuestError if the guest did not answer.
    """

    @property
    def execution(self) -> Execution:
        """Whether commands are guarded by a launcher in the guest."""

    def probe(self) -> Probe:
        """Ask for the guest's boot and uptime.

        :raises exception.LauncherUnavailable: it lacks what the launcher needs
        """

    def launch(self, launch: Launch) -> int:
        """Send a command, and do not wait for it.

        :returns: pid to poll for
        """

    def poll(self, pid: int) -> Outcome | None:
        """Look whether what was launched has ended.

        The agent forgets it with the answer.

        :returns: None while it has not
        :raises exception.AgentRefused: the agent does not know this pid
        """

    def recover(self, id: str) -> Outcome:
        """Find out what became of a command."""

    def fence(self, id: str) -> Outcome:
        """Take a command's lock, unless a launcher has it already."""

    def signal_tree(self, id: str, signal: str, status: str) -> int:
        """Send ``TERM`` or ``KILL`` to a command and all its descendants.

        :param status: the state that it ends in by that; the guest keeps it,
            for who asks how the command ended may not be who killed it
        :returns: how many of them were alive
        """

    def unhold(self, id: str) -> None:
        """Have a command end whose children still have its streams."""

    def release(self, ids: Sequence[str]) -> None:
        """Remove what the guest keeps of these commands."""
