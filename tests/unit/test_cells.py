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

"""Nova's connections to a cell follow its mapping."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

from nova import context as nova_context
import pytest

from guest_agent_ext import cells


def mapping(database: str = 'here', uuid: str = 'cell') -> Any:
    return mock.Mock(
        uuid=uuid, database_connection=database, transport_url='none:///'
    )


@pytest.fixture(autouse=True)
def _opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Nova opens is named by where it is."""
    monkeypatch.setattr(cells, '_known', {})
    monkeypatch.setattr(nova_context, 'CELL_CACHE', {})
    monkeypatch.setattr(
        'nova.db.main.api.create_context_manager',
        lambda connection: 'opened ' + connection,
    )
    yield


def database(cell: Any) -> str:
    cells.follow(cell)
    context = nova_context.get_admin_context()
    with nova_context.target_cell(context, cell) as cell_context:
        return str(cell_context.db_connection)


def test_cell_that_moved_is_read_where_it_is() -> None:
    assert database(mapping('here')) == 'opened here'
    assert database(mapping('here', uuid='other')) == 'opened here'
    assert database(mapping('there')) == 'opened there'
    assert database(mapping('here', uuid='other')) == 'opened here'


def test_what_nova_opened_before_is_not_trusted() -> None:
    nova_context.set_target_cell(
        nova_context.get_admin_context(), mapping('here')
    )
    assert database(mapping('there')) == 'opened there'
    nova_context.CELL_CACHE.clear()
    nova_context.set_target_cell(
        nova_context.get_admin_context(), mapping('here')
    )
    assert database(mapping('there')) == 'opened there'


def test_connections_are_kept_while_nothing_changes() -> None:
    cells.follow(mapping())
    before = nova_context.CELL_CACHE['cell']
    cells.follow(mapping())
    assert nova_context.CELL_CACHE['cell'] is before


def test_database_of_a_cell_is_where_it_is() -> None:
    assert cells.database(mapping('here')) == 'opened here'
    assert cells.database(mapping('there')) == 'opened there'
