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

"""Which commands the audit has not told of yet.

Every change that starts or ends a command makes its row due in the same
statement, so nothing is forgotten, whoever made the change and whatever dies
after it.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_T = models.Command


def due(cell_uuid: str, limit: int) -> Sequence[models.Command]:
    """Return commands of a cell that are to be told of, oldest first."""
    query = (
        sa.select(_T)
        .where(_T.cell_uuid == cell_uuid, _is_due())
        .order_by(_T.audit_at)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


@session.retried
def take(uuid: str, seconds: float) -> bool:
    """Have one conductor tell of a command, and no other meanwhile.

    :param seconds: after which it is due again, unless note_told() was called
    """
    change = (
        sa.update(_T)
        .where(_T.uuid == uuid, _is_due())
        .values(audit_at=sqltypes.utc_in(seconds))
    )
    with session.writer() as db:
        return session.changed(db, change) > 0


@session.retried
def note_told(uuid: str, status: str) -> None:
    """Note that the audit knows of a command up to this state.

    It stays due if it has changed meanwhile. If its user has deleted it and
    there is no more to tell, it goes.
    """
    change = (
        sa.update(_T)
        .where(_T.uuid == uuid)
        .values(
            audited=status,
            audit_at=sa.case(
                (_T.status == status, sa.null()), else_=sqltypes.utc_in()
            ),
        )
    )
    told = (_T.uuid == uuid, _T.deleted, _T.audit_at.is_(None))
    with session.writer() as db:
        db.execute(change)
        db.execute(sa.delete(_T).where(*told))


def _is_due() -> sa.ColumnElement[bool]:
    return _T.audit_at <= sqltypes.utc_in()
