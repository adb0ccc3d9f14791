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

"""Finds why no command can run in a server now.

nova-api asks that of a command that is posted, and guest-agent-conductor of
one that a run releases.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
from oslo_utils import strutils

from guest_agent_ext import nova_types

#: Task states in which a server is about to leave ACTIVE, in words for the
#: tenant. During other tasks (live migration, snapshot, reboot) commands run.
LEAVING: Mapping[str, str] = {
    task_states.REBUILDING: 'rebuilt',
    task_states.REBUILD_BLOCK_DEVICE_MAPPING: 'rebuilt',
    task_states.REBUILD_SPAWNING: 'rebuilt',
    task_states.POWERING_OFF: 'stopped',
    task_states.DELETING: 'deleted',
    task_states.SOFT_DELETING: 'deleted',
    task_states.SUSPENDING: 'suspended',
    task_states.SHELVING: 'shelved',
    task_states.SHELVING_IMAGE_PENDING_UPLOAD: 'shelved',
    task_states.SHELVING_IMAGE_UPLOADING: 'shelved',
    task_states.SHELVING_OFFLOADING: 'shelved',
    task_states.PAUSING: 'paused',
    task_states.RESCUING: 'rescued',
}

_HARD_REBOOT = frozenset(
    {
        task_states.REBOOTING_HARD,
        task_states.REBOOT_PENDING_HARD,
        task_states.REBOOT_STARTED_HARD,
    }
)
#: Task states in which a server is about to get its guest, by its vm_state
#: until then. Its power_state says nothing.
STARTING: Mapping[str, Collection[str | None]] = {
    vm_states.BUILDING: {
        None,
        task_states.SCHEDULING,
        task_states.BLOCK_DEVICE_MAPPING,
        task_states.NETWORKING,
        task_states.SPAWNING,
    },
    vm_states.STOPPED: {task_states.POWERING_ON, *_HARD_REBOOT},
    vm_states.SHELVED: {task_states.UNSHELVING, task_states.POWERING_ON},
    vm_states.SHELVED_OFFLOADED: {
        task_states.UNSHELVING,
        task_states.SPAWNING,
    },
    vm_states.ACTIVE: _HARD_REBOOT,
    vm_states.PAUSED: _HARD_REBOOT,
    vm_states.SUSPENDED: _HARD_REBOOT,
    vm_states.ERROR: _HARD_REBOOT,
}

_FindProblem = Callable[[nova_types.Instance], str | None]

_HAS_ITS_GUEST = (vm_states.ACTIVE, vm_states.RESIZED)


def problem_of(
    instance: nova_types.Instance,
    *,
    is_up: Callable[[str], bool],
    may_be_locked: bool,
    may_wait: bool = False,
) -> str | None:
    """Return why a command cannot run in a server, None if it can.

    :param instance: instance, read with system_metadata
    :param is_up: function that tells, by its name, whether the guest agent
        service of a host is up
    :param may_be_locked: whether the command may run in a locked server: it is
        an admin's, or changes nothing
    :param may_wait: whether the command may wait for a server that starts
    :returns: words for the tenant, which begin with the server
    """
    waits = may_wait and is_starting(instance)
    excused = _excused(may_be_locked, waits)
    for find_problem in _PROBLEMS:
        if find_problem in excused:
            continue
        problem = find_problem(instance)
        if problem is not None:
            return 'Server %s %s' % (instance.uuid, problem)
    if not instance.host and waits:
        return None
    if not instance.host or not is_up(instance.host):
        return (
            'Server %s is on a host whose guest agent service is down; try '
            'again when it is back' % instance.uuid
        )
    return None


def is_starting(instance: nova_types.Instance) -> bool:
    """Return whether a server is being built or booted."""
    return instance.task_state in STARTING.get(instance.vm_state, ())


def _excused(may_be_locked: bool, waits: bool) -> Collection[_FindProblem]:
    """Return the problems that do not matter."""
    excused: set[_FindProblem] = set()
    if may_be_locked:
        excused.add(_is_locked)
    if waits:
        excused |= {_is_not_active, _is_not_running}
    return excused


def _is_rescued(instance: nova_types.Instance) -> str | None:
    if instance.vm_state != vm_states.RESCUED:
        return None
    return (
        'is RESCUED: a command would run in the rescue system; unrescue '
        'it first'
    )


def _is_leaving(instance: nova_types.Instance) -> str | None:
    done = LEAVING.get(instance.task_state or '')
    if done is None:
        return None
    return 'is being %s (task_state %s); it must be running' % (
        done,
        instance.task_state,
    )


def _is_not_active(instance: nova_types.Instance) -> str | None:
    if instance.vm_state in _HAS_ITS_GUEST:
        return None
    task = ' and task_state %s' % instance.task_state
    return 'has vm_state %s%s; it must be %s' % (
        instance.vm_state,
        task if instance.task_state else '',
        ' or '.join(_HAS_ITS_GUEST),
    )


def _is_not_running(instance: nova_types.Instance) -> str | None:
    if instance.power_state == power_state.RUNNING:
        return None
    return 'has power_state %s; it must be %s' % (
        power_state.STATE_MAP.get(instance.power_state),
        power_state.STATE_MAP[power_state.RUNNING],
    )


def _is_locked(instance: nova_types.Instance) -> str | None:
    if not instance.locked:
        return None
    return 'is locked; unlock it first'


def _has_no_channel(instance: nova_types.Instance) -> str | None:
    asked_for = instance.system_metadata.get('image_hw_qemu_guest_agent')
    if strutils.bool_from_string(asked_for):
        return None
    return (
        'has no guest agent channel: its image must have the property '
        'hw_qemu_guest_agent=yes'
    )


#: The first problem is answered.
_PROBLEMS: Sequence[_FindProblem] = (
    _is_rescued,
    _is_leaving,
    _is_not_active,
    _is_not_running,
    _is_locked,
    _has_no_channel,
)
