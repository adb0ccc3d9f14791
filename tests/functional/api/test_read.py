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
from unittest import mock
from urllib import parse

from oslo_config import cfg
import pytest

from guest_agent_ext import command
from guest_agent_ext.cmd import manage
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


@pytest.mark.parametrize('path', ['{0.path}', '/guest-agent/commands'])
def test_page_ends_by_bytes(cloud: base.Cloud, path: str) -> None:
    # As JSON, \u0001 takes six bytes for one.
    uuids = [new(cloud, 'a', '\x01' * 65000) for _ in range(4)]
    url = path.format(cloud)
    answer = cloud.get(url)
    assert len(answer.content) < 1024 * 1024
    first = [shown['uuid'] for shown in answer.json()['commands']]
    (link,) = answer.json()['commands_links']
    answer = cloud.get(link['href'].removeprefix(cloud.endpoint + '/v2.1'))
    rest = [shown['uuid'] for shown in answer.json()['commands']]
    assert [len(first), (first + rest)[:4]] == [2, uuids[::-1]]


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


def delete_host(cloud: base.Cloud, name: str, **kwargs: Any) -> Any:
    return cloud.request(
        'DELETE',
        f'/guest-agent/hosts/{name}',
        user='admin',
        roles='admin,member,reader',
        **kwargs,
    )


def known_hosts() -> set[tuple[str, str]]:
    return {(state.host, state.cell_uuid) for state in hosts.list_all()}


def test_host_that_is_gone_is_deleted(cloud: base.Cloud) -> None:
    cloud.make_silent_host('gone.example.org')
    answer = delete_host(cloud, 'gone.example.org')
    assert (answer.status_code, answer.content) == (204, b'')
    assert 'gone.example.org' not in dict(known_hosts())
    message = base.message_of(
        delete_host(cloud, 'gone.example.org'), 404, 'itemNotFound'
    )
    assert message == 'Host gone.example.org is not known'


def test_host_that_is_up_or_has_commands_stays(cloud: base.Cloud) -> None:
    base.message_of(delete_host(cloud, base.HOST), 409, 'conflictingRequest')
    hosts.register(
        cloud.cell.uuid, 'silent', machine_id='m', version='1', down_time=60
    )
    instance = cloud.make_instance(host='silent')
    cloud.post(path=base.commands_of(instance.uuid))
    cloud.make_silent_host('silent')
    message = base.message_of(
        delete_host(cloud, 'silent'), 409, 'conflictingRequest'
    )
    assert 'unfinished commands' in message


def test_host_in_two_cells_is_deleted_in_the_one_named(
    cloud: base.Cloud,
) -> None:
    cloud.make_silent_host('twice')
    cloud.make_silent_host('twice', base.OTHER_CELL)
    message = base.message_of(
        delete_host(cloud, 'twice'), 409, 'conflictingRequest'
    )
    assert cloud.cell.uuid in message and base.OTHER_CELL in message
    path = f'twice?cell={base.OTHER_CELL}'
    assert delete_host(cloud, path).status_code == 204
    assert delete_host(cloud, path).status_code == 404
    assert ('twice', cloud.cell.uuid) in known_hosts()
    assert 'cell' in base.message_of(
        delete_host(cloud, 'twice?cell=one'), 400, 'badRequest'
    )


def test_program_lists_and_deletes_hosts(
    cloud: base.Cloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud.make_silent_host('old')
    assert manage.host_list() == 0
    (row,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if ' old ' in line
    )
    assert ' down ' in row and cloud.cell.uuid in row
    options = cfg.ConfigOpts()
    options.register_cli_opt(
        cfg.SubCommandOpt('command', handler=manage._add_parsers)
    )
    options(['host', 'delete', 'old', '--cell', cloud.cell.uuid], project='')
    monkeypatch.setattr(
        manage,
        'CONF',
        mock.Mock(command=options.command, guest_agent=base.CONF.guest_agent),
    )
    assert manage.host_delete() == 0
    assert capsys.readouterr() == ('', '')
    assert manage.host_delete() == 1
    assert capsys.readouterr().err == 'Host old is not known\n'
