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

import threading
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.compute import lane as compute_lane
from guest_agent_ext.guest import launcher

SERVER = '8b1f5b51-6c70-4a53-8d5b-6a7c0e4b7f10'
#: Seconds after which a test is given up.
PATIENCE = 10


def make(guests: mock.Mock) -> compute_lane.Lane:
    return compute_lane.Lane(
        SERVER,
        guests,
        mock.Mock(),
        {'host': 'here', 'incarnation': 1},
        lambda lane: True,
    )


def test_lane_goes_on_after_what_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute_lane, 'PROBE_GAPS', (0.01,))
    monkeypatch.setattr(compute_lane, 'ABSENT_GAP', 0.01)
    guests = mock.Mock()
    guests.ping.side_effect = exception.DomainNotRunning('paused')
    lane = make(guests)
    item = mock.Mock(
        uuid='command',
        due=0.0,
        is_done=False,
        is_expired=False,
        is_held=True,
        needs_guest=True,
    )
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
    item = mock.Mock(uuid='command', due=0.0, needs_guest=True)
    hung = exception.AgentUnresponsive()
    for error in (hung, hung, None, None):
        guests.ping.side_effect = error
        lane._step(item)
    # It answered a moment ago, and is not asked the fourth time.
    assert [
        call.kwargs['is_suspect'] for call in guests.ping.call_args_list
    ] == [False, True, True]
    lane._answered_at -= compute_lane.TRUST
    lane._step(item)
    assert guests.ping.call_args.kwargs == {'is_suspect': False}


def test_lane_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_lane, 'IDLE', 0.01)
    lane = make(mock.Mock())
    lane.start()
    lane.join(PATIENCE)
    assert not lane._thread.is_alive()


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> compute_lane.Lane:
    """A lane whose guest says another uptime each time."""
    lane = make(mock.Mock())
    guest = mock.Mock()
    guest.probe.side_effect = [
        launcher.Probe('boot', uptime, ()) for uptime in range(9)
    ]
    monkeypatch.setattr(lane, '_launcher', guest)
    return lane


def test_guest_is_asked_once_in_a_while(
    probed: compute_lane.Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [probed.recent_probe().uptime for _ in range(3)] == [0, 0, 0]
    assert probed.probe().uptime == 1
    assert probed.recent_probe().uptime == 1
    monkeypatch.setattr(compute_lane, 'RECENT', -1)
    assert probed.recent_probe().uptime == 2


def test_guest_is_asked_again_when_it_may_have_rebooted(
    probed: compute_lane.Lane,
) -> None:
    probed.recent_probe()
    probed.forget_probe()
    assert probed.recent_probe().uptime == 1
    probed._note_failure(mock.Mock(), exception.AgentNotConnected())
    assert probed.recent_probe().uptime == 2


def test_first_look_is_before_the_end_of_a_quick_command() -> None:
    lane = make(mock.Mock())
    assert lane.first_look() == 0
    lane.note_duration(60.0)
    assert lane.first_look() == compute_lane.MAX_FIRST_LOOK
    lane.note_duration(0.1)
    assert lane.first_look() == pytest.approx(0.08)
    for _ in range(compute_lane.DURATIONS):
        lane.note_duration(0.2)
    assert lane.first_look() == pytest.approx(0.16)
