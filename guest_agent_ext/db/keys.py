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

"""The keys by which the repetition of a POST is known.

commands.create records them, in the transaction that records the command: the
unique scope lets one of many that come at once do so.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_T = models.IdempotencyKey
_C = models.Command

#: Seconds for which a key is known after its command has ended.
KEPT_FOR = 86400


def find(scope: str) -> models.IdempotencyKey | None:
    """Return a key that is still known; one that has expired is removed."""
    with session.reader() as db:
        found = db.execute(
            _select(_T, _is_expired().label('is_expired')).where(
                _T.scope == scope
            )
        ).one_or_none()
    if found is None:
        return None
    key: models.IdempotencyKey = found[0]
    is_expired: bool = found[1]
    if is_expired:
        _remove([key.id])
        return None
    return key


@session.retried
def remove_expired(limit: int) -> int:
    """Remove keys whose commands ended long ago.

    :param limit: how many at most
    :returns: how many were removed
    """
    with session.reader() as db:
        ids = db.scalars(
            _select(_T.id).where(_is_expired()).limit(limit)
        ).all()
    return _remove(ids) if ids else 0


def note_end(db: orm.Session, command_uuids: Collection[str]) -> None:
    """Note when commands ended that are about to be deleted."""
    finished_at = (
        sa.select(_C.finished_at)
        .where(_C.uuid == _T.command_uuid)
        .scalar_subquery()
    )
    db.execute(
        sa.update(_T)
        .where(_T.command_uuid.in_(command_uuids))
        .values(finished_at=finished_at)
        .execution_options(synchronize_session=False)
    )


def _select(*columns: Any) -> sa.Select[Any]:
    return sa.select(*columns).outerjoin(_C, _C.uuid == _T.command_uuid)


def _is_expired() -> sa.ColumnElement[bool]:
    # Of a command that has not ended this is null.
    finished_at = sa.func.coalesce(_T.finished_at, _C.finished_at)
    return sa.func.coalesce(
        finished_at < sqltypes.utc_in(-KEPT_FOR), sa.false()
    )


@session.retried
def _remove(ids: Collection[int]) -> int:
    with session.writer() as db:
        return session.changed(db, sa.delete(_T).where(_T.id.in_(ids)))
