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

"""What each step of a task declares, and what is read from that."""

import pytest

from guest_agent_ext.compute import exec_task
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer_task
from tests.unit import sessions

Stage = task.Stage
CLAIM = {'uuid': 'command', 'started_uptime': None}
#: The steps that are not made in a well guest for a command under way.
DECLARED = {
    exec_task.ExecTask: {
        '_take': (Stage.UNCLAIMED, True),
        '_adopt': (Stage.INHERITED, False),
        '_serve': (Stage.SERVING, True),
        '_drain': (Stage.SERVING, True),
        '_finish': (Stage.ENDED, False),
    },
    transfer_task.TransferTask: {
        '_take': (Stage.UNCLAIMED, True),
        '_adopt': (Stage.INHERITED, False),
        '_note_opened': (Stage.UNDER_WAY, False),
        '_serve': (Stage.SERVING, True),
        '_discard': (Stage.DISCARDING, False),
        '_finish': (Stage.ENDED, False),
    },
}


def steps(kind: type[task.Task]) -> dict[str, task.Step]:
    return {
        name: value
        for name, value in vars(kind).items()
        if isinstance(value, task.Step)
    }


@pytest.mark.parametrize('kind', DECLARED)
def test_steps_that_are_unlike_the_others(kind: type[task.Task]) -> None:
    assert {
        name: (step.stage, step.needs_guest)
        for name, step in steps(kind).items()
        if (step.stage, step.needs_guest) != (Stage.UNDER_WAY, True)
    } == DECLARED[kind]


@pytest.mark.parametrize('kind', DECLARED)
def test_step_is_named_like_its_method(kind: type[task.Task]) -> None:
    """Each is another object, and none is taken for another."""
    found = steps(kind)
    assert {name: step.make.__name__ for name, step in found.items()} == {
        name: name for name in found
    }


def make(attempt: str | None = None) -> exec_task.ExecTask:
    return exec_task.ExecTask(
        sessions.FakeSession(CLAIM),
        {
            'uuid': 'command',
            'type': 'exec',
            'instance_uuid': 'server',
            'status': 'PENDING',
            'attempt': attempt,
            'cancel_requested': False,
            'start_in': 30.0,
        },
    )


@pytest.mark.parametrize('name', steps(exec_task.ExecTask))
def test_program_is_on_offer_until_it_is_claimed(name: str) -> None:
    item = make()
    item._next = steps(exec_task.ExecTask)[name]
    assert item.is_offered == (name == '_take')
    assert item.needs_guest == (name not in ('_adopt', '_finish'))
    item._clock.advance(30.1)
    assert item.is_expired == (name == '_take')


@pytest.mark.parametrize('name', steps(transfer_task.TransferTask))
def test_transfer_is_never_on_offer(name: str) -> None:
    """nova-api waits for it."""
    session = sessions.FakeSession(CLAIM)
    item = transfer_task.TransferTask(
        session, 'command', pace.Pace(lambda: 1, session.clock)
    )
    item._next = steps(transfer_task.TransferTask)[name]
    assert not item.is_offered
    assert item.needs_guest == (
        name not in ('_adopt', '_note_opened', '_discard', '_finish', '_serve')
    )
    item._clock.advance(10**3)
    assert item.is_expired == (name == '_take')


@pytest.mark.parametrize('attempt', [None, 'previous'])
def test_command_is_held_from_the_claim_on(attempt: str | None) -> None:
    item = make(attempt)
    assert not item.is_held
    item._clock.advance(1)
    item.step()
    assert item.is_held
    item.abandon()
    assert not item.is_held and item.is_abandoned


def test_step_that_is_put_off_is_due_later() -> None:
    item = make()
    item.postpone(7)
    assert item.due == item._clock.now() + 7


def test_claim_leaves_time_for_itself() -> None:
    item = make()
    item._clock.advance(30 - task.CLAIM_MARGIN)
    assert item._claim_now(item._session.guest().probe()) is None
    item._session.conductor.claim.assert_not_called()
