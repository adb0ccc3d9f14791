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

The thread makes the steps of the guest's commands in turn. A guest that does
not answer stops its own lane and nobody else's.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
import threading
import time

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import job
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from guest_agent_ext.guest import choose
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import files
from guest_agent_ext.guest import launcher

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds after a guest's last answer from which it must answer a ping before
#: it is given work: where many hang at once, few are to hold what work takes.
TRUST = 1.0
#: Seconds for which a guest's boot and uptime need not be asked for again. A
#: command that meets a later boot is refused by its launcher.
RECENT = 5.0
#: Of a guest's last commands, how many say how long the next one takes; the
#: share of that after which it is looked at first, and seconds at most.
DURATIONS, FIRST_LOOK_SHARE, MAX_FIRST_LOOK = 8, 0.8, 0.2
#: Seconds between two pings of a guest that did not answer.
PROBE_GAPS = (5.0, 10.0, 20.0, 40.0, 60.0)
#: Seconds between two looks at a guest whose agent is certainly not there;
#: unlike a ping of one that hangs, that costs nothing.
ABSENT_GAP = 2.0
#: Seconds until a conductor is asked again that did not answer.
CONDUCTOR_GAP = 2.0
#: Seconds that an idle lane stays.
IDLE = 60.0
#: Seconds that the removal of files waits for more of them, and how long work
#: may put it off.
RELEASE_AFTER = 1.0
LATE_RELEASE = 10.0
#: Seconds after which a launch that libvirt may still hold for a service that
#: died (30 s for another's lock) meets an expired ticket.
LATE_LAUNCH = task.LAUNCH_WINDOW + 35.0
#: Commands whose files are removed in one go.
RELEASE_BATCH = 30

#: What certainly tells that there is nobody to talk to.
_ABSENT = (
    exception.AgentNotConnected,
    exception.AgentNotConfigured,
    exception.DomainNotFound,
    exception.DomainNotRunning,
)
#: What tells that no command can run there, now or later.
_HOPELESS = (exception.LauncherUnavailable, exception.AgentCommandDisabled)


