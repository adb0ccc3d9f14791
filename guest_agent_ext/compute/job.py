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

"""What a host does with one command, a step at a time.

A job is its next step. A step makes one change or asks one thing of the
guest, may be made again if it failed half way, and says what comes next. What
the guest says decides: it holds the lock, the process and the result.

    offered -> claim -> launch -> poll ----------> finish -> released
                 adopted -> recover -^   |
                              fence <----+--> terminate -> poll
                                         +--> bury -> finish
"""

import base64
import time
from typing import Literal

from oslo_log import log as logging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import launcher

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds between two polls: at least, at most, and as a share of the age.
MIN_GAP, MAX_GAP, GAP_SHARE = 0.02, 2.0, 0.1
#: Where fewer seconds are left to start a command, the guest is asked for its
#: uptime anew: a ticket from an earlier probe expires too soon.
URGENT = 30.0
#: Age in seconds at which a running command's pid and start are asked for, and
#: seconds between two such looks: at the guest's clock, and at whether only
#: children of the command still run.
NOTE_STARTED_AFTER = 0.25
LOOK_GAP = 5.0
#: Seconds between two looks at a process tree that was told to end.
KILL_GAP = 0.2

#: How a wait ended that was not the command's own end.
_KILLED = {
    command.TIMED_OUT: 'Its timeout of %(timeout)s seconds passed; '
    'its process tree was killed',
    command.CANCELLED: 'It was cancelled; its process tree was killed',
}
REFUSED = {
    'boot': 'The server was rebooted before the command started',
    'ticket': 'The guest did not start the command in time',
}
LACKS = 'Commands cannot be run in this guest: it has no usable %s'
REBOOTED = 'The server was rebooted while the command ran'
DIED = (
    'What ran the command in the guest was killed before it could record '
    'the end of the command'
)


