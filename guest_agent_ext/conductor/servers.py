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

"""Nova's cells and servers, as the conductor reads them.

All that the conductor reads of Nova's databases is here; actions.py writes
instance actions, and notifications.py sends notifications.
"""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses

from nova import context as nova_context
from nova import exception as nova_exc
from nova import objects
from nova import rpc
from nova.compute import vm_states
from nova.db.api import api as api_db
from nova.db.api import models as api_models
from nova.db.main import models
import oslo_messaging
import sqlalchemy as sa

from guest_agent_ext import cells as nova_cells
from guest_agent_ext import nova_types

_INSTANCES = models.Instance
_METADATA = models.InstanceSystemMetadata
_INSTANCE_TBL = models.Instance.__table__

#: A few of eighty columns, because each change of a command reads them.
_SERVERS = sa.select(
    _INSTANCE_TBL.c.uuid,
    _INSTANCE_TBL.c.host,
    _INSTANCE_TBL.c.vm_state,
    _INSTANCE_TBL.c.task_state,
    _INSTANCE_TBL.c.deleted,
    _INSTANCE_TBL.c.hidden,
    _INSTANCE_TBL.c.launched_at,
).where(_INSTANCE_TBL.c.uuid.in_(sa.bindparam('uuids', expanding=True)))

#: The property of an image that gives its servers a channel to their agents.
_CHANNEL = 'image_hw_qemu_guest_agent'

#: States in which a server keeps its memory although its domain may not run.
KEEPS_MEMORY = frozenset({vm_states.SUSPENDED, vm_states.PAUSED})
#: States in which a server has no memory, so that no process in it is alive.
HAS_NO_MEMORY = frozenset(
    {
        vm_states.STOPPED,
        vm_states.SHELVED,
        vm_states.SHELVED_OFFLOADED,
        vm_states.SOFT_DELETED,
    }
)


@dataclasses.dataclass(frozen=True)
class Server:
    """A server's host and states.

    :ivar launched: whether the server has been built
    """

    host: str | None
    vm_state: str | None
    task_state: str | None
    deleted: bool
    launched: bool = True

    @property
    def is_settled(self) -> bool:
        """Whether Nova has no task under way for the server."""
        return self.task_state is None

    @property
    def is_failed_build(self) -> bool:
        """Whether Nova could not build the server, and has given up."""
        return (
            not self.launched
            and self.is_settled
            and self.vm_state == vm_states.ERROR
        )


@dataclasses.dataclass
class Guest:
    """What server_checks.py asks of a server, as nova_types.Instance."""

    uuid: str
    host: str | None
    vm_state: str
    task_state: str | None
    power_state: int | None
    locked: bool
    system_metadata: Mapping[str, str]


def cells() -> Sequence[nova_types.CellMapping]:
    """Return the mappings of all cells but cell0, which has no hosts."""
    mappings = objects.CellMappingList.get_all(
        nova_context.get_admin_context()
    )
    return [cell for cell in mappings if not cell.is_cell0()]


def computes(cell: nova_types.CellMapping) -> set[str]:
    """Return the hosts of a cell whose nova-compute is enabled."""
    service = models.Service
    query = sa.select(service.host).where(
        service.binary == 'nova-compute',
        service.deleted == 0,
        service.disabled.is_(False),
    )
    with _reading(cell) as db:
        return set(db.scalars(query))


def create_transport(cell: nova_types.CellMapping) -> oslo_messaging.Transport:
    """Open the message queue of a cell, and return its transport."""
    return rpc.create_transport(cell.transport_url)


def read(
    cell: nova_types.CellMapping, uuids: Collection[str]
) -> dict[str, Server]:
    """Return those of some servers that a cell has, also deleted ones."""
    with _reading(cell) as db:
        rows = db.execute(_SERVERS, {'uuids': list(uuids)}).all()
    return {
        row.uuid: Server(
            row.host,
            row.vm_state,
            row.task_state,
            # Nova writes the state in one transaction, the mark in the next.
            bool(row.deleted) or row.vm_state == vm_states.DELETED,
            row.launched_at is not None,
        )
        for row in rows
        if not row.hidden
    }


