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

"""The task of a command that is one agent call, in a guest that is played."""

import contextlib
from typing import Any

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import agent_call_task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from tests.unit import sessions

SECRET = 'hush hush'
ARGUMENTS: dict[str, dict[str, Any]] = {
    command.SET_PASSWORD: {'user': 'root', 'password': SECRET},
    command.SSH_KEYS_ADD: {'user': 'root', 'keys': ['ssh-rsa A']},
    command.SSH_KEYS_REMOVE: {'user': 'root', 'keys': ['ssh-rsa A']},
    command.FSTRIM: {},
}


class Guests:
    """Plays libvirt and the agent of a guest that blocks guest-exec.

    :ivar asked: requests that came, without guest-info
    :ivar answers: what the calls are answered, one after the other
    """

    def __init__(self) -> None:
        self.enabled = dict.fromkeys(command.AGENT_CALLS.values(), True)
        self.enabled |= {'guest-exec': False, 'guest-file-open': False}
        self.asked: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.is_frozen = False

    def agent_command(
        self, uuid: str, request: dict[str, Any], timeout: int
    ) -> Any:
        name = request['execute']
        if name == 'guest-fsfreeze-status':
            return 'frozen' if self.is_frozen else 'thawed'
        if name == 'guest-info':
            return {
                'supported_commands': [
                    {
                        'name': call,
                        'enabled': is_enabled and not self.is_frozen,
                    }
                    for call, is_enabled in self.enabled.items()
                ]
            }
        self.asked.append(dict(request, timeout=timeout))
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        return answer


class Session(sessions.FakeSession):
    """Plays the conductor of a guest.

    :ivar guests: guest
    """

    def __init__(self, kind: str) -> None:
        claim: rpcapi.Claim = {
            'uuid': 'command',
            'type': kind,
            'exec': None,
            'file': None,
            'call': ARGUMENTS[kind],
            'timeout': 60,
            'boot_id': 'none',
            'ticket': 0,
            'started_uptime': None,
        }
        super().__init__(claim)
        self.guests = Guests()
        self.agent = agent.Agent(self.guests, sessions.SERVER)


@pytest.fixture
def session() -> Session:
    return Session(command.SET_PASSWORD)


def make(
    session: Session, kind: str = command.SET_PASSWORD, **values: Any
) -> agent_call_task.AgentCallTask:
    work: Any = {
        'uuid': 'command',
        'type': kind,
        'instance_uuid': 'server',
        'status': command.PENDING,
        'attempt': None,
        'cancel_requested': False,
        'start_in': 300.0,
    }
    return agent_call_task.AgentCallTask(session, dict(work, **values))


def adopted(session: Session, **values: Any) -> agent_call_task.AgentCallTask:
    return make(session, attempt='before', status=command.RUNNING, **values)


def run(
    session: Session, item: agent_call_task.AgentCallTask, limit: int = 20
) -> None:
    """Make steps until it is done; what the guest fails at, again."""
    for _ in range(limit):
        if item.is_done:
            return
        session.clock.time = max(item.due, session.clock.time + 0.005)
        with contextlib.suppress(exception.GuestError):
            item.step()
    raise AssertionError('The task goes round in circles')


@pytest.mark.parametrize('kind', ARGUMENTS)
def test_call_is_made_without_a_launcher(kind: str) -> None:
    """A launcher or a probe would fail in a guest that blocks guest-exec."""
    session = Session(kind)
    item = make(session, kind)
    assert item.is_offered
    run(session, item)
    assert session.end['status'] == command.COMPLETED
    assert session.end['age'] >= 0
    (asked,) = session.guests.asked
    assert asked['execute'] == command.AGENT_CALLS[kind]
    session.probe.assert_not_called()
    session.recent_probe.assert_not_called()
    session.acknowledge.assert_not_called()


def test_password_is_sent_as_the_agent_wants_it(session: Session) -> None:
    run(session, make(session))
    assert session.guests.asked[0]['arguments'] == {
        'username': 'root',
        'password': 'aHVzaCBodXNo',
        'crypted': False,
    }


def test_unanswered_call_is_sent_again(session: Session) -> None:
    session.guests.answers = [exception.AgentUnresponsive(), {}]
    run(session, make(session))
    assert len(session.guests.asked) == 2
    assert session.end['status'] == command.COMPLETED


def test_guest_that_never_answers_leaves_the_end_open(
    session: Session,
) -> None:
    session.guests.answers = [exception.AgentUnresponsive()] * 9
    run(session, make(session))
    assert len(session.guests.asked) == agent_call_task.MAX_SENDS
    assert session.end == {
        'status': command.LOST,
        'error': agent_call_task.NO_ANSWER,
    }


def test_adopted_call_is_sent_again(session: Session) -> None:
    run(session, adopted(session))
    session.conductor.adopt.assert_called_once()
    assert len(session.guests.asked) == 1
    assert session.end['status'] == command.COMPLETED


