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

import time
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest.launchers import base
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import scripted

SCRIPTS = [
    f'posix/{name}.sh'
    for name in (
        'common',
        'file',
        'launch',
        'order',
        'output',
        'probe',
        'recover',
        'release',
        'signal',
        'stage',
        'unhold',
    )
]


def ended(out: bytes) -> guest_agent.ExecStatus:
    return guest_agent.ExecStatus(True, 0, None, out, b'')


RUNNING = guest_agent.ExecStatus(False, None, None, b'', b'')


@pytest.fixture
def agent() -> mock.Mock:
    agent = mock.create_autospec(guest_agent.Agent, instance=True)
    agent.exec.return_value = 5
    return agent


@pytest.fixture
def launcher(
    agent: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> scripted.ScriptLauncher:
    monkeypatch.setattr(scripted, 'GAP', 0)
    return posix.PosixLauncher(agent)


@pytest.mark.parametrize('name', SCRIPTS)
def test_guests_get_no_comments(name: str) -> None:
    text = scripted.text(name)
    assert text and not any(
        line.startswith('#') or not line for line in text.splitlines()
    )


def test_script_is_polled_until_it_ends(
    launcher: scripted.ScriptLauncher, agent: mock.Mock
) -> None:
    agent.exec_status.side_effect = [RUNNING, RUNNING, ended(b'3\n')]
    assert launcher.signal_tree('id', 'TERM', 'CANCELLED') == 3


def test_script_that_does_not_end_is_given_up(
    launcher: scripted.ScriptLauncher,
    agent: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher, 'timeout', -1)
    agent.exec_status.return_value = RUNNING
    with pytest.raises(exception.AgentUnresponsive):
        launcher.fence('id')


@pytest.mark.parametrize('printed', [b'', b'-1', b'all', b'\xff'])
def test_number_of_the_killed_must_be_one(
    launcher: scripted.ScriptLauncher, agent: mock.Mock, printed: bytes
) -> None:
    agent.exec_status.return_value = ended(printed)
    with pytest.raises(exception.AgentError):
        launcher.signal_tree('id', 'KILL', 'LOST')


def test_probe_that_may_not_run_is_disabled_not_unavailable(
    launcher: scripted.ScriptLauncher, agent: mock.Mock
) -> None:
    agent.exec.side_effect = exception.AgentCommandDisabled()
    with pytest.raises(exception.AgentCommandDisabled):
        launcher.probe()


def test_poll_leaves_what_runs_alone(
    launcher: scripted.ScriptLauncher, agent: mock.Mock
) -> None:
    agent.exec_status.return_value = RUNNING
    assert launcher.poll(5) is None
    assert launcher.poll_file(5) is None


KILLED = guest_agent.ExecStatus(True, None, 15, b'', b'')


@pytest.mark.parametrize('ask', ['recover', 'fence'])
def test_script_that_somebody_kills_is_run_again(
    launcher: scripted.ScriptLauncher, agent: mock.Mock, ask: str
) -> None:
    """Or else a live command would be taken for one that has died."""
    agent.exec_status.side_effect = [KILLED, RUNNING, KILLED, ended(b'none\n')]
    assert getattr(launcher, ask)('a-1') == base.NotStarted()
    assert agent.exec.call_count == 3


@pytest.mark.parametrize(
    'status', [KILLED, guest_agent.ExecStatus(True, 1, None, b'', b'')]
)
@pytest.mark.parametrize('ask', ['recover', 'fence'])
def test_script_that_never_gets_to_answer_tells_nothing(
    launcher: scripted.ScriptLauncher,
    agent: mock.Mock,
    ask: str,
    status: guest_agent.ExecStatus,
) -> None:
    agent.exec_status.return_value = status
    with pytest.raises(exception.ScriptKilled):
        getattr(launcher, ask)('a-1')
    assert agent.exec.call_count <= scripted.ATTEMPTS


def test_guest_whose_probe_is_killed_is_not_unfit(
    launcher: scripted.ScriptLauncher, agent: mock.Mock
) -> None:
    agent.exec_status.return_value = KILLED
    with pytest.raises(exception.ScriptKilled):
        launcher.probe()


def test_commit_that_was_killed_has_no_answer(
    launcher: scripted.ScriptLauncher, agent: mock.Mock
) -> None:
    agent.exec_status.return_value = KILLED
    with pytest.raises(exception.ScriptKilled):
        launcher.poll_file(5)


class SlowGuest:
    """An agent whose scripts take their time.

    :ivar takes: seconds that each takes
    :ivar questions: how often it was asked for the end of one
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: float) -> None:
        self.takes = takes
        self.questions = 0
        self.now = self._began = 1000.0
        monkeypatch.setattr(time, 'monotonic', lambda: self.now)
        monkeypatch.setattr(time, 'sleep', self._sleep)
        self.launcher = posix.PosixLauncher(
            mock.Mock(
                spec=guest_agent.Agent,
                **{
                    'exec.side_effect': self._exec,
                    'exec_status.side_effect': self._status,
                },
            )
        )

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _exec(self, *args: object, **kwargs: object) -> int:
        self._began = self.now
        return 5

    def _status(self, pid: int) -> guest_agent.ExecStatus:
        self.questions += 1
        # An answer takes a moment too.
        self.now += 0.005
        has_exited = self.now - self._began >= self.takes
        return guest_agent.ExecStatus(has_exited, 0, None, b'none\n', b'')


@pytest.mark.parametrize('takes', [0.03, 0.3, 1.5])
def test_recover_leaves_few_lines_in_slow_guests_too(
    monkeypatch: pytest.MonkeyPatch, takes: float
) -> None:
    slow = SlowGuest(monkeypatch, takes)
    for _ in range(10):
        slow.launcher.recover('a-1')
    # And one for the start of each.
    assert slow.questions <= 36


def test_guest_that_is_quick_again_is_asked_soon_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = SlowGuest(monkeypatch, 15)
    slow.launcher.recover('a-1')
    slow.takes = 0
    for _ in range(12):
        began = slow.now
        slow.launcher.recover('a-1')
        assert slow.now - began < scripted.MAX_IDLE_GAP + 0.01
    assert slow.now - began < scripted.IDLE_GAP + 0.01


def test_script_that_does_not_end_is_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = SlowGuest(monkeypatch, 1000)
    with pytest.raises(exception.AgentUnresponsive):
        slow.launcher.fence('a-1')
    assert slow.now - 1000 < slow.launcher.timeout * (
        1 + 2 * scripted.GAP_SHARE
    )
