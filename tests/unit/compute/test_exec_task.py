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

"""The steps of a command, with guest and conductor played.

A played guest answers from a list: what goes lost on a real one cannot be made
to go lost at a given moment.
"""

import base64
from collections.abc import Sequence
import contextlib
import itertools
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import attachment
from guest_agent_ext.compute import exec_task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest.launchers import base as launcher
from tests.unit import sessions

PROBE = launcher.Probe(boot_id='boot-1', uptime=1000, ids=())
CLAIM: rpcapi.Claim = {
    'uuid': 'command',
    'type': command.EXEC,
    'exec': {
        'command': ['id'],
        'cwd': None,
        'user': None,
        'env': {},
        'stdin': '',
        'output_keep': 'head',
    },
    'file': None,
    'timeout': 60,
    'boot_id': 'boot-1',
    'ticket': 7000,
    'started_uptime': None,
}
RUNNING = launcher.Running(pid=77, started=1000, uptime=1100)


def ended(**values: Any) -> launcher.Ended:
    return launcher.Ended(
        **(
            dict(
                pid=77,
                start_ticks=1000,
                exitcode=3,
                signal=None,
                never_ran=False,
                error=None,
                out=b'out',
                err=b'',
                out_bytes=3,
                err_bytes=0,
            )
            | values
        )
    )


class Session(sessions.FakeSession):
    """Plays guest and conductor.

    :ivar launcher: launcher of the guest
    """

    def __init__(self) -> None:
        self.launcher = mock.Mock()
        super().__init__(CLAIM, self.launcher)
        self.launcher.launch.return_value = 5
        self.launcher.signal_tree.return_value = 0
        self.launcher.watch.return_value = None
        self.probe = self.recent_probe = mock.Mock(return_value=PROBE)


@pytest.fixture
def session() -> Session:
    return Session()


def make(session: Session, **values: Any) -> exec_task.ExecTask:
    work: Any = {
        'uuid': 'command',
        'type': command.EXEC,
        'instance_uuid': 'server',
        'status': command.PENDING,
        'attempt': None,
        'cancel_requested': False,
        'start_in': 300.0,
    }
    return exec_task.ExecTask(session, dict(work, **values))


def adopted(session: Session, **values: Any) -> exec_task.ExecTask:
    return make(session, status=command.RUNNING, attempt='previous', **values)


def step(session: Session, item: exec_task.ExecTask) -> None:
    """Make a step when it is due."""
    # An agent call takes some time.
    session.clock.time = max(item.due, session.clock.time + 0.005)
    item.step()


def run(session: Session, item: exec_task.ExecTask, limit: int = 50) -> None:
    """Make steps until it is done; what the guest fails at, again."""
    for _ in range(limit):
        if item.is_done:
            return
        with contextlib.suppress(exception.GuestError):
            step(session, item)
    raise AssertionError('The task goes round in circles')


def test_command_is_claimed_launched_polled_and_reported(
    session: Session,
) -> None:
    session.launcher.poll.side_effect = [None, None, ended()]
    run(session, make(session))
    assert session.launcher.launch.call_count == 1
    assert session.end['status'] == command.COMPLETED
    assert (session.end['pid'], session.end['exitcode']) == (77, 3)
    assert 'error' not in session.end
    session.acknowledge.assert_called_once_with('command', is_certain=True)


def test_claim_bounds_the_start_by_the_guests_clock(session: Session) -> None:
    session.launcher.poll.return_value = ended()
    run(session, make(session, start_in=10.1))
    args = session.conductor.claim.call_args.args
    boot_id, ticket, window = args[3:]
    assert boot_id == 'boot-1'
    assert 9 < window <= 10
    assert ticket == 1000 + int(window * 100)


@pytest.mark.parametrize(
    ('start_in', 'is_urgent'),
    [(exec_task.URGENT - 1, True), (exec_task.URGENT + 1, False)],
)
def test_urgent_command_has_the_guest_asked_anew(
    session: Session, start_in: float, is_urgent: bool
) -> None:
    session.recent_probe = mock.Mock(return_value=PROBE)
    session.launcher.poll.return_value = ended()
    run(session, make(session, start_in=start_in))
    assert session.probe.called is is_urgent
    assert session.recent_probe.called is not is_urgent


