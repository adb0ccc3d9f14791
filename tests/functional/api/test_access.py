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

"""Who may do and see what."""

from collections.abc import Iterator
import pathlib
from typing import Any

from nova import policy as nova_policy
from oslo_utils import uuidutils
import pytest

from guest_agent_ext import command
from guest_agent_ext import policies
from tests.functional.api import base

MEMBER = {'roles': 'reader,member'}
READER = {'roles': 'reader'}
OTHER_PROJECT = {'project_id': base.OTHER_PROJECT}
ADMIN = {'user': 'admin', 'roles': 'admin,member,reader'}


@pytest.fixture
def policy_file(
    cloud: base.Cloud, tmp_path: pathlib.Path
) -> Iterator[pathlib.Path]:
    """A policy file that Nova reads, at first empty."""
    path = tmp_path / 'policy.yaml'
    path.write_text('{}')
    nova_policy.reset()
    base.CONF.set_override('policy_file', str(path), group='oslo_policy')
    yield path
    base.CONF.clear_override('policy_file', group='oslo_policy')
    nova_policy.reset()


def calls(cloud: base.Cloud, **caller: Any) -> dict[str, int]:
    """Make each call about a server and return the statuses."""
    uuid = cloud.post(**ADMIN).json()['command']['uuid']
    return {
        'create': cloud.post(**caller).status_code,
        'malformed': cloud.post({}, **caller).status_code,
        'index': cloud.get(cloud.path, **caller).status_code,
        'query': cloud.get(cloud.path + '?x=1', **caller).status_code,
        'show': cloud.get(f'{cloud.path}/{uuid}', **caller).status_code,
        'cancel': cloud.request(
            'POST', f'{cloud.path}/{uuid}/action', {'cancel': None}, **caller
        ).status_code,
        'delete': cloud.request(
            'DELETE', f'{cloud.path}/{uuid}', **caller
        ).status_code,
    }


@pytest.mark.parametrize(
    ('caller', 'statuses'),
    [
        (ADMIN, [200, 400, 200, 400, 200, 202, 204]),
        (dict(ADMIN, **OTHER_PROJECT), [200, 400, 200, 400, 200, 202, 204]),
        (MEMBER, [200, 400, 200, 400, 200, 202, 204]),
        (READER, [403, 403, 200, 400, 200, 403, 403]),
        ({'roles': 'other'}, [403] * 7),
        (dict(MEMBER, **OTHER_PROJECT), [404] * 7),
    ],
)
def test_statuses(
    cloud: base.Cloud, caller: dict[str, Any], statuses: list[int]
) -> None:
    assert list(calls(cloud, **caller).values()) == statuses


def test_other_project_s_server_is_as_none_at_all(cloud: base.Cloud) -> None:
    nobody_s = uuidutils.generate_uuid()
    messages = {
        base.message_of(
            cloud.request(method, base.commands_of(uuid), {}, **OTHER_PROJECT),
            404,
            'itemNotFound',
        ).replace(uuid, 'UUID')
        for method in ('GET', 'POST')
        for uuid in (cloud.instance.uuid, nobody_s)
    }
    assert messages == {'Instance UUID could not be found.'}


def test_careless_policy_opens_no_other_project(
    cloud: base.Cloud, policy_file: pathlib.Path
) -> None:
    policy_file.write_text('{"%s": "role:guest_exec"}' % policies.USE)
    caller = {'roles': 'guest_exec,member,reader'}
    assert cloud.post(**caller).status_code == 200
    statuses = calls_without_admin(cloud, **caller, **OTHER_PROJECT)
    assert statuses == [404, 404]


def calls_without_admin(cloud: base.Cloud, **caller: Any) -> list[int]:
    return [
        cloud.post(**caller).status_code,
        cloud.get(cloud.path, **caller).status_code,
    ]


