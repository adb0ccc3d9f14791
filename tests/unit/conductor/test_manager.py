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

"""What the conductor accepts of a host, with database and Nova played."""

import base64
import dataclasses
from typing import Any
from unittest import mock

from nova.compute import vm_states
import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models
from tests import counted

SERVICE: rpcapi.Service = {'host': 'here', 'incarnation': 'f00d'}
ACTIVE = servers.Server('here', vm_states.ACTIVE, None, False)


@pytest.fixture
def row() -> models.Command:
    return models.Command(
        uuid='command',
        type=command.EXEC,
        instance_uuid='server',
        host='here',
        status=command.RUNNING,
        attempt='mine',
        arguments={'command': ['id']},
        inputs=None,
        timeout=60,
        boot_id='boot',
        ticket=7,
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Where Nova says that the server is."""
    read = mock.Mock(return_value={'server': ACTIVE})
    monkeypatch.setattr(servers, 'read', read)
    return read


@pytest.fixture
def database(
    monkeypatch: pytest.MonkeyPatch, row: models.Command
) -> mock.Mock:
    database = mock.Mock()
    for method in (database.get, database.claim, database.adopt):
        method.return_value = row
    database.finish.return_value = command.OK
    database.instance_for.return_value = 'server'
    for name in (
        'get',
        'claim',
        'adopt',
        'finish',
        'end',
        'note_started',
        'relocate',
        'states',
        'note_seen',
        'instance_for',
    ):
        monkeypatch.setattr(commands, name, getattr(database, name))
    monkeypatch.setattr(hosts, 'heartbeat', database.heartbeat)
    return database


@pytest.fixture
def compute_api() -> mock.Mock:
    return mock.Mock()


@pytest.fixture
def conductor(
    database: mock.Mock, server: mock.Mock, compute_api: mock.Mock
) -> manager.ConductorManager:
    return manager.ConductorManager(mock.Mock(uuid='cell'), compute_api)


def changes(conductor: manager.ConductorManager) -> list[Any]:
    """Try every change of one command and return the answers."""
    return [
        conductor.claim({}, SERVICE, 'command', 'mine', 'boot', 7, 30.0),
        conductor.adopt({}, SERVICE, 'command', 'mine', 'previous'),
        conductor.started({}, SERVICE, 'command', 'mine', 1, 7, 0.0),
        conductor.finish(
            {}, SERVICE, 'command', 'mine', {'status': command.COMPLETED}
        ),
        conductor.not_here({}, SERVICE, 'command', 'mine', 'shutoff'),
    ]


REFUSED = [None, None, command.MOVED, command.MOVED, command.MOVED]


def assert_nothing_written(database: mock.Mock) -> None:
    for name in ('claim', 'adopt', 'note_started', 'finish', 'end'):
        getattr(database, name).assert_not_called()


def test_no_change_from_a_host_that_the_server_has_left(
    conductor: manager.ConductorManager,
    database: mock.Mock,
    server: mock.Mock,
    compute_api: mock.Mock,
) -> None:
    server.return_value = {'server': dataclasses.replace(ACTIVE, host='there')}
    assert changes(conductor) == REFUSED
    assert_nothing_written(database)
    database.relocate.assert_called_with(
        ['command'], cell_uuid='cell', host='there'
    )
    compute_api.work.assert_called_with('there')


def test_no_change_from_another_cell(
    conductor: manager.ConductorManager, database: mock.Mock, server: mock.Mock
) -> None:
    server.return_value = {}
    assert changes(conductor)[:4] == REFUSED[:4]
    assert_nothing_written(database)


def test_no_change_from_a_fenced_service(
    conductor: manager.ConductorManager, database: mock.Mock
) -> None:
    database.instance_for.return_value = None
    assert changes(conductor) == REFUSED
    assert_nothing_written(database)


def test_transfer_is_handed_out_with_what_is_open(
    conductor: manager.ConductorManager,
    database: mock.Mock,
    row: models.Command,
) -> None:
    row.type = command.FILE_WRITE
    row.arguments = {'path': '/f', 'size': 3, 'mode': '0600', 'group': 'adm'}
    row.opened = {'handle': 3}
    claim = conductor.adopt({}, SERVICE, 'command', 'mine', 'previous')
    assert claim is not None
    assert claim['exec'] is None
    assert claim['file'] == {
        'path': '/f',
        'mode': '0600',
        'append': False,
        'owner': None,
        'group': 'adm',
        'opened': {'handle': 3},
    }


def test_finish_is_recorded_decoded(
    conductor: manager.ConductorManager, database: mock.Mock
) -> None:
    end: rpcapi.End = {
        'status': command.COMPLETED,
        'exitcode': 3,
        'age': 1.5,
        'out_data': base64.b64encode(b'\xff').decode(),
        'out_bytes': 1,
    }
    assert conductor.finish({}, SERVICE, 'command', 'mine', end) == command.OK
    database.finish.assert_called_once_with(
        'command',
        attempt='mine',
        status=command.COMPLETED,
        age=1.5,
        values={'exitcode': 3, 'out_data': b'\xff', 'out_bytes': 1},
    )


@pytest.mark.parametrize(
    ('server', 'state', 'lost'),
    [
        (dataclasses.replace(ACTIVE, deleted=True), 'absent', manager.DELETED),
        (ACTIVE, 'shutoff', manager.SHUT_OFF),
        (ACTIVE, 'paused', None),
        (ACTIVE, 'absent', None),
        (
            dataclasses.replace(ACTIVE, task_state='powering-off'),
            'shutoff',
            None,
        ),
        (dataclasses.replace(ACTIVE, task_state='migrating'), 'absent', None),
        (
            dataclasses.replace(ACTIVE, vm_state=vm_states.STOPPED),
            'absent',
            manager.SHUT_OFF,
        ),
        (
            dataclasses.replace(ACTIVE, vm_state=vm_states.SUSPENDED),
            'shutoff',
            None,
        ),
    ],
)
def test_a_domain_that_is_not_here_is_no_verdict(
    server: servers.Server, state: str, lost: str | None
) -> None:
    assert manager._loss(server, state) == lost


def test_a_migration_that_ends_meanwhile_is_no_verdict(
    conductor: manager.ConductorManager, database: mock.Mock, server: mock.Mock
) -> None:
    server.side_effect = [
        {'server': dataclasses.replace(ACTIVE, task_state='migrating')},
        {'server': dataclasses.replace(ACTIVE, host='there')},
    ]
    assert (
        conductor.not_here({}, SERVICE, 'command', 'mine', 'shutoff')
        == command.OK
    )
    assert_nothing_written(database)


def test_report_of_a_fenced_service_tells_it(
    conductor: manager.ConductorManager, database: mock.Mock
) -> None:
    database.heartbeat.return_value = None
    report = conductor.report({}, SERVICE, {}, {})
    assert report['fenced'] and not report['work']


def _running(uuid: str, attempt: str) -> commands.Unfinished:
    return commands.Unfinished(
        uuid, command.EXEC, 'server', command.RUNNING, attempt, False, 0.0
    )


def test_report_sorts_what_the_service_holds(
    conductor: manager.ConductorManager, database: mock.Mock
) -> None:
    database.heartbeat.return_value = [
        _running('kept', 'a'),
        _running('retaken', 'b'),
    ]
    database.states.side_effect = lambda uuids: {
        uuid: state
        for uuid, state in {
            'retaken': (command.RUNNING, 'b'),
            'over': (command.LOST, 'a'),
            'elsewhere': (command.RUNNING, 'a'),
        }.items()
        if uuid in uuids
    }
    held = dict.fromkeys(
        ('kept', 'retaken', 'over', 'elsewhere', 'unknown'), 'a'
    )
    report = conductor.report(
        {}, SERVICE, held, {'kept': 'obstacle', 'not his': 'obstacle'}
    )
    assert [item['uuid'] for item in report['work']] == ['kept', 'retaken']
    assert sorted(report['ended']) == ['over', 'unknown']
    assert report['moved'] == ['retaken']
    database.note_seen.assert_called_once_with('kept', 'obstacle')


@pytest.mark.parametrize(
    ('error', 'outcome'),
    [(None, 'rung'), (exception.HostUnreachable('away'), 'lost')],
)
def test_doorbells_of_the_conductor_are_counted(
    compute_api: mock.Mock, error: Exception | None, outcome: str
) -> None:
    compute_api.work.side_effect = error
    with counted.grows('guest_agent_doorbells_total', outcome=outcome):
        manager.ring(compute_api, 'host')


@pytest.fixture
def known(
    conductor: manager.ConductorManager, database: mock.Mock
) -> manager.ConductorManager:
    """A conductor that knows the server of the command from a report."""
    database.heartbeat.return_value = [
        commands.Unfinished(
            'command', command.EXEC, 'server', command.PENDING, None, False, 9
        )
    ]
    conductor.report({}, SERVICE, {}, {})
    database.note_started.return_value = command.OK
    return conductor


GUARD = commands.Guard('server', 'cell', 'here', 'f00d')
END: rpcapi.End = {'status': command.COMPLETED}


def attempts(conductor: manager.ConductorManager) -> list[Any]:
    """Try the changes that every command passes, and return the answers."""
    return [
        conductor.claim({}, SERVICE, 'command', 'mine', 'boot', 7, 30.0),
        conductor.started({}, SERVICE, 'command', 'mine', 1, 7, 0.0),
        conductor.finish({}, SERVICE, 'command', 'mine', END),
    ]


def guards(database: mock.Mock) -> list[Any]:
    """Return the guard of each change, in order."""
    return [
        call.kwargs.get('guard')
        for call in database.mock_calls
        if call[0] in ('claim', 'note_started', 'finish')
    ]


def test_what_is_known_is_not_read_again(
    known: manager.ConductorManager, database: mock.Mock
) -> None:
    assert all(attempts(known))
    assert guards(database) == [GUARD] * 3
    database.instance_for.assert_not_called()


def test_what_a_change_read_is_known(
    conductor: manager.ConductorManager, database: mock.Mock
) -> None:
    conductor.claim({}, SERVICE, 'command', 'mine', 'boot', 7, 30.0)
    conductor.finish({}, SERVICE, 'command', 'mine', END)
    assert guards(database) == [None, GUARD]
    database.instance_for.assert_called_once()


def test_what_a_guard_refuses_is_looked_at_in_full(
    known: manager.ConductorManager, database: mock.Mock, row: models.Command
) -> None:
    database.claim.side_effect = lambda *args, guard=None, **others: (
        None if guard else row
    )
    for method in (database.note_started, database.finish):
        method.side_effect = lambda *args, guard=None, **others: (
            command.MOVED if guard else command.SUPERSEDED
        )
    claim, *outcomes = attempts(known)
    assert claim is not None and outcomes == [command.SUPERSEDED] * 2
    assert guards(database) == [GUARD, None] * 3
    database.instance_for.return_value = None
    assert attempts(known) == [None, command.MOVED, command.MOVED]


def test_what_is_known_does_not_free_a_host_from_nova(
    known: manager.ConductorManager, database: mock.Mock, server: mock.Mock
) -> None:
    server.return_value = {'server': dataclasses.replace(ACTIVE, host='there')}
    assert attempts(known) == [None, command.MOVED, command.MOVED]
    assert_nothing_written(database)


def test_number_of_known_servers_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manager, 'MAX_KNOWN', 2)
    known = manager._Servers()
    known.note({'first': 'a', 'second': 'b'})
    known.note({'third': 'c'})
    assert [known.of(uuid) for uuid in ('first', 'second', 'third')] == [
        None,
        'b',
        'c',
    ]