def test_first_poll_comes_when_the_session_says(session: Session) -> None:
    session.first_poll.return_value = 0.15
    session.launcher.poll.return_value = ended()
    item = make(session)
    item.step()
    began = session.clock.now()
    item.step()
    assert item.due - began == pytest.approx(0.15)
    run(session, item)
    session.note_duration.assert_called_once()


def test_nothing_is_claimed_that_may_not_start(session: Session) -> None:
    run(session, make(session, start_in=0.05))
    session.conductor.claim.assert_not_called()
    session.launcher.launch.assert_not_called()


def test_nothing_is_launched_that_is_not_ours(session: Session) -> None:
    session.conductor.claim.return_value = None
    run(session, make(session))
    session.launcher.launch.assert_not_called()
    session.conductor.finish.assert_not_called()


def test_unanswered_launch_is_sent_again_unchanged(session: Session) -> None:
    """But never before the guest was asked what came of the first."""
    session.launcher.launch.side_effect = [exception.AgentUnresponsive(), 6]
    session.launcher.poll.side_effect = [launcher.Taken()]
    session.launcher.recover.side_effect = [launcher.NotStarted(), ended()]
    run(session, make(session))
    first, second = (
        call.args[0] for call in session.launcher.launch.call_args_list
    )
    assert first == second
    assert session.end['status'] == command.COMPLETED


def test_refusal_of_the_only_launch_is_proof(session: Session) -> None:
    session.launcher.poll.return_value = launcher.Refused('ticket')
    run(session, make(session))
    assert session.end['status'] == command.FAILED
    session.launcher.fence.assert_not_called()
    # The guest may have another boot.
    session.forget_probe.assert_called_once()


def test_refusal_names_what_the_guest_lacks(session: Session) -> None:
    session.launcher.poll.return_value = launcher.Refused('mkfifo')
    run(session, make(session))
    assert session.end['status'] == command.FAILED
    assert 'mkfifo' in session.end['error']


def test_refusal_of_a_second_launch_is_not(session: Session) -> None:
    session.launcher.launch.side_effect = [exception.AgentUnresponsive(), 6]
    session.launcher.poll.return_value = launcher.Refused('ticket')
    session.launcher.fence.return_value = RUNNING
    session.launcher.recover.side_effect = [launcher.NotStarted(), ended()]
    run(session, make(session))
    assert session.end['status'] == command.COMPLETED


def test_lost_poll_is_recovered_from_the_files(session: Session) -> None:
    session.launcher.poll.side_effect = exception.AgentRefused('invalid pid')
    session.launcher.recover.side_effect = [RUNNING, ended()]
    run(session, make(session))
    assert session.end['status'] == command.COMPLETED
    assert session.launcher.launch.call_count == 1


def test_adopted_command_is_never_launched_before_asking(
    session: Session,
) -> None:
    session.launcher.recover.side_effect = [RUNNING, ended()]
    run(session, adopted(session))
    session.launcher.launch.assert_not_called()
    session.conductor.started.assert_called_once()
    assert session.end['status'] == command.COMPLETED


def test_adopted_command_that_never_came_is_launched(session: Session) -> None:
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.poll.return_value = ended()
    run(session, adopted(session))
    assert session.launcher.launch.call_count == 1
    assert session.launcher.launch.call_args.args[0].ticket == CLAIM['ticket']


def test_adopted_command_past_its_ticket_is_fenced(session: Session) -> None:
    session.launcher.recover.return_value = launcher.NotStarted()
    session.probe.return_value = launcher.Probe('boot-1', 7001, ())
    session.launcher.fence.return_value = launcher.Fenced()
    run(session, adopted(session))
    session.launcher.launch.assert_not_called()
    assert session.end['status'] == command.FAILED


def test_fence_that_comes_too_late_ends_nothing(session: Session) -> None:
    session.launcher.recover.side_effect = [launcher.NotStarted(), ended()]
    session.probe.return_value = launcher.Probe('boot-1', 7001, ())
    session.launcher.fence.return_value = RUNNING
    run(session, adopted(session))
    assert session.end['status'] == command.COMPLETED


def test_reboot_after_a_send_is_lost(session: Session) -> None:
    session.launcher.recover.return_value = launcher.NotStarted()
    session.probe.return_value = launcher.Probe('other boot', 10, ())
    run(session, adopted(session))
    assert session.end['status'] == command.LOST
    session.launcher.launch.assert_not_called()


