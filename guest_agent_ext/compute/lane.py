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

"""A lane: one guest, one thread, one agent call at a time.

The lane says whose turn it is and when, and leaves a guest alone that does not
answer. Such a guest stops its own lane and nobody else's.
"""

from collections.abc import Callable
from collections.abc import Collection
import logging
import threading

from oslo_log import log as oslo_logging

from guest_agent_ext import backoff
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import logs
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.compute import task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import connection

CONF = conf.CONF
LOG = oslo_logging.getLogger(__name__)

#: Seconds until a guest that did not answer is pinged again.
PING_GAPS = backoff.Exponential(first=5.0, longest=60.0)
#: Seconds until a guest is asked again whose agent is certainly not there;
#: unlike a ping of one that hangs, that costs nothing.
ABSENT_GAP = 2.0
#: Seconds until a conductor that did not answer is asked again.
CONDUCTOR_GAP = 2.0
#: Seconds until a step that failed in an unforeseen way is made again.
ERROR_GAP = 5.0
#: Seconds that an idle lane stays.
IDLE = 60.0
#: Seconds that work may put off the removal of files, and seconds until the
#: next work in which there is time for it.
LATE_RELEASE, RELEASE_TIME = 10.0, 0.3

#: What certainly tells that there is nobody to talk to.
_ABSENT = (
    exception.AgentNotConnected,
    exception.AgentNotConfigured,
    exception.DomainNotFound,
    exception.DomainNotRunning,
    exception.DomainMigrating,
)
#: What tells that no command can run there, now or later.
_HOPELESS = (exception.LauncherUnavailable, exception.AgentCommandDisabled)

#: Makes the task of a command that the conductor has handed out.
MakeTask = Callable[[compute_session.Session, rpcapi.Work], task.Task]


