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


"""What a lane does a step at a time: a command of any type on this host."""

import abc
from collections.abc import Callable
import time
from typing import Protocol
import uuid as uuid_module

from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from guest_agent_ext.guest import files
from guest_agent_ext.guest import launcher

#: Seconds within which a claimed command has to start in the guest.
LAUNCH_WINDOW = 60.0
#: Seconds of start_timeout that are left for the claim itself.
CLAIM_MARGIN = 0.1
#: Centiseconds of guest uptime in a second.
UPTIME_HZ = 100

Step = Callable[[], float]


class Lane(Protocol):
    """What a task needs of its guest and of its conductor."""

    service: rpcapi.Service
    conductor: rpcapi.ConductorAPI
    agent: agent.Agent

    def is_migrating(self) -> bool:
        """Tell whether the guest is on its way to another host.

        :raises exception.GuestError: that is not known
        """

    def guest(self) -> launcher.Launcher:
        """Return the guest's launcher.

        :raises exception.GuestError: there is none
        """

    def files(self) -> files.Files:
        """Return the guest's files.

        :raises exception.GuestError: nothing can be done with them
        """

    def probe(self) -> launcher.Probe:
        """Ask the guest for its boot and its uptime."""

    def recent_probe(self) -> launcher.Probe:
        """Return what it said a moment ago, or ask it."""

    def forget_probe(self) -> None:
        """Ask again next time: the guest has another boot now."""

    def first_look(self) -> float:
        """Return the seconds after which a command may have ended."""

    def note_duration(self, seconds: float) -> None:
        """Learn from a command how long such take."""

    def acknowledge(self, uuid: str, *, is_certain: bool) -> None:
        """Have the guest remove what it keeps of a command, by and by.

        :param is_certain: no launch of it is under way; otherwise the lock
            stays until its ticket has expired
        """

    def clear(self, uuid: str) -> None:
        """Kill what is left of a command that has ended without us."""

    def wake(self) -> None:
        """Have the lane look again what is due."""


class Task(abc.ABC):
    """One command on this host: its next step, and when that is due.

    A step makes one change or asks one thing of the guest, may be made again
    if it failed half way, says what comes next and returns the seconds until
    then.

    :param lane: of the command's server
    :param uuid: of the command
    """

    _next: Step

    def __init__(self, lane: Lane, uuid: str) -> None:
        self.uuid = uuid
        self.attempt = str(uuid_module.uuid4())
        #: When it wants its next step, on the monotonic clock.
        self.due = time.monotonic()
        self.is_done = False
        #: Whether the conductor knows it as ours.
        self.is_held = False
        self.is_abandoned = False
        self._lane = lane

    @property
    @abc.abstractmethod
    def needs_guest(self) -> bool:
        """Whether the next step asks something of the guest."""

    @property
    def is_offered(self) -> bool:
        """Whether it is only on offer: nobody here has it or waits for it."""
        return False

    @property
    def is_expired(self) -> bool:
        """Whether it can no longer be claimed."""
        return False

    def step(self) -> None:
        """Make the next step.

        :raises exception.GuestError: the guest did not do its part; the step
            is to be made again
        :raises oslo_messaging.MessagingException: likewise the conductor
        """
        delay = self._next()
        self.due = time.monotonic() + delay

    def postpone(self, seconds: float) -> None:
        """Do not make the next step before ``seconds`` have passed."""
        self.due = time.monotonic() + seconds

    @abc.abstractmethod
    def cancel(self) -> None:
        """End it at the next step."""

    def drop(self) -> None:
        """Forget it: it is another's."""
        self.is_done = True

    @abc.abstractmethod
    def abandon(self) -> None:
        """Have the guest rid of it: it has ended without its host."""

    @abc.abstractmethod
    def refuse(self, error: str) -> None:
        """End it as FAILED, if the guest has not begun with it.

        :param error: why nothing of the kind works there, in words for the
            tenant
        """

    @abc.abstractmethod
    def meet_absence(self, state: str) -> None:
        """Do what follows from a domain that is gone or does not run.

        :param state: of the domain, in libvirt's words, or ``absent``
        :raises oslo_messaging.MessagingException: the conductor did not
            answer
        """

    def _claim_within(
        self, start_by: float, probe: launcher.Probe
    ) -> rpcapi.Claim | None:
        """Take a PENDING command.

        :param start_by: when it may no longer start, on the monotonic clock
        :param probe: of its guest; the older it is, the sooner the guest
            refuses the command
        :returns: None if it is not to be had
        """
        window = min(LAUNCH_WINDOW, start_by - time.monotonic() - CLAIM_MARGIN)
        if window <= 0:
            return None
        return self._lane.conductor.claim(
            self._lane.service,
            self.uuid,
            self.attempt,
            probe.boot_id,
            probe.uptime + int(window * UPTIME_HZ),
            window,
        )

    def _go(self, step: Step, delay: float = 0.0) -> float:
        self._next = step
        return delay

    def _stop(self) -> float:
        self.is_done = True
        return 0.0
