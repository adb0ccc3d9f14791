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

"""Queries of idempotency keys, by which a repeated POST is recognized.

commands.create() records a key in the transaction that records the command,
and runs.create() in that of the run: its unique scope lets one of many
simultaneous requests succeed.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_KEYS = models.IdempotencyKey
_COMMANDS = models.Command
_RUNS = models.Run

#: Seconds between the end of a command or a run and the expiry of its key.
KEPT_FOR = 86400


def find(scope: str) -> models.IdempotencyKey | None:
    """Return a key, or None if no unexpired one exists.

    :param scope: hash of project, user, server and key
    """
    with session.reader() as db:
        found = db.execute(
            _select(_KEYS, _is_expired().label('is_expired')).where(
                _KEYS.scope == scope
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
    """Remove expired keys.

    :param limit: maximum number of keys
    :returns: number of keys that were removed
    """
    with session.reader() as db:
        ids = db.scalars(
            _select(_KEYS.id).where(_is_expired()).limit(limit)
        ).all()
    return _remove(ids) if ids else 0


def note_end(db: orm.Session, uuids: Collection[str]) -> None:
    """Note in their keys when that ended which is about to be deleted.

    :param uuids: uuids of commands and runs
    """
    finished_at = sa.func.coalesce(
        *(
            sa.select(table.finished_at)
            .where(table.uuid == _KEYS.command_uuid)
            .scalar_subquery()
            for table in (_COMMANDS, _RUNS)
        )
    )
    db.execute(
        sa.update(_KEYS)
        .where(_KEYS.command_uuid.in_(uuids))
        .values(finished_at=finished_at)
        .execution_options(synchronize_session=False)
    )


def _select(*columns: Any) -> sa.Select[Any]:
    query = sa.select(*columns).select_from(_KEYS)
    for table in (_COMMANDS, _RUNS):
        query = query.outerjoin(table, table.uuid == _KEYS.command_uuid)
    return query


def _is_expired() -> sa.ColumnElement[bool]:
    # Null if the command or the run has not ended.
    finished_at = sa.func.coalesce(
        _KEYS.finished_at, _COMMANDS.finished_at, _RUNS.finished_at
    )
    return sa.func.coalesce(
        finished_at < sqltypes.utc_in(-KEPT_FOR), sa.false()
    )


@session.retried
def _remove(ids: Collection[int]) -> int:
    with session.writer() as db:
        return session.changed(db, sa.delete(_KEYS).where(_KEYS.id.in_(ids)))
