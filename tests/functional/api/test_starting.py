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

"""Commands for servers that are being built or booted."""

from collections.abc import Iterator
from typing import Any

from nova import objects
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import server_checks
from guest_agent_ext.api import streams
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import cells
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import unscheduled
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests.functional.api import base


@pytest.mark.parametrize(
    ('vm_state', 'task_state'),
    [
        (vm_state, task_state)
        for vm_state, tasks in server_checks.STARTING.items()
        for task_state in sorted(tasks, key=str)
    ],
)
def test_server_that_is_built_or_booted(
    cloud: base.Cloud, vm_state: str, task_state: str | None
) -> None:
    instance = cloud.make_instance(
        vm_state=vm_state,
        task_state=task_state,
        power_state=power_state.SHUTDOWN,
    )
    path = f'/servers/{instance.uuid}/guest-agent'
    answer = cloud.post(path=base.commands_of(instance.uuid))
    assert answer.status_code == 200
    assert answer.json()['command']['status'] == 'PENDING'
    assert cloud.rung == [(cloud.cell.uuid, base.HOST)]
    # What must be answered at once is refused.
    agent = cloud.get(path).json()['guest_agent']
    assert agent['status'] == 'unavailable'
    for call in ('/details', '/file-read?path=/a'):
        assert cloud.get(path + call).status_code == 409


def test_first_host_is_not_known_yet(cloud: base.Cloud) -> None:
    instance = cloud.make_instance(
        vm_state=vm_states.BUILDING,
        task_state=task_states.SCHEDULING,
        power_state=power_state.NOSTATE,
        host=None,
    )
    post = cloud.post(path=base.commands_of(instance.uuid))
    uuid = post.json()['command']['uuid']
    assert not cloud.rung
    assert host_of(cloud, instance.uuid, uuid) is None
    follow(cloud)
    assert host_of(cloud, instance.uuid, uuid) is None
    assert read(uuid).last_seen == manager.NO_HOST
    instance.host = base.HOST
    instance.save()
    follow(cloud)
    assert host_of(cloud, instance.uuid, uuid) == base.HOST


@pytest.mark.parametrize(
    ('values', 'ends'),
    [
        ({'vm_state': vm_states.ERROR}, True),
        # It is tried on another host.
        ({'task_state': task_states.SCHEDULING}, False),
        ({'vm_state': vm_states.ERROR, 'task_state': 'scheduling'}, False),
        ({'vm_state': vm_states.ERROR, 'launched_at': True}, False),
    ],
)
def test_build_that_fails_on_its_host(
    cloud: base.Cloud, values: dict[str, Any], ends: bool
) -> None:
    instance = cloud.make_instance(vm_state=vm_states.BUILDING)
    post = cloud.post(path=base.commands_of(instance.uuid))
    if values.pop('launched_at', False):
        instance.launched_at = instance.created_at
    instance.host = None
    instance.update(values)
    instance.save()
    follow(cloud)
    found = commands.get(post.json()['command']['uuid'])
    assert found is not None
    assert found.status == (command.FAILED if ends else command.PENDING)
    assert found.error == (manager.NOT_BUILT if ends else None)


@pytest.fixture
def server(cloud: base.Cloud) -> Iterator[base.Unscheduled]:
    server = base.Unscheduled(cloud)
    yield server
    for row in commands.unfinished_of_cell(models.NOWHERE, 0, 100):
        commands.cancel(row.uuid)


def read(uuid: str) -> models.Command:
    found = commands.get(uuid)
    assert found is not None
    return found


def host_of(cloud: base.Cloud, server: str, uuid: str) -> Any:
    path = f'{base.commands_of(server)}/{uuid}'
    return cloud.admin_get(path).json()['command']['host']


def follow(cloud: base.Cloud) -> None:
    """Have a conductor look once after what is not ended."""
    unscheduled.settle()
    cells.Cell(cloud.cell, 'conductor')._follow()


def test_command_finds_the_host_of_its_server(
    cloud: base.Cloud, server: base.Unscheduled
) -> None:
    post = server.post()
    assert post.status_code == 200
    uuid = post.json()['command']['uuid']
    assert not cloud.rung
    follow(cloud)
    assert read(uuid).status == command.PENDING
    assert host_of(cloud, server.uuid, uuid) is None
    instance = server.put_into(cloud.cell)
    follow(cloud)
    assert read(uuid).cell_uuid == cloud.cell.uuid
    instance.host = base.HOST
    instance.save()
    follow(cloud)
    assert host_of(cloud, server.uuid, uuid) == base.HOST
    cloud.end(uuid)
    assert read(uuid).status == command.COMPLETED


def test_command_that_waited_in_vain_says_for_what(
    server: base.Unscheduled,
) -> None:
    uuid = server.post(start_timeout=1).json()['command']['uuid']
    unscheduled.settle()
    with session.writer() as db:
        db.execute(
            sa.update(models.Command)
            .where(models.Command.uuid == uuid)
            .values(start_by=sqltypes.utc_in(-1))
        )
    commands.end_overdue(100)
    found = read(uuid)
    assert found.status == command.FAILED
    assert str(found.error).endswith('Last seen: ' + manager.NOT_SCHEDULED)


