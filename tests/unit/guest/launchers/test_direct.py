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

"""Direct capture, with the agent played."""

import dataclasses
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import exec_task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import direct
from tests.unit import sessions

ORDER = launcher.Launch(
    id='id',
    argv=['ver', '-a'],
    env={},
    stdin=b'in',
    cwd=None,
    user=None,
    boot_id=direct.BOOT_ID,
    ticket=2**40,
    keep=4,
    keep_end='head',
)
EXITED = agent.ExecStatus(True, 3, None, b'abcdef', b'err')
RUNS = agent.ExecStatus(False, None, None, b'', b'')


@pytest.fixture
def played() -> mock.Mock:
    return mock.Mock(
        spec=agent.Agent,
        **{'exec.return_value': 5, 'exec_status.return_value': EXITED},
    )


@pytest.fixture
def posed(played: mock.Mock) -> direct.DirectLauncher:
    return direct.DirectLauncher(played)


@pytest.mark.parametrize(
    ('end', 'out'), [('head', b'abcd'), ('tail', b'cdef')]
)
def test_end_is_that_of_guest_exec(
    posed: direct.DirectLauncher, played: mock.Mock, end: str, out: bytes
) -> None:
    assert posed.launch(dataclasses.replace(ORDER, keep_end=end)) == 5
    played.exec.assert_called_once_with('ver', ['-a'], stdin=b'in')
    played.exec_status.return_value = RUNS
    assert posed.poll(5) is None
    assert isinstance(posed.recover('id'), launcher.Running)
    played.exec_status.return_value = EXITED
    ended = posed.poll(5)
    assert isinstance(ended, launcher.Ended)
    assert (ended.pid, ended.exitcode, ended.out, ended.err) == (
        5,
        3,
        out,
        b'err',
    )
    assert (ended.out_bytes, ended.err_bytes) == (6, 3)


def test_unanswered_launch_is_never_sent_again(
    posed: direct.DirectLauncher, played: mock.Mock
) -> None:
    played.exec.side_effect = exception.AgentUnresponsive()
    with pytest.raises(exception.AgentUnresponsive):
        posed.launch(ORDER)
    with pytest.raises(exception.AgentRefused):
        posed.launch(ORDER)
    assert played.exec.call_count == 1
    assert posed.fence('id') == launcher.Died(direct.UNKNOWN)


def test_launch_that_certainly_did_not_arrive_is_sent_again(
    posed: direct.DirectLauncher, played: mock.Mock
) -> None:
    played.exec.side_effect = [exception.AgentNotConnected(), 5]
    with pytest.raises(exception.AgentNotConnected):
        posed.launch(ORDER)
    assert posed.launch(ORDER) == 5


@pytest.mark.parametrize('values', [{'cwd': '/tmp'}, {'env': {'A': '1'}}])
def test_what_guest_exec_cannot_do_is_refused(
    posed: direct.DirectLauncher, played: mock.Mock, values: dict[str, object]
) -> None:
    with pytest.raises(exception.AgentRefused, match='cwd, env and user'):
        posed.launch(dataclasses.replace(ORDER, **values))
    played.exec.assert_not_called()


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (exception.AgentReplyTooLarge(), direct.TOO_LARGE),
        (exception.AgentRefused(), direct.UNKNOWN),
    ],
)
def test_lost_record_is_a_lost_end(
    posed: direct.DirectLauncher,
    played: mock.Mock,
    error: Exception,
    reason: str,
) -> None:
    posed.launch(ORDER)
    played.exec_status.side_effect = error
    assert posed.poll(5) == launcher.Died(reason)


def test_restarted_service_knows_nothing(posed: direct.DirectLauncher) -> None:
    assert posed.recover('id') == launcher.Died(direct.UNKNOWN)
    assert posed.fence('new') == launcher.Fenced()


def test_release_forgets(
    posed: direct.DirectLauncher, played: mock.Mock
) -> None:
    played.exec.side_effect = exception.AgentUnresponsive()
    with pytest.raises(exception.AgentUnresponsive):
        posed.launch(ORDER)
    posed.release(['id', 'other'])
    assert posed.fence('id') == launcher.Fenced()


class Session(sessions.FakeSession):
    """A session of a guest without a launcher; plays its conductor."""

    def __init__(self, posed: direct.DirectLauncher) -> None:
        super().__init__(self._order(), posed)

    def _order(self) -> rpcapi.Claim:
        return {
            'uuid': 'id',
            'type': command.EXEC,
            'exec': {
                'command': ['ver'],
                'cwd': None,
                'user': None,
                'env': {},
                'stdin': '',
                'output_keep': 'head',
            },
            'file': None,
            'timeout': 60,
            'boot_id': direct.BOOT_ID,
            'ticket': 2**40,
            'started_uptime': None,
        }


def run(
    session: Session,
    *,
    attempt: str | None = None,
    cancel_after: int | None = None,
) -> rpcapi.End:
    """Run a command and return how the conductor was told that it ended."""
    item = exec_task.ExecTask(
        session,
        {
            'uuid': 'id',
            'type': command.EXEC,
            'instance_uuid': 'server',
            'status': command.PENDING,
            'attempt': attempt,
            'cancel_requested': False,
            'start_in': 300.0,
        },
    )
    for step in range(50):
        if step == cancel_after:
            item.cancel()
        try:
            item.step()
        except exception.GuestError:
            continue
        if item.is_done:
            end: rpcapi.End = session.conductor.finish.call_args.args[3]
            return end
    raise AssertionError('The task goes round in circles')


def test_job_completes(posed: direct.DirectLauncher) -> None:
    end = run(Session(posed))
    assert (end['status'], end['exitcode']) == (command.COMPLETED, 3)


def test_job_whose_launch_was_not_answered_is_lost(
    posed: direct.DirectLauncher, played: mock.Mock
) -> None:
    played.exec.side_effect = exception.AgentUnresponsive()
    end = run(Session(posed))
    assert (end['status'], end['error']) == (command.LOST, direct.UNKNOWN)
    assert played.exec.call_count == 1


def test_adopted_job_is_lost_and_not_sent(
    posed: direct.DirectLauncher, played: mock.Mock
) -> None:
    end = run(Session(posed), attempt='previous')
    assert end['status'] == command.LOST
    played.exec.assert_not_called()


def test_cancelled_job_is_lost_after_the_grace(
    posed: direct.DirectLauncher,
    played: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        exec_task.CONF.guest_agent, 'kill_grace', 0, raising=False
    )
    played.exec_status.return_value = RUNS
    end = run(Session(posed), cancel_after=3)
    assert (end['status'], end['error']) == (command.LOST, direct.UNKNOWN)