def test_documented_line_restricts_to_a_role(
    cloud: base.Cloud, policy_file: pathlib.Path
) -> None:
    policy_file.write_text(
        '{"%s": "(role:guest_exec and project_id:%%(project_id)s) or '
        'rule:context_is_admin"}' % policies.USE
    )
    assert cloud.post(**MEMBER).status_code == 403
    assert cloud.post(roles='guest_exec').status_code == 200
    assert cloud.post(**ADMIN).status_code == 200
    shown = cloud.get(cloud.path, **MEMBER).json()['commands'][0]
    assert 'arguments' not in shown


def test_policy_file_is_read_again(
    cloud: base.Cloud, policy_file: pathlib.Path
) -> None:
    assert cloud.post().status_code == 200
    policy_file.write_text('{"%s": "!"}' % policies.CREATE)
    assert cloud.post().status_code == 403


def test_rules_survive_a_reset_of_nova_s_policy(cloud: base.Cloud) -> None:
    nova_policy.reset()
    assert cloud.post().status_code == 200
    assert cloud.post(roles='reader').status_code == 403


def test_reader_sees_neither_arguments_nor_output(cloud: base.Cloud) -> None:
    uuid = cloud.post().json()['command']['uuid']
    cloud.end(uuid, out_data=b'secret', out_bytes=6, err_bytes=0)
    shown = cloud.get(f'{cloud.path}/{uuid}', **READER).json()['command']
    assert 'arguments' not in shown
    assert shown['result'] == {
        'pid': 7,
        'exitcode': 0,
        'signal': None,
        'out_truncated': False,
        'err_truncated': False,
        'out_bytes': 6,
        'err_bytes': 0,
    }


def test_reader_sees_a_general_error(cloud: base.Cloud) -> None:
    error = '/opt/secret: no such program'
    uuid = cloud.post().json()['command']['uuid']
    cloud.end(uuid, command.FAILED, error=error)
    for path in (f'{cloud.path}/{uuid}', cloud.path, '/guest-agent/commands'):
        assert error in cloud.get(path, **MEMBER).text
        response = cloud.get(path, **READER)
        assert 'secret' not in response.text
        assert 'The command failed' in response.text


def test_repetition_by_who_may_create_only_has_a_general_error(
    cloud: base.Cloud, policy_file: pathlib.Path
) -> None:
    policy_file.write_text(
        '{"%s": "role:guest_exec", "%s": "@"}'
        % (policies.USE, policies.CREATE)
    )
    key = {'Idempotency-Key': 'key'}
    uuid = cloud.post(headers=key, **MEMBER).json()['command']['uuid']
    cloud.end(uuid, command.LOST, error='/opt/secret was seen last')
    again = cloud.post(headers=key, **MEMBER)
    assert again.json()['command']['uuid'] == uuid
    assert again.json()['command']['error'] == (
        'The end of the command is not known'
    )
    assert 'secret' not in again.text


@pytest.mark.parametrize(
    'path',
    ['commands', 'file-read?path=/etc/hosts', 'file-write?path=/etc/hosts'],
)
def test_token_without_a_project_records_nothing(
    cloud: base.Cloud, path: str
) -> None:
    method = 'GET' if path.startswith('file-read') else 'POST'
    response = cloud.request(
        method,
        f'/servers/{cloud.instance.uuid}/guest-agent/{path}',
        base.body_of({'command': ['id']}),
        **dict(ADMIN, project_id=base.NO_PROJECT),
    )
    assert 'no project' in base.message_of(response, 403, 'forbidden')
    assert cloud.get(cloud.path).json() == {'commands': []}


def test_command_of_another_server_is_not_found(cloud: base.Cloud) -> None:
    uuid = cloud.post().json()['command']['uuid']
    other = base.commands_of(cloud.make_instance().uuid)
    response = cloud.get(f'{other}/{uuid}')
    base.message_of(response, 404, 'itemNotFound')
    response = cloud.get(f'{other}?marker={uuid}')
    assert uuid in base.message_of(response, 400, 'badRequest')


def test_project_in_the_path(cloud: base.Cloud) -> None:
    response = cloud.get(f'/{base.PROJECT}{cloud.path}')
    assert response.json() == {'commands': []}