def test_launcher_killed_before_its_record_is_lost(session: Session) -> None:
    """Its command is killed, and what is known of its output is kept."""
    session.launcher.recover.side_effect = [
        launcher.Died(),
        ended(exitcode=None, out_bytes=None),
    ]
    session.launcher.signal_tree.side_effect = [
        exception.AgentUnresponsive(),
        2,
    ]
    run(session, adopted(session))
    assert (session.end['status'], session.end['error']) == (
        command.LOST,
        exec_task.DIED,
    )
    assert session.end['out_data'] == base64.b64encode(b'out').decode()
    assert 'out_bytes' not in session.end
    session.launcher.signal_tree.assert_called_with(
        'command', 'KILL', command.LOST
    )
    assert session.launcher.signal_tree.call_count == 2


def test_launcher_of_which_nothing_is_left_is_lost_all_the_same(
    session: Session,
) -> None:
    session.launcher.recover.return_value = launcher.Died()
    run(session, adopted(session))
    assert session.end == {'status': command.LOST, 'error': exec_task.DIED}
    assert session.launcher.signal_tree.call_count == exec_task.BURIALS


@pytest.mark.parametrize(
    'doubtful', [launcher.Died(), ended(out=b'', is_torn=True)]
)
def test_end_that_came_in_part_is_asked_for_again(
    session: Session, doubtful: launcher.Outcome
) -> None:
    session.launcher.poll.return_value = doubtful
    session.launcher.recover.return_value = ended()
    run(session, make(session))
    assert session.end['status'] == command.COMPLETED
    assert session.end['out_data'] == base64.b64encode(b'out').decode()


def test_command_whose_record_was_removed_is_lost_at_once(
    session: Session,
) -> None:
    """Never run again: that there is no lock proves nothing then."""
    session.launcher.recover.side_effect = [
        RUNNING,
        launcher.NotStarted(),
        launcher.Fenced(),
    ]
    session.launcher.fence.return_value = launcher.Fenced()
    run(session, adopted(session))
    assert session.end == {
        'status': command.LOST,
        'error': exec_task.FORGOTTEN,
    }
    session.launcher.launch.assert_not_called()
    session.launcher.signal_tree.assert_called_with(
        'command', 'KILL', command.LOST
    )


@pytest.mark.parametrize('found', [launcher.NotStarted(), launcher.Died()])
@pytest.mark.parametrize('told', [[ended()], [None, ended()]])
def test_launcher_that_ends_while_it_is_looked_for_has_told_its_agent(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    found: launcher.Outcome,
    told: list[launcher.Outcome | None],
) -> None:
    """Its command has removed the files that would know."""
    monkeypatch.setattr(exec_task, 'NOTE_STARTED_AFTER', 0.0)
    session.launcher.poll.side_effect = [None, *told]
    session.launcher.recover.return_value = found
    run(session, make(session))
    assert (session.end['status'], session.end['exitcode']) == (
        command.COMPLETED,
        3,
    )
    assert session.launcher.launch.call_count == 1
    session.launcher.fence.assert_not_called()


