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

"""Listing and showing commands, and listing hosts."""

from typing import Any
from urllib import parse

import pytest

from guest_agent_ext import command
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from tests.functional.api import base


def new(cloud: base.Cloud, *arguments: str) -> str:
    response = cloud.post({'command': ['id', *arguments]})
    uuid: str = response.json()['command']['uuid']
    return uuid


def listed(cloud: base.Cloud, query: str = '') -> list[str]:
    response = cloud.get(cloud.path + query)
    assert response.status_code == 200
    return [shown['uuid'] for shown in response.json()['commands']]


def test_empty_list(cloud: base.Cloud) -> None:
    assert cloud.get(cloud.path).json() == {'commands': []}


def test_list_is_newest_first(cloud: base.Cloud) -> None:
    uuids = [new(cloud) for _ in range(3)]
    assert listed(cloud) == uuids[::-1]


@pytest.mark.parametrize('version', ['/v2.1', '/v2.1/' + base.PROJECT, '/v2'])
def test_pages_follow_their_links(cloud: base.Cloud, version: str) -> None:
    uuids = [new(cloud) for _ in range(5)]
    url, pages = f'{cloud.path}?limit=2&status=PENDING', []
    while url:
        answer = cloud.get(url, version=version).json()
        pages.append([shown['uuid'] for shown in answer['commands']])
        links = answer.get('commands_links', [])
        assert all(link['rel'] == 'next' for link in links)
        url = links[0]['href'] if links else ''
        assert url.startswith(cloud.endpoint + version) or not url
        url = url.removeprefix(cloud.endpoint + version)
        assert not url or parse.parse_qs(parse.urlsplit(url).query) == {
            'limit': ['2'],
            'status': ['PENDING'],
            'marker': [pages[-1][-1]],
        }
    assert pages == [uuids[4:2:-1], uuids[2:0:-1], uuids[:1]]


def test_no_link_where_a_full_page_is_the_last(cloud: base.Cloud) -> None:
    new(cloud), new(cloud)
    assert 'commands_links' not in cloud.get(cloud.path + '?limit=2').json()


def test_max_limit_bounds_a_page(cloud: base.Cloud) -> None:
    uuids = [new(cloud) for _ in range(3)]
    base.CONF.set_override('max_limit', 2, group='api')
    try:
        assert listed(cloud) == listed(cloud, '?limit=9') == uuids[:0:-1]
    finally:
        base.CONF.clear_override('max_limit', group='api')


def test_limit_zero_is_empty_as_nova_s(cloud: base.Cloud) -> None:
    new(cloud)
    assert cloud.get(cloud.path + '?limit=0').json() == {'commands': []}


def test_filters(cloud: base.Cloud) -> None:
    ended, pending = new(cloud), new(cloud)
    cloud.end(ended)
    assert listed(cloud, '?status=COMPLETED') == [ended]
    assert listed(cloud, '?status=PENDING') == [pending]
    assert listed(cloud, '?status=LOST') == []
    assert listed(cloud, '?type=exec&status=PENDING') == [pending]
    assert listed(cloud, '?type=file-read') == []


def test_list_leaves_out_the_output(cloud: base.Cloud) -> None:
    cloud.end(
        new(cloud),
        out_data=b'x' * command.MAX_OUTPUT_BYTES,
        err_data=b'y',
        out_bytes=None,
        err_bytes=1,
    )
    (shown,) = cloud.get(cloud.path).json()['commands']
    assert shown['result'] == {
        'pid': 7,
        'exitcode': 0,
        'signal': None,
        'out_truncated': True,
        'err_truncated': False,
        'out_bytes': None,
        'err_bytes': 1,
    }
    assert shown['arguments'] == {'command': ['id']}


def result_of(
    cloud: base.Cloud, asked: dict[str, Any], **values: Any
) -> dict[str, Any]:
    uuid = cloud.post(dict({'command': ['id']}, **asked)).json()['command'][
        'uuid'
    ]
    cloud.end(uuid, **values)
    result: dict[str, Any] = cloud.get(f'{cloud.path}/{uuid}').json()[
        'command'
    ]['result']
    return result


