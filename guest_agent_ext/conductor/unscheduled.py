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

"""Commands that were accepted before Nova had scheduled their server.

Their cell is NOWHERE, so no cell's threads see them. When the server has its
cell, they are passed on to that. When it will never have one, they end here.
"""

from guest_agent_ext import nova_types
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import audit as audit_db
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

#: Maximum number of rows that one statement reads.
PAGE = 500


def settle() -> None:
    """Pass on or end all unfinished commands, and tell of ended ones."""
    after = 0
    while rows := commands.unfinished_of_cell(models.NOWHERE, after, PAGE):
        cells = servers.cells_of({row.instance_uuid for row in rows})
        for row in rows:
            _settle(row, cells)
        after = rows[-1].id
    _tell_due()


_Cells = dict[str, nova_types.CellMapping | None]


def _settle(row: commands.Followed, cells: _Cells) -> None:
    """Pass on or end a command.

    :param cells: cells of servers that are not gone, None for a server that
        is still being scheduled
    """
    if row.instance_uuid not in cells:
        manager.end(row, manager.DELETED)
        return
    cell = cells[row.instance_uuid]
    if cell is None:
        manager.note_seen(row, manager.NOT_SCHEDULED)
    elif cell.is_cell0():
        manager.end(row, manager.NOT_BUILT)
    else:
        # The cell's own conductor finds the host.
        commands.relocate([row.uuid], cell_uuid=cell.uuid, host=models.NOWHERE)


def _tell_due() -> None:
    """Have the audit tell of a page of commands that have ended."""
    rows = audit_db.due(models.NOWHERE, PAGE)
    cells = servers.cells_of({row.instance_uuid for row in rows})
    for row in rows:
        cell = cells.get(row.instance_uuid)
        if cell is not None and not cell.is_cell0():
            audit_db.move(row.uuid, cell.uuid)
        elif cell is not None or row.instance_uuid not in cells:
            audit.tell(cell, row)
        else:
            # There will be a place for its action, or there will be no server.
            audit_db.take(row.uuid, audit.RETRY_AFTER)
