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

"""A command of any type, as steps that its lane makes one at a time.

A task is its next step. The steps are data: each declares the stage that the
command is in until the step has been made, and whether the guest must be well
for it. What a lane and a report want to know of a task is read from there.
"""

import abc
from collections.abc import Callable
import dataclasses
import enum
from typing import Any
from typing import TypeVar
import uuid as uuid_module

from guest_agent_ext import exception
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest.launchers import base as launcher

#: Seconds of start_timeout that are left for the claim itself.
CLAIM_MARGIN = 0.1
#: Centiseconds of guest uptime in a second.
UPTIME_HZ = 100

_AnyTask = TypeVar('_AnyTask', bound='Task')


class Stage(enum.Enum):
    """How far a command has come on this host."""

    #: PENDING in the database: no host has the command.
    UNCLAIMED = enum.auto()
    #: RUNNING in the database, with an attempt before this one.
    INHERITED = enum.auto()
    #: Under way, with this attempt.
    UNDER_WAY = enum.auto()
    #: A transfer whose file is open, or an attached command: nova-api asks for
    #: chunks.
    SERVING = enum.auto()
    #: A transfer that failed: what the guest has of it is removed.
    DISCARDING = enum.auto()
    #: The end is known, and remains to be reported.
    ENDED = enum.auto()


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a task, and what is known until the step is made.

    :ivar make: method of the task; returns the seconds until the next step
    :ivar stage: stage of the command
    :ivar needs_guest: whether the guest must be well
    """

    make: Callable[[Any], float]
    stage: Stage
    needs_guest: bool


def step(
    stage: Stage = Stage.UNDER_WAY, *, needs_guest: bool = True
) -> Callable[[Callable[[_AnyTask], float]], Step]:
    """Declare a method of a task to be a step.

    :param stage: stage of the command until the step is made
    :param needs_guest: whether the guest must be well
    """
    return lambda make: Step(make, stage, needs_guest)


class Task(abc.ABC):
    """One command on this host: its next step, and when that is due.

    A step makes one change or asks one thing of the guest, may be made again
    if it failed half way, says what comes next and returns the seconds until
    then. The lane's thread makes the steps; the report's thread calls
    cancel(), drop() and abandon() meanwhile.

    :param session: guest of the command's server
    :param uuid: command's uuid
    :param start_in: seconds within which the command must be claimed
    :param previous: attempt that the command was handed to before, None for a
        PENDING one
    :ivar due: time of the next step, on the session's clock
    :ivar is_done: whether no step is left to be made
    :ivar is_abandoned: whether the command has ended without this host
    """

    _next: Step

    def __init__(
        self,
        session: compute_session.Session,
        uuid: str,
        start_in: float,
        previous: str | None = None,
    ) -> None:
        self.uuid = uuid
        self.attempt = str(uuid_module.uuid4())
        self._session = session
        self._clock = session.clock
        self.due = self._clock.now()
        self.is_done = False
        self.is_abandoned = False
        self._has_turned = False
        self._start_by = self.due + start_in
        self._previous = previous
        self._claim: rpcapi.Claim | None = None
        self._cancelled = False

    @property
    def needs_guest(self) -> bool:
        """Whether the guest must be well for the next step."""
        if self._is_turning():
            return self._abandoned_step().needs_guest
        return self._next.needs_guest

    @property
    def is_held(self) -> bool:
        """Whether the conductor knows the command as this host's."""
        return self._claim is not None and not self.is_abandoned

    @property
    def is_offered(self) -> bool:
        """Whether the command is PENDING, and nobody waits for its start."""
        return False

    @property
    def is_attached(self) -> bool:
        """Whether the command waits for its client, however long."""
        return False

    @property
    def is_expired(self) -> bool:
        """Whether the command can no longer be claimed."""
        return (
            self._next.stage is Stage.UNCLAIMED
            and self._clock.now() > self._start_by
        )

    def step(self) -> None:
        """Make the next step.

        :raises exception.GuestError: the guest did not do its part; the step
            is to be made again
        :raises exception.ConductorUnreachable: the conductor did not answer;
            likewise
        """
        if self._is_turning():
            self._has_turned = True
            self._next = self._abandoned_step()
        delay = self._next.make(self)
        # The report's thread may have called abandon() meanwhile.
        self.due = self._clock.now() + (0.0 if self._is_turning() else delay)

    def _is_turning(self) -> bool:
        return self.is_abandoned and not self._has_turned

    def postpone(self, seconds: float) -> None:
        """Put the next step off."""
        self.due = self._clock.now() + seconds

    # B027: nobody waits for most tasks.
    def stop(self) -> None:  # noqa: B027
        """Refuse what waits for the task, whose service ends.

        Called by any thread.
        """

    def drop(self) -> None:
        """Forget the command, which is another host's or has ended."""
        self.is_done = True

    def expire(self) -> None:
        """Forget the command, which can no longer be claimed."""
        self.is_done = True

    @abc.abstractmethod
    def cancel(self) -> None:
        """End the command with the next step."""

    def abandon(self) -> None:
        """Clear the guest of a command that has ended without this host."""
        # The lane's thread may be making a step, which says what comes next.
        self.is_abandoned = True
        self.due = self._clock.now()

    @abc.abstractmethod
    def _abandoned_step(self) -> Step:
        """Return the first step of an abandoned command."""

    @abc.abstractmethod
    def refuse(self, error: str) -> None:
        """End a command as FAILED that the guest has not begun with.

        :param error: reason that nothing of the kind works in the guest, in
            words for the tenant
        """

    @abc.abstractmethod
    def meet_failure(self, error: exception.GuestError) -> None:
        """Tell the task that the guest kept a step from being made."""

    @abc.abstractmethod
    def meet_absence(self, state: str) -> None:
        """Tell the task that its domain is gone or does not run.

        :param state: domain's state in libvirt's words, or ``absent``
        :raises exception.ConductorUnreachable: the conductor did not answer
        """

    # What the steps of all types share.

    def _claim_now(self, probe: launcher.Probe) -> rpcapi.Claim | None:
        """Claim the PENDING command.

        :param probe: guest's boot and uptime; the older they are, the sooner
            the guest refuses the command
        :returns: none if the command is ended, cancelled or another host's
        """
        window = min(
            compute_session.LAUNCH_WINDOW,
            self._start_by - self._clock.now() - CLAIM_MARGIN,
        )
        if window <= 0:
            return None
        return self._session.conductor.claim(
            self._session.service,
            self.uuid,
            self.attempt,
            probe.boot_id,
            probe.uptime + int(window * UPTIME_HZ),
            window,
        )

    def _adopt_now(self) -> rpcapi.Claim | None:
        """Take the command over from the attempt before.

        :returns: none if the command is ended or another host's
        """
        assert self._previous is not None
        return self._session.conductor.adopt(
            self._session.service, self.uuid, self.attempt, self._previous
        )

    def _held_claim(self) -> rpcapi.Claim:
        assert self._claim is not None
        return self._claim

    def _go(self, step: Step, delay: float = 0.0) -> float:
        self._next = step
        return delay

    def _stop(self) -> float:
        self.is_done = True
        return 0.0
