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

"""A guest's session, with its agent and conductor played."""

from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import factory
from tests.unit import clock as unit_clock

SERVER = '8b1f5b51-6c70-4a53-8d5b-6a7c0e4b7f10'
SERVICE = {'host': 'here', 'incarnation': 'f00d'}


@pytest.fixture
def clock() -> unit_clock.FakeClock:
    return unit_clock.FakeClock()


@pytest.fixture
def guest() -> mock.Mock:
    """A launcher whose guest says another uptime each time."""
    guest = mock.Mock()
    guest.probe.side_effect = [
        launcher.Probe('boot', uptime, ()) for uptime in range(9)
    ]
    return guest


@pytest.fixture
def session(
    guest: mock.Mock,
    clock: unit_clock.FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> compute_session.Session:
    monkeypatch.setattr(factory, 'launcher_for', mock.Mock(return_value=guest))
    return compute_session.Session(
        SERVER, mock.Mock(), mock.Mock(), SERVICE, clock
    )


def test_launcher_is_chosen_once(session: compute_session.Session) -> None:
    assert session.guest() is session.guest()
    assert factory.launcher_for.call_count == 1
    session.forget_guest()
    session.guest()
    assert factory.launcher_for.call_count == 2


def test_guest_is_asked_once_in_a_while(
    session: compute_session.Session, clock: unit_clock.FakeClock
) -> None:
    assert [session.recent_probe().uptime for _ in range(3)] == [0, 0, 0]
    assert session.probe().uptime == 1
    assert session.recent_probe().uptime == 1
    clock.advance(compute_session.RECENT + 1)
    assert session.recent_probe().uptime == 2


@pytest.mark.parametrize('is_absent', [True, False])
def test_guest_is_asked_again_when_it_may_have_rebooted(
    session: compute_session.Session, is_absent: bool
) -> None:
    session.recent_probe()
    session.forget_probe()
    assert session.recent_probe().uptime == 1
    session.note_failure(is_absent=is_absent)
    assert session.recent_probe().uptime == 2


def test_guest_that_answered_a_moment_ago_is_not_pinged(
    session: compute_session.Session, clock: unit_clock.FakeClock
) -> None:
    ping: Any = session._guests.ping
    session.check_well()
    session.check_well()
    ping.assert_called_once_with(SERVER, is_suspect=False)
    clock.advance(compute_session.TRUST)
    ping.side_effect = exception.AgentUnresponsive()
    with pytest.raises(exception.AgentUnresponsive):
        session.check_well()
    session.note_failure(is_absent=False)
    ping.side_effect = None
    session.check_well()
    ping.assert_called_with(SERVER, is_suspect=True)
    assert session.failures == 0


def test_guest_that_is_certainly_absent_is_no_suspect(
    session: compute_session.Session,
) -> None:
    session.note_failure(is_absent=True)
    session.check_well()
    session._guests.ping.assert_called_once_with(SERVER, is_suspect=False)


def test_first_poll_is_before_the_end_of_a_quick_command(
    session: compute_session.Session,
) -> None:
    assert session.first_poll() == 0
    session.note_duration(60.0)
    assert session.first_poll() == compute_session.MAX_FIRST_POLL
    session.note_duration(0.1)
    assert session.first_poll() == pytest.approx(0.08)
    for _ in range(compute_session.DURATIONS):
        session.note_duration(0.2)
    assert session.first_poll() == pytest.approx(0.16)


def test_ended_commands_that_nobody_knows_are_cleared(
    session: compute_session.Session, guest: mock.Mock
) -> None:
    session.attach(wake=mock.Mock(), known=lambda: ['ours'])
    session.acknowledge('done', is_certain=True)
    guest.probe.side_effect = None
    guest.probe.return_value = launcher.Probe(
        'boot', 1, ('ours', 'done', 'stray', 'another')
    )
    session.conductor.ended.return_value = ['stray']
    session.probe()
    session.conductor.ended.assert_called_once_with(
        SERVICE, ['another', 'stray']
    )
    guest.fence.assert_called_once_with('stray')
    guest.signal_tree.assert_called_once_with('stray', 'KILL', 'LOST')


def test_command_with_a_recorded_end_is_not_killed(
    session: compute_session.Session, guest: mock.Mock
) -> None:
    guest.fence.return_value = launcher.Ended(
        77, 1000, 0, None, False, None, b'', b'', 0, 0
    )
    session.clear('command')
    guest.signal_tree.assert_not_called()


def test_files_of_ended_commands_are_removed_together(
    session: compute_session.Session,
    guest: mock.Mock,
    clock: unit_clock.FakeClock,
) -> None:
    assert session.release_at is None
    session.acknowledge('a', is_certain=True)
    session.acknowledge('b', is_certain=True)
    session.acknowledge('late', is_certain=False)
    assert session.release_at == clock.now() + compute_session.RELEASE_AFTER
    session.release_due()
    guest.release.assert_not_called()
    clock.advance(compute_session.RELEASE_AFTER)
    session.release_due()
    guest.release.assert_called_once_with(['a', 'b'])
    clock.advance(compute_session.LATE_LAUNCH)
    session.release_due()
    guest.release.assert_called_with(['late'])
    assert session.release_at is None


def test_lane_is_woken(session: compute_session.Session) -> None:
    session.wake()
    wake = mock.Mock()
    session.attach(wake=wake, known=tuple)
    session.wake()
    wake.assert_called_once_with()
