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

"""One guest, as its lane and the lane's tasks deal with it.

A session is the guest's agent and launcher, what the guest said last, and what
it keeps of commands that have ended.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection

from guest_agent_ext import clock as system_clock
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import files
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import factory

CONF = conf.CONF

#: Seconds within which a claimed command has to start in the guest.
LAUNCH_WINDOW = 60.0
#: Seconds after a guest's last answer from which the guest must answer a ping
#: before it is given work. That limits how many hung guests can occupy the
#: work connections at once.
TRUST = 1.0
#: Seconds for which a guest's boot and uptime need not be asked for again. A
#: command that meets a later boot is refused by its launcher.
RECENT = 5.0
#: Number of a guest's last commands whose durations say how long the next one
#: takes; share of the shortest after which the next one is polled first, and
#: maximum number of seconds until then.
DURATIONS, FIRST_POLL_SHARE, MAX_FIRST_POLL = 8, 0.8, 0.2
#: Seconds that a removal waits, so that the files of several commands are
#: removed in one go.
RELEASE_AFTER = 1.0
#: Seconds after which a launch that libvirt may still hold for a service that
#: died (30 s for another's lock) meets an expired ticket.
LATE_LAUNCH = LAUNCH_WINDOW + 35.0
#: Maximum number of commands whose files are removed in one go.
RELEASE_BATCH = 30


class Session:
    """One guest, from the first command of its lane to the last.

    Every method but wake() belongs to the lane's thread. Those that ask the
    guest raise exception.GuestError if the guest does not answer as expected.

    :param uuid: server's uuid, which is its domain's too
    :param guests: connection to libvirt
    :param conductor: client of the conductor
    :param service: this start of the service, as the conductor knows it
    :param clock: clock that waits are measured with
    :ivar agent: guest's agent
    :ivar failures: number of calls in a row that the guest did not answer
    """

    def __init__(
        self,
        uuid: str,
        guests: connection.Connection,
        conductor: rpcapi.ConductorAPI,
        service: rpcapi.Service,
        clock: system_clock.Clock,
    ) -> None:
        self.uuid = uuid
        self.conductor = conductor
        self.service = service
        self.clock = clock
        self.agent = agent.Agent(guests, uuid, CONF.guest_agent.agent_timeout)
        self.failures = 0
        self._guests = guests
        self._wake: Callable[[], None] = lambda: None
        self._known: Callable[[], Collection[str]] = tuple
        self._launcher: launcher.Launcher | None = None
        self._answered_at = float('-inf')
        self._probe: launcher.Probe | None = None
        self._probed_at = float('-inf')
        self._durations: collections.deque[float] = collections.deque(
            maxlen=DURATIONS
        )
        #: By the command's uuid: the time from which on the guest is to
        #: remove what it keeps of the command.
        self._acknowledged: dict[str, float] = {}

    def attach(
        self, *, wake: Callable[[], None], known: Callable[[], Collection[str]]
    ) -> None:
        """Connect the session with its lane.

        :param wake: function that has the lane's thread look for due steps
        :param known: function that returns the uuids of the lane's commands
        """
        self._wake, self._known = wake, known

    def wake(self) -> None:
        """Have the lane look for due steps; any thread may call this."""
        self._wake()

    # What the guest can do.

    def guest(self) -> launcher.Launcher:
        """Return the guest's launcher.

        :raises exception.LauncherUnavailable: no launcher works in the guest
        :raises exception.AgentCommandDisabled: the guest does not allow any
        """
        if self._launcher is None:
            self._launcher = factory.launcher_for(
                self.agent,
                allow_direct=CONF.guest_agent.allow_unbounded_capture,
            )
        return self._launcher

    def forget_guest(self) -> None:
        """Choose the guest's launcher anew next time."""
        self._launcher = None

    def files(self) -> files.Files:
        """Return the guest's files.

        :raises exception.LauncherUnavailable: the guest's launcher runs no
            scripts
        """
        return files.Files(self.guest())

    # Whether the guest is well.

    def check_well(self) -> None:
        """Ping a guest whose last answer is not recent."""
        if self.clock.now() - self._answered_at < TRUST:
            return
        self._guests.ping(self.uuid, is_suspect=self.failures > 0)
        self.note_answer()

    def note_answer(self) -> None:
        """Trust the guest for a moment."""
        self._answered_at = self.clock.now()
        self.failures = 0

    def note_failure(self, *, is_absent: bool) -> None:
        """Distrust the guest, and forget its boot and uptime.

        :param is_absent: whether certainly nobody is there, so that asking
            again takes no time
        """
        self._answered_at = float('-inf')
        self.forget_probe()
        if not is_absent:
            self.failures += 1

    # What the guest says of itself.

    def probe(self) -> launcher.Probe:
        """Ask the guest for its boot and its uptime.

        Commands that the guest names and that nobody here knows are cleared,
        if they have ended.
        """
        asked_at = self.clock.now()
        probe = self.guest().probe()
        strays = (
            set(probe.ids) - set(self._known()) - self._acknowledged.keys()
        )
        if strays:
            # Left by a service before this one, or by a report that was
            # never made.
            for uuid in self.conductor.ended(self.service, sorted(strays)):
                self.clear(uuid)
        self._probe, self._probed_at = probe, asked_at
        return probe

    def recent_probe(self) -> launcher.Probe:
        """Return the guest's boot and uptime as of the last few seconds."""
        if self._probe is None or (
            self.clock.now() - self._probed_at > RECENT
        ):
            return self.probe()
        return self._probe

    def forget_probe(self) -> None:
        """Forget the guest's boot and uptime, which may be others by now."""
        self._probe = None

    def first_poll(self) -> float:
        """Return the seconds until a command may have ended.

        Each poll takes time of the guest's, which the command needs.
        """
        usual = min(self._durations, default=0.0)
        return min(MAX_FIRST_POLL, usual * FIRST_POLL_SHARE)

    def note_duration(self, seconds: float) -> None:
        """Learn from a command how long the guest's commands take.

        :param seconds: seconds from the command's start to its end
        """
        self._durations.append(seconds)

    # What the guest keeps of commands that have ended.

    def acknowledge(self, uuid: str, *, is_certain: bool) -> None:
        """Schedule the removal of what the guest keeps of a command.

        :param uuid: command's uuid
        :param is_certain: whether no launch of the command is under way;
            otherwise its lock stays until its ticket has expired
        """
        delay = RELEASE_AFTER if is_certain else LATE_LAUNCH
        self._acknowledged[uuid] = self.clock.now() + delay

    def clear(self, uuid: str) -> None:
        """Kill what is left of a command that has ended without this host.

        :param uuid: command's uuid
        """
        outcome = self.guest().fence(uuid)
        # A fence that is made says nothing of a command whose record was
        # removed.
        if not isinstance(outcome, launcher.Ended):
            self.guest().signal_tree(uuid, 'KILL', command.LOST)
        self.acknowledge(uuid, is_certain=False)

    @property
    def release_at(self) -> float | None:
        """Time of the next removal, None if nothing is to be removed."""
        return min(self._acknowledged.values(), default=None)

    def release_due(self) -> None:
        """Remove what the guest keeps of the commands that are due."""
        now = self.clock.now()
        batch = [
            uuid for uuid, due in self._acknowledged.items() if due <= now
        ][:RELEASE_BATCH]
        for uuid in batch:
            del self._acknowledged[uuid]
        if batch:
            # What fails here is found again by a later probe of the guest.
            self.check_well()
            self.guest().release(batch)