class Lane:
    """The commands of one guest.

    :param session: lane's guest
    :param make_task: function that makes the task of a command
    :param on_idle: function that tells whether the lane may end; called by a
        lane without work
    """

    def __init__(
        self,
        session: compute_session.Session,
        make_task: MakeTask,
        on_idle: Callable[['Lane'], bool],
    ) -> None:
        self.session = session
        self._clock = session.clock
        self._make_task = make_task
        self._on_idle = on_idle
        #: Guards the tasks and what was seen; notified when a step may have
        #: become due.
        self._changed = threading.Condition()
        self._tasks: dict[str, task.Task] = {}
        #: By the command's uuid: what stands in the command's way.
        self._seen: dict[str, str] = {}
        self._trouble = logs.Trouble(LOG, logging.INFO)
        self._is_stopping = False
        self._thread = threading.Thread(
            name=f'lane-{session.uuid}', target=self._run, daemon=True
        )
        session.attach(wake=self.wake, known=self._uuids)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the lane after the step that is under way."""
        with self._changed:
            self._is_stopping = True
            for item in self._tasks.values():
                item.stop()
            self._changed.notify()

    def join(self, timeout: float) -> None:
        """Wait for the end of the lane's thread.

        :param timeout: maximum number of seconds to wait
        """
        self._thread.join(timeout)

    def wake(self) -> None:
        """Have the lane look for due steps."""
        with self._changed:
            self._changed.notify()

    @property
    def is_empty(self) -> bool:
        """Whether the lane has no commands."""
        return not self._tasks

    @property
    def is_suspect(self) -> bool:
        """Whether the guest did not answer its last call."""
        return self.session.failures > 0

    # What a report has the lane do, in the report's thread.

    def offer(self, work: rpcapi.Work) -> None:
        """Accept a command, or the news of one that the lane has.

        :param work: command, as the conductor handed it out
        """
        with self._changed:
            known = self._tasks.get(work['uuid'])
            if known is None:
                self._tasks[work['uuid']] = self._make_task(self.session, work)
            elif work['cancel_requested']:
                known.cancel()
            else:
                return
            self._changed.notify()

    def begin(self, item: task.Task) -> None:
        """Accept a command that somebody waits for.

        :param item: task of the command
        """
        with self._changed:
            self._tasks[item.uuid] = item
            self._changed.notify()

    def held(self) -> dict[str, str]:
        """Return the attempt of each claimed command, by its uuid."""
        with self._changed:
            return {
                uuid: item.attempt
                for uuid, item in self._tasks.items()
                if item.is_held
            }

    def find(self, uuid: str) -> task.Task | None:
        """Return the task of a command.

        :param uuid: command's uuid
        """
        with self._changed:
            return self._tasks.get(uuid)

    def take_seen(self) -> dict[str, str]:
        """Return what stands in the way of commands, once, by their uuids."""
        with self._changed:
            seen, self._seen = self._seen, {}
        return seen

    def drop(self, uuids: Collection[str], *, clear: bool) -> None:
        """Forget commands that have ended or are another host's.

        :param uuids: commands' uuids
        :param clear: whether to clear the guest of those that it may have
        """
        with self._changed:
            for uuid in set(uuids) & self._tasks.keys():
                if clear and self._tasks[uuid].is_held:
                    self._tasks[uuid].abandon()
                elif not self._tasks[uuid].is_abandoned:
                    self._tasks[uuid].drop()
            self._changed.notify()

    def keep_offered(self, uuids: Collection[str]) -> None:
        """Forget the commands that are no longer on offer.

        :param uuids: uuids of the commands that are on offer
        """
        with self._changed:
            for uuid, item in self._tasks.items():
                if item.is_offered and uuid not in uuids:
                    item.drop()
            self._changed.notify()

    # The lane's thread.

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                if self._make_turn():
                    return
            except Exception:
                # A guest has no other lane: its commands would be stuck.
                LOG.exception('The lane of guest %s failed', self.session.uuid)
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._is_stopping, ERROR_GAP
                    )

    def _make_turn(self) -> bool:
        """Do what is due next, and tell whether the lane is to end."""
        item = self._wait_for_task()
        if item is not None:
            self._step(item)
        elif self.session.release_at is not None:
            self._guarded(self.session.release_due)
        else:
            return self._on_idle(self)
        return False

    def _wait_for_task(self) -> task.Task | None:
        """Wait for the next task to become due.

        :returns: task that is due, None if there is time for something else
        """
        with self._changed:
            idle_until = self._clock.now() + IDLE
            while not self._is_stopping:
                item = self._first()
                now = self._clock.now()
                free_at = self._free_at(item, now, idle_until)
                if item is not None and item.due <= min(now, free_at):
                    return item
                if free_at <= now:
                    return None
                due = free_at if item is None else min(item.due, free_at)
                self._clock.wait(self._changed, due - now)
        return None

    def _free_at(
        self, item: task.Task | None, now: float, idle_until: float
    ) -> float:
        """Return the time at which there is time for something else.

        :param item: task that becomes due first
        :param idle_until: time at which the lane ends that has no work
        """
        release_at = self.session.release_at
        free_at = idle_until if release_at is None else release_at
        if item is None:
            return free_at
        # Work comes first, unless too much is left behind: what is removed
        # now would hold it up.
        if now > free_at + LATE_RELEASE:
            return float('-inf')
        free_at = max(free_at, now)
        return item.due if item.due < free_at + RELEASE_TIME else free_at

    def _first(self) -> task.Task | None:
        """Return the task that is due first, among those that may run."""
        for uuid, item in list(self._tasks.items()):
            if item.is_expired:
                item.expire()
            if item.is_done:
                del self._tasks[uuid]
        # Attached commands may be idle for hours: others have their room
        # beside them.
        limit = CONF.guest_agent.max_running_per_server + sum(
            item.is_attached for item in self._tasks.values()
        )
        active = sorted(
            self._tasks.values(), key=lambda item: not item.is_held
        )
        return min(active[:limit], key=lambda item: item.due, default=None)

    def _uuids(self) -> Collection[str]:
        with self._changed:
            return list(self._tasks)

    def _step(self, item: task.Task) -> None:
        """Make a task's next step, and note whether the guest answered."""
        try:
            asks_guest = item.needs_guest
            if asks_guest:
                self.session.check_well()
            item.step()
            if asks_guest:
                self.session.note_answer()
                # A ping that is answered says less: some hung guests still
                # answer pings.
                self._trouble.end('Guest %s answers again', self.session.uuid)
        except _HOPELESS as error:
            self.session.forget_guest()
            refusal = str(error)
            self._guarded(lambda: item.refuse(refusal))
            item.postpone(ERROR_GAP)
        except exception.GuestError as error:
            item.meet_failure(error)
            self._back_off(item, error)
        except exception.ConductorUnreachable:
            # Why, its client has logged.
            LOG.debug('Command %s waits for the conductor', item.uuid)
            item.postpone(CONDUCTOR_GAP)
        except Exception:
            LOG.exception('Command %s could not make its next step', item.uuid)
            item.postpone(ERROR_GAP)

    def _back_off(self, item: task.Task, error: exception.GuestError) -> None:
        """Leave the guest alone for a while.

        :param item: task whose step failed
        """
        is_absent = isinstance(error, _ABSENT)
        gap = ABSENT_GAP if is_absent else PING_GAPS.gap(self.session.failures)
        self.session.note_failure(is_absent=is_absent)
        self._log(error)
        with self._changed:
            for other in self._tasks.values():
                if other is item or other.needs_guest:
                    other.postpone(gap)
                    self._seen[other.uuid] = str(error)
        if isinstance(
            error, exception.DomainNotFound | exception.DomainNotRunning
        ):
            state = getattr(error, 'state', connection.ABSENT)
            self._guarded(lambda: self._tell_not_here(state))

    def _log(self, error: exception.GuestError) -> None:
        # Not in the error's own words: those may be the guest's.
        self._trouble.note(
            type(error).__name__,
            'Guest %s: %s; it is asked again until that changes',
            self.session.uuid,
            error.message,
        )

    def _tell_not_here(self, state: str) -> None:
        """Tell the claimed commands that their domain does not run here.

        :param state: domain's state in libvirt's words, or ``absent``
        """
        with self._changed:
            held = [item for item in self._tasks.values() if item.is_held]
        for item in held:
            item.meet_absence(state)
        if state == 'paused':
            return
        # What abandoned commands left in the guest went with it.
        with self._changed:
            for item in self._tasks.values():
                if item.is_abandoned:
                    item.drop()

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something that may fail, and may be left undone."""
        try:
            act()
        except exception.GuestError as error:
            self._log(error)
        except exception.ConductorUnreachable:
            LOG.debug('Guest %s waits for the conductor', self.session.uuid)