def test_result(cloud: base.Cloud) -> None:
    result = result_of(
        cloud,
        {},
        exitcode=None,
        signal=9,
        out_data='ü'.encode(),
        err_data=b'\xff',
        out_bytes=2,
        err_bytes=1,
    )
    assert result == {
        'pid': 7,
        'exitcode': None,
        'signal': 9,
        'out_data': 'ü',
        'out_encoding': 'utf-8',
        'out_bytes': 2,
        'out_truncated': False,
        'err_data': '/w==',
        'err_encoding': 'base64',
        'err_bytes': 1,
        'err_truncated': False,
    }


@pytest.mark.parametrize(('keep', 'out'), [('head', 'a'), ('tail', 'b')])
def test_streams_share_the_result(
    cloud: base.Cloud, keep: str, out: str
) -> None:
    kept = command.MAX_OUTPUT_BYTES
    result = result_of(
        cloud,
        {'output_keep': keep},
        out_data=b'a' * 1000 + b'c' * (kept - 2000) + b'b' * 1000,
        out_bytes=5_000_000,
        err_data=b'e' * 1000,
        err_bytes=1000,
    )
    assert len(result['out_data']) == kept - 1000
    assert result['out_data'][0 if keep == 'head' else -1] == out
    assert (result['out_truncated'], result['err_truncated']) == (True, False)
    assert result['err_data'] == 'e' * 1000


def test_states_on_the_way(cloud: base.Cloud) -> None:
    uuid = new(cloud)

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = cloud.get(f'{cloud.path}/{uuid}').json()[
            'command'
        ]
        return found

    commands.claim(
        uuid,
        attempt='a',
        cell_uuid=cloud.cell.uuid,
        host=base.HOST,
        boot_id='b',
        ticket=1,
        window=1.0,
        grace=9,
    )
    assert (shown()['status'], shown()['started_at']) == ('PENDING', None)
    commands.note_started(uuid, attempt='a', pid=1, started_uptime=1, age=0)
    assert shown()['status'] == 'RUNNING'
    assert shown()['started_at'] is not None
    assert shown()['result'] is None
    commands.finish(
        uuid,
        attempt='a',
        status=command.LOST,
        values={'error': 'why'},
        age=None,
    )
    assert (shown()['status'], shown()['error']) == ('LOST', 'why')
    assert shown()['finished_at'] is not None
    assert shown()['result']['out_data'] == ''


def test_command_that_never_started_has_no_result(cloud: base.Cloud) -> None:
    uuid = new(cloud)
    commands.end(
        uuid, source=command.PENDING, status=command.FAILED, error='why'
    )
    shown = cloud.get(f'{cloud.path}/{uuid}').json()['command']
    assert (shown['status'], shown['result']) == ('FAILED', None)


def test_hosts(cloud: base.Cloud) -> None:
    hosts.register(
        cloud.cell.uuid, 'busy', machine_id='m', version='2', down_time=60
    )
    instance = cloud.make_instance(host='busy')
    cloud.post(path=base.commands_of(instance.uuid))
    shown = {
        host['host']: host
        for host in cloud.admin_get('/guest-agent/hosts').json()['hosts']
    }
    assert shown['busy'].pop('last_seen_at').endswith('Z')
    assert shown['busy'] == {
        'host': 'busy',
        'cell': cloud.cell.uuid,
        'state': 'up',
        'version': '2',
        'running': 0,
        'pending': 1,
    }


def test_hosts_are_for_admins(cloud: base.Cloud) -> None:
    base.message_of(cloud.get('/guest-agent/hosts'), 403, 'forbidden')


def test_hosts_take_no_query(cloud: base.Cloud) -> None:
    response = cloud.admin_get('/guest-agent/hosts?host=x')
    assert 'host is not known' in base.message_of(response, 400, 'badRequest')
