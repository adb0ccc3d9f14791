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

"""The task that runs a program in a guest.

What the guest says decides: it holds the lock, the process and the result. A
step that failed half way is made again, and runs nothing twice.

    offered -> claim -> launch -> poll, observe --------> finish -> released
                 adopted -> recover -^   |                  ^
                              fence <----+--> terminate -> reap
                                         +--> bury -> recover

For an attached command ``serve`` stands where ``poll`` and ``observe`` do,
and ``drain`` before ``finish``: its end is told when all was read.
"""

import base64
import contextlib
from typing import Literal

from oslo_log import log as logging

from guest_agent_ext import backoff
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import attachment
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.compute import task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import posix

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds until the next poll, by the command's age.
POLL_GAPS = backoff.Proportional(shortest=0.02, longest=2.0, share=0.1)
#: The same where the guest's journal has a line of each poll.
LOGGED_POLL_GAPS = backoff.Proportional(
    shortest=0.02, longest=30.0, share=0.25
)
#: The same where the command's own process has ended and a child of it still
#: has its streams.
HELD_POLL_GAPS = backoff.Proportional(shortest=0.02, longest=1.0, share=0.1)
#: Seconds left to start a command below which the guest is asked for its
#: uptime anew: a ticket from an earlier probe expires too soon.
URGENT = 30.0
#: Age in seconds at which a running command's pid and start are asked for.
NOTE_STARTED_AFTER = 0.25
#: Seconds until a running command's files are read again, by its age: they
#: have the guest's clock, and whether the launcher's processes do their part.
#: Each reading leaves lines in the guest's journal, so the files of an old
#: command are read less often.
RECOVERY_GAPS = backoff.Proportional(shortest=5.0, longest=120.0, share=0.5)
#: Seconds until a guest that cannot take a lock is asked again to do so.
UNFENCED_GAP = 5.0
#: Seconds until a process tree that was told to end is signalled again, and
#: seconds after SIGKILL from which on what still lives will not end.
KILL_GAPS = backoff.Exponential(first=0.2, longest=2.0, factor=1.5)
KILL_PATIENCE = 6.0
#: Number of times that a command is asked after whose launcher was killed.
BURIALS = 5
#: Seconds until the process of an attached command is looked at again, by the
#: time since something went through its streams: mostly they tell its end.
WATCH_GAPS = backoff.Proportional(shortest=5.0, longest=30.0, share=0.25)
#: Seconds of silence after which nobody is believed to read the rest of what
#: a killed command wrote.
KILLED_SILENCE = 5.0

#: Errors of commands that were killed, by how they ended.
_KILLED = {
    command.TIMED_OUT: 'Its timeout of %(timeout)s seconds passed; %(tree)s',
    command.CANCELLED: 'It was cancelled; %(tree)s',
}
LEFT = (
    'No client was attached for %d seconds (attach_timeout), so it was '
    'cancelled; %%(tree)s'
)
#: Errors of commands that a launcher refused, by its reason.
REFUSED = {
    'boot': 'The server was rebooted before the command started',
    'ticket': 'The guest did not start the command in time',
}
#: Error of a command that was refused for any other reason.
REBOOTED = 'The server was rebooted while the command ran'
FORGOTTEN = (
    'What the guest knew of the command was removed in it '
    f'({posix.DIRECTORY}): how it ended is not known'
)
DIED = (
    'What ran the command in the guest was killed before it could record '
    'the end of the command'
)