def test_cancel_before_the_call(session: Session) -> None:
    item = make(session)
    item.step()
    item.cancel()
    run(session, item)
    assert session.guests.asked == []
    assert session.end['status'] == command.CANCELLED


@pytest.mark.parametrize('is_adopted', [True, False])
def test_cancel_after_a_call_that_was_not_answered(
    session: Session, is_adopted: bool
) -> None:
    session.guests.answers = [exception.AgentUnresponsive()]
    item = make(session)
    if is_adopted:
        item = adopted(session)
    else:
        item.step()
        with pytest.raises(exception.AgentUnresponsive):
            item.step()
    sent = len(session.guests.asked)
    item.cancel()
    run(session, item)
    assert len(session.guests.asked) == sent
    assert session.end['status'] == command.LOST


def test_call_that_did_not_come_through_in_time_is_not_sent_later(
    session: Session,
) -> None:
    """A password of ten must not be set at one, when a host is back."""
    item = make(session, start_in=20.0)
    item.step()
    session.guests.answers = [exception.AgentNotConnected()]
    with pytest.raises(exception.AgentNotConnected):
        item.step()
    session.clock.advance(21.0)
    run(session, item)
    assert len(session.guests.asked) == 1
    assert session.end == {
        'status': command.FAILED,
        'error': agent_call_task.LATE,
    }


def test_guest_refuses_and_its_words_have_no_password(
    session: Session,
) -> None:
    session.guests.answers = [
        exception.AgentRefused(f'chpasswd: {SECRET} (aHVzaCBodXNo) is bad')
    ]
    run(session, make(session))
    assert session.end == {
        'status': command.FAILED,
        'error': 'chpasswd: *** (***) is bad',
    }


def test_disabled_call_is_refused_before_the_claim(session: Session) -> None:
    session.guests.enabled['guest-set-user-password'] = False
    item = make(session)
    with pytest.raises(
        exception.AgentCommandDisabled, match='guest-set-user-password'
    ) as caught:
        item.step()
    item.refuse(str(caught.value))
    assert item.is_done
    session.conductor.claim.assert_not_called()
    session.conductor.refuse.assert_called_once()


def test_frozen_guest_is_waited_for(session: Session) -> None:
    """It says of all its calls that they are disabled, for a moment."""
    session.guests.is_frozen = True
    item = make(session)
    with pytest.raises(exception.AgentBusy):
        item.step()
    session.guests.is_frozen = False
    item.step()
    session.guests.is_frozen = True
    session.guests.answers = [exception.AgentCommandDisabled()]
    with pytest.raises(exception.AgentBusy):
        item.step()
    session.guests.is_frozen = False
    run(session, item)
    assert session.end['status'] == command.COMPLETED


@pytest.mark.parametrize(
    ('is_adopted', 'status'), [(False, command.FAILED), (True, command.LOST)]
)
def test_refusal_after_the_claim_says_whether_it_may_have_run(
    session: Session, is_adopted: bool, status: str
) -> None:
    item = adopted(session) if is_adopted else make(session)
    item.step()
    item.refuse('blocked')
    run(session, item)
    assert session.end == {'status': status, 'error': 'blocked'}


def test_file_systems_that_are_not_trimmed_are_told() -> None:
    session = Session(command.FSTRIM)
    session.guests.answers = [
        {
            'paths': [
                {'path': '/', 'trimmed': 5},
                {'path': '/boot', 'error': 'trim not supported'},
            ]
        }
    ]
    run(session, make(session, command.FSTRIM))
    assert session.end['status'] == command.FAILED
    assert '/boot: trim not supported' in session.end['error']
    (asked,) = session.guests.asked
    assert asked['timeout'] == agent_call_task.TRIM_TIMEOUT


def test_one_trim_at_a_time() -> None:
    """Each occupies one of the few work connections for up to a minute."""
    session = Session(command.FSTRIM)
    item = make(session, command.FSTRIM)
    item.step()
    with agent_call_task._trimming:
        item.step()
        assert session.guests.asked == []
        assert item.due == session.clock.now() + agent_call_task.TRIM_GAP
    run(session, item)
    assert session.end['status'] == command.COMPLETED


def test_absence_is_for_the_conductor_to_judge(session: Session) -> None:
    item = make(session)
    item.step()
    session.conductor.not_here.return_value = command.SUPERSEDED
    item.meet_absence('shutoff')
    assert item.is_done
    session.conductor.finish.assert_not_called()


def test_abandoned_command_asks_nothing_of_the_guest(session: Session) -> None:
    item = make(session)
    item.step()
    item.abandon()
    assert not item.needs_guest
    run(session, item)
    assert session.guests.asked == []
    session.clear.assert_not_called()