class Lane:
    """One guest and the commands of it.

    :param uuid: of the server, which is that of its domain
    :param guests: the connection to libvirt
    :param conductor: client of the conductor
    :param service: who we are
    :param on_idle: asked by a lane without work whether it may go
    """

    def __init__(
        self,
        uuid: str,
        guests: connection.Connection,
        conductor: rpcapi.ConductorAPI,
        service: rpcapi.Service,
        on_idle: Callable[['Lane'], bool],
    ) -> None:
        self.uuid = uuid
        self.conductor = conductor
        self.service = service
        self._guests = guests
        self._on_idle = on_idle
        self.agent = agent.Agent(guests, uuid, CONF.guest_agent.agent_timeout)
        self._launcher: launcher.Launcher | None = None
        self._tasks: dict[str, task.Task] = {}
        #: When to remove what the guest keeps of which command.
        self._acknowledged: dict[str, float] = {}
        self._answered_at = float('-inf')
        self._failures = 0
        self._probe: launcher.Probe | None = None
        self._probed_at = float('-inf')
        self._durations: collections.deque[float] = collections.deque(
            maxlen=DURATIONS
        )
        self._seen: dict[str, str] = {}
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(
            name=f'lane-{uuid}', target=self._run, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have it end after the step that is under way."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    @property
    def is_empty(self) -> bool:
        return not self._tasks

    def offer(self, work: rpcapi.Work) -> None:
        """Take a command, or what is new of one that is here."""
        with self._changed:
            known = self._tasks.get(work['uuid'])
            if known is None:
                self._tasks[work['uuid']] = self._task_of(work)
            elif work['cancel_requested']:
                known.cancel()
            else:
                return
            self._changed.notify()

    def _task_of(self, work: rpcapi.Work) -> task.Task:
        if work['type'] == command.EXEC:
            return job.Job(self, work)
        # Begun by a service before this one, or on another host.
        return transfer.Transfer.adopted(self, work)

    def begin(self, item: task.Task) -> None:
        """Take a command that somebody waits for."""
        with self._changed:
            self._tasks[item.uuid] = item
            self._changed.notify()

    def held(self) -> dict[str, str]:
        """Return the attempt by the uuid of each command claimed."""
        with self._changed:
            return {
                uuid: item.attempt
                for uuid, item in self._tasks.items()
                if item.is_held
            }

    def take_seen(self) -> dict[str, str]:
        """Return what stands in the way of commands, once."""
        with self._changed:
            seen, self._seen = self._seen, {}
        return seen

    def drop(self, uuids: Collection[str], *, clear: bool) -> None:
        """Forget commands that have ended or are another's.

        :param clear: have the guest rid of them too
        """
        with self._changed:
            for uuid in set(uuids) & self._tasks.keys():
                if clear and self._tasks[uuid].is_held:
                    self._tasks[uuid].abandon()
                elif not self._tasks[uuid].is_abandoned:
                    self._tasks[uuid].drop()
            self._changed.notify()

    def keep_offered(self, uuids: Collection[str]) -> None:
        """Forget what was on offer and is no more.

        :param uuids: of the commands that are
        """
        with self._changed:
            for uuid, item in self._tasks.items():
                if item.is_offered and uuid not in uuids:
                    item.drop()
            self._changed.notify()

    # What tasks use.

    def wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def is_migrating(self) -> bool:
        return self._guests.is_migrating(self.uuid)

    def files(self) -> files.Files:
        return files.Files(self.guest())

    def guest(self) -> launcher.Launcher:
        if self._launcher is None:
            self._launcher = choose.launcher_for(
                self.agent,
                allow_direct=CONF.guest_agent.allow_unbounded_capture,
            )
        return self._launcher

    def recent_probe(self) -> launcher.Probe:
        if self._probe is None or (
            time.monotonic() - self._probed_at > RECENT
        ):
            return self.probe()
        return self._probe

    def forget_probe(self) -> None:
        self._probe = None

    def first_look(self) -> float:
        # Each look takes time of the guest's, which the command needs.
        usual = min(self._durations, default=0.0)
        return min(MAX_FIRST_LOOK, usual * FIRST_LOOK_SHARE)

    def note_duration(self, seconds: float) -> None:
        self._durations.append(seconds)

    def probe(self) -> launcher.Probe:
        asked_at = time.monotonic()
        probe = self.guest().probe()
        with self._changed:
            strays = (
                set(probe.ids) - self._tasks.keys() - self._acknowledged.keys()
            )
        if strays:
            # Left by a service before this one, or by a report that was
            # never made.
            for uuid in self.conductor.ended(self.service, sorted(strays)):
                self.clear(uuid)
        self._probe, self._probed_at = probe, asked_at
        return probe

    def clear(self, uuid: str) -> None:
        outcome = self.guest().fence(uuid)
        if isinstance(outcome, launcher.Running | launcher.Died):
            self.guest().signal_tree(uuid, 'KILL', command.LOST)
        self.acknowledge(uuid, is_certain=False)

    def acknowledge(self, uuid: str, *, is_certain: bool) -> None:
        delay = RELEASE_AFTER if is_certain else LATE_LAUNCH
        with self._changed:
            self._acknowledged[uuid] = time.monotonic() + delay

    # The thread.

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                if self._make_turn():
                    return
            except Exception:
                # Its guest has no other: without it all would be stuck.
                LOG.exception('The lane of guest %s failed', self.uuid)
                self._pause(PROBE_GAPS[0])

    def _make_turn(self) -> bool:
        """Do what is due next, and tell whether the lane is to end."""
        item = self._wait_for_task()
        if item is not None:
            self._step(item)
        elif self._acknowledged:
            self._guarded(self._release_due)
        else:
            return self._on_idle(self)
        return False

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, seconds)

    def _wait_for_task(self) -> task.Task | None:
        """Return the next job when it is due, None if there is time."""
        with self._changed:
            idle_until = time.monotonic() + IDLE
            while not self._is_stopping:
                item = self._first()
                now = time.monotonic()
                release_at = min(
                    self._acknowledged.values(), default=idle_until
                )
                if item is not None and item.due <= now:
                    # Work comes first, unless too much is left behind.
                    is_late = now > release_at + LATE_RELEASE
                    return None if is_late else item
                if release_at <= now:
                    return None
                due = release_at if item is None else min(item.due, release_at)
                self._changed.wait(due - now)
        return None

    def _first(self) -> task.Task | None:
        """Return the job that is due first, among those that may run."""
        for uuid in [
            uuid
            for uuid, item in self._tasks.items()
            if item.is_done or item.is_expired
        ]:
            del self._tasks[uuid]
        limit = CONF.guest_agent.max_running_per_server
        active = sorted(
            self._tasks.values(), key=lambda item: not item.is_held
        )
        return min(active[:limit], key=lambda item: item.due, default=None)

    def _step(self, item: task.Task) -> None:
        try:
            asks_guest = item.needs_guest
            if asks_guest:
                self._check_well()
            item.step()
            if asks_guest:
                self._note_answer()
        except _HOPELESS as error:
            self._launcher = None
            self._refuse(item, str(error))
        except exception.GuestError as error:
            self._note_failure(item, error)
        except oslo_messaging.MessagingException as error:
            LOG.warning('No answer from the conductor: %s', error)
            item.postpone(CONDUCTOR_GAP)
        except Exception:
            LOG.exception('Command %s could not make its next step', item.uuid)
            item.postpone(PROBE_GAPS[0])

    def _check_well(self) -> None:
        if time.monotonic() - self._answered_at < TRUST:
            return
        self._guests.ping(self.uuid, is_suspect=self._failures > 0)
        self._note_answer()

    def _note_answer(self) -> None:
        self._answered_at = time.monotonic()
        self._failures = 0

    def _note_failure(
        self, item: task.Task, error: exception.GuestError
    ) -> None:
        """Leave the guest alone for a while."""
        self._answered_at = float('-inf')
        self.forget_probe()
        gap = ABSENT_GAP
        if not isinstance(error, _ABSENT):
            gap = PROBE_GAPS[min(self._failures, len(PROBE_GAPS) - 1)]
            self._failures += 1
        LOG.info(
            'Guest %(uuid)s: %(error)s; next look in %(gap)s seconds',
            {'uuid': self.uuid, 'error': error.message, 'gap': gap},
        )
        with self._changed:
            for other in self._tasks.values():
                if other is item or other.needs_guest:
                    other.postpone(gap)
                    self._seen[other.uuid] = str(error)
        if isinstance(
            error, exception.DomainNotFound | exception.DomainNotRunning
        ):
            self._guarded(lambda: self._tell_not_here(error))

    def _tell_not_here(self, error: exception.GuestError) -> None:
        state = getattr(error, 'state', 'absent')
        with self._changed:
            held = [item for item in self._tasks.values() if item.is_held]
        for item in held:
            item.meet_absence(state)
        if state != 'paused':
            self._forget_abandoned()

    def _forget_abandoned(self) -> None:
        # What they left in the guest went with it.
        with self._changed:
            for item in self._tasks.values():
                if item.is_abandoned:
                    item.drop()

    def _refuse(self, item: task.Task, error: str) -> None:
        self._guarded(lambda: item.refuse(error))
        item.postpone(PROBE_GAPS[0])

    def _release_due(self) -> None:
        """Have the guest remove what it keeps of acknowledged commands."""
        now = time.monotonic()
        with self._changed:
            batch = [
                uuid for uuid, due in self._acknowledged.items() if due <= now
            ][:RELEASE_BATCH]
            for uuid in batch:
                del self._acknowledged[uuid]
        if batch:
            # What fails here is found again by a later probe of the guest.
            self._check_well()
            self.guest().release(batch)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except exception.GuestError as error:
            # Not in its own words: those may be the guest's.
            LOG.info(
                'Guest %(uuid)s: %(error)s; left for later',
                {'uuid': self.uuid, 'error': error.message},
            )
        except oslo_messaging.MessagingException as error:
            LOG.info('No answer from the conductor: %s; left for later', error)
