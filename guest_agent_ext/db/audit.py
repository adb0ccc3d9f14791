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

"""Queries of the commands and runs that the audit has to tell of.

Every change that starts or ends one makes its row due in the same statement,
so nothing is forgotten, whoever made the change and whatever dies after it.
"""

from collections.abc import Sequence
import dataclasses
import datetime
import functools

import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_RUNS = models.Run

#: Statements that every command passes, as in commands.py.
_COMMAND_TBL = models.table_of(models.Command)
_C = _COMMAND_TBL.c

#: A model whose rows become due.
_Model = type[models.Command] | type[models.Run]


@dataclasses.dataclass(frozen=True)
class Due:
    """What the audit knows of a command that is due.

    Each field is a column of models.Command.
    """

    uuid: str
    type: str
    status: str
    audited: str | None
    created_at: datetime.datetime
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None
    project_id: str
    user_id: str
    request_id: str | None
    instance_uuid: str
    instance_project_id: str
    host: str
    error: str | None
    exitcode: int | None
    signal: int | None


_DUE = (
    sa.select(*(_C[field.name] for field in dataclasses.fields(Due)))
    .where(
        _C.cell_uuid == sa.bindparam('cell'), _C.audit_at <= sqltypes.utc_in()
    )
    .order_by(_C.audit_at)
    .limit(sa.bindparam('most'))
)


def due(cell_uuid: str, limit: int) -> Sequence[Due]:
    """Return the commands of a cell that are due, longest due first.

    :param limit: maximum number of commands
    """
    with session.reader_connection() as db:
        rows = db.execute(_DUE, {'cell': cell_uuid, 'most': limit}).all()
    return [Due(*row) for row in rows]


def due_runs(limit: int) -> Sequence[models.Run]:
    """Return the runs that are due, longest due first.

    :param limit: maximum number of runs
    """
    query = (
        sa.select(_RUNS)
        .where(_is_due(_RUNS))
        .order_by(_RUNS.audit_at)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


@session.retried
def take(uuid: str, seconds: float, model: _Model = models.Command) -> bool:
    """Reserve what is due for one conductor.

    :param uuid: uuid of a command or a run
    :param seconds: time until it is due again, unless note_told() or
        note_run_told() is called before
    :param model: model of the row
    :returns: False if another conductor has taken it
    """
    with session.writer_connection() as db:
        taken = session.changed(
            db, _take(model), {'row': uuid, 'seconds': seconds}
        )
    return taken > 0


@functools.cache
def _take(model: _Model) -> sa.Update:
    table = models.table_of(model)
    return (
        sa.update(table)
        .where(
            table.c.uuid == sa.bindparam('row'),
            table.c.audit_at <= sqltypes.utc_in(),
        )
        .values(
            audit_at=sqltypes.utc_in(sa.bindparam('seconds', type_=sa.Float))
        )
    )


@session.retried
def move(uuid: str, cell_uuid: str) -> None:
    """Pass a command to the audit of the cell that its server has got.

    :param cell_uuid: uuid of the cell
    """
    change = (
        sa.update(_COMMAND_TBL)
        .where(_C.uuid == uuid, _C.cell_uuid == models.NOWHERE)
        .values(cell_uuid=cell_uuid)
    )
    with session.writer_connection() as db:
        db.execute(change)


@session.retried
def note_told(uuid: str, status: str) -> None:
    """Note that the audit has told of a command up to this state.

    A command that has changed meanwhile stays due. One that its user has
    deleted is removed when there is no more to tell, and its run has counted
    it.

    :param status: state of the command that was told of
    """
    values = {'row': uuid, 'told': status, 'audited': status}
    with session.writer_connection() as db:
        if not session.changed(db, _TOLD_OF_KEPT, values):
            db.execute(_told(models.Command), values)
            db.execute(_REMOVE_TOLD, {'row': uuid})


@session.retried
def note_run_told(uuid: str, status: str) -> None:
    """Note that the audit has told of a run up to this state.

    :param status: state of the run that was told of
    """
    with session.writer_connection() as db:
        db.execute(
            _told(_RUNS), {'row': uuid, 'told': status, 'audited': status}
        )


@functools.cache
def _told(model: _Model) -> sa.Update:
    table = models.table_of(model)
    return (
        sa.update(table)
        .where(table.c.uuid == sa.bindparam('row'))
        .values(
            audit_at=sa.case(
                (table.c.status == sa.bindparam('told'), sa.null()),
                else_=sqltypes.utc_in(),
            )
        )
    )


_TOLD_OF_KEPT = _told(models.Command).where(~_C.deleted)
_REMOVE_TOLD = sa.delete(_COMMAND_TBL).where(
    _C.uuid == sa.bindparam('row'),
    _C.deleted,
    _C.audit_at.is_(None),
    _C.run_due.is_(None),
)


def _is_due(table: type[models.Run]) -> sa.ColumnElement[bool]:
    return table.audit_at <= sqltypes.utc_in()
