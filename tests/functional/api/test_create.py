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

from guest_agent_ext.db import commands
from tests import counted
from tests.functional.api import base


def test_answers_the_command_as_recorded(cloud: base.Cloud) -> None:
    response = cloud.post(
        {
            'command': ['echo', 'ü'],
            'cwd': '/tmp',
            'env': {'TOKEN': 'secret'},
            'timeout': 5,
            'input_data': 'hello',
            'output_keep': 'tail',
        }
    )
    assert response.status_code == 200
    shown = response.json()['command']
    assert shown.pop('created_at').endswith('Z')
    assert shown.pop('request_id').startswith('req-')
    assert shown == {
        'uuid': shown['uuid'],
        'type': 'exec',
        'status': 'PENDING',
        'instance_uuid': cloud.instance.uuid,
        'project_id': base.PROJECT,
        'user_id': 'fake',
        'run_uuid': None,
        'updated_at': None,
        'started_at': None,
        'finished_at': None,
        'error': None,
        'result': None,
        'arguments': {
            'command': ['echo', 'ü'],
            'cwd': '/tmp',
            'env': ['TOKEN'],
            'timeout': 5,
            'input_bytes': 5,
            'output_keep': 'tail',
        },
    }


def test_records_what_the_host_needs(cloud: base.Cloud) -> None:
    uuid = cloud.post(
        {
            'command': ['id'],
            'env': {'A': 'secret'},
            'input_data': 'aGk=',
            'input_encoding': 'base64',
            'start_timeout': 30,
        }
    ).json()['command']['uuid']
    row = commands.get(uuid, with_inputs=True)
    assert row is not None
    assert row.inputs == {'env': {'A': 'secret'}, 'stdin': 'aGk='}
    assert (row.cell_uuid, row.host) == (cloud.cell.uuid, base.HOST)
    assert row.instance_project_id == base.PROJECT
    assert row.timeout == 3600
    assert (row.start_by - row.created_at).total_seconds() == 30


def test_rings_the_host(cloud: base.Cloud) -> None:
    cloud.post()
    assert cloud.rung == [(cloud.cell.uuid, base.HOST)]


def test_admin_sees_the_host(cloud: base.Cloud) -> None:
    shown = cloud.post(user='admin', roles='admin').json()['command']
    assert shown['host'] == base.HOST


def test_accepted_commands_are_counted(cloud: base.Cloud) -> None:
    with counted.grows('guest_agent_commands_accepted_total', type='exec'):
        assert cloud.post().status_code == 200
    with counted.grows('guest_agent_commands_accepted_total', 0, type='exec'):
        assert cloud.post({'command': []}).status_code == 400
