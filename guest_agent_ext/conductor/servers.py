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

"""What the conductor reads of Nova: cells, and where servers are.

The one place of this layer that imports Nova.
"""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
from typing import Any

from nova import context as nova_context
from nova import objects
from nova import rpc
from nova.compute import vm_states
from nova.db.main import api as db_api
from nova.db.main import models
import sqlalchemy as sa

_I = models.Instance

#: States in which a server has kept its memory though no domain runs.
KEEPS_MEMORY = frozenset({vm_states.SUSPENDED, vm_states.PAUSED})
#: States in which a server has no memory, and no process in it lives.
HAS_NO_MEMORY = frozenset(
    {
        vm_states.STOPPED,
        vm_states.SHELVED,
        vm_states.SHELVED_OFFLOADED,
        vm_states.DELETED,
        vm_states.SOFT_DELETED,
    }
)


@dataclasses.dataclass(frozen=True)
class Server:
    """Where a server is, and in which state."""

    host: str | None
    vm_state: str | None
    task_state: str | None
    deleted: bool

    @property
    def is_settled(self) -> bool:
        """Whether Nova is doing nothing with it right now."""
        return self.task_state is None


def cells() -> Sequence[Any]:
    """Return the mappings of all cells that can have servers."""
    mappings = objects.CellMappingList.get_all(
        nova_context.get_admin_context()
    )
    return [cell for cell in mappings if not cell.is_cell0()]


def create_transport(cell: Any) -> Any:
    """Open the message queue of a cell."""
    return rpc.create_transport(cell.transport_url)


def read(cell: Any, uuids: Collection[str]) -> dict[str, Server]:
    """Return those of these servers that the cell has, also deleted ones."""
    # Of their eighty columns a few: each step of each command asks.
    query = sa.select(
        _I.uuid, _I.host, _I.vm_state, _I.task_state, _I.deleted, _I.hidden
    ).where(_I.uuid.in_(uuids))
    context = nova_context.get_admin_context()
    with (
        nova_context.target_cell(context, cell) as cell_context,
        db_api.get_context_manager(cell_context).reader.using(cell_context),
    ):
        rows = cell_context.session.execute(query).all()
    return {
        row.uuid: Server(
            row.host, row.vm_state, row.task_state, bool(row.deleted)
        )
        for row in rows
        if not row.hidden
    }


def cell_of(uuid: str) -> str | None:
    """Return the uuid of the cell that a server is mapped to."""
    mappings = objects.InstanceMappingList.get_by_instance_uuids(
        nova_context.get_admin_context(), [uuid]
    )
    for mapping in mappings:
        if mapping.cell_mapping is not None:
            return str(mapping.cell_mapping.uuid)
    return None


def forgotten(uuids: Collection[str]) -> set[str]:
    """Return those of these servers that Nova knows no more."""
    mappings = objects.InstanceMappingList.get_by_instance_uuids(
        nova_context.get_admin_context(), list(uuids)
    )
    return set(uuids) - {mapping.instance_uuid for mapping in mappings}
