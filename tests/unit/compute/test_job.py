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

"""The steps of a job, with guest and conductor played.

A played guest answers from a list: what goes lost on a real one cannot be made
to go lost at a given moment.
"""

import contextlib
import time
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import job
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import launcher

PROBE = launcher.Probe(boot_id='boot', uptime=1000, ids=())
CLAIM: rpcapi.Claim = {
    'uuid': 'command',
    'type': command.EXEC,
    'exec': {
        'command': ['id'],
        'cwd': None,
        'env': {},
        'stdin': '',
        'output_keep': 'head',
    },
    'file': None,
    'timeout': 60,
    'boot_id': 'boot',
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


class Lane:
    """Plays guest and conductor."""

    service: rpcapi.Service = {'host': 'here', 'incarnation': 1}

    def __init__(self) -> None:
        self.conductor = mock.Mock()
        self.conductor.claim.return_value = CLAIM
        self.conductor.adopt.return_value = CLAIM
        self.conductor.finish.return_value = command.OK
        self.guest = mock.Mock()
        self.guest.return_value = self.guest
        self.guest.launch.return_value = 5
        self.guest.signal_tree.return_value = 1
        self.probe = self.recent_probe = mock.Mock(return_value=PROBE)
        self.forget_probe = mock.Mock()
        self.note_duration = mock.Mock()
        self.first_look = mock.Mock(return_value=0.0)
        self.acknowledge = mock.Mock()
        self.clear = mock.Mock()

    @property
    def end(self) -> rpcapi.End:
        """How the conductor was told that the command ended."""
        self.conductor.finish.assert_called_once()
        end: rpcapi.End = self.conductor.finish.call_args.args[3]
        return end


@pytest.fixture
def lane() -> Lane:
    return Lane()


def make(lane: Lane, **values: Any) -> job.Job:
    work: Any = {
        'uuid': 'command',
        'type': command.EXEC,
        'instance_uuid': 'server',
        'status': command.PENDING,
        'attempt': None,
        'cancel_requested': False,
        'start_in': 300.0,
    }
    return job.Job(lane, dict(work, **values))


def adopted(lane: Lane, **values: Any) -> job.Job:
    return make(lane, status=command.RUNNING, attempt='previous', **values)


def run(item: job.Job, limit: int = 50) -> None:
    """Make steps until it is done; what the guest fails at, again."""
    for _ in range(limit):
        if item.is_done:
            return
        with contextlib.suppress(exception.GuestError):
            item.step()
    raise AssertionError('The job goes round in circles')


def test_command_is_claimed_launched_polled_and_reported(lane: Lane) -> None:
    lane.guest.poll.side_effect = [None, None, ended()]
    run(make(lane))
    assert lane.guest.launch.call_count == 1
    assert lane.end['status'] == command.COMPLETED
    assert (lane.end['pid'], lane.end['exitcode']) == (77, 3)
    assert 'error' not in lane.end
    lane.acknowledge.assert_called_once_with('command', is_certain=True)


def test_claim_bounds_the_start_by_the_guests_clock(lane: Lane) -> None:
    lane.guest.poll.return_value = ended()
    run(make(lane, start_in=10.1))
    args = lane.conductor.claim.call_args.args
    boot_id, ticket, window = args[3:]
    assert boot_id == 'boot'
    assert 9 < window <= 10
    assert ticket == 1000 + int(window * 100)


@pytest.mark.parametrize(
    ('start_in', 'is_urgent'),
    [(job.URGENT - 1, True), (job.URGENT + 1, False)],
)
def test_urgent_command_has_the_guest_asked_anew(
    lane: Lane, start_in: float, is_urgent: bool
) -> None:
    lane.recent_probe = mock.Mock(return_value=PROBE)
    lane.guest.poll.return_value = ended()
    run(make(lane, start_in=start_in))
    assert lane.probe.called is is_urgent
    assert lane.recent_probe.called is not is_urgent


def test_first_look_comes_when_the_lane_says(lane: Lane) -> None:
    lane.first_look.return_value = 0.15
    lane.guest.poll.return_value = ended()
    item = make(lane)
    item.step()
    began = time.monotonic()
    item.step()
    assert item.due - began >= 0.15
    run(item)
    lane.note_duration.assert_called_once()


def test_nothing_is_claimed_that_may_not_start(lane: Lane) -> None:
    run(make(lane, start_in=0.05))
    lane.conductor.claim.assert_not_called()
    lane.guest.launch.assert_not_called()


def test_nothing_is_launched_that_is_not_ours(lane: Lane) -> None:
    lane.conductor.claim.return_value = None
    run(make(lane))
    lane.guest.launch.assert_not_called()
    lane.conductor.finish.assert_not_called()


def test_unanswered_launch_is_sent_again_unchanged(lane: Lane) -> None:
    lane.guest.launch.side_effect = [exception.AgentUnresponsive(), 6]
    lane.guest.poll.side_effect = [launcher.Taken()]
    lane.guest.recover.side_effect = [ended()]
    run(make(lane))
    first, second = (call.args[0] for call in lane.guest.launch.call_args_list)
    assert first == second
    assert lane.end['status'] == command.COMPLETED


def test_refusal_of_the_only_launch_is_proof(lane: Lane) -> None:
    lane.guest.poll.return_value = launcher.Refused('ticket')
    run(make(lane))
    assert lane.end['status'] == command.FAILED
    lane.guest.fence.assert_not_called()
    # The guest may have another boot.
    lane.forget_probe.assert_called_once()


def test_refusal_names_what_the_guest_lacks(lane: Lane) -> None:
    lane.guest.poll.return_value = launcher.Refused('mkfifo')
    run(make(lane))
    assert lane.end['status'] == command.FAILED
    assert 'mkfifo' in lane.end['error']


def test_refusal_of_a_second_launch_is_not(lane: Lane) -> None:
    lane.guest.launch.side_effect = [exception.AgentUnresponsive(), 6]
    lane.guest.poll.return_value = launcher.Refused('ticket')
    lane.guest.fence.return_value = RUNNING
    lane.guest.recover.return_value = ended()
    run(make(lane))
    assert lane.end['status'] == command.COMPLETED


def test_lost_poll_is_recovered_from_the_files(lane: Lane) -> None:
    lane.guest.poll.side_effect = exception.AgentRefused('invalid pid')
    lane.guest.recover.side_effect = [RUNNING, ended()]
    run(make(lane))
    assert lane.end['status'] == command.COMPLETED
    assert lane.guest.launch.call_count == 1


def test_adopted_command_is_never_launched_before_asking(lane: Lane) -> None:
    lane.guest.recover.side_effect = [RUNNING, ended()]
    run(adopted(lane))
    lane.guest.launch.assert_not_called()
    lane.conductor.started.assert_called_once()
    assert lane.end['status'] == command.COMPLETED


def test_adopted_command_that_never_came_is_launched(lane: Lane) -> None:
    lane.guest.recover.return_value = launcher.NotStarted()
    lane.guest.poll.return_value = ended()
    run(adopted(lane))
    assert lane.guest.launch.call_count == 1
    assert lane.guest.launch.call_args.args[0].ticket == CLAIM['ticket']


def test_adopted_command_past_its_ticket_is_fenced(lane: Lane) -> None:
    lane.guest.recover.return_value = launcher.NotStarted()
    lane.probe.return_value = launcher.Probe('boot', 7001, ())
    lane.guest.fence.return_value = launcher.Fenced()
    run(adopted(lane))
    lane.guest.launch.assert_not_called()
    assert lane.end['status'] == command.FAILED


def test_fence_that_comes_too_late_ends_nothing(lane: Lane) -> None:
    lane.guest.recover.side_effect = [launcher.NotStarted(), ended()]
    lane.probe.return_value = launcher.Probe('boot', 7001, ())
    lane.guest.fence.return_value = RUNNING
    run(adopted(lane))
    assert lane.end['status'] == command.COMPLETED


def test_reboot_after_a_send_is_lost(lane: Lane) -> None:
    lane.guest.recover.return_value = launcher.NotStarted()
    lane.probe.return_value = launcher.Probe('other boot', 10, ())
    run(adopted(lane))
    assert lane.end['status'] == command.LOST
    lane.guest.launch.assert_not_called()


def test_launcher_killed_before_its_record_is_lost(lane: Lane) -> None:
    """And its command is killed: its timeout would not be kept any more."""
    lane.guest.recover.return_value = launcher.Died()
    lane.guest.signal_tree.side_effect = [exception.AgentUnresponsive(), 2]
    run(adopted(lane))
    assert lane.end['status'] == command.LOST
    lane.guest.signal_tree.assert_called_with('command', 'KILL', command.LOST)
    assert lane.guest.signal_tree.call_count == 2


def test_launcher_that_knows_why_the_end_is_unknown_is_quoted(
    lane: Lane,
) -> None:
    lane.guest.poll.return_value = launcher.Died('It was too large')
    run(make(lane))
    assert lane.end == {'status': command.LOST, 'error': 'It was too large'}


def test_what_never_ran_failed_with_the_shells_words(lane: Lane) -> None:
    lane.guest.poll.return_value = ended(
        never_ran=True, error='/no/such: not found'
    )
    run(make(lane))
    assert lane.end == {
        'status': command.FAILED,
        'error': '/no/such: not found',
    }


def test_agents_refusal_of_the_launch_failed(lane: Lane) -> None:
    lane.guest.launch.side_effect = exception.AgentRefused('no /bin/sh')
    run(make(lane))
    assert lane.end['status'] == command.FAILED
    assert lane.guest.launch.call_count == 1


def test_timeout_is_told_by_the_guests_clock(lane: Lane) -> None:
    paused = launcher.Running(pid=77, started=1000, uptime=1000 + 59 * 100)
    over = launcher.Running(pid=77, started=1000, uptime=1000 + 61 * 100)
    lane.guest.recover.side_effect = [
        paused,
        over,
        ended(signal=15, killed=command.TIMED_OUT),
    ]
    item = adopted(lane)
    for _ in range(3):
        item.step()
    lane.guest.signal_tree.assert_not_called()
    run(item)
    lane.guest.signal_tree.assert_called_once_with(
        'command', 'TERM', command.TIMED_OUT
    )
    assert lane.end['status'] == command.TIMED_OUT
    assert lane.end['signal'] == 15


def test_tree_that_ignores_sigterm_is_killed_after_the_grace(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.CONF.guest_agent, 'kill_grace', 0, raising=False)
    lane.guest.recover.side_effect = [
        launcher.Running(pid=77, started=0, uptime=6100),
        launcher.Running(pid=77, started=0, uptime=6100),
        launcher.Running(pid=77, started=0, uptime=6100),
        ended(signal=9),
    ]
    run(adopted(lane))
    assert [call.args[1] for call in lane.guest.signal_tree.call_args_list][
        :2
    ] == ['TERM', 'KILL']


def test_kill_that_met_nobody_leaves_what_the_guest_recorded(
    lane: Lane,
) -> None:
    lane.guest.recover.side_effect = [
        launcher.Running(pid=77, started=0, uptime=6100),
        ended(),
    ]
    run(adopted(lane))
    assert lane.end['status'] == command.COMPLETED


def test_killed_by_a_service_that_could_not_tell_any_more(lane: Lane) -> None:
    lane.guest.recover.return_value = ended(
        signal=15, killed=command.CANCELLED
    )
    run(adopted(lane))
    lane.guest.signal_tree.assert_not_called()
    assert lane.end['status'] == command.CANCELLED
    assert 'cancelled' in lane.end['error']


def test_end_of_a_command_that_moved_is_kept_in_the_guest(lane: Lane) -> None:
    lane.guest.poll.return_value = ended()
    lane.conductor.finish.return_value = command.MOVED
    run(make(lane))
    lane.acknowledge.assert_not_called()


def test_lock_outlives_a_launch_that_may_still_come(lane: Lane) -> None:
    lane.guest.recover.return_value = ended()
    run(adopted(lane))
    lane.acknowledge.assert_called_once_with('command', is_certain=False)


def test_cancel_before_the_launch_fences(lane: Lane) -> None:
    lane.guest.fence.return_value = launcher.Fenced()
    item = make(lane)
    item.step()
    item.cancel()
    run(item)
    lane.guest.launch.assert_not_called()
    assert lane.end['status'] == command.CANCELLED


def test_abandoned_command_is_cleared_not_reported(lane: Lane) -> None:
    lane.guest.poll.return_value = None
    item = make(lane)
    item.step()
    item.step()
    item.abandon()
    run(item)
    lane.clear.assert_called_once_with('command')
    lane.conductor.finish.assert_not_called()
