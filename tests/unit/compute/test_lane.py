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

"""A lane, with guest and conductor played."""

import logging
import threading
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.compute import lane as compute_lane
from guest_agent_ext.compute import session as compute_session
from tests.unit import clock as unit_clock

SERVER = '8b1f5b51-6c70-4a53-8d5b-6a7c0e4b7f10'
#: Seconds after which a test is given up.
PATIENCE = 10


def make(guests: mock.Mock) -> compute_lane.Lane:
    session = compute_session.Session(
        SERVER,
        guests,
        mock.Mock(),
        {'host': 'here', 'incarnation': 'f00d'},
        unit_clock.FakeClock(),
    )
    return compute_lane.Lane(session, made, lambda lane: True)


def made(session: Any, work: Any) -> mock.Mock:
    """Make a task that nobody claims."""
    return task(work['uuid'], is_held=False, is_offered=True)


def task(uuid: str = 'command', **values: Any) -> mock.Mock:
    return mock.Mock(
        uuid=uuid,
        **(
            dict(
                due=0.0,
                is_done=False,
                is_expired=False,
                is_held=True,
                is_offered=False,
                is_abandoned=False,
                is_attached=False,
                needs_guest=True,
            )
            | values
        ),
    )


def test_lane_goes_on_after_what_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute_lane, 'ERROR_GAP', 0.01)
    guests = mock.Mock()
    guests.ping.side_effect = exception.DomainNotRunning('paused')
    lane = make(guests)
    item = task()
    told_again = threading.Event()

    def tell(state: str) -> None:
        if item.meet_absence.call_count == 1:
            raise RuntimeError
        told_again.set()

    item.meet_absence.side_effect = tell
    lane.begin(item)
    lane.start()
    assert told_again.wait(PATIENCE)
    lane.stop()
    lane.join(PATIENCE)


def test_guest_waits_with_others_like_it_while_it_does_not_answer() -> None:
    guests = mock.Mock()
    lane = make(guests)
    item = task()
    hung = exception.AgentUnresponsive()
    for error in (hung, hung, None, None):
        guests.ping.side_effect = error
        lane._step(item)
        assert lane.is_suspect == (error is hung)
    # It answered a moment ago, and is not asked the fourth time.
    assert [
        call.kwargs['is_suspect'] for call in guests.ping.call_args_list
    ] == [False, True, True]
    lane.session.clock.advance(compute_session.TRUST)
    lane._step(item)
    assert guests.ping.call_args.kwargs == {'is_suspect': False}


def test_task_is_told_why_its_step_was_not_made() -> None:
    guests = mock.Mock()
    guests.ping.side_effect = error = exception.DomainMigrating()
    item = task()
    make(guests)._step(item)
    item.meet_failure.assert_called_once_with(error)
    item.step.assert_not_called()


def test_guest_s_trouble_is_logged_when_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    guests = mock.Mock()
    lane = make(guests)
    item = task()
    absent, hung = exception.AgentNotConnected(), exception.AgentUnresponsive()
    for error in (absent, absent, absent, hung, hung, None, None):
        guests.ping.side_effect = error
        lane._step(item)
    told = [
        message.partition(': ')[2] or message for message in caplog.messages
    ]
    assert told == [
        f'{absent.message}; it is asked again until that changes',
        f'{hung.message}; it is asked again until that changes',
        f'Guest {SERVER} answers again',
    ]


def test_guest_that_answers_pings_alone_is_not_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    lane = make(mock.Mock())
    item = task()
    item.step.side_effect = exception.AgentUnresponsive()
    for _ in range(3):
        lane._step(item)
    assert len(caplog.messages) == 1


def test_lane_without_work_ends() -> None:
    lane = make(mock.Mock())
    lane.start()
    lane.join(PATIENCE)
    assert not lane._thread.is_alive()


def test_turn_is_of_what_is_due_first() -> None:
    lane = make(mock.Mock())
    first, second = task('a', due=1020.0), task('b', due=1010.0)
    lane.begin(first)
    lane.begin(second)
    assert lane._wait_for_task() is second
    assert lane.session.clock.now() == 1010
    second.is_done = True
    assert lane._wait_for_task() is first
    assert lane.session.clock.now() == 1020


