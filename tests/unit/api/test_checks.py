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

import types
from typing import Any

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
import pytest
import webob.exc

from guest_agent_ext.api import checks
from guest_agent_ext.db import hosts

MAPPING: Any = types.SimpleNamespace(
    cell_mapping=types.SimpleNamespace(uuid='cell')
)


def problem_of(
    *,
    is_admin: bool = False,
    changes: bool = True,
    may_wait: bool = False,
    **values: Any,
) -> str | None:
    context: Any = types.SimpleNamespace(is_admin=is_admin)
    instance: Any = types.SimpleNamespace(
        **{
            'uuid': 'server',
            'host': 'host',
            'vm_state': vm_states.ACTIVE,
            'task_state': None,
            'power_state': power_state.RUNNING,
            'locked': False,
            'system_metadata': {'image_hw_qemu_guest_agent': 'yes'},
            **values,
        }
    )
    try:
        checks.check(
            context, MAPPING, instance, changes=changes, may_wait=may_wait
        )
    except webob.exc.HTTPConflict as refusal:
        return str(refusal.explanation)
    return None


@pytest.fixture(autouse=True)
def up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hosts, 'is_up', lambda cell, host, down_time: host == 'host'
    )


@pytest.mark.parametrize(
    'values',
    [
        {},
        {'vm_state': vm_states.RESIZED},
        {'task_state': task_states.MIGRATING},
        {'task_state': task_states.REBOOTING},
        {'locked': True, 'is_admin': True},
        {'locked': True, 'changes': False},
    ],
)
def test_server_in_which_commands_run(values: dict[str, Any]) -> None:
    assert problem_of(**values) is None


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'vm_state': vm_states.RESCUED}, 'RESCUED'),
        ({'task_state': task_states.REBUILDING}, 'being rebuilt'),
        (
            {'vm_state': vm_states.STOPPED},
            'vm_state stopped; it must be active',
        ),
        (
            {'power_state': power_state.PAUSED},
            'power_state paused; it must be',
        ),
        ({'locked': True}, 'is locked'),
        ({'system_metadata': {}}, 'hw_qemu_guest_agent=yes'),
        (
            {'system_metadata': {'image_hw_qemu_guest_agent': 'no'}},
            'hw_qemu_guest_agent=yes',
        ),
        ({'host': 'other'}, 'service is down'),
        ({'host': None}, 'is down'),
    ],
)
def test_server_in_which_none_runs(values: dict[str, Any], words: str) -> None:
    problem = problem_of(**values)
    assert problem is not None
    assert problem.startswith('Server server ')
    assert words in problem


_BUILDING: dict[str, Any] = {
    'vm_state': vm_states.BUILDING,
    'task_state': task_states.SPAWNING,
    'power_state': power_state.NOSTATE,
}
_BOOTING: dict[str, Any] = {
    'vm_state': vm_states.STOPPED,
    'task_state': task_states.POWERING_ON,
    'power_state': power_state.SHUTDOWN,
}


@pytest.mark.parametrize(
    'values', [_BUILDING, {**_BUILDING, 'host': None}, _BOOTING]
)
def test_server_that_a_command_may_wait_for(values: dict[str, Any]) -> None:
    assert problem_of(may_wait=True, **values) is None
    problem = problem_of(**values)
    assert problem is not None
    assert f' and task_state {values["task_state"]}; it must' in problem


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({**_BUILDING, 'task_state': task_states.DELETING}, 'being deleted'),
        ({**_BUILDING, 'host': 'other'}, 'service is down'),
        ({**_BUILDING, 'locked': True}, 'is locked'),
        ({**_BUILDING, 'system_metadata': {}}, 'hw_qemu_guest_agent=yes'),
        ({**_BOOTING, 'host': 'other'}, 'service is down'),
        ({**_BOOTING, 'task_state': None}, 'has vm_state stopped; it must'),
        ({'power_state': power_state.SHUTDOWN}, 'has power_state shutdown'),
        ({'host': None}, 'service is down'),
    ],
)
def test_server_that_none_waits_for(
    values: dict[str, Any], words: str
) -> None:
    problem = problem_of(may_wait=True, **values)
    assert problem is not None
    assert words in problem


def test_first_problem_is_told() -> None:
    """Unrescue comes before all else: the rest may be of the rescue."""
    problem = problem_of(vm_state=vm_states.RESCUED, locked=True, host=None)
    assert problem is not None
    assert 'unrescue' in problem
