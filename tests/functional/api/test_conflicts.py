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

"""What a server must be like for a command to be accepted."""

from collections.abc import Iterator
import concurrent.futures
import threading
import time
from typing import Any

from nova import context as nova_context
from nova import objects
from nova.compute import power_state
from nova.compute import vm_states
from oslo_db import exception as db_exc
from oslo_utils import uuidutils
import pytest

from guest_agent_ext import breaker
from guest_agent_ext import reads
from guest_agent_ext import server_checks
from guest_agent_ext.api import servers
from guest_agent_ext.db import hosts
from tests.functional.api import base

ALL_TASK_STATES = objects.fields.InstanceTaskState.ALL

#: Nova's tasks during which a server has its guest, or will have it again.
FINE = {
    'block_device_mapping',
    'image_backup',
    'image_pending_upload',
    'image_snapshot',
    'image_snapshot_pending',
    'image_uploading',
    'migrating',
    'networking',
    'powering-on',
    'reboot_pending',
    'reboot_pending_hard',
    'reboot_started',
    'reboot_started_hard',
    'rebooting',
    'rebooting_hard',
    'resize_confirming',
    'resize_finish',
    'resize_migrated',
    'resize_migrating',
    'resize_prep',
    'resize_reverting',
    'restoring',
    'resuming',
    'scheduling',
    'spawning',
    'unpausing',
    'unrescuing',
    'unshelving',
    'updating_password',
}


def conflict(cloud: base.Cloud, instance: Any, **caller: Any) -> str:
    response = cloud.post(path=base.commands_of(instance.uuid), **caller)
    message = base.message_of(response, 409, 'conflictingRequest')
    assert instance.uuid in message
    assert not cloud.rung
    listed = cloud.get(base.commands_of(instance.uuid)).json()['commands']
    assert listed == []
    return message


@pytest.mark.parametrize(
    'vm_state',
    [
        state
        for state in objects.fields.InstanceState.ALL
        if state not in ('active', 'building', 'resized', 'rescued', 'deleted')
    ],
)
def test_vm_state(cloud: base.Cloud, vm_state: str) -> None:
    instance = cloud.make_instance(vm_state=vm_state)
    assert (
        f'has vm_state {vm_state}; it must be active or resized'
        in conflict(cloud, instance)
    )


@pytest.mark.parametrize(
    ('vm_state', 'task_state'),
    [('suspended', 'resuming'), ('paused', 'unpausing'), ('stopped', None)],
)
def test_task_that_boots_nothing(
    cloud: base.Cloud, vm_state: str, task_state: str | None
) -> None:
    instance = cloud.make_instance(vm_state=vm_state, task_state=task_state)
    task = f' and task_state {task_state}' if task_state else ''
    assert f'has vm_state {vm_state}{task}; it must be' in conflict(
        cloud, instance
    )


def test_resized_is_fine(cloud: base.Cloud) -> None:
    instance = cloud.make_instance(vm_state=vm_states.RESIZED)
    response = cloud.post(path=base.commands_of(instance.uuid))
    assert response.status_code == 200


def test_rescued(cloud: base.Cloud) -> None:
    instance = cloud.make_instance(vm_state=vm_states.RESCUED)
    assert 'is RESCUED' in conflict(cloud, instance)


@pytest.mark.parametrize('task_state', sorted(server_checks.LEAVING))
def test_leaving(cloud: base.Cloud, task_state: str) -> None:
    instance = cloud.make_instance(task_state=task_state)
    message = conflict(cloud, instance)
    assert f'is being {server_checks.LEAVING[task_state]}' in message
    assert f'(task_state {task_state})' in message


@pytest.mark.parametrize('task_state', sorted(FINE))
def test_other_tasks_are_fine(cloud: base.Cloud, task_state: str) -> None:
    instance = cloud.make_instance(task_state=task_state)
    response = cloud.post(path=base.commands_of(instance.uuid))
    assert response.status_code == 200


def test_every_task_of_nova_s_is_known() -> None:
    # What Nova's next release adds must be looked at.
    assert set(ALL_TASK_STATES) == FINE | server_checks.LEAVING.keys()


@pytest.mark.parametrize(
    ('state', 'name'),
    [
        (power_state.PAUSED, 'paused'),
        (power_state.SHUTDOWN, 'shutdown'),
        (power_state.CRASHED, 'crashed'),
        (power_state.NOSTATE, 'pending'),
        (None, 'None'),
    ],
)
def test_power_state(cloud: base.Cloud, state: int, name: str) -> None:
    instance = cloud.make_instance(power_state=state)
    assert f'has power_state {name}; it must be running' in conflict(
        cloud, instance
    )


def test_locked_but_for_admins(cloud: base.Cloud) -> None:
    instance = cloud.make_instance(locked=True, locked_by='owner')
    assert 'is locked' in conflict(cloud, instance)
    response = cloud.post(
        path=base.commands_of(instance.uuid), user='admin', roles='admin'
    )
    assert response.status_code == 200


