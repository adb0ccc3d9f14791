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

"""Queries of the commands that the audit has to tell of.

Every change that starts or ends a command makes its row due in the same
statement, so nothing is forgotten, whoever made the change and whatever dies
after it.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_COMMANDS = models.Command


def due(cell_uuid: str, limit: int) -> Sequence[models.Command]:
    """Return the commands of a cell that are due, longest due first.

    :param limit: maximum number of commands
    """
    query = (
        sa.select(_COMMANDS)
        .where(_COMMANDS.cell_uuid == cell_uuid, _is_due())
        .order_by(_COMMANDS.audit_at)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


@session.retried
def take(uuid: str, seconds: float) -> bool:
    """Reserve a due command for one conductor.

    :param seconds: time until the command is due again, unless note_told() is
        called before
    :returns: False if another conductor has taken the command
    """
    change = (
        sa.update(_COMMANDS)
        .where(_COMMANDS.uuid == uuid, _is_due())
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
    deleted is removed when there is no more to tell.

    :param status: state of the command that was told of
    """
    change = (
        sa.update(_COMMANDS)
        .where(_COMMANDS.uuid == uuid)
        .values(
            audited=status,
            audit_at=sa.case(
                (_COMMANDS.status == status, sa.null()),
                else_=sqltypes.utc_in(),
            ),
        )
    )
    told = (
        _COMMANDS.uuid == uuid,
        _COMMANDS.deleted,
        _COMMANDS.audit_at.is_(None),
    )
    with session.writer() as db:
        db.execute(change)
        db.execute(sa.delete(_COMMANDS).where(*told))


def _is_due() -> sa.ColumnElement[bool]:
    return _COMMANDS.audit_at <= sqltypes.utc_in()