def test_what_is_claimed_goes_before_what_is_on_offer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        compute_lane.CONF.guest_agent,
        'max_running_per_server',
        1,
        raising=False,
    )
    lane = make(mock.Mock())
    lane.offer({'uuid': 'offered', 'cancel_requested': False})
    claimed = task('claimed', due=1001.0)
    lane.begin(claimed)
    assert lane._wait_for_task() is claimed


def test_work_puts_a_removal_off_for_a_while() -> None:
    lane = make(mock.Mock())
    item = task(due=0.0)
    lane.begin(item)
    lane.session.acknowledge('ended', is_certain=True)
    lane.session.clock.advance(5)
    assert lane._wait_for_task() is item
    lane.session.clock.advance(compute_lane.LATE_RELEASE)
    assert lane._wait_for_task() is None


@pytest.mark.parametrize(('gap', 'goes_first'), [(0.1, False), (2.0, True)])
def test_removal_waits_for_work_that_is_near(
    gap: float, goes_first: bool
) -> None:
    lane = make(mock.Mock())
    lane.session.acknowledge('ended', is_certain=True)
    lane.session.clock.advance(compute_session.RELEASE_AFTER)
    item = task(due=lane.session.clock.now() + gap)
    lane.begin(item)
    assert lane._wait_for_task() is (None if goes_first else item)


def test_gap_after_a_failure_grows_unless_nobody_is_there() -> None:
    lane = make(mock.Mock())
    item = task()
    lane.begin(item)
    for error in (
        *[exception.AgentUnresponsive()] * 3,
        exception.AgentNotConnected(),
    ):
        lane._back_off(item, error)
    assert [call.args[0] for call in item.postpone.call_args_list] == [
        5,
        10,
        20,
        compute_lane.ABSENT_GAP,
    ]
    assert lane.take_seen() == {'command': str(error)}
    assert lane.take_seen() == {}


def test_command_that_was_offered_again_is_cancelled() -> None:
    lane = make(mock.Mock())
    lane.offer({'uuid': 'command', 'cancel_requested': False})
    (item,) = lane._tasks.values()
    lane.offer({'uuid': 'command', 'cancel_requested': False})
    item.cancel.assert_not_called()
    lane.offer({'uuid': 'command', 'cancel_requested': True})
    item.cancel.assert_called_once_with()
    assert list(lane._tasks) == ['command']


def test_what_is_no_longer_on_offer_is_dropped() -> None:
    lane = make(mock.Mock())
    for uuid in ('stays', 'goes'):
        lane.offer({'uuid': uuid, 'cancel_requested': False})
    held = task('held')
    lane.begin(held)
    lane.keep_offered(['stays'])
    assert [
        uuid for uuid, item in lane._tasks.items() if item.drop.called
    ] == ['goes']
    assert lane.held() == {'held': held.attempt}


@pytest.mark.parametrize(
    ('clear', 'state', 'expected'),
    [
        (True, {'is_held': True}, 'abandon'),
        (True, {'is_held': False}, 'drop'),
        (False, {'is_held': True}, 'drop'),
        (True, {'is_held': False, 'is_abandoned': True}, None),
    ],
)
def test_ended_command_is_cleared_where_the_guest_may_have_it(
    clear: bool, state: dict[str, bool], expected: str | None
) -> None:
    lane = make(mock.Mock())
    item = task(**state)
    lane.begin(item)
    lane.drop(['command', 'unknown'], clear=clear)
    assert [
        name for name in ('abandon', 'drop') if getattr(item, name).called
    ] == [expected] * bool(expected)


def test_task_that_cannot_run_there_is_refused() -> None:
    lane = make(mock.Mock())
    item = task()
    item.step.side_effect = exception.LauncherUnavailable('no shell')
    lane._step(item)
    item.refuse.assert_called_once_with('no shell')
    item.postpone.assert_called_once_with(compute_lane.ERROR_GAP)


def test_what_can_no_longer_be_claimed_is_forgotten() -> None:
    lane = make(mock.Mock())
    lane.offer({'uuid': 'command', 'cancel_requested': False})
    (item,) = lane._tasks.values()
    item.is_expired = True
    item.expire.side_effect = lambda: setattr(item, 'is_done', True)
    assert lane._wait_for_task() is None
    assert lane.is_empty
