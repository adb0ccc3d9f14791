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

"""What is read of Nova, with Nova's objects and a cell's rows played."""

from collections.abc import Iterator
import contextlib
from typing import Any
from unittest import mock

from nova import objects
from nova.compute import vm_states
import pytest

from guest_agent_ext.conductor import servers


@pytest.fixture(autouse=True)
def nova(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Nova's lists of mappings."""
    nova = mock.Mock()
    for name in ('CellMappingList', 'InstanceMappingList'):
        monkeypatch.setattr(objects, name, getattr(nova, name), raising=False)
    return nova


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The instances that the cell's database answers."""
    rows: list[Any] = []
    session = mock.Mock()
    session.execute.return_value.all.return_value = rows

    @contextlib.contextmanager
    def reading(cell: Any) -> Iterator[mock.Mock]:
        yield session

    monkeypatch.setattr(servers, '_reading', reading)
    return rows


def instance(uuid: str, **values: Any) -> mock.Mock:
    return mock.Mock(
        uuid=uuid,
        **(
            dict(
                host='here',
                vm_state=vm_states.ACTIVE,
                task_state=None,
                deleted=0,
                hidden=False,
                launched_at=None,
            )
            | values
        ),
    )


def test_cell0_is_not_served(nova: mock.Mock) -> None:
    """It has no hosts, and its queue is none."""
    mappings = [mock.Mock(), mock.Mock()]
    mappings[0].is_cell0.return_value = True
    mappings[1].is_cell0.return_value = False
    nova.CellMappingList.get_all.return_value = mappings
    assert servers.cells() == mappings[1:]


def test_copy_that_a_resize_hides_is_not_the_server(
    rows: list[Any], cell: mock.Mock
) -> None:
    """A cross-cell resize has the server in both cells for a while."""
    rows[:] = [instance('a'), instance('b', hidden=True)]
    assert servers.read(cell, ['a', 'b']).keys() == {'a'}


@pytest.mark.parametrize(
    ('values', 'deleted'),
    [
        # Nova keeps the row's id as the mark, not a truth value.
        ({'deleted': 42}, True),
        # So it stands for a moment before the row gets its mark.
        ({'vm_state': vm_states.DELETED}, True),
        # Such a server can be restored.
        ({'vm_state': vm_states.SOFT_DELETED}, False),
    ],
)
def test_deleted_server_is_found_as_such(
    rows: list[Any], cell: mock.Mock, values: dict[str, Any], deleted: bool
) -> None:
    rows[:] = [instance('a', **values)]
    assert servers.read(cell, ['a'])['a'].deleted is deleted


@pytest.mark.parametrize(
    ('task_state', 'is_settled'), [(None, True), ('powering-off', False)]
)
def test_server_with_a_task_is_not_settled(
    rows: list[Any], cell: mock.Mock, task_state: str | None, is_settled: bool
) -> None:
    rows[:] = [instance('a', task_state=task_state)]
    assert servers.read(cell, ['a'])['a'].is_settled is is_settled


def test_state_either_keeps_memory_or_has_none() -> None:
    assert not servers.KEEPS_MEMORY & servers.HAS_NO_MEMORY


def test_server_that_is_being_scheduled_has_no_cell(nova: mock.Mock) -> None:
    mappings = nova.InstanceMappingList.get_by_instance_uuids
    mappings.return_value = [mock.Mock(cell_mapping=None)]
    assert servers.cell_of('a') is None
    mappings.return_value = [mock.Mock(cell_mapping=mock.Mock(uuid='cell'))]
    assert servers.cell_of('a') == 'cell'
    mappings.return_value = []
    assert servers.cell_of('a') is None


def test_cells_of_servers_that_are_not_gone(
    nova: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose request is gone was deleted before it was scheduled."""
    monkeypatch.setattr(servers, '_requested', lambda uuids: {'waits'})
    nova.InstanceMappingList.get_by_instance_uuids.return_value = [
        mock.Mock(instance_uuid='placed', cell_mapping='cell'),
        mock.Mock(instance_uuid='waits', cell_mapping=None),
        mock.Mock(instance_uuid='deleted', cell_mapping=None),
    ]
    uuids = ['placed', 'waits', 'deleted', 'gone']
    assert servers.cells_of(uuids) == {'placed': 'cell', 'waits': None}


def test_requests_are_read_before_mappings(
    nova: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read after, one that is scheduled meanwhile would count as deleted."""
    monkeypatch.setattr(servers, '_requested', nova.requested)
    nova.requested.return_value = set()
    nova.InstanceMappingList.get_by_instance_uuids.return_value = []
    servers.cells_of(['a'])
    names = [name for name, _, _ in nova.mock_calls if '()' not in name]
    assert names == ['requested', 'InstanceMappingList.get_by_instance_uuids']


def test_forgotten_is_what_has_no_mapping(nova: mock.Mock) -> None:
    nova.InstanceMappingList.get_by_instance_uuids.return_value = [
        mock.Mock(instance_uuid='a')
    ]
    assert servers.forgotten(['a', 'b']) == {'b'}
