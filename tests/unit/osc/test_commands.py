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


"""The client's other commands, with a service that is played."""

from typing import Any
from unittest import mock

from keystoneauth1 import adapter
from openstack import exceptions as sdk_exceptions
import pytest

from guest_agent_ext.osc import commands
from tests.unit.osc import fakes


def answers(*bodies: Any) -> list[fakes.Response]:
    return [fakes.Response(body=body) for body in bodies]


def listed(*uuids: str, **values: Any) -> dict[str, Any]:
    return {
        'commands': [
            {'uuid': uuid, 'status': 'COMPLETED', **values} for uuid in uuids
        ]
    }


@pytest.fixture
def pages(compute: mock.Mock) -> mock.Mock:
    """A proxy that the SDK's own methods accept."""
    compute.__class__ = adapter.Adapter
    compute.default_microversion = None
    compute.retriable_status_codes = None
    return compute


def test_list_asks_for_what_is_filtered_and_ends_at_the_limit(
    pages: mock.Mock,
) -> None:
    pages.get.side_effect = answers(listed('a', 'b', 'c'))
    titles, rows = fakes.run(
        commands.List,
        pages,
        '--status',
        'LOST',
        '--type',
        'exec',
        '--limit',
        '2',
    )
    assert titles[:2] == ('Id', 'Type')
    assert [row[0] for row in rows] == ['a', 'b']
    call = pages.get.call_args
    assert call.args == (f'/servers/{fakes.SERVER}/guest-agent/commands',)
    assert call.kwargs['params'] == {
        'status': ['LOST'],
        'type': ['exec'],
        'limit': 2,
    }


def test_project_commands_name_their_servers(pages: mock.Mock) -> None:
    pages.get.side_effect = answers(
        listed('a', instance_uuid='its server'), {'commands': []}
    )
    titles, rows = fakes.run_without_server(
        commands.ListProjectCommands, pages, '--host', 'h', '--all-projects'
    )
    assert [
        dict(zip(titles, row, strict=True))['Instance Uuid'] for row in rows
    ] == ['its server']
    call = pages.get.call_args_list[0]
    assert call.args == ('/guest-agent/commands',)
    assert call.kwargs['params'] == {'host': 'h', 'all_projects': 'true'}


def test_each_row_has_id_command_line_and_exit_code(pages: mock.Mock) -> None:
    body = listed(
        'a', arguments={'command': ['echo', 'a b']}, result={'exitcode': 7}
    )
    body['commands'] += [
        {'uuid': 'b', 'arguments': {'path': '/f'}, 'result': None},
        # As readers see it.
        {'uuid': 'c', 'result': None},
    ]
    for kind, argv in (
        (commands.List, ['name']),
        (commands.ListProjectCommands, ['--long']),
    ):
        pages.get.side_effect = answers(body, {'commands': []})
        titles, rows = fakes.run_without_server(kind, pages, *argv)
        shown = [dict(zip(titles, row, strict=True)) for row in rows]
        assert [row['Id'] for row in shown] == ['a', 'b', 'c']
        assert [row['Exit Code'] for row in shown] == [7, None, None]
        assert [row['Command Line'].machine_readable() for row in shown] == [
            "echo 'a b'",
            '/f',
            None,
        ]


@pytest.mark.parametrize(
    ('line', 'shown'),
    [
        ('a\x1b[2J\nb', r'a\x1b[2J\nb'),
        ('x' * 99, 'x' * 45 + '...'),
        (None, ''),
    ],
)
def test_a_table_is_safe_from_command_lines(
    line: str | None, shown: str
) -> None:
    assert commands._Line(line).human_readable() == shown


def test_hosts_have_their_names_as_ids(pages: mock.Mock) -> None:
    pages.get.side_effect = answers({'hosts': [{'host': 'h', 'version': '1'}]})
    titles, rows = fakes.run_without_server(
        commands.ListHosts, pages, '--long'
    )
    assert dict(zip(titles, *rows, strict=True))['Version'] == '1'


def test_since_is_sent_in_utc(pages: mock.Mock) -> None:
    pages.get.side_effect = answers({'commands': []})
    _, rows = fakes.run_without_server(
        commands.ListProjectCommands, pages, '--since', '2026-03-09T14+02:00'
    )
    assert not list(rows)
    assert pages.get.call_args.kwargs['params'] == {
        'since': '2026-03-09T12:00:00Z'
    }


def test_each_command_is_cancelled_also_on_the_same_server(
    compute: mock.Mock,
) -> None:
    compute.post.return_value = fakes.Response(202)
    fakes.run(commands.Cancel, compute, 'a', 'b')
    prefix = f'/servers/{fakes.SERVER}/guest-agent/commands'
    assert compute.post.call_args_list == [
        mock.call(f'{prefix}/{uuid}/action', json={'cancel': None})
        for uuid in ('a', 'b')
    ]


def test_hosts_are_deleted(compute: mock.Mock) -> None:
    compute.delete.return_value = fakes.Response(204)
    fakes.run(commands.DeleteHosts, compute, 'a/b', '--cell', 'cell')
    assert compute.delete.call_args_list == [
        mock.call('/guest-agent/hosts/name', params={'cell': 'cell'}),
        mock.call('/guest-agent/hosts/a%2Fb', params={'cell': 'cell'}),
    ]


def test_host_that_stays_is_told_of(compute: mock.Mock) -> None:
    compute.delete.return_value = fakes.Response(
        409, {'conflictingRequest': {'message': 'Host name is up'}}
    )
    with pytest.raises(sdk_exceptions.ConflictException, match='is up'):
        fakes.run(commands.DeleteHosts, compute)
    assert compute.delete.call_args.kwargs == {'params': {}}
