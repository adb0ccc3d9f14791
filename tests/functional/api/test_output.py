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

"""Reading what a command has written."""

from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import commands
from tests.functional.api import base

PREFIX = 'OpenStack-Guest-Agent-'


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Answers in the place of the compute service."""
    call = mock.create_autospec(
        rpcapi.ComputeAPI.read_output, return_value=b'\0live'
    )
    monkeypatch.setattr(rpcapi.ComputeAPI, 'read_output', call)
    return call


def new(cloud: base.Cloud, **arguments: Any) -> str:
    answer = cloud.post({'command': ['id'], **arguments})
    return str(answer.json()['command']['uuid'])


def ended(cloud: base.Cloud, keep: str = 'head', **values: Any) -> str:
    uuid = new(cloud, output_keep=keep)
    cloud.end(uuid, **values)
    return uuid


def start(cloud: base.Cloud, uuid: str) -> None:
    commands.claim(
        uuid,
        attempt='a',
        cell_uuid=cloud.cell.uuid,
        host=base.HOST,
        boot_id='boot',
        ticket=1,
        window=1.0,
        grace=600,
    )
    commands.note_started(uuid, attempt='a', pid=7, started_uptime=1, age=0.0)


def get(cloud: base.Cloud, uuid: str, query: str = '', **caller: Any) -> Any:
    return cloud.get(f'{cloud.path}/{uuid}/output{query}', **caller)


def piece(response: Any) -> tuple[bytes, int, int, str]:
    """Return the body and what the headers say."""
    assert response.status_code == 200, response.text
    assert response.headers['Content-Type'] == 'application/octet-stream'
    headers = response.headers
    return (
        response.content,
        int(headers[PREFIX + 'Offset']),
        int(headers[PREFIX + 'Next-Offset']),
        headers[PREFIX + 'Complete'],
    )


@pytest.mark.parametrize(
    ('query', 'expected'),
    [
        ('', (b'\0\xffout', 0, 5, 'true')),
        ('?offset=2', (b'out', 2, 5, 'true')),
        ('?offset=5', (b'', 5, 5, 'true')),
        ('?offset=9', (b'', 9, 9, 'true')),
        ('?stream=err&offset=1', (b'rr', 1, 3, 'true')),
    ],
)
def test_ended(
    cloud: base.Cloud, query: str, expected: tuple[bytes, int, int, str]
) -> None:
    uuid = ended(
        cloud, out_data=b'\0\xffout', out_bytes=9, err_data=b'err', err_bytes=3
    )
    assert piece(get(cloud, uuid, query)) == expected


@pytest.mark.parametrize(
    ('query', 'expected'),
    [
        ('', (b'tail', 96, 100, 'true')),
        ('?offset=98', (b'il', 98, 100, 'true')),
        ('?offset=100', (b'', 100, 100, 'true')),
    ],
)
def test_tail_of_what_was_written(
    cloud: base.Cloud, query: str, expected: tuple[bytes, int, int, str]
) -> None:
    uuid = ended(cloud, 'tail', out_data=b'tail', out_bytes=100)
    assert piece(get(cloud, uuid, query)) == expected


def test_each_stream_has_all_that_is_kept(cloud: base.Cloud) -> None:
    kept = b'x' * command.MAX_OUTPUT_BYTES
    uuid = ended(
        cloud,
        out_data=kept,
        err_data=kept,
        out_bytes=len(kept),
        err_bytes=len(kept),
    )
    assert get(cloud, uuid).content == kept
    assert get(cloud, uuid, '?stream=err').content == kept


def test_never_started(cloud: base.Cloud) -> None:
    uuid = new(cloud)
    assert piece(get(cloud, uuid, '?offset=4')) == (b'', 4, 4, 'false')
    commands.cancel(uuid)
    assert piece(get(cloud, uuid)) == (b'', 0, 0, 'true')


def test_running(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = new(cloud)
    start(cloud, uuid)
    assert piece(get(cloud, uuid, '?stream=err&offset=3')) == (
        b'\0live',
        3,
        8,
        'false',
    )
    host.assert_called_once_with(
        mock.ANY, base.HOST, cloud.instance.uuid, uuid, 'err', 3
    )


def test_tail_while_it_runs(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = new(cloud, output_keep='tail')
    start(cloud, uuid)
    assert piece(get(cloud, uuid)) == (b'', 0, 0, 'false')
    host.assert_not_called()


def test_guest_does_not_answer(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = new(cloud)
    start(cloud, uuid)
    host.side_effect = exception.OutputUnavailable('The agent is away')
    message = base.message_of(get(cloud, uuid), 409, 'conflictingRequest')
    assert 'The agent is away' in message


def test_host_does_not_answer(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = new(cloud)
    start(cloud, uuid)
    host.side_effect = exception.HostUnreachable('away')
    message = base.message_of(get(cloud, uuid), 409, 'conflictingRequest')
    assert cloud.instance.uuid in message


@pytest.mark.parametrize(
    'query',
    ['?offset=-1', '?offset=x', '?stream=both', '?offset=1&offset=2', '?x=1'],
)
def test_malformed_query(cloud: base.Cloud, query: str) -> None:
    base.message_of(get(cloud, new(cloud), query), 400, 'badRequest')


def test_who_may_read(cloud: base.Cloud) -> None:
    uuid = ended(cloud, out_data=b'secret', out_bytes=6)
    assert get(cloud, uuid, roles='reader').status_code == 403
    assert get(cloud, uuid, project_id=base.OTHER_PROJECT).status_code == 404
    other = base.commands_of(cloud.make_instance().uuid)
    assert cloud.get(f'{other}/{uuid}/output').status_code == 404


def test_answers_as_nova_s_own(cloud: base.Cloud) -> None:
    """A raw route has what Nova does for every other."""
    path = f'{cloud.path}/{ended(cloud, out_data=b"out")}/output'
    version = {'OpenStack-API-Version': 'compute 2.90'}
    answer = cloud.get(path, headers=version)
    assert answer.headers['OpenStack-API-Version'] == 'compute 2.90'
    assert 'OpenStack-API-Version' in answer.headers['Vary']
    assert cloud.get(f'/{base.PROJECT}{path}').content == b'out'
    assert cloud.get(path, version='/v2').content == b'out'
    foreign = cloud.get(f'/{base.OTHER_PROJECT}{path}')
    base.message_of(foreign, 400, 'badRequest')
    version = {'OpenStack-API-Version': 'compute 2.9999'}
    assert cloud.get(path, headers=version).status_code == 406
