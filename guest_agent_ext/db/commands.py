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

"""Queries of commands: a tiny function around one statement each.

Every change names the states that it may start from, so that two that meet
cannot both win (compare and swap), and may be made twice without harm.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import command
from guest_agent_ext.db import keys
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_T = models.Command
_H = models.Host

NOT_STARTED = 'The command did not start within its start_timeout'
NOT_REPORTED = 'The host did not report the end of the command in time'


@dataclasses.dataclass(frozen=True)
class Work:
    """An unfinished command of a host, as its conductor hands it out."""

    uuid: str
    type: str
    instance_uuid: str
    status: str
    attempt: str | None
    cancel_requested: bool
    #: Seconds until start_by.
    start_in: float


@session.retried
def create(
    values: Mapping[str, Any],
    start_timeout: int,
    key: Mapping[str, str] | None = None,
) -> models.Command:
    """Record a command as PENDING, and return it with its output.

    :param values: columns of models.Command; times and state are set here
    :param start_timeout: seconds from now until start_by
    :param key: columns of models.IdempotencyKey
    :raises oslo_db.exception.DBDuplicateEntry: the key or the uuid is taken
    """
    row = dict(
        values,
        status=command.PENDING,
        cancel_requested=False,
        deleted=False,
        created_at=sqltypes.utc_in(),
        start_by=sqltypes.utc_in(start_timeout),
    )
    with session.writer() as db:
        if key is not None:
            db.execute(
                sa.insert(models.IdempotencyKey).values(
                    dict(key, command_uuid=row['uuid'])
                )
            )
        db.execute(sa.insert(_T).values(row))
        return db.scalars(_select(row['uuid'], with_output=True)).one()


def get(
    uuid: str,
    *,
    instance_uuid: str | None = None,
    with_output: bool = False,
    with_inputs: bool = False,
) -> models.Command | None:
    """Return a command, or None if there is no such.

    :param instance_uuid: only if it is a command of this server
    :param with_output: read the captured output too
    :param with_inputs: read stdin and the environment's values too
    """
    query = _select(uuid, with_output=with_output, with_inputs=with_inputs)
    if instance_uuid is not None:
        query = query.where(_T.instance_uuid == instance_uuid)
    with session.reader() as db:
        return db.scalars(query).one_or_none()


def _select(
    uuid: str, *, with_output: bool = False, with_inputs: bool = False
) -> sa.Select[models.Command]:
    query = sa.select(_T).where(_T.uuid == uuid, ~_T.deleted)
    if with_output:
        query = query.options(
            orm.undefer(_T.out_data), orm.undefer(_T.err_data)
        )
    if with_inputs:
        query = query.options(orm.undefer(_T.inputs))
    return query


def instance_for(
    uuid: str, *, cell_uuid: str, host: str, incarnation: int
) -> str | None:
    """Return the server of a command, for the compute service of a host.

    :returns: None if a newer incarnation has fenced that service, or there is
        no such command
    """
    is_current = sa.and_(
        _H.cell_uuid == cell_uuid,
        _H.host == host,
        _H.incarnation == incarnation,
    )
    query = (
        sa.select(_T.instance_uuid)
        .join(_H, is_current)
        .where(_T.uuid == uuid, ~_T.deleted)
    )
    with session.reader() as db:
        return db.scalars(query).one_or_none()


def statuses(ids: Collection[int]) -> dict[int, str]:
    """Return the state of each of these commands that exists, by ``id``."""
    query = sa.select(_T.id, _T.status).where(_T.id.in_(ids))
    with session.reader() as db:
        return {row.id: row.status for row in db.execute(query)}


def list_of_instance(
    instance_uuid: str,
    *,
    limit: int,
    before: int | None = None,
    statuses: Collection[str] = (),
    types: Collection[str] = (),
) -> Sequence[models.Command]:
    """Return commands of a server, newest first, without their output.

    :param limit: how many at most
    :param before: only those older than the one with this ``id``
    :param statuses: only those that a user sees in one of these states
    :param types: only those of one of these types
    """
    found = [_T.instance_uuid == instance_uuid, *_filters(before, statuses)]
    if types:
        found.append(_T.type.in_(types))
    return _newest(found, limit)


def list_all(
    *,
    limit: int,
    before: int | None = None,
    statuses: Collection[str] = (),
    project_id: str | None = None,
    host: str | None = None,
    since: datetime.datetime | None = None,
) -> Sequence[models.Command]:
    """Return commands of all servers, newest first, without their output.

    :param limit: how many at most
    :param before: only those older than the one with this ``id``
    :param statuses: only those that a user sees in one of these states
    :param project_id: only those of servers of this project
    :param host: only those of servers on this host
    :param since: only those accepted then or later
    """
    found = _filters(before, statuses)
    if project_id is not None:
        found.append(_T.instance_project_id == project_id)
    if host is not None:
        found.append(_T.host == host)
    if since is not None:
        found.append(_T.created_at >= since)
    return _newest(found, limit)


def _newest(
    found: Collection[sa.ColumnElement[bool]], limit: int
) -> Sequence[models.Command]:
    query = (
        sa.select(_T)
        .where(*found, ~_T.deleted)
        .order_by(_T.id.desc())
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


def _filters(
    before: int | None, statuses: Collection[str]
) -> list[sa.ColumnElement[bool]]:
    found = [] if before is None else [_T.id < before]
    if statuses:
        found.append(_is_shown_as(statuses))
    return found


def output_sizes(ids: Collection[int]) -> dict[int, tuple[int, int]]:
    """Return how many bytes of stdout and stderr these commands' rows have.

    For lists, which do without the bytes.
    """
    query = sa.select(
        _T.id,
        sa.func.coalesce(sa.func.length(_T.out_data), 0).label('out'),
        sa.func.coalesce(sa.func.length(_T.err_data), 0).label('err'),
    ).where(_T.id.in_(ids))
    with session.reader() as db:
        return {row.id: (row.out, row.err) for row in db.execute(query)}


def _is_shown_as(statuses: Collection[str]) -> sa.ColumnElement[bool]:
    """The SQL of command.shown_status."""
    started = _T.started_at.is_not(None)
    shown = [
        _T.status == status
        for status in statuses
        if status not in command.UNFINISHED
    ]
    if command.PENDING in statuses:
        shown.append(
            sa.or_(
                _T.status == command.PENDING,
                sa.and_(_T.status == command.RUNNING, ~started),
            )
        )
    if command.RUNNING in statuses:
        shown.append(sa.and_(_T.status == command.RUNNING, started))
    return sa.or_(*shown)


def count_unfinished(project_id: str, instance_uuid: str) -> tuple[int, int]:
    """Return how many unfinished commands a server and its project have."""
    of_project = sa.select(sa.func.count()).where(
        _T.instance_project_id == project_id, _T.status.in_(command.UNFINISHED)
    )
    of_server = of_project.where(_T.instance_uuid == instance_uuid)
    query = sa.select(
        of_server.scalar_subquery(), of_project.scalar_subquery()
    )
    with session.reader() as db:
        server, project = db.execute(query).one()
    return server, project


def unfinished_of_host(
    db: orm.Session, cell_uuid: str, host: str, limit: int
) -> Sequence[Work]:
    """Return the oldest unfinished commands of a host.

    :param db: the transaction that asks
    """
    rows = db.execute(
        sa.select(
            _T.uuid,
            _T.type,
            _T.instance_uuid,
            _T.status,
            _T.attempt,
            _T.cancel_requested,
            _T.start_by,
            sqltypes.utc_in().label('now'),
        )
        .where(
            _T.cell_uuid == cell_uuid,
            _T.host == host,
            _T.status.in_(command.UNFINISHED),
        )
        .order_by(_T.id)
        .limit(limit)
    )
    return [
        Work(
            row.uuid,
            row.type,
            row.instance_uuid,
            row.status,
            row.attempt,
            row.cancel_requested,
            (row.start_by - row.now).total_seconds(),
        )
        for row in rows
    ]


def unfinished_of_cell(
    cell_uuid: str, after: int, limit: int
) -> Sequence[models.Command]:
    """Return unfinished commands of a cell, by id, a page at a time.

    :param after: the ``id`` that the last page ended with
    """
    query = (
        sa.select(_T)
        .where(
            _T.cell_uuid == cell_uuid,
            _T.status.in_(command.UNFINISHED),
            _T.id > after,
        )
        .order_by(_T.id)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


def states(uuids: Collection[str]) -> dict[str, tuple[str, str | None]]:
    """Return state and attempt of each of these commands that exists."""
    query = sa.select(_T.uuid, _T.status, _T.attempt).where(_T.uuid.in_(uuids))
    with session.reader() as db:
        return {
            row.uuid: (row.status, row.attempt) for row in db.execute(query)
        }


@session.retried
def claim(
    uuid: str,
    *,
    attempt: str,
    cell_uuid: str,
    host: str,
    boot_id: str,
    ticket: int,
    window: float,
    grace: int,
) -> models.Command | None:
    """Hand a PENDING command to a host.

    :param ticket: guest uptime (centiseconds) after which it will not start
    :param window: seconds from now until then; it may not pass start_by
    :param grace: seconds beyond start and timeout after which it is LOST
    :returns: the command with its inputs if this attempt has it, now or from
        an earlier call
    """
    change = (
        sa.update(_T)
        .where(
            _T.uuid == uuid,
            _T.status == command.PENDING,
            _T.cancel_requested == sa.false(),
            _T.start_by >= sqltypes.utc_in(window),
        )
        .values(
            status=command.RUNNING,
            attempt=attempt,
            cell_uuid=cell_uuid,
            host=host,
            boot_id=boot_id,
            ticket=ticket,
            updated_at=sqltypes.utc_in(),
            end_by=sqltypes.utc_in(_T.timeout + (window + grace)),
        )
    )
    return _take(change, uuid, attempt)


@session.retried
def adopt(
    uuid: str, *, previous: str, attempt: str, cell_uuid: str, host: str
) -> models.Command | None:
    """Pass a command that was handed out to another attempt.

    :param previous: the attempt that had it
    :returns: as of claim
    """
    change = (
        sa.update(_T)
        .where(
            _T.uuid == uuid,
            _T.status == command.RUNNING,
            _T.attempt == previous,
        )
        .values(
            attempt=attempt,
            cell_uuid=cell_uuid,
            host=host,
            updated_at=sqltypes.utc_in(),
        )
    )
    return _take(change, uuid, attempt)


@session.retried
def note_started(
    uuid: str,
    *,
    attempt: str,
    pid: int | None,
    started_uptime: int | None,
    age: float,
    opened: Mapping[str, Any] | None = None,
) -> str:
    """Note that the guest is known to have started the command.

    :param started_uptime: the guest's uptime then, in centiseconds
    :param age: seconds since then
    :param opened: what the guest has open for a transfer
    :returns: command.OK, SUPERSEDED, GONE or MOVED
    """
    change = (
        sa.update(_T)
        .where(
            _T.uuid == uuid,
            _T.status == command.RUNNING,
            _T.attempt == attempt,
        )
        .values(
            pid=pid,
            started_uptime=started_uptime,
            opened=opened,
            started_at=sa.func.coalesce(_T.started_at, sqltypes.utc_in(-age)),
            audit_at=_audit_due(),
            updated_at=sqltypes.utc_in(),
        )
    )
    return command.OK if _change(change) else _outcome(uuid, attempt, None)


@session.retried
def finish(
    uuid: str,
    *,
    attempt: str,
    status: str,
    values: Mapping[str, Any],
    age: float | None,
) -> str:
    """End a command that an attempt has.

    :param status: the state it ends in
    :param values: error, pid, exitcode, signal and output columns
    :param age: seconds since its start, None if it never started
    :returns: command.OK, SUPERSEDED, GONE or MOVED
    """
    row = dict(values, **_end_of(status))
    if age is not None:
        row['started_at'] = sa.func.coalesce(
            _T.started_at, sqltypes.utc_in(-age)
        )
    change = (
        sa.update(_T)
        .where(
            _T.uuid == uuid,
            _T.attempt == attempt,
            _T.status.in_(command.sources_of(status)),
        )
        .values(row)
    )
    return command.OK if _change(change) else _outcome(uuid, attempt, status)


@session.retried
def end(
    uuid: str,
    *,
    source: str,
    status: str,
    error: str,
    attempt: str | None = None,
) -> bool:
    """End a command without its host.

    :param source: the state that it must be in
    :param attempt: the attempt that must have it; any if None
    """
    assert source in command.sources_of(status)
    change = (
        sa.update(_T)
        .where(_T.uuid == uuid, _T.status == source)
        .values(error=error, **_end_of(status))
    )
    if attempt is not None:
        change = change.where(_T.attempt == attempt)
    return _change(change)


@session.retried
def cancel(uuid: str) -> bool:
    """Have a command end as CANCELLED: at once if PENDING, else by its host.

    :returns: False if there is no such command, or it has ended
    """
    # In this order: a claim that comes between them is seen by the second.
    return end(
        uuid,
        source=command.PENDING,
        status=command.CANCELLED,
        error=command.NEVER_STARTED,
    ) or _request_cancel(uuid)


def _request_cancel(uuid: str) -> bool:
    return _change(
        sa.update(_T)
        .where(_T.uuid == uuid, _T.status == command.RUNNING)
        .values(cancel_requested=True, updated_at=sqltypes.utc_in())
    )


@session.retried
def delete(uuid: str) -> bool:
    """Remove a command that has ended.

    :returns: False if there is no such command, or it has not ended
    """
    ended = (_T.uuid == uuid, _T.status.in_(command.ENDED), ~_T.deleted)
    # Deleted at once, it would run unseen: the audit removes it when it has
    # told of it.
    hide = (
        sa.update(_T)
        .where(*ended, _T.audit_at.is_not(None))
        .values(
            deleted=True,
            arguments={},
            error=None,
            out_data=None,
            err_data=None,
        )
    )
    with session.writer() as db:
        keys.note_end(db, [uuid])
        return (
            session.changed(db, hide) > 0
            or session.changed(db, sa.delete(_T).where(*ended)) > 0
        )


@session.retried
def withdraw(uuid: str) -> bool:
    """Remove a command that no host has taken, as if it never was.

    :returns: False if there is no such command, or a host has taken it
    """
    with session.writer() as db:
        removed = session.changed(
            db,
            sa.delete(_T).where(_T.uuid == uuid, _T.status == command.PENDING),
        )
        if removed:
            db.execute(
                sa.delete(models.IdempotencyKey).where(
                    models.IdempotencyKey.command_uuid == uuid
                )
            )
    return removed > 0


@session.retried
def end_overdue(limit: int) -> int:
    """End commands whose time is up: FAILED if PENDING, else LOST.

    :param limit: how many of each at most
    :returns: how many were ended
    """
    return _end_overdue(
        command.PENDING, command.FAILED, _T.start_by, NOT_STARTED, limit
    ) + _end_overdue(
        command.RUNNING, command.LOST, _T.end_by, NOT_REPORTED, limit
    )


def _end_overdue(
    source: str, status: str, due: Any, error: str, limit: int
) -> int:
    overdue = (_T.status == source, due < sqltypes.utc_in())
    with session.reader() as db:
        ids = db.scalars(
            sa.select(_T.id).where(*overdue).order_by(due).limit(limit)
        ).all()
    if not ids:
        return 0
    message = sa.literal(error) + sa.func.coalesce(
        sa.literal('. Last seen: ') + _T.last_seen, ''
    )
    change = (
        sa.update(_T)
        .where(_T.id.in_(ids), *overdue)
        .values(error=message, **_end_of(status))
    )
    with session.writer() as db:
        return session.changed(db, change)


def count_old(age: int) -> int:
    """Return how many commands ended more than ``age`` seconds ago."""
    query = sa.select(sa.func.count()).where(_is_old(age))
    with session.reader() as db:
        return db.scalars(query).one()


@session.retried
def purge_old(age: int, limit: int) -> int:
    """Remove commands that ended long ago, the oldest first.

    :param age: seconds since their end
    :param limit: how many at most
    :returns: how many were removed
    """
    return _purge(
        sa.select(_T.uuid)
        .where(_is_old(age))
        .order_by(_T.finished_at)
        .limit(limit)
    )


@session.retried
def purge_of_servers(instance_uuids: Collection[str], limit: int) -> int:
    """Remove commands of these servers that have ended.

    :param limit: how many at most
    :returns: how many were removed
    """
    return _purge(
        sa.select(_T.uuid)
        .where(
            _T.instance_uuid.in_(instance_uuids), _T.status.in_(command.ENDED)
        )
        .limit(limit)
    )


def servers(after: str, limit: int) -> Sequence[str]:
    """Return uuids of servers that have commands, a page at a time.

    :param after: the uuid that the last page ended with
    """
    query = (
        sa.select(_T.instance_uuid)
        .where(_T.instance_uuid > after)
        .distinct()
        .order_by(_T.instance_uuid)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


def _is_old(age: int) -> sa.ColumnElement[bool]:
    # An end is final: what has one will not change.
    return _T.finished_at < sqltypes.utc_in(-age)


def _purge(query: sa.Select[Any]) -> int:
    with session.reader() as db:
        uuids = db.scalars(query).all()
    if not uuids:
        return 0
    with session.writer() as db:
        keys.note_end(db, uuids)
        return session.changed(db, sa.delete(_T).where(_T.uuid.in_(uuids)))


@session.retried
def relocate(uuids: Collection[str], *, cell_uuid: str, host: str) -> None:
    """Note where the server of these commands is now."""
    with session.writer() as db:
        db.execute(
            sa.update(_T)
            .where(_T.uuid.in_(uuids), _T.status.in_(command.UNFINISHED))
            .values(cell_uuid=cell_uuid, host=host)
        )


@session.retried
def note_seen(uuid: str, seen: str) -> None:
    """Note what stands in a command's way, for the error it may end with."""
    with session.writer() as db:
        db.execute(
            sa.update(_T)
            .where(_T.uuid == uuid, _T.status.in_(command.UNFINISHED))
            .values(last_seen=seen)
        )