def test_server_of_which_no_channel_is_asked(cloud: base.Cloud) -> None:
    refused = base.Unscheduled(cloud, channel='no').post()
    message = base.message_of(refused, 409, 'conflictingRequest')
    assert 'hw_qemu_guest_agent=yes' in message


@pytest.mark.parametrize('call', ['/details', '/file-read?path=/a'])
def test_what_must_be_answered_at_once(
    cloud: base.Cloud, server: base.Unscheduled, call: str
) -> None:
    path = f'/servers/{server.uuid}/guest-agent'
    message = base.message_of(
        cloud.get(path + call), 409, 'conflictingRequest'
    )
    assert 'is not scheduled yet' in message
    agent = cloud.get(path).json()['guest_agent']
    assert 'is not scheduled yet' in agent['reason']


def test_server_that_is_scheduled_meanwhile(
    cloud: base.Cloud,
    server: base.Unscheduled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its mapping was read before, and its request is gone after that."""
    get_before = objects.BuildRequest.get_by_instance_uuid

    def get_by_instance_uuid(context: Any, uuid: str) -> Any:
        monkeypatch.undo()
        server.put_into(cloud.cell, host=base.HOST)
        return get_before(context, uuid)

    monkeypatch.setattr(
        objects.BuildRequest, 'get_by_instance_uuid', get_by_instance_uuid
    )
    uuid = server.post().json()['command']['uuid']
    assert cloud.rung == [(cloud.cell.uuid, base.HOST)]
    assert read(uuid).cell_uuid == cloud.cell.uuid


def test_server_deleted_before_it_was_scheduled(
    cloud: base.Cloud, server: base.Unscheduled
) -> None:
    uuid = server.post().json()['command']['uuid']
    server.request.destroy()
    follow(cloud)
    found = read(uuid)
    assert (found.status, found.error) == (command.FAILED, manager.DELETED)
    assert found.audited == command.FAILED
    assert server.post().status_code == 404


def test_server_that_could_not_be_scheduled(
    cloud: base.Cloud, server: base.Unscheduled
) -> None:
    uuid = server.post().json()['command']['uuid']
    server.put_into(
        cloud.cell_mappings['cell0'], vm_state=vm_states.ERROR, task_state=None
    )
    follow(cloud)
    found = read(uuid)
    assert (found.status, found.error) == (command.FAILED, manager.NOT_BUILT)
    assert found.audited == command.FAILED
    listed = cloud.admin_get(f'/servers/{server.uuid}/os-instance-actions')
    actions = [item['action'] for item in listed.json()['instanceActions']]
    assert actions == ['guest_agent_exec']
    assert server.post().status_code == 409


def test_cancel_is_told_when_the_server_has_its_cell(
    cloud: base.Cloud, server: base.Unscheduled
) -> None:
    uuid = server.post().json()['command']['uuid']
    path = f'{base.commands_of(server.uuid)}/{uuid}'
    cancel = cloud.request('POST', path + '/action', {'cancel': None})
    assert cancel.status_code == 202
    assert cloud.request('DELETE', path).status_code == 204
    server.put_into(cloud.cell)
    unscheduled.settle()
    audit.tell_due(cloud.cell)
    listed = cloud.admin_get(f'/servers/{server.uuid}/os-instance-actions')
    assert len(listed.json()['instanceActions']) == 1


def test_audit_waits_for_a_cell_and_lets_others_pass(
    cloud: base.Cloud, server: base.Unscheduled
) -> None:
    uuid = server.post().json()['command']['uuid']
    commands.cancel(uuid)
    unscheduled.settle()
    found = read(uuid)
    assert found.audited is None
    assert found.audit_at is not None and found.updated_at is not None
    assert found.audit_at > found.updated_at


def test_attached_command_has_no_output_yet(
    cloud: base.Cloud,
    server: base.Unscheduled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, 'INPUT_WAIT', 0)
    uuid = server.post(attach=True).json()['command']['uuid']
    path = f'{base.commands_of(server.uuid)}/{uuid}'
    output = cloud.get(f'{path}/output?stream=out&offset=0')
    assert (output.status_code, output.content) == (200, b'')
    assert output.headers['OpenStack-Guest-Agent-Complete'] == 'false'
    answer = cloud.request(
        'POST',
        f'{path}/input?offset=0',
        raw=b'early',
        headers={'Content-Type': 'application/octet-stream'},
    )
    assert answer.json()['input']['next_offset'] == 0


def test_bound_of_a_host_counts_no_server_without_one(
    cloud: base.Cloud,
    server: base.Unscheduled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base.CONF.set_override('max_attached_per_host', 1, group='guest_agent')
    try:
        answers = [
            one.post(attach=True) for one in (server, base.Unscheduled(cloud))
        ]
    finally:
        base.CONF.clear_override('max_attached_per_host', group='guest_agent')
    assert [answer.status_code for answer in answers] == [200, 200]


def test_server_of_another_project_is_not_told(
    cloud: base.Cloud, server: base.Unscheduled
) -> None:
    answer = cloud.post(
        path=base.commands_of(server.uuid), project_id=base.OTHER_PROJECT
    )
    assert answer.status_code == 404