def guests(
    cell: nova_types.CellMapping, uuids: Collection[str]
) -> dict[str, Guest]:
    """Return those of some servers that a cell has and that are not deleted.

    Of their system_metadata there is only what server_checks.py asks for.
    """
    is_channel = sa.and_(
        _METADATA.instance_uuid == _INSTANCES.uuid,
        _METADATA.key == _CHANNEL,
        _METADATA.deleted == 0,
    )
    query = (
        sa.select(
            _INSTANCES.uuid,
            _INSTANCES.host,
            _INSTANCES.vm_state,
            _INSTANCES.task_state,
            _INSTANCES.power_state,
            _INSTANCES.locked,
            _INSTANCES.hidden,
            _METADATA.value,
        )
        .outerjoin(_METADATA, is_channel)
        .where(_INSTANCES.uuid.in_(uuids), _INSTANCES.deleted == 0)
    )
    with _reading(cell) as db:
        rows = db.execute(query).all()
    return {
        row.uuid: Guest(
            row.uuid,
            row.host,
            row.vm_state,
            row.task_state,
            row.power_state,
            bool(row.locked),
            {} if row.value is None else {_CHANNEL: row.value},
        )
        for row in rows
        if not row.hidden
    }


def cell_of(uuid: str) -> str | None:
    """Return the uuid of a server's cell, None if there is none."""
    mappings = objects.InstanceMappingList.get_by_instance_uuids(
        nova_context.get_admin_context(), [uuid]
    )
    for mapping in mappings:
        if mapping.cell_mapping is not None:
            return str(mapping.cell_mapping.uuid)
    return None


def cells_of(
    uuids: Collection[str],
) -> dict[str, nova_types.CellMapping | None]:
    """Return the cells of servers, None for a server not scheduled yet.

    Servers that are gone, or were deleted before they were scheduled, are left
    out. A server that could not be scheduled is in cell0.
    """
    # Nova removes the request when the mapping has its cell.
    requested = _requested(uuids)
    mappings = objects.InstanceMappingList.get_by_instance_uuids(
        nova_context.get_admin_context(), list(uuids)
    )
    return {
        mapping.instance_uuid: mapping.cell_mapping
        for mapping in mappings
        if mapping.cell_mapping or mapping.instance_uuid in requested
    }


def requested(uuid: str) -> nova_types.Instance | None:
    """Return a server that Nova has not scheduled yet, None if there is none.

    :returns: instance, with system_metadata
    """
    try:
        request = objects.BuildRequest.get_by_instance_uuid(
            nova_context.get_admin_context(), uuid
        )
    except nova_exc.BuildRequestNotFound:
        return None
    instance: nova_types.Instance = request.instance
    return instance


def _requested(uuids: Collection[str]) -> set[str]:
    """Return those of some servers that there is a request to build of."""
    request = api_models.BuildRequest
    query = sa.select(request.instance_uuid).where(
        request.instance_uuid.in_(uuids)
    )
    context = nova_context.get_admin_context()
    with api_db.context_manager.reader.using(context) as session:
        return set(session.scalars(query))


def forgotten(uuids: Collection[str]) -> set[str]:
    """Return the uuids of servers that Nova has forgotten."""
    mappings = objects.InstanceMappingList.get_by_instance_uuids(
        nova_context.get_admin_context(), list(uuids)
    )
    return set(uuids) - {mapping.instance_uuid for mapping in mappings}


def engine(cell: nova_types.CellMapping) -> sa.Engine:
    """Return the engine of the database of a cell.

    Nova's readers use that of its writers too.
    """
    found: sa.Engine = nova_cells.database(cell).writer.get_engine()
    return found


@contextlib.contextmanager
def _reading(cell: nova_types.CellMapping) -> Iterator[sa.Connection]:
    """Open a transaction that reads the database of a cell."""
    with engine(cell).connect() as connection:
        yield connection