def _end_of(status: str) -> dict[str, Any]:
    """The columns that every end sets; what was secret is erased by it."""
    return {
        'status': status,
        'inputs': None,
        'opened': None,
        'audit_at': _audit_due(),
        'finished_at': sqltypes.utc_in(),
        'updated_at': sqltypes.utc_in(),
    }


def _audit_due() -> sa.ColumnElement[Any]:
    # A conductor that is just telling of an earlier change looks again.
    return sa.func.coalesce(_T.audit_at, sqltypes.utc_in())


def _change(change: sa.Update) -> bool:
    with session.writer() as db:
        return session.changed(db, change) > 0


def _take(change: sa.Update, uuid: str, attempt: str) -> models.Command | None:
    """Give a command to an attempt, and return it if that has it then."""
    query = _select(uuid, with_inputs=True).where(
        _T.status == command.RUNNING, _T.attempt == attempt
    )
    with session.writer() as db:
        db.execute(change)
        return db.scalars(query).one_or_none()


def _outcome(uuid: str, attempt: str, status: str | None) -> str:
    """Tell why an attempt's change found no row: made before, or too late."""
    found = states([uuid]).get(uuid)
    if found is None:
        return command.GONE
    if found == (status, attempt):
        return command.OK
    return (
        command.MOVED if found[0] in command.UNFINISHED else command.SUPERSEDED
    )