@pytest.mark.parametrize('channel', ['no', 'False', '0', ''])
def test_no_channel(cloud: base.Cloud, channel: str) -> None:
    instance = cloud.make_instance(channel=channel)
    assert 'hw_qemu_guest_agent=yes' in conflict(cloud, instance)


def test_no_channel_property(cloud: base.Cloud) -> None:
    instance = cloud.make_instance(system_metadata={})
    assert 'hw_qemu_guest_agent=yes' in conflict(cloud, instance)


def test_host_never_heard_of(cloud: base.Cloud) -> None:
    instance = cloud.make_instance(host='other')
    assert 'guest agent service is down' in conflict(cloud, instance)


def test_host_not_heard_for_long(cloud: base.Cloud) -> None:
    hosts.register(
        cloud.cell.uuid, 'silent', machine_id='m', version='1', down_time=60
    )
    instance = cloud.make_instance(host='silent')
    base.CONF.set_override('service_down_time', 1, group='guest_agent')
    try:
        assert (
            cloud.post(path=base.commands_of(instance.uuid)).status_code == 200
        )
        cloud.rung.clear()
        time.sleep(1.1)
        response = cloud.post(path=base.commands_of(instance.uuid))
        assert 'guest agent service is down' in base.message_of(
            response, 409, 'conflictingRequest'
        )
    finally:
        base.CONF.clear_override('service_down_time', group='guest_agent')


def test_deleted(cloud: base.Cloud) -> None:
    uuid = cloud.post().json()['command']['uuid']
    cloud.instance.destroy()
    assert cloud.post().status_code == 404
    # What was run in it can still be read.
    assert cloud.get(f'{cloud.path}/{uuid}').status_code == 200


@pytest.fixture
def dead_cell(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """A cell whose database fails as ``fate`` says, or hangs without one."""
    fate: dict[str, Any] = {'asked': 0}
    is_over = threading.Event()

    get_alive = objects.Instance.get_by_uuid

    def get_by_uuid(context: Any, *args: Any, **kwargs: Any) -> Any:
        if context.cell_uuid != cloud.cell.uuid:
            return get_alive(context, *args, **kwargs)
        fate['asked'] += 1
        if 'error' in fate:
            raise fate['error']
        is_over.wait(60)
        return None

    monkeypatch.setattr(objects.Instance, 'get_by_uuid', get_by_uuid)
    monkeypatch.setattr(reads, '_reads', {})
    base.CONF.set_override('cell_timeout', 0.3, group='guest_agent')
    yield fate
    is_over.set()
    base.CONF.clear_override('cell_timeout', group='guest_agent')


def test_cell_that_hangs(cloud: base.Cloud, dead_cell: dict[str, Any]) -> None:
    for _ in range(3):
        assert 'The cell of server' in conflict(cloud, cloud.instance)
    # Only the first waited.
    assert dead_cell['asked'] == 1


def test_cell_that_refuses(
    cloud: base.Cloud, dead_cell: dict[str, Any]
) -> None:
    dead_cell['error'] = db_exc.DBConnectionError()
    assert 'is down' in conflict(cloud, cloud.instance)


@pytest.fixture
def other_cell(cloud: base.Cloud) -> Iterator[Any]:
    """A cell beside the first, whose database it shares here."""
    cell = objects.CellMapping(
        nova_context.get_admin_context(),
        uuid=uuidutils.generate_uuid(),
        name='other',
        transport_url=cloud.cell.transport_url,
        database_connection=cloud.cell.database_connection,
    )
    cell.create()
    hosts.register(
        cell.uuid, base.HOST, machine_id='machine', version='1', down_time=60
    )
    yield cell
    cell.destroy()


def test_cell_that_hangs_costs_others_nothing(
    cloud: base.Cloud,
    dead_cell: dict[str, Any],
    other_cell: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = cloud.make_instance(cell=other_cell)
    # Every read tries: more hang than Nova's pool has threads.
    monkeypatch.setattr(servers, '_breaker', breaker.Breaker(0))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        hung = [pool.submit(cloud.post) for _ in range(12)]
        concurrent.futures.wait(hung)
    assert {item.result().status_code for item in hung} == {409}
    assert dead_cell['asked'] == reads.MAX_READS
    response = cloud.post(path=base.commands_of(instance.uuid))
    assert response.status_code == 200


def test_read_that_never_began_is_no_failure(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, 'MAX_READS', 0)
    monkeypatch.setattr(reads, '_reads', {})
    base.CONF.set_override('cell_timeout', 0.1, group='guest_agent')
    try:
        assert 'is down' in conflict(cloud, cloud.instance)
    finally:
        base.CONF.clear_override('cell_timeout', group='guest_agent')
    monkeypatch.undo()
    assert cloud.post().status_code == 200


def test_reading_needs_no_cell(
    cloud: base.Cloud, dead_cell: dict[str, Any]
) -> None:
    assert cloud.get(cloud.path).status_code == 200
    assert dead_cell['asked'] == 0
