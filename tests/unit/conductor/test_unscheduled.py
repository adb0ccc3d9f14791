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

"""What becomes of commands whose servers have no cell, with all played."""

from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import servers
from guest_agent_ext.conductor import unscheduled
from guest_agent_ext.db import audit as audit_db
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


def cell_of(*, is_cell0: bool = False) -> mock.Mock:
    cell = mock.Mock(uuid='cell0' if is_cell0 else 'cell')
    cell.is_cell0.return_value = is_cell0
    return cell


CELL, CELL0 = cell_of(), cell_of(is_cell0=True)
SCHEDULED: Any = {'server': CELL}
FAILED: Any = {'server': CELL0}
WAITING: Any = {'server': None}
GONE: Any = {}


def row(**values: Any) -> models.Command:
    return models.Command(
        **{
            'id': 1,
            'uuid': 'command',
            'instance_uuid': 'server',
            'status': command.PENDING,
            **values,
        }
    )


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    database = mock.Mock()
    database.unfinished_of_cell.return_value = []
    database.due.return_value = []
    for module, names in {
        commands: ('unfinished_of_cell', 'end', 'relocate', 'note_seen'),
        audit_db: ('due', 'move', 'take'),
        audit: ('tell',),
        servers: ('cells_of',),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(database, name))
    return database


def changes(database: mock.Mock) -> list[Any]:
    """Return the calls that change something."""
    reads = ('unfinished_of_cell', 'due', 'cells_of')
    return [item for item in database.mock_calls if item[0] not in reads]


def ended(error: str) -> Any:
    return mock.call.end(
        'command',
        source=command.PENDING,
        status=command.FAILED,
        error=error,
        attempt=None,
    )


@pytest.mark.parametrize(
    ('cells', 'expected'),
    [
        (
            SCHEDULED,
            [mock.call.relocate(['command'], cell_uuid='cell', host='')],
        ),
        (WAITING, [mock.call.note_seen('command', manager.NOT_SCHEDULED)]),
        (FAILED, [ended(manager.NOT_BUILT)]),
        (GONE, [ended(manager.DELETED)]),
    ],
)
def test_unfinished(
    database: mock.Mock, cells: Any, expected: list[Any]
) -> None:
    database.unfinished_of_cell.side_effect = [[row()], []]
    database.cells_of.return_value = cells
    unscheduled.settle()
    assert changes(database) == expected
    database.unfinished_of_cell.assert_called_with('', 1, unscheduled.PAGE)


def test_what_is_noted_already_is_not_written_again(
    database: mock.Mock,
) -> None:
    waiting = row(last_seen=manager.NOT_SCHEDULED)
    database.unfinished_of_cell.side_effect = [[waiting], []]
    database.cells_of.return_value = WAITING
    unscheduled.settle()
    assert changes(database) == []


@pytest.mark.parametrize(
    ('cells', 'expected'),
    [
        (SCHEDULED, [mock.call.move('command', 'cell')]),
        (WAITING, [mock.call.take('command', audit.RETRY_AFTER)]),
        (FAILED, [mock.call.tell(CELL0, mock.ANY)]),
        (GONE, [mock.call.tell(None, mock.ANY)]),
    ],
)
def test_ended(database: mock.Mock, cells: Any, expected: list[Any]) -> None:
    database.due.return_value = [row(status=command.CANCELLED)]
    database.cells_of.return_value = cells
    unscheduled.settle()
    assert changes(database) == expected