def test_launcher_that_lives_and_is_not_found_is_not_sent_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has yet to take the lock, and would take it twice."""
    monkeypatch.setattr(exec_task, 'NOTE_STARTED_AFTER', 0.0)
    session.launcher.poll.return_value = None
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.fence.return_value = launcher.Fenced()
    item = make(session)
    for _ in range(20):
        item.step()
    assert session.launcher.launch.call_count == 1
    session.launcher.fence.assert_not_called()
    session.probe.return_value = launcher.Probe('boot-1', 7001, ())
    item._recovered_at = float('-inf')
    run(session, item)
    assert session.end['status'] == command.FAILED
    assert session.launcher.launch.call_count == 1


def test_output_that_came_in_part_is_better_than_none(
    session: Session,
) -> None:
    session.launcher.poll.return_value = ended(is_torn=True)
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.fence.return_value = launcher.Fenced()
    run(session, make(session))
    assert (session.end['status'], session.end['error']) == (
        command.LOST,
        exec_task.FORGOTTEN,
    )
    assert session.end['out_data'] == base64.b64encode(b'out').decode()


def test_command_that_was_seen_by_a_service_before_is_not_run_again(
    session: Session,
) -> None:
    session.conductor.adopt.return_value = {**CLAIM, 'started_uptime': 900}
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.fence.return_value = launcher.Fenced()
    run(session, adopted(session))
    assert session.end == {
        'status': command.LOST,
        'error': exec_task.FORGOTTEN,
    }
    session.launcher.launch.assert_not_called()


def test_launch_that_may_have_come_is_not_sent_to_another_directory(
    session: Session,
) -> None:
    session.launcher.launch.side_effect = exception.AgentUnresponsive()
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.fence.return_value = launcher.Fenced()
    session.probe.side_effect = [PROBE] + 9 * [
        launcher.Probe('boot-2', 1100, ())
    ]
    run(session, make(session, start_in=10))
    assert session.end == {
        'status': command.LOST,
        'error': exec_task.FORGOTTEN,
    }
    assert session.launcher.launch.call_count == 1


def test_launcher_that_came_and_left_nothing_is_not_sent_again(
    session: Session,
) -> None:
    """The command may have removed its own record, and only that."""
    session.launcher.poll.side_effect = exception.AgentRefused('invalid pid')
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.fence.return_value = launcher.Fenced()
    run(session, make(session))
    assert session.end == {
        'status': command.LOST,
        'error': exec_task.FORGOTTEN,
    }
    assert session.launcher.launch.call_count == 1


def test_launcher_that_is_late_after_all_is_followed(session: Session) -> None:
    session.launcher.poll.side_effect = exception.AgentRefused('invalid pid')
    session.launcher.recover.side_effect = [launcher.NotStarted(), ended()]
    session.launcher.fence.return_value = RUNNING
    run(session, make(session))
    assert session.end['status'] == command.COMPLETED


def test_launcher_that_never_starts_anything_is_lost(session: Session) -> None:
    session.launcher.recover.side_effect = [
        launcher.Running(None, 1000, 1000 + 6100),
        launcher.Died(),
        ended(exitcode=None),
    ]
    run(session, adopted(session))
    assert session.end['status'] == command.LOST


def test_only_launch_that_met_another_directory_is_claimed_anew(
    session: Session,
) -> None:
    session.launcher.poll.side_effect = [launcher.Refused('boot'), ended()]
    session.probe.return_value = launcher.Probe('boot-2', 1100, ())
    session.conductor.claim.side_effect = [
        CLAIM,
        {**CLAIM, 'boot_id': 'boot-2'},
    ]
    run(session, make(session))
    assert session.end['status'] == command.COMPLETED
    assert [
        call.args[0].boot_id for call in session.launcher.launch.call_args_list
    ] == ['boot-1', 'boot-2']
    assert session.conductor.claim.call_args.args[3] == 'boot-2'


@pytest.mark.parametrize(
    ('boot_id', 'status'),
    [('boot-2', command.COMPLETED), ('other-1', command.FAILED)],
)
def test_guest_that_hangs_after_it_refused_another_boot_is_asked_again(
    session: Session, boot_id: str, status: str
) -> None:
    """Once the command was stuck, and its step failed for ever."""
    session.launcher.poll.side_effect = [launcher.Refused('boot'), ended()]
    session.probe.side_effect = [
        PROBE,
        exception.AgentUnresponsive(),
        *[launcher.Probe(boot_id, 1100, ())] * 9,
    ]
    run(session, make(session))
    assert session.end['status'] == status


def test_only_launch_that_met_another_boot_failed(session: Session) -> None:
    session.launcher.poll.return_value = launcher.Refused('boot')
    session.probe.return_value = launcher.Probe('other-1', 10, ())
    run(session, make(session))
    assert session.end == {
        'status': command.FAILED,
        'error': exec_task.REFUSED['boot'],
    }


def test_fence_that_cannot_be_made_ends_with_the_ticket(
    session: Session,
) -> None:
    session.launcher.recover.return_value = launcher.NotStarted()
    session.launcher.fence.return_value = launcher.NotStarted()
    item = adopted(session)
    item.cancel()
    for _ in range(9):
        item.step()
    assert not item.is_done
    session.probe.return_value = launcher.Probe('boot-1', 7001, ())
    run(session, item)
    assert session.end['status'] == command.CANCELLED
    session.launcher.launch.assert_not_called()


def test_guest_that_can_tell_nothing_any_more(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked until no launch of it can start there."""
    session.launcher.recover.side_effect = exception.LauncherUnavailable('why')
    item = adopted(session)
    item.step()
    item.refuse('why')
    session.conductor.finish.assert_not_called()
    session.clock.advance(61)
    item.refuse('why')
    item.step()
    assert session.end == {'status': command.LOST, 'error': 'why'}