class ExecTask(task.Task):
    """One command that runs a program.

    :param session: guest of the command's server
    :param work: command, as the conductor handed it out
    """

    def __init__(
        self, session: compute_session.Session, work: rpcapi.Work
    ) -> None:
        super().__init__(
            session, work['uuid'], work['start_in'], work['attempt']
        )
        self._cancelled = work['cancel_requested']
        # What was handed out before may have been sent before.
        self._sends = 0 if work['attempt'] is None else 2
        #: The launcher's pid, until the agent has told of its end.
        self._pid: int | None = None
        self._launched_at: float | None = None
        self._is_start_noted = False
        self._recovered_at = float('-inf')
        self._exited_at: float | None = None
        self._kill_status: str | None = None
        self._kill_by: float | None = None
        self._kills = 0
        #: Maximum number of processes that a signal met alive.
        self._killed = 0
        self._ended: launcher.Ended | None = None
        self._torn: launcher.Ended | None = None
        #: Whether a launcher is known to have come.
        self._was_seen = False
        self._expired_by = float('inf')
        self._watch: launcher.Watch | None = None
        #: Whether the guest's journal has a line of each poll.
        self._is_logged = False
        self._loss = command.LOST, DIED
        self._burials = 0
        #: The calls of an attached command, from the claim on.
        self.attachment: attachment.Attachment | None = None
        self._was_left = False
        self._watched_at = float('-inf')
        self._kill_again_at = float('-inf')
        self._end: rpcapi.End = {}
        self._next = self._take if work['attempt'] is None else self._adopt

    @property
    def is_offered(self) -> bool:
        return self._next.stage is task.Stage.UNCLAIMED

    @property
    def is_attached(self) -> bool:
        return self._attach_order() is not None

    def step(self) -> None:
        super().step()
        if self.attachment is not None and self.is_done:
            self._close(self.attachment)
        elif self._is_asked():
            # A call that came during the step has made it due in vain.
            self.due = self._clock.now()

    def _close(self, attached: attachment.Attachment) -> None:
        attached.close()
        # Of a guest that does not answer, each handle would cost a timeout.
        if not self._session.failures:
            attached.streams.close()

    def drop(self) -> None:
        super().drop()
        if self.attachment is not None:
            self.attachment.refuse(attachment.LATER)

    def stop(self) -> None:
        if self.attachment is not None:
            self.attachment.refuse(attachment.LATER)

    def _rouse(self) -> None:
        """Make the next step due; called by threads of the RPC server."""
        if self._is_asked():
            self.due = self._clock.now()
            self._session.wake()

    def _is_asked(self) -> bool:
        return (
            self.attachment is not None
            and self.attachment.is_asked
            and self._next.stage is task.Stage.SERVING
        )

    def cancel(self) -> None:
        # At the next step its process tree is killed, if it started.
        self._cancelled = True

    def _abandoned_step(self) -> task.Step:
        return self._clear

    def refuse(self, error: str) -> None:
        if self.is_abandoned:
            return
        if self.is_offered:
            self._session.conductor.refuse(
                self._session.service, self.uuid, error
            )
            self.is_done = True
        elif not self._sends:
            self._end_as(command.FAILED, error=error)
        elif not self._was_seen and self._clock.now() > self._expired_by:
            # Whether a launcher came before is not to be learnt any more.
            self._end_as(command.LOST, error=error)

    def meet_failure(self, error: exception.GuestError) -> None:
        """Ignore the failure: nobody waits for the command to begin."""

    def meet_absence(self, state: str) -> None:
        if self._next is self._drain and state != 'paused':
            # Nobody can read the rest any more; the end is known.
            self._next = self._finish
            self.due = self._clock.now()
            return
        # Nobody here knows whether the server moves or was stopped.
        outcome = self._session.conductor.not_here(
            self._session.service, self.uuid, self.attempt, state
        )
        if outcome != command.OK:
            self.drop()

    # The steps, in the order in which a command meets them.

    @task.step(task.Stage.UNCLAIMED)
    def _take(self) -> float:
        is_urgent = self._start_by - self._clock.now() < URGENT
        probe = (
            self._session.probe()
            if is_urgent
            else self._session.recent_probe()
        )
        return self._hold(self._claim_now(probe), self._launch)

    @task.step(task.Stage.INHERITED, needs_guest=False)
    def _adopt(self) -> float:
        return self._hold(self._adopt_now(), self._recover)

    def _hold(self, claim: rpcapi.Claim | None, step: task.Step) -> float:
        if claim is None:
            return self._stop()
        self._claim = claim
        self._expired_by = self._clock.now() + compute_session.LAUNCH_WINDOW
        self._is_start_noted = claim['started_uptime'] is not None
        self._was_seen = self._was_seen or self._is_start_noted
        return self._go(step)

    def _attach(self) -> None:
        """Open the mailbox of an attached command.

        :raises exception.LauncherUnavailable: the guest has no streams
        """
        order = self._attach_order()
        if order is None or self.attachment is not None:
            return
        self.attachment = attachment.Attachment(
            self._clock,
            self._session.guest().attached(
                self.uuid, terminal=order['terminal'] is not None
            ),
            self._rouse,
        )

    def _attach_order(self) -> rpcapi.Attach | None:
        order = None if self._claim is None else self._claim['exec']
        return None if order is None else order.get('attach')

    @task.step()
    def _launch(self) -> float:
        if self._cancelled:
            return self._go(self._fence)
        self._attach()
        self._sends += 1
        try:
            self._pid = self._session.guest().launch(self._order())
        except exception.GuestError as error:
            if error.may_have_run:
                # What may be there is not sent again before it was looked for.
                self._next = self._recover
            else:
                self._sends -= 1
            if not isinstance(error, exception.AgentRefused):
                raise
            return self._meet_agent_refusal(error)
        self._launched_at = self._launched_at or self._clock.now()
        return self._go(
            self._poll, max(POLL_GAPS.shortest, self._session.first_poll())
        )

    def _meet_agent_refusal(self, error: exception.AgentRefused) -> float:
        if isinstance(error, exception.AgentCommandDisabled):
            raise error
        if self._sends:
            return self._go(self._recover)
        return self._end_as(command.FAILED, error=str(error))

    @task.step()
    def _poll(self) -> float:
        """Poll the launcher's process, which the agent started."""
        outcome = self._polled()
        if self._pid is not None:
            return self._wait()
        if outcome is None or _is_doubtful(outcome):
            # The guest's files know.
            return self._go(self._recover)
        return self._meet(outcome)

    def _polled(self) -> launcher.Outcome | None:
        """Return what the launcher printed, and note that its end was told.

        The agent tells an end once: after that it does not know the pid.

        :returns: none if the launcher runs, or its end was told to somebody
            else
        """
        assert self._pid is not None
        try:
            outcome = self._session.guest().poll(self._pid)
        except exception.AgentRefused:
            # The agent was restarted, or its record was read by a call
            # whose answer was lost.
            outcome = None
        else:
            if outcome is None:
                return None
        self._pid = None
        if outcome is None or _is_doubtful(outcome):
            # A launcher came, and may have done anything.
            self._was_seen = True
        if isinstance(outcome, launcher.Ended) and outcome.is_torn:
            self._torn = outcome
        return outcome

    @task.step()
    def _observe(self) -> float:
        """Stat the command's process, which leaves no trace in the guest."""
        assert self._watch is not None
        if not self._watch.has_exited():
            return self._wait()
        self._unwatch()
        self._exited_at = self._clock.now()
        return self._go(self._asking())

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            # An agent that was restarted has forgotten it.
            with contextlib.suppress(exception.GuestError):
                watch.close()

    def _wait(self) -> float:
        """Go on polling, unless the command is to be killed or recovered."""
        if self._kill_by is not None:
            return self._go(self._terminate)
        if self._cancelled or self._is_overdue() or self._is_recovery_due():
            return self._go(self._recover)
        if self.attachment is not None:
            return self._go(self._serve)
        return self._gap()

    @task.step(task.Stage.SERVING)
    def _serve(self) -> float:
        """Move what goes through the streams of an attached command."""
        attached = self._served()
        assert self.attachment is not None
        now = self._clock.now()
        if self._kill_by is not None:
            is_due = attached.streams.has_ended or now >= self._kill_again_at
            return self._go(self._recover) if is_due else self._gap()
        self._note_silence()
        if (
            attached.streams.has_ended
            or self._cancelled
            or self._is_overdue()
            or self._is_recovery_due()
        ):
            return self._go(self._recover)
        if not attached.streams.has_begun:
            # The launcher may have refused.
            step = self._serve if self._pid is None else self._poll
            return self._go(step, self._gap())
        if self._watch is not None and now > self._watched_at + (
            WATCH_GAPS.gap(self.attachment.quiet)
        ):
            self._watched_at = now
            return self._go(self._observe)
        return self._gap()

    def _served(self) -> attachment.Attachment:
        assert self.attachment is not None
        self.attachment.serve()
        return self.attachment

    def _note_silence(self) -> None:
        """Cancel a command that no client is attached to any more."""
        assert self.attachment is not None
        timeout = CONF.guest_agent.attach_timeout
        if self._is_detachable() or self.attachment.silence < timeout:
            return
        self._was_left = not self._cancelled
        self._cancelled = True

    def _is_detachable(self) -> bool:
        order = self._attach_order()
        return order is not None and order['detach']

    @task.step(task.Stage.SERVING)
    def _drain(self) -> float:
        """Wait until all was read that an ended command has written."""
        assert self.attachment is not None and self._ended is not None
        # For its readers it runs until they have all.
        self._note_started(self._ended.pid, self._ended.start_ticks)
        patience = CONF.guest_agent.attach_timeout
        if self._end['status'] != command.COMPLETED:
            patience = KILLED_SILENCE
        self.attachment.expect_end()
        self.attachment.serve()
        if (
            self.attachment.is_drained
            or self.attachment.silence > patience
            or self._is_overdue()
        ):
            return self._go(self._finish)
        return self.attachment.gap

    def _is_recovery_due(self) -> bool:
        since = self._clock.now() - self._recovered_at
        is_lost = self.attachment is not None and self.attachment.is_lost
        if self._exited_at is not None or is_lost:
            return since > HELD_POLL_GAPS.longest
        age = self._age()
        return age > NOTE_STARTED_AFTER and since > RECOVERY_GAPS.gap(age)

    @task.step()
    def _recover(self) -> float:
        """Ask the guest's files what became of the command."""
        self._attach()
        self._recovered_at = self._clock.now()
        outcome = self._session.guest().recover(self.uuid)
        if not isinstance(outcome, launcher.Running | launcher.Taken):
            outcome = self._told_meanwhile() or outcome
        return self._meet(outcome)

    def _told_meanwhile(self) -> launcher.Outcome | None:
        """Ask the agent for an end that the guest's files do not have.

        Where they were removed, a launcher that ends while it is looked for
        leaves no trace but what it told its agent.
        """
        if self._pid is None:
            return None
        outcome = self._polled()
        return None if outcome is None or _is_doubtful(outcome) else outcome

    def _meet(self, outcome: launcher.Outcome) -> float:
        """Act on what the guest says of the command."""
        match outcome:
            case launcher.Ended():
                return self._meet_end(outcome)
            case launcher.Running():
                return self._meet_running(outcome)
            case launcher.Taken():
                self._was_seen = True
                return self._go(self._recover, POLL_GAPS.shortest)
            case launcher.NotStarted():
                return self._meet_not_started()
            case launcher.Refused():
                return self._meet_refused(outcome.reason)
            case launcher.Fenced():
                return (
                    self._end_lost()
                    if self._burials
                    else self._end_unstarted()
                )
            case launcher.Died():
                return self._lose(outcome.reason or DIED)

    def _lose(self, reason: str, status: str = command.LOST) -> float:
        """Kill and end a command whose end nobody in the guest records."""
        if not self._burials:
            self._loss = status, reason
        if self._burials < BURIALS:
            return self._go(self._bury)
        return self._end_lost()

    def _end_lost(self, ended: launcher.Ended | None = None) -> float:
        status, reason = self._loss
        return self._end_as(status, error=reason, ended=ended or self._torn)

    @task.step()
    def _bury(self) -> float:
        """Kill the processes of a command whose launcher was killed."""
        self._burials += 1
        self._session.guest().signal_tree(self.uuid, 'KILL', command.LOST)
        return self._go(self._recover, KILL_GAPS.first)

    def _meet_running(self, running: launcher.Running) -> float:
        self._was_seen = True
        age = (running.uptime - running.started) / task.UPTIME_HZ
        # The guest's clock counts: a paused guest grows no older.
        self._launched_at = self._clock.now() - age
        if (
            running.pid is None
            and self._kill_status is None
            and age > compute_session.LAUNCH_WINDOW
        ):
            # What was to start it was killed before it did.
            return self._lose(DIED)
        self._note_started(running.pid, running.started)
        if running.has_exited:
            self._release_streams()
        else:
            # Only the watch had ended, with its agent.
            self._exited_at = None
        if self._cancelled:
            self._kill_status = self._kill_status or command.CANCELLED
        elif self._is_overdue():
            self._kill_status = self._kill_status or command.TIMED_OUT
        if self._kill_status is not None:
            return self._go(self._terminate)
        if (
            self._watch is None
            and running.pid is not None
            and self._exited_at is None
        ):
            self._watch = self._session.guest().watch(running.pid)
            self._is_logged = self._watch is None
        return self._go(self._asking(), self._gap())

    def _note_started(self, pid: int | None, started: int) -> None:
        """Have the conductor know that the command runs.

        :param started: guest uptime (centiseconds) at the start
        """
        if self._is_start_noted:
            return
        self._session.conductor.started(
            self._session.service,
            self.uuid,
            self.attempt,
            pid,
            started,
            self._age(),
        )
        self._is_start_noted = True

    def _release_streams(self) -> None:
        """Free the command of children that hold stdout or stderr too long."""
        now = self._clock.now()
        self._exited_at = self._exited_at or now
        if now - self._exited_at < CONF.guest_agent.background_grace:
            return
        if self.attachment is not None and not self.attachment.is_dry:
            if self.attachment.silence < CONF.guest_agent.attach_timeout:
                return
            self.attachment.drop_output()
        self._session.guest().unhold(self.uuid)

    def _asking(self) -> task.Step:
        """Return the step that asks after the command's end."""
        if self.attachment is not None:
            return self._serve
        if self._watch is not None:
            return self._observe
        return self._recover if self._pid is None else self._poll

    @task.step()
    def _terminate(self) -> float:
        """Kill the process tree: SIGTERM, and SIGKILL after the grace."""
        assert self._kill_status is not None
        self._unwatch()
        if self._kill_by is None:
            self._signal('TERM')
            self._kill_by = self._clock.now() + CONF.guest_agent.kill_grace
        elif self._is_out_of_patience():
            # The tree cannot be killed, nor its launcher be told.
            return self._lose(
                self._words_of_kill(left=True), self._kill_status
            )
        elif self._clock.now() >= self._kill_by and not self._signal('KILL'):
            # Whoever has the command's streams is no process of its own.
            self._session.guest().unhold(self.uuid)
        gap = self._next_kill_gap()
        self._kill_again_at = self._clock.now() + gap
        self._let_go()
        return self._go(self._asking(), gap)

    def _let_go(self) -> None:
        """Have a command that is killed wait for no reader who is away."""
        assert self._kill_by is not None
        if self.attachment is not None and (
            self.attachment.silence > KILLED_SILENCE
            or self._clock.now() >= self._kill_by
        ):
            self.attachment.drop_output()

    def _signal(self, signal: str) -> int:
        alive = self._session.guest().signal_tree(
            self.uuid, signal, self._kill_status or command.LOST
        )
        self._killed = max(self._killed, alive)
        return alive

    def _is_out_of_patience(self) -> bool:
        return (
            self._kill_by is not None
            and self._clock.now() > self._kill_by + KILL_PATIENCE
        )

    def _next_kill_gap(self) -> float:
        self._kills += 1
        return KILL_GAPS.gap(self._kills - 1)

    @task.step()
    def _reap(self) -> float:
        """Kill the processes that outlive a command that was killed."""
        assert self._ended is not None and self._kill_status is not None
        now = self._clock.now()
        self._kill_by = self._kill_by or now
        alive = self._signal('KILL' if now >= self._kill_by else '0')
        if alive and not self._is_out_of_patience():
            return self._go(self._reap, self._next_kill_gap())
        return self._end_as(
            self._kill_status,
            ended=self._ended,
            error=self._words_of_kill(left=alive > 0),
        )

    def _words_of_kill(self, *, left: bool) -> str:
        assert self._kill_status is not None
        tree = 'its process tree was killed'
        if self._killed:
            tree += f' (processes: {self._killed})'
        if left:
            tree += '; some of it may still live'
        words = _KILLED[self._kill_status]
        if self._was_left:
            words = LEFT % CONF.guest_agent.attach_timeout
        return words % {'timeout': self._held_claim()['timeout'], 'tree': tree}

    def _meet_not_started(self) -> float:
        """Send the launcher again if no launcher has come, else fence."""
        probe = self._session.probe()
        claim = self._held_claim()
        if self._sends and probe.was_rebooted(claim['boot_id']):
            return self._end_as(command.LOST, error=REBOOTED)
        if self._burials:
            return self._end_lost()
        if self._may_launcher_live(probe):
            return self._go(self._poll, self._gap())
        # That there is no lock proves nothing where it may have been removed;
        # the fence keeps away a launcher that is late.
        if self._was_seen or probe.boot_id != claim['boot_id']:
            return self._go(self._fence)
        if self._cancelled or probe.uptime > claim['ticket']:
            return self._go(self._fence)
        return self._go(self._launch)

    def _may_launcher_live(self, probe: launcher.Probe) -> bool:
        """Tell whether the launcher may still come, or its end still be told.

        A moment passes between its end and the agent's knowledge of it.
        """
        if self._pid is None or self._cancelled or self._is_overdue():
            return False
        return self._was_seen or probe.uptime <= self._held_claim()['ticket']

    def _meet_refused(self, reason: str) -> float:
        self._session.forget_probe()
        if self._sends != 1:
            # An earlier send may have come through: the lock decides.
            return self._go(self._fence)
        if reason == 'boot':
            return self._go(self._meet_boot)
        return self._end_as(
            command.FAILED, error=REFUSED.get(reason, launcher.LACKS % reason)
        )

    @task.step()
    def _meet_boot(self) -> float:
        """Tell a reboot from a new directory in the same boot."""
        if self._session.probe().was_rebooted(self._held_claim()['boot_id']):
            return self._end_as(command.FAILED, error=REFUSED['boot'])
        self._sends = 0
        return self._go(self._reclaim)

    @task.step()
    def _reclaim(self) -> float:
        """Claim the command for the boot id that the guest has now."""
        claim = self._claim_now(self._session.recent_probe())
        if claim is None:
            return self._end_unstarted()
        self._claim = claim
        return self._go(self._launch)

    @task.step()
    def _fence(self) -> float:
        """Take the command's lock before a launcher does."""
        claim = self._held_claim()
        probe = self._session.probe()
        if not self._sends and probe.boot_id != claim['boot_id']:
            return self._end_unstarted()
        if self._sends and probe.was_rebooted(claim['boot_id']):
            return self._end_as(command.LOST, error=REBOOTED)
        outcome = self._session.guest().fence(self.uuid)
        if isinstance(outcome, launcher.NotStarted):
            # Its file system took no lock: a launcher takes none either.
            if probe.uptime > claim['ticket']:
                return self._end_unstarted()
            return self._go(self._fence, UNFENCED_GAP)
        if isinstance(outcome, launcher.Fenced) and (
            probe.boot_id != claim['boot_id'] or self._was_seen
        ):
            return self._lose(FORGOTTEN)
        return self._meet(outcome)

    def _end_unstarted(self) -> float:
        if self._cancelled:
            return self._end_as(command.CANCELLED, error=command.NEVER_STARTED)
        return self._end_as(command.FAILED, error=REFUSED['ticket'])

    def _meet_end(self, ended: launcher.Ended) -> float:
        if ended.never_ran:
            return self._end_as(command.FAILED, error=ended.error)
        # A service before this one may have killed it, or the guest may have
        # forgotten who did.
        killed = ended.killed or (self._kill_status if self._killed else None)
        if killed in _KILLED:
            self._ended, self._kill_status = ended, killed
            return self._go(self._reap)
        if ended.exitcode is None and ended.signal is None:
            return self._end_lost(ended)
        self._session.note_duration(self._age())
        return self._end_as(command.COMPLETED, ended=ended)

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
            if self.attachment is not None and status != command.LOST:
                self._ended = ended
                return self._go(self._drain)
        return self._go(self._finish)

    @task.step(task.Stage.ENDED, needs_guest=False)
    def _finish(self) -> float:
        self._unwatch()
        outcome = self._session.conductor.finish(
            self._session.service, self.uuid, self.attempt, self._end
        )
        if outcome == command.MOVED:
            # Another host will ask the guest for this end.
            return self._stop()
        if outcome != command.OK:
            LOG.warning(
                'Command %(uuid)s had ended without its host: %(outcome)s',
                {'uuid': self.uuid, 'outcome': outcome},
            )
        self._session.acknowledge(self.uuid, is_certain=self._sends == 1)
        return self._stop()

    @task.step()
    def _clear(self) -> float:
        self._session.clear(self.uuid)
        return self._stop()

    # What the steps share.

    def _held_claim(self) -> rpcapi.Claim:
        assert self._claim is not None
        return self._claim

    def _age(self) -> float:
        if self._launched_at is None:
            return 0.0
        return self._clock.now() - self._launched_at

    def _is_overdue(self) -> bool:
        return self._age() >= self._held_claim()['timeout']

    def _gap(self) -> float:
        if self.attachment is not None:
            return self.attachment.gap
        gaps = POLL_GAPS
        if self._exited_at is not None:
            gaps = HELD_POLL_GAPS
        elif self._is_logged:
            gaps = LOGGED_POLL_GAPS
        age = self._age()
        left = self._held_claim()['timeout'] - age
        return max(gaps.shortest, min(gaps.gap(age), left))

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
            user=order['user'],
            boot_id=claim['boot_id'],
            ticket=claim['ticket'],
            keep=command.MAX_OUTPUT_BYTES,
            keep_end=order['output_keep'],
            attach=_attach_of(order),
        )


#: Parts of an end that may be unknown.
_OPTIONAL: tuple[
    Literal['exitcode', 'signal', 'out_bytes', 'err_bytes'], ...
] = ('exitcode', 'signal', 'out_bytes', 'err_bytes')


def _attach_of(order: rpcapi.ExecOrder) -> launcher.Attach | None:
    asked = order.get('attach')
    if asked is None:
        return None
    terminal = asked['terminal']
    return launcher.Attach(
        None
        if terminal is None
        else launcher.Terminal(
            terminal['columns'], terminal['rows'], terminal['term']
        )
    )


def _is_doubtful(outcome: launcher.Outcome) -> bool:
    match outcome:
        case launcher.Died():
            return outcome.reason is None
        case launcher.Ended():
            return outcome.is_torn
    return False


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
