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

"""Cancel and delete."""

from typing import Any

from oslo_utils import uuidutils
import pytest

from guest_agent_ext import command
from guest_agent_ext.db import commands
from tests.functional.api import base


def new(cloud: base.Cloud) -> str:
    uuid: str = cloud.post().json()['command']['uuid']
    cloud.rung.clear()
    return uuid


def cancel(
    cloud: base.Cloud, uuid: str, body: Any = None, **kwargs: Any
) -> Any:
    return cloud.request(
        'POST',
        f'{cloud.path}/{uuid}/action',
        body or {'cancel': None},
        **kwargs,
    )


def delete(cloud: base.Cloud, uuid: str, **kwargs: Any) -> Any:
    return cloud.request('DELETE', f'{cloud.path}/{uuid}', **kwargs)


def test_cancel_of_what_waits(cloud: base.Cloud) -> None:
    uuid = new(cloud)
    response = cancel(cloud, uuid)
    assert (response.status_code, response.content) == (202, b'')
    shown = cloud.get(f'{cloud.path}/{uuid}').json()['command']
    assert (shown['status'], shown['result']) == ('CANCELLED', None)
    assert cloud.rung == [(cloud.cell.uuid, base.HOST)]


def test_cancel_of_what_runs_tells_the_host(cloud: base.Cloud) -> None:
    uuid = new(cloud)
    commands.claim(
        uuid,
        attempt='a',
        cell_uuid=cloud.cell.uuid,
        host='elsewhere',
        boot_id='b',
        ticket=1,
        window=1.0,
        grace=9,
    )
    assert cancel(cloud, uuid).status_code == 202
    assert cloud.rung == [(cloud.cell.uuid, 'elsewhere')]
    row = commands.get(uuid)
    assert row is not None and row.cancel_requested


@pytest.mark.parametrize('status', command.ENDED)
def test_cancel_of_what_has_ended(cloud: base.Cloud, status: str) -> None:
    uuid = new(cloud)
    cloud.end(uuid, status)
    message = base.message_of(cancel(cloud, uuid), 409, 'conflictingRequest')
    assert message == f'Command {uuid} has already ended'
    assert not cloud.rung


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        ({'cancel': {}}, 'cancel must be of type null'),
        ({'kill': None, 'cancel': None}, 'kill is not known here'),
        ({'kill': None}, 'kill is not known here'),
    ],
)
def test_other_actions_are_refused(
    cloud: base.Cloud, body: Any, message: str
) -> None:
    uuid = new(cloud)
    response = cancel(cloud, uuid, body)
    assert message in base.message_of(response, 400, 'badRequest')
    assert cancel(cloud, uuid).status_code == 202


def test_delete(cloud: base.Cloud) -> None:
    uuid = new(cloud)
    cloud.end(uuid)
    response = delete(cloud, uuid)
    assert (response.status_code, response.content) == (204, b'')
    for again in (delete(cloud, uuid), cloud.get(f'{cloud.path}/{uuid}')):
        base.message_of(again, 404, 'itemNotFound')


def test_delete_of_what_has_not_ended(cloud: base.Cloud) -> None:
    uuid = new(cloud)
    message = base.message_of(delete(cloud, uuid), 409, 'conflictingRequest')
    assert 'cancel it first' in message
    assert cloud.get(f'{cloud.path}/{uuid}').status_code == 200


@pytest.mark.parametrize('call', [cancel, delete])
def test_of_another_server_or_none(cloud: base.Cloud, call: Any) -> None:
    uuid = new(cloud)
    cloud.end(uuid)
    for wrong in (uuidutils.generate_uuid(), 'x'):
        base.message_of(call(cloud, wrong), 404, 'itemNotFound')
    cloud.path = base.commands_of(cloud.make_instance().uuid)
    base.message_of(call(cloud, uuid), 404, 'itemNotFound')
    assert commands.get(uuid) is not None