def overdue(
    monkeypatch: pytest.MonkeyPatch,
    session: Session,
    *after: launcher.Outcome,
    alive: Sequence[int],
) -> None:
    """Have a command pass its timeout, of which so many live then."""
    monkeypatch.setattr(
        exec_task.CONF.guest_agent, 'kill_grace', 0, raising=False
    )
    session.launcher.recover.side_effect = [
        launcher.Running(pid=77, started=0, uptime=6100),
        *after,
    ]
    counts = itertools.chain(alive, itertools.repeat(alive[-1]))
    session.launcher.signal_tree.side_effect = lambda *args: next(counts)


def test_children_do_not_outlive_a_command_that_was_killed(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it died of SIGTERM itself, and nobody has its streams."""
    overdue(
        monkeypatch,
        session,
        ended(signal=15, killed=command.TIMED_OUT),
        alive=[4, 3, 0],
    )
    run(session, adopted(session))
    assert [
        call.args[1] for call in session.launcher.signal_tree.call_args_list
    ] == ['TERM', 'KILL', 'KILL']
    assert session.end['status'] == command.TIMED_OUT
    assert session.end['error'] == (
        'Its timeout of 60 seconds passed; its process tree was killed '
        '(processes: 4)'
    )


def test_grace_is_kept_for_children_too(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    overdue(
        monkeypatch,
        session,
        ended(signal=15, killed=command.TIMED_OUT),
        alive=[4, 3, 0],
    )
    monkeypatch.setattr(
        exec_task.CONF.guest_agent, 'kill_grace', 5, raising=False
    )
    run(session, adopted(session))
    assert [
        call.args[1] for call in session.launcher.signal_tree.call_args_list
    ] == ['TERM', '0', '0']


def test_what_cannot_be_killed_is_told(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    overdue(
        monkeypatch,
        session,
        ended(signal=15, killed=command.TIMED_OUT),
        alive=[2, 1],
    )
    run(session, adopted(session))
    assert session.end['status'] == command.TIMED_OUT
    assert session.end['error'].endswith(
        '(processes: 2); some of it may still live'
    )


def test_timeout_ends_though_nothing_does_in_the_guest(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = launcher.Running(pid=77, started=0, uptime=6100)
    overdue(monkeypatch, session, alive=[2, 1])
    session.launcher.recover.side_effect = None
    session.launcher.recover.return_value = running
    run(session, adopted(session))
    assert session.end['status'] == command.TIMED_OUT
    assert 'may still live' in session.end['error']


def test_streams_that_others_hold_are_not_waited_for_after_a_kill(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = launcher.Running(pid=77, started=0, uptime=6100, has_exited=True)
    overdue(
        monkeypatch,
        session,
        running,
        running,
        ended(signal=9, killed=command.TIMED_OUT),
        alive=[1, 1, 0],
    )
    session.launcher.unhold.side_effect = None
    run(session, adopted(session))
    session.launcher.unhold.assert_called_with('command')
    assert session.end['status'] == command.TIMED_OUT


#: Lines that a guest's journal has of each: a script is started, and asked
#: after twice or so.
LINES = {'launch': 1, 'poll': 1, 'recover': 3, 'watch': 1, 'release': 3}


@pytest.mark.parametrize(
    ('can_watch', 'latest', 'most'), [(True, 3, 60), (False, 31, 100)]
)
def test_long_command_leaves_few_lines_in_the_journal(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    can_watch: bool,
    latest: float,
    most: int,
) -> None:
    """And its end is seen soon where the agent may read files."""
    session.conductor.claim.return_value = {**CLAIM, 'timeout': 3600}
    began = session.clock.now()

    def is_over() -> bool:
        return session.clock.now() >= began + 600

    session.launcher.poll.side_effect = lambda pid: (
        ended() if is_over() else None
    )
    session.launcher.recover.side_effect = lambda uuid: launcher.Running(
        77, 100_000, int(session.clock.now() * 100)
    )
    if can_watch:
        session.launcher.watch.return_value = mock.Mock(
            **{'has_exited.side_effect': is_over}
        )
    item = make(session)
    run(session, item, limit=2000)
    assert session.end['status'] == command.COMPLETED
    assert session.clock.now() - began - 600 < latest
    assert (
        sum(LINES.get(name, 0) for name, _, _ in session.launcher.method_calls)
        <= most
    )
    if can_watch:
        session.launcher.watch.return_value.close.assert_called_once()


def test_watch_that_is_lost_with_its_agent_ends_nothing(
    session: Session,
) -> None:
    session.launcher.watch.return_value = mock.Mock(
        **{
            'has_exited.return_value': True,
            'close.side_effect': exception.AgentRefused(),
        }
    )
    session.launcher.recover.side_effect = [RUNNING, RUNNING, ended()]
    run(session, adopted(session))
    assert session.end['status'] == command.COMPLETED
    # It is watched again, not looked at each second.
    assert session.launcher.watch.call_count == 2


def test_launcher_that_knows_why_the_end_is_unknown_is_quoted(
    session: Session,
) -> None:
    session.launcher.poll.return_value = launcher.Died('It was too large')
    session.launcher.recover.return_value = launcher.Died('It is not known')
    run(session, make(session))
    assert session.end == {'status': command.LOST, 'error': 'It was too large'}


def test_what_never_ran_failed_with_the_shells_words(session: Session) -> None:
    session.launcher.poll.return_value = ended(
        never_ran=True, error='/no/such: not found'
    )
    run(session, make(session))
    assert session.end == {
        'status': command.FAILED,
        'error': '/no/such: not found',
    }


def test_agents_refusal_of_the_launch_failed(session: Session) -> None:
    session.launcher.launch.side_effect = exception.AgentRefused('no /bin/sh')
    run(session, make(session))
    assert session.end['status'] == command.FAILED
    assert session.launcher.launch.call_count == 1


def test_timeout_is_told_by_the_guests_clock(session: Session) -> None:
    paused = launcher.Running(pid=77, started=1000, uptime=1000 + 59 * 100)
    over = launcher.Running(pid=77, started=1000, uptime=1000 + 61 * 100)
    session.launcher.recover.side_effect = [
        paused,
        over,
        ended(signal=15, killed=command.TIMED_OUT),
    ]
    item = adopted(session)
    for _ in range(3):
        item.step()
    session.launcher.signal_tree.assert_not_called()
    run(session, item)
    assert session.launcher.signal_tree.call_args_list[0] == mock.call(
        'command', 'TERM', command.TIMED_OUT
    )
    assert session.end['status'] == command.TIMED_OUT
    assert session.end['signal'] == 15


def test_tree_that_ignores_sigterm_is_killed_after_the_grace(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        exec_task.CONF.guest_agent, 'kill_grace', 0, raising=False
    )
    session.launcher.recover.side_effect = [
        launcher.Running(pid=77, started=0, uptime=6100),
        launcher.Running(pid=77, started=0, uptime=6100),
        launcher.Running(pid=77, started=0, uptime=6100),
        ended(signal=9),
    ]
    run(session, adopted(session))
    assert [
        call.args[1] for call in session.launcher.signal_tree.call_args_list
    ][:2] == ['TERM', 'KILL']


def test_kill_that_met_nobody_leaves_what_the_guest_recorded(
    session: Session,
) -> None:
    session.launcher.recover.side_effect = [
        launcher.Running(pid=77, started=0, uptime=6100),
        ended(),
    ]
    run(session, adopted(session))
    assert session.end['status'] == command.COMPLETED


def test_killed_by_a_service_that_could_not_tell_any_more(
    session: Session,
) -> None:
    session.launcher.recover.return_value = ended(
        signal=15, killed=command.CANCELLED
    )
    run(session, adopted(session))
    session.launcher.signal_tree.assert_called_once_with(
        'command', 'KILL', command.CANCELLED
    )
    assert session.end['status'] == command.CANCELLED
    assert session.end['error'] == (
        'It was cancelled; its process tree was killed'
    )


def test_end_of_a_command_that_moved_is_kept_in_the_guest(
    session: Session,
) -> None:
    session.launcher.poll.return_value = ended()
    session.conductor.finish.return_value = command.MOVED
    run(session, make(session))
    session.acknowledge.assert_not_called()


def test_lock_outlives_a_launch_that_may_still_come(session: Session) -> None:
    session.launcher.recover.return_value = ended()
    run(session, adopted(session))
    session.acknowledge.assert_called_once_with('command', is_certain=False)


def test_cancel_before_the_launch_fences(session: Session) -> None:
    session.launcher.fence.return_value = launcher.Fenced()
    item = make(session)
    item.step()
    item.cancel()
    run(session, item)
    session.launcher.launch.assert_not_called()
    assert session.end['status'] == command.CANCELLED


def test_abandoned_command_is_cleared_not_reported(session: Session) -> None:
    session.launcher.poll.return_value = None
    item = make(session)
    item.step()
    item.step()
    item.abandon()
    run(session, item)
    session.clear.assert_called_once_with('command')
    session.conductor.finish.assert_not_called()


def test_command_that_is_abandoned_while_it_is_polled_is_cleared(
    session: Session,
) -> None:
    """The report's thread does not wait for the step that is being made."""
    item = make(session)

    def poll(pid: int) -> None:
        item.abandon()

    session.launcher.poll.side_effect = poll
    run(session, item, 5)
    session.clear.assert_called_once_with('command')
    session.conductor.finish.assert_not_called()


def test_guest_that_forgot_who_killed_a_command(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    overdue(
        monkeypatch, session, ended(exitcode=None, signal=15), alive=[1, 0]
    )
    run(session, adopted(session))
    assert (session.end['status'], session.end['signal']) == (
        command.TIMED_OUT,
        15,
    )


# Attached commands.

ATTACHED: Any = dict(
    CLAIM,
    exec=dict(CLAIM['exec'] or {}, attach={'terminal': None, 'detach': False}),
)


def attach(session: Session, *, detach: bool = False) -> mock.Mock:
    """Have the command be an attached one, and return its played streams."""
    order = dict(ATTACHED['exec'], attach={'terminal': None, 'detach': detach})
    claim = dict(ATTACHED, exec=order)
    session.conductor.claim.return_value = claim
    session.conductor.adopt.return_value = claim
    streams = mock.Mock(
        names=('out', 'err'),
        has_begun=True,
        has_ended=False,
        is_drained=False,
        is_input_closed=False,
    )
    streams.follow.return_value = False
    session.launcher.attached.return_value = streams
    session.launcher.poll.return_value = None
    session.launcher.recover.return_value = RUNNING
    return streams


def steps(session: Session, item: exec_task.ExecTask, seconds: float) -> None:
    """Make steps for some seconds, unless it ends before."""
    until = session.clock.time + seconds
    while not item.is_done and session.clock.time < until:
        step(session, item)


def end_in_guest(session: Session, streams: mock.Mock, **values: Any) -> None:
    streams.has_ended = True
    session.launcher.recover.return_value = ended(**values)


def test_attached_command_is_launched_so(session: Session) -> None:
    attach(session)
    item = make(session)
    steps(session, item, 5)
    order = session.launcher.launch.call_args.args[0]
    assert order.attach == launcher.Attach(None)
    session.launcher.attached.assert_called_once_with(
        'command', terminal=False
    )
    session.conductor.started.assert_called_once()


def test_attached_command_has_its_terminal(session: Session) -> None:
    attach(session)
    terminal = {'columns': 80, 'rows': 24, 'term': 'xterm'}
    session.conductor.claim.return_value['exec']['attach']['terminal'] = (
        terminal
    )
    item = make(session)
    steps(session, item, 1)
    order = session.launcher.launch.call_args.args[0]
    assert order.attach == launcher.Attach(launcher.Terminal(80, 24, 'xterm'))
    session.launcher.attached.assert_called_once_with('command', terminal=True)


def test_attached_command_refused_by_the_guest_says_why(
    session: Session,
) -> None:
    streams = attach(session)
    streams.has_begun = False
    session.launcher.poll.return_value = launcher.Refused('script/python3')
    run(session, make(session))
    assert session.end['status'] == command.FAILED
    assert 'script/python3' in session.end['error']


def test_guest_without_streams_is_refused_before_the_launch(
    session: Session,
) -> None:
    attach(session)
    session.launcher.attached.side_effect = exception.LauncherUnavailable('no')
    item = make(session)
    step(session, item)
    with pytest.raises(exception.LauncherUnavailable):
        step(session, item)
    session.launcher.launch.assert_not_called()
    item.refuse('no')
    run(session, item)
    assert session.end['status'] == command.FAILED


def test_idle_attached_command_backs_off_and_a_call_wakes_it(
    session: Session,
) -> None:
    attach(session)
    item = make(session)
    steps(session, item, 40)
    while item._next is not item._serve:
        step(session, item)
    step(session, item)
    assert item.due - session.clock.time > 1
    assert item.attachment is not None
    item.attachment._calls.append(mock.Mock())
    item.attachment._has_new_calls = True
    item._rouse()
    assert item.due <= session.clock.time
    session.wake.assert_called()


def test_who_waits_is_answered_when_the_service_stops(
    session: Session,
) -> None:
    attach(session)
    item = make(session)
    steps(session, item, 4)
    assert item.attachment is not None
    call = attachment.Read('out', 0, 1, session.clock.time + 5)
    item.attachment._calls.append(call)
    item.stop()
    with pytest.raises(exception.StreamRefused):
        call.answer.result(0)


def test_end_of_an_attached_command_is_told_when_all_was_read(
    session: Session,
) -> None:
    streams = attach(session)
    item = make(session)
    steps(session, item, 2)
    end_in_guest(session, streams)
    assert item.attachment is not None
    for _ in range(10):
        item.attachment.admit('one', take_over=False)
        steps(session, item, 1)
    session.conductor.finish.assert_not_called()
    streams.expect_end.assert_called_once_with()
    session.conductor.started.assert_called_once()
    streams.is_drained = True
    run(session, item)
    assert session.end['status'] == command.COMPLETED
    streams.close.assert_called_once_with()


def test_short_attached_command_is_known_to_run_until_it_is_read(
    session: Session,
) -> None:
    attach(session)
    session.launcher.poll.return_value = ended()
    item = make(session)
    steps(session, item, 2)
    assert session.conductor.started.call_args.args[3:5] == (77, 1000)
    session.conductor.finish.assert_not_called()


def test_end_that_nobody_reads_is_told_after_attach_timeout(
    session: Session,
) -> None:
    streams = attach(session)
    item = make(session)
    session.conductor.claim.return_value['timeout'] = 3600
    steps(session, item, 2)
    end_in_guest(session, streams)
    steps(session, item, 290)
    session.conductor.finish.assert_not_called()
    steps(session, item, 20)
    assert session.end['status'] == command.COMPLETED


@pytest.mark.parametrize('detach', [False, True])
def test_attached_command_without_a_client_is_cancelled(
    session: Session, detach: bool
) -> None:
    attach(session, detach=detach)
    session.conductor.claim.return_value['timeout'] = 3600
    session.launcher.signal_tree.return_value = 1
    item = make(session)
    steps(session, item, 290)
    session.launcher.signal_tree.assert_not_called()
    steps(session, item, 20)
    assert session.launcher.signal_tree.called is not detach
    if detach:
        return
    session.launcher.recover.return_value = ended(signal=15, exitcode=None)
    session.launcher.signal_tree.return_value = 0
    steps(session, item, 20)
    assert session.end['status'] == command.CANCELLED
    assert 'attach_timeout' in session.end['error']


def test_killed_command_waits_for_no_reader(session: Session) -> None:
    streams = attach(session)
    session.launcher.signal_tree.return_value = 1
    item = make(session)
    steps(session, item, 10)
    item.cancel()
    steps(session, item, 5)
    streams.drop_output.assert_called()


def test_adopted_attached_command_goes_on(session: Session) -> None:
    attach(session)
    item = adopted(session)
    steps(session, item, 3)
    session.launcher.launch.assert_not_called()
    session.launcher.attached.assert_called_once()
    assert item._next.stage is exec_task.task.Stage.SERVING


def test_lost_streams_are_no_reason_to_wait(session: Session) -> None:
    streams = attach(session)
    item = make(session)
    steps(session, item, 2)
    streams.follow.side_effect = exception.StreamLost('removed')
    end_in_guest(session, streams)
    steps(session, item, 5)
    assert session.end['status'] == command.COMPLETED


def test_streams_whose_child_holds_them_are_left_when_read(
    session: Session,
) -> None:
    attach(session)
    session.launcher.recover.return_value = launcher.Running(
        77, 1000, 1100, has_exited=True
    )
    item = make(session)
    steps(session, item, 20)
    session.launcher.unhold.assert_not_called()
    assert item.attachment is not None
    item.attachment._dry = {'out': (0, 0.0), 'err': (0, 0.0)}
    steps(session, item, 3)
    session.launcher.unhold.assert_called()


def test_domain_that_is_gone_does_not_undo_the_end(session: Session) -> None:
    streams = attach(session)
    item = make(session)
    steps(session, item, 2)
    end_in_guest(session, streams)
    steps(session, item, 2)
    item.meet_absence('shutoff')
    session.conductor.not_here.assert_not_called()
    run(session, item)
    assert session.end['status'] == command.COMPLETED
