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

import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_COMMANDS = models.Command
_RUNS = models.Run

#: A table whose rows become due.
_Table = type[models.Command] | type[models.Run]


def due(cell_uuid: str, limit: int) -> Sequence[models.Command]:
    """Return the commands of a cell that are due, longest due first.

    :param limit: maximum number of commands
    """
    query = (
        sa.select(_COMMANDS)
        .where(_COMMANDS.cell_uuid == cell_uuid, _is_due(_COMMANDS))
        .order_by(_COMMANDS.audit_at)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


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
def take(uuid: str, seconds: float, table: _Table = _COMMANDS) -> bool:
    """Reserve what is due for one conductor.

    :param uuid: uuid of a command or a run
    :param seconds: time until it is due again, unless note_told() or
        note_run_told() is called before
    :param table: model of the row
    :returns: False if another conductor has taken it
    """
    change = (
        sa.update(table)
        .where(table.uuid == uuid, _is_due(table))
        .values(audit_at=sqltypes.utc_in(seconds))
    )
    with session.writer() as db:
        return session.changed(db, change) > 0


@session.retried
def move(uuid: str, cell_uuid: str) -> None:
    """Pass a command to the audit of the cell that its server has got.

    :param cell_uuid: uuid of the cell
    """
    with session.writer() as db:
        db.execute(
            sa.update(_COMMANDS)
            .where(
                _COMMANDS.uuid == uuid, _COMMANDS.cell_uuid == models.NOWHERE
            )
            .values(cell_uuid=cell_uuid)
        )


@session.retried
def note_told(uuid: str, status: str) -> None:
    """Note that the audit has told of a command up to this state.

    A command that has changed meanwhile stays due. One that its user has
    deleted is removed when there is no more to tell, and its run has counted
    it.

    :param status: state of the command that was told of
    """
    told = (
        _COMMANDS.uuid == uuid,
        _COMMANDS.deleted,
        _COMMANDS.audit_at.is_(None),
        _COMMANDS.run_due.is_(None),
    )
    with session.writer() as db:
        db.execute(_told(_COMMANDS, uuid, status))
        db.execute(sa.delete(_COMMANDS).where(*told))


@session.retried
def note_run_told(uuid: str, status: str) -> None:
    """Note that the audit has told of a run up to this state.

    :param status: state of the run that was told of
    """
    with session.writer() as db:
        db.execute(_told(_RUNS, uuid, status))


def _told(table: _Table, uuid: str, status: str) -> sa.Update:
    return (
        sa.update(table)
        .where(table.uuid == uuid)
        .values(
            audited=status,
            audit_at=sa.case(
                (table.status == status, sa.null()), else_=sqltypes.utc_in()
            ),
        )
    )


def _is_due(table: _Table) -> sa.ColumnElement[bool]:
    return table.audit_at <= sqltypes.utc_in()