class Job(task.Task):
    """One command on this host.

    :param lane: of the command's server
    :param work: what the conductor said of it
    """

    def __init__(self, lane: task.Lane, work: rpcapi.Work) -> None:
        super().__init__(lane, work['uuid'])
        self._start_by = self.due + work['start_in']
        self._cancelled = work['cancel_requested']
        self._claim: rpcapi.Claim | None = None
        self._previous = work['attempt']
        # What was handed out before may have been sent before.
        self._sends = 0 if work['attempt'] is None else 2
        self._pid: int | None = None
        self._launched_at: float | None = None
        self._is_start_noted = False
        self._looked_at = float('-inf')
        self._exited_at: float | None = None
        self._kill_status: str | None = None
        self._kill_by: float | None = None
        self._death = DIED
        self._end: rpcapi.End = {}
        self._next = self._take if work['attempt'] is None else self._adopt

    @property
    def needs_guest(self) -> bool:
        return self._next not in (self._finish, self._adopt)

    @property
    def is_offered(self) -> bool:
        return self._next == self._take

    @property
    def is_expired(self) -> bool:
        return self.is_offered and time.monotonic() > self._start_by

    def cancel(self) -> None:
        # At the next step its process tree is killed, if it started.
        self._cancelled = True

    def abandon(self) -> None:
        self.is_held = False
        self.is_abandoned = True
        self._next = self._clear
        self.due = time.monotonic()

    def refuse(self, error: str) -> None:
        if self._next == self._take:
            self._lane.conductor.refuse(self._lane.service, self.uuid, error)
            self.is_done = True
        elif not self._sends:
            self._end_as(command.FAILED, error=error)

    def meet_absence(self, state: str) -> None:
        # Nobody here knows whether the server moves or was stopped.
        outcome = self._lane.conductor.not_here(
            self._lane.service, self.uuid, self.attempt, state
        )
        if outcome != command.OK:
            self.drop()

    # The steps, in the order in which a command meets them.

    def _take(self) -> float:
        is_urgent = self._start_by - time.monotonic() < URGENT
        probe = self._lane.probe() if is_urgent else self._lane.recent_probe()
        return self._hold(
            self._claim_within(self._start_by, probe), self._launch
        )

    def _adopt(self) -> float:
        assert self._previous is not None
        claim = self._lane.conductor.adopt(
            self._lane.service, self.uuid, self.attempt, self._previous
        )
        return self._hold(claim, self._recover)

    def _hold(self, claim: rpcapi.Claim | None, step: task.Step) -> float:
        if claim is None:
            return self._stop()
        self._claim = claim
        self.is_held = True
        self._is_start_noted = claim['started_uptime'] is not None
        return self._go(step)

    def _launch(self) -> float:
        if self._cancelled:
            return self._go(self._fence)
        self._sends += 1
        try:
            self._pid = self._lane.guest().launch(self._order())
        except exception.GuestError as error:
            if not error.may_have_run:
                self._sends -= 1
            if not isinstance(error, exception.AgentRefused):
                raise
            return self._meet_agent_refusal(error)
        self._launched_at = self._launched_at or time.monotonic()
        return self._go(self._poll, max(MIN_GAP, self._lane.first_look()))

    def _meet_agent_refusal(self, error: exception.AgentRefused) -> float:
        if isinstance(error, exception.AgentCommandDisabled):
            raise error
        if self._sends:
            return self._go(self._recover)
        return self._end_as(command.FAILED, error=str(error))

    def _poll(self) -> float:
        """Ask the agent for the end of the launcher that it started."""
        assert self._pid is not None
        try:
            outcome = self._lane.guest().poll(self._pid)
        except exception.AgentRefused:
            # The agent was restarted, or its record was read by a call
            # whose answer was lost: the guest's files know.
            self._pid = None
            return self._go(self._recover)
        if outcome is None:
            return self._wait()
        # That launcher has ended, and the agent has forgotten it.
        self._pid = None
        return self._meet(outcome)

    def _wait(self) -> float:
        """Let the command run on, and know what it is doing."""
        if self._kill_by is not None:
            return self._go(self._terminate)
        if self._cancelled or self._is_overdue():
            return self._go(self._recover)
        if (
            self._age() > NOTE_STARTED_AFTER
            and time.monotonic() - self._looked_at > LOOK_GAP
        ):
            return self._go(self._recover)
        return self._gap()

    def _recover(self) -> float:
        """Ask the guest's files what became of the command."""
        self._looked_at = time.monotonic()
        return self._meet(self._lane.guest().recover(self.uuid))

    def _meet(self, outcome: launcher.Outcome) -> float:
        """Do what follows from what the guest says."""
        match outcome:
            case launcher.Ended():
                return self._meet_end(outcome)
            case launcher.Running():
                return self._meet_running(outcome)
            case launcher.Taken():
                return self._go(self._recover, MIN_GAP)
            case launcher.NotStarted():
                return self._meet_not_started()
            case launcher.Refused():
                return self._meet_refused(outcome.reason)
            case launcher.Fenced():
                return self._end_unstarted()
            case launcher.Died():
                self._death = outcome.reason or DIED
                return self._go(self._bury)

    def _bury(self) -> float:
        """Kill what of it is still alive, and has nobody to watch it."""
        self._lane.guest().signal_tree(self.uuid, 'KILL', command.LOST)
        return self._end_as(command.LOST, error=self._death)

    def _meet_running(self, running: launcher.Running) -> float:
        age = (running.uptime - running.started) / task.UPTIME_HZ
        # The guest's clock counts: a paused guest grows no older.
        self._launched_at = time.monotonic() - age
        if not self._is_start_noted:
            self._lane.conductor.started(
                self._lane.service,
                self.uuid,
                self.attempt,
                running.pid,
                running.started,
                age,
            )
            self._is_start_noted = True
        if running.has_exited:
            self._release_streams()
        if self._cancelled:
            self._kill_status = self._kill_status or command.CANCELLED
        elif self._is_overdue():
            self._kill_status = self._kill_status or command.TIMED_OUT
        if self._kill_status is not None:
            return self._go(self._terminate)
        return self._go(self._watch(), self._gap())

    def _release_streams(self) -> None:
        """Do not wait for ever for children that hold stdout or stderr."""
        now = time.monotonic()
        self._exited_at = self._exited_at or now
        if now - self._exited_at >= CONF.guest_agent.background_grace:
            self._lane.guest().unhold(self.uuid)

    def _watch(self) -> task.Step:
        return self._recover if self._pid is None else self._poll

    def _terminate(self) -> float:
        """Kill the process tree: SIGTERM, and SIGKILL after the grace."""
        assert self._kill_status is not None
        guest = self._lane.guest()
        now = time.monotonic()
        if self._kill_by is None:
            guest.signal_tree(self.uuid, 'TERM', self._kill_status)
            self._kill_by = now + CONF.guest_agent.kill_grace
        elif now >= self._kill_by:
            guest.signal_tree(self.uuid, 'KILL', self._kill_status)
        return self._go(self._watch(), KILL_GAP)

    def _meet_not_started(self) -> float:
        """The launcher has not come: send it again, unless too late."""
        probe = self._lane.probe()
        claim = self._held_claim()
        if probe.boot_id != claim['boot_id']:
            return self._end_as(command.LOST, error=REBOOTED)
        if self._cancelled or probe.uptime > claim['ticket']:
            return self._go(self._fence)
        return self._go(self._launch)

    def _meet_refused(self, reason: str) -> float:
        self._lane.forget_probe()
        if self._sends == 1:
            return self._end_as(
                command.FAILED, error=REFUSED.get(reason, LACKS % reason)
            )
        # An earlier send may have come through: the lock decides.
        return self._go(self._fence)

    def _fence(self) -> float:
        """Take the command's lock before a launcher can."""
        claim = self._held_claim()
        if self._lane.probe().boot_id != claim['boot_id']:
            if self._sends:
                return self._end_as(command.LOST, error=REBOOTED)
            return self._end_unstarted()
        outcome = self._lane.guest().fence(self.uuid)
        if isinstance(outcome, launcher.NotStarted):
            # Its file system took no lock.
            return self._go(self._fence, LOOK_GAP)
        return self._meet(outcome)

    def _end_unstarted(self) -> float:
        if self._cancelled:
            return self._end_as(command.CANCELLED, error=command.NEVER_STARTED)
        return self._end_as(command.FAILED, error=REFUSED['ticket'])

    def _meet_end(self, ended: launcher.Ended) -> float:
        if ended.never_ran:
            return self._end_as(command.FAILED, error=ended.error)
        self._lane.note_duration(self._age())
        status: str = command.COMPLETED
        error: str | None = None
        if ended.exitcode is None and ended.signal is None:
            status, error = command.LOST, DIED
        if ended.killed in _KILLED:
            status = ended.killed
            error = _KILLED[status] % {
                'timeout': self._held_claim()['timeout']
            }
        return self._end_as(status, error=error, ended=ended)

    def _end_as(
        self,
        status: str,
        *,
        error: str | None = None,
        ended: launcher.Ended | None = None,
    ) -> float:
        self._end = {'status': status}
        if error is not None:
            self._end['error'] = error
        if ended is not None:
            self._end.update(_result(ended))
            self._end['age'] = self._age()
        return self._go(self._finish)

    def _finish(self) -> float:
        outcome = self._lane.conductor.finish(
            self._lane.service, self.uuid, self.attempt, self._end
        )
        if outcome == command.MOVED:
            # Another host will ask the guest for this end.
            return self._stop()
        if outcome != command.OK:
            LOG.warning(
                'Command %(uuid)s had ended without its host: %(outcome)s',
                {'uuid': self.uuid, 'outcome': outcome},
            )
        self._lane.acknowledge(self.uuid, is_certain=self._sends == 1)
        return self._stop()

    def _clear(self) -> float:
        self._lane.clear(self.uuid)
        return self._stop()

    # What the steps share.

    def _held_claim(self) -> rpcapi.Claim:
        assert self._claim is not None
        return self._claim

    def _age(self) -> float:
        if self._launched_at is None:
            return 0.0
        return time.monotonic() - self._launched_at

    def _is_overdue(self) -> bool:
        return self._age() >= self._held_claim()['timeout']

    def _gap(self) -> float:
        left = self._held_claim()['timeout'] - self._age()
        return max(MIN_GAP, min(MAX_GAP, self._age() * GAP_SHARE, left))

    def _order(self) -> launcher.Launch:
        claim = self._held_claim()
        order = claim['exec']
        assert order is not None
        return launcher.Launch(
            id=claim['uuid'],
            argv=tuple(order['command']),
            env=order['env'],
            stdin=base64.b64decode(order['stdin']),
            cwd=order['cwd'],
            boot_id=claim['boot_id'],
            ticket=claim['ticket'],
            keep=command.MAX_OUTPUT_BYTES,
            keep_end=order['output_keep'],
        )


#: What of an end may be unknown.
_OPTIONAL: tuple[
    Literal['exitcode', 'signal', 'out_bytes', 'err_bytes'], ...
] = ('exitcode', 'signal', 'out_bytes', 'err_bytes')


def _result(ended: launcher.Ended) -> rpcapi.End:
    result: rpcapi.End = {
        'pid': ended.pid,
        'out_data': base64.b64encode(ended.out).decode(),
        'err_data': base64.b64encode(ended.err).decode(),
    }
    for name in _OPTIONAL:
        value = getattr(ended, name)
        if value is not None:
            result[name] = value
    return result
