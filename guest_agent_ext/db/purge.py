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

"""Queries of the purge, which removes commands that are kept no longer.

An end is final, so a command that has ended may be read in one transaction and
removed in the next. The command of a run is kept until its run has counted its
end, and for age as long as the run; runs.py removes both then.
"""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses

import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.db import keys
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_COMMANDS = models.Command
_RUNS = models.Run


@dataclasses.dataclass(frozen=True)
class Kept:
    """How much is kept of the commands of one server.

    :ivar server: uuid of the server
    :ivar project: id of the server's project
    :ivar rows: number of commands
    :ivar size: bytes of arguments and output
    """

    server: str
    project: str
    rows: int
    size: int


def count_old(age: int) -> int:
    """Return the number of commands that ended over ``age`` seconds ago."""
    query = sa.select(sa.func.count()).where(_is_old(age))
    with session.reader() as db:
        return db.scalars(query).one()


@session.retried
def remove_old(age: int, limit: int) -> int:
    """Remove commands that ended long ago, the oldest first.

    :param age: seconds since their end
    :param limit: maximum number of commands
    :returns: number of commands that were removed
    """
    with session.reader() as db:
        uuids = db.scalars(
            sa.select(_COMMANDS.uuid)
            .where(_is_old(age))
            .order_by(_COMMANDS.finished_at)
            .limit(limit)
        ).all()
    return _remove(uuids)


@session.retried
def remove_of_servers(instance_uuids: Collection[str], limit: int) -> int:
    """Remove commands of these servers that have ended.

    :param limit: maximum number of commands
    :returns: number of commands that were removed
    """
    with session.reader() as db:
        uuids = db.scalars(
            sa.select(_COMMANDS.uuid)
            .where(
                _COMMANDS.instance_uuid.in_(instance_uuids),
                _COMMANDS.status.in_(command.ENDED),
                _COMMANDS.run_due.is_(None),
            )
            .limit(limit)
        ).all()
    return _remove(uuids)


def kept_of_servers(after: str, limit: int) -> Sequence[Kept]:
    """Return a page of servers and how much is kept of their commands.

    :param after: uuid of the server that the last page ended with
    :param limit: maximum number of servers
    """
    page = (
        sa.select(_COMMANDS.instance_uuid)
        .where(_COMMANDS.instance_uuid > after)
        .distinct()
        .order_by(_COMMANDS.instance_uuid)
        .limit(limit)
        .subquery()
    )
    query = (
        sa.select(
            _COMMANDS.instance_uuid,
            _COMMANDS.instance_project_id,
            sa.func.count(),
            sa.func.sum(_COMMANDS.kept_bytes),
        )
        .join(page, page.c.instance_uuid == _COMMANDS.instance_uuid)
        .group_by(_COMMANDS.instance_uuid, _COMMANDS.instance_project_id)
        .order_by(_COMMANDS.instance_uuid)
    )
    with session.reader() as db:
        return [
            Kept(server, project, rows, int(size))
            for server, project, rows, size in db.execute(query)
        ]


@session.retried
def trim(
    *,
    server: str | None = None,
    project: str | None = None,
    rows: int,
    size: int,
    limit: int,
) -> tuple[int, int]:
    """Remove the oldest commands of a server or a project that have ended.

    :param rows: number of commands to remove at least
    :param size: number of bytes to remove at least
    :param limit: maximum number of commands to remove
    :returns: numbers of commands and of bytes that were removed
    """
    owner = (
        _COMMANDS.instance_project_id == project
        if server is None
        else _COMMANDS.instance_uuid == server
    )
    with session.reader() as db:
        oldest = db.execute(
            sa.select(_COMMANDS.uuid, _COMMANDS.kept_bytes)
            .where(
                owner,
                _COMMANDS.status.in_(command.ENDED),
                _COMMANDS.run_due.is_(None),
                ~_COMMANDS.deleted,
            )
            .order_by(_COMMANDS.id)
            .limit(limit)
        ).all()
    uuids: list[str] = []
    removed_bytes = 0
    for row in oldest:
        if len(uuids) >= rows and removed_bytes >= size:
            break
        uuids.append(row.uuid)
        removed_bytes += row.kept_bytes
    return (_remove(uuids), removed_bytes)


def servers(after: str, limit: int) -> Sequence[str]:
    """Return a page of the uuids of servers that have commands.

    :param after: uuid that the last page ended with
    :param limit: maximum number of servers
    """
    query = (
        sa.select(_COMMANDS.instance_uuid)
        .where(_COMMANDS.instance_uuid > after)
        .distinct()
        .order_by(_COMMANDS.instance_uuid)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


def _is_old(age: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        _COMMANDS.finished_at < sqltypes.utc_in(-age),
        sa.or_(
            _COMMANDS.run_uuid.is_(None),
            ~sa.exists().where(_RUNS.uuid == _COMMANDS.run_uuid),
        ),
    )


def _remove(uuids: Sequence[str]) -> int:
    if not uuids:
        return 0
    with session.writer() as db:
        keys.note_end(db, uuids)
        return session.changed(
            db, sa.delete(_COMMANDS).where(_COMMANDS.uuid.in_(uuids))
        )
