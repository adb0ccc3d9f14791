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

"""Nova's connections to its cells, renewed when a cell's mapping changes.

Nova caches them by the cell's uuid for as long as the process lives, even if
the mapping has another database or queue meanwhile.
"""

import dataclasses
import threading
from typing import Any

from nova import context as nova_context

from guest_agent_ext import nova_types


@dataclasses.dataclass(frozen=True, repr=False)
class _Known:
    """What a cell's mapping had, and what Nova has opened for that."""

    database_connection: str
    transport_url: str
    connections: tuple[Any, Any]


_lock = threading.Lock()
#: By the uuid of the cell.
_known: dict[str, _Known] = {}


def follow(cell: nova_types.CellMapping) -> None:
    """Renew Nova's connections to a cell if its mapping has changed.

    Call this before the cell is targeted. Nothing is connected here.

    :param cell: mapping of the cell, read a short while ago
    """
    _followed(cell)


def database(cell: nova_types.CellMapping) -> Any:
    """Return Nova's connections to a cell's database, renewed as by follow().

    Statements without the ORM need no context that targets the cell, which
    takes more processor time than they do.

    :param cell: mapping of the cell, read a short while ago
    :returns: context manager of oslo.db
    """
    return _followed(cell).connections[0]


def _followed(cell: nova_types.CellMapping) -> _Known:
    with _lock:
        if not _is_current(cell):
            nova_context.CELL_CACHE.pop(cell.uuid, None)
            nova_context.set_target_cell(
                nova_context.get_admin_context(), cell
            )
            _known[cell.uuid] = _Known(
                cell.database_connection,
                cell.transport_url,
                nova_context.CELL_CACHE[cell.uuid],
            )
        return _known[cell.uuid]


def _is_current(cell: nova_types.CellMapping) -> bool:
    known = _known.get(cell.uuid)
    return (
        known is not None
        and known.database_connection == cell.database_connection
        and known.transport_url == cell.transport_url
        # Nova itself has opened none since, from an older mapping.
        and known.connections is nova_context.CELL_CACHE.get(cell.uuid)
    )
