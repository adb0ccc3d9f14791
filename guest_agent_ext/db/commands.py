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

Every change names the states that it may start from, so that of two that meet
one wins (compare and swap), and may be repeated without harm. purge.py removes
what is kept no longer, audit.py what was deleted before the audit told of it,
and runs.py records the commands of runs.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
from typing import Any
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.db import keys
from guest_agent_ext.db import leases
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_COMMANDS = models.Command

#: For statements that every command passes: they are built once, name their
#: parameters, and read no objects, so that SQLAlchemy has little to do.
_COMMAND_TBL = models.table_of(models.Command)
_HOST_TBL = models.table_of(models.Host)
_C, _H = _COMMAND_TBL.c, _HOST_TBL.c

_Deadline = (
    orm.InstrumentedAttribute[datetime.datetime]
    | orm.InstrumentedAttribute[datetime.datetime | None]
)

#: Maximum number of RUNNING commands in one report. A host has claimed them
#: all, and claims no more than its lanes run.
MAX_RUNNING = 10_000
#: Maximum number of servers whose PENDING commands are in one report, and
#: number of servers that one statement asks for.
MAX_SERVERS, _SERVERS_AT_ONCE = 1000, 50
#: Maximum number of characters of ``last_seen`` in an error.
_MAX_SEEN = 500

NOT_STARTED = 'The command did not start within its start_timeout'
NOT_REPORTED = 'The host did not report the end of the command in time'

#: Maximum number of bytes of a page of a list: a thousand commands may have a
#: thousand times 400 KB of arguments.
PAGE_BYTES = 1024 * 1024
#: Approximate number of bytes of a command in a list, without its arguments
#: and its error.
ROW_BYTES = 900
#: Number of commands whose sizes one statement reads.
_SIZES = 100


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """What a report tells of an unfinished command of the host."""

    uuid: str
    type: str
    instance_uuid: str
    status: str
    attempt: str | None
    cancel_requested: bool
    #: Seconds until start_by.
    start_in: float


@dataclasses.dataclass(frozen=True)
class Followed:
    """What is asked of an unfinished command whose server is followed.

    Each field is a column of models.Command.
    """

    id: int
    uuid: str
    instance_uuid: str
    status: str
    attempt: str | None
    host: str
    last_seen: str | None


@dataclasses.dataclass(frozen=True)
class Order:
    """What a host is told of a command that it has claimed or adopted.

    Each field is a column of models.Command.
    """

    uuid: str
    type: str
    attempt: str | None
    arguments: dict[str, Any]
    inputs: dict[str, Any] | None
    timeout: int
    is_attached: bool
    boot_id: str | None
    ticket: int | None
    started_uptime: int | None
    opened: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a statement checks of a change that was not checked before it.

    :ivar instance_uuid: server that the command must be of
    :ivar incarnation: incarnation of the host's service, which must be the
        newest
    """

    instance_uuid: str
    cell_uuid: str
    host: str
    incarnation: str


class Outcome(TypedDict, total=False):
    """The columns of models.Command that a host sets when a command ends."""

    error: str
    pid: int
    exitcode: int
    signal: int
    out_data: bytes
    err_data: bytes
    out_bytes: int
    err_bytes: int


@dataclasses.dataclass(frozen=True)
class Page:
    """Commands of a list, newest first, with the sizes of their output.

    :ivar goes_on: True if there are older commands
    """

    rows: Sequence[models.Command]
    goes_on: bool


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How many unfinished commands there may be.

    :ivar attached_of_server: bound of the server's attached commands
    :ivar attached_of_host: bound of those on its host, which requests of
        several projects that come at once may exceed
    """

    of_server: int
    #: None if there is no limit.
    of_project: int | None
    attached_of_server: int = 1000
    attached_of_host: int = 1000


@session.retried
def create(
    values: Mapping[str, Any],
    start_timeout: int,
    key: Mapping[str, str] | None = None,
    bounds: Bounds | None = None,
) -> models.Command:
    """Record a command as PENDING, and return the row with its output.

    Commands of one project are counted and recorded one after the other, so
    parallel requests fill a bound exactly, and nobody ever sees a command or a
    key beyond it.

    :param values: columns of models.Command; times and state are set here
    :param start_timeout: seconds from now until start_by
    :param key: columns of models.IdempotencyKey
    :param bounds: bounds of the server and its project, None for no bounds
    :raises oslo_db.exception.DBDuplicateEntry: the key or the uuid exists
    :raises exception.TooManyUnfinished: the server or the project has as many
        unfinished commands as its bound
    """
    row = dict(
        values,
        status=command.PENDING,
        is_attached=values.get('is_attached', False),
        cancel_requested=False,
        deleted=False,
        kept_bytes=len(json.dumps(values['arguments'])),
    )
    with contextlib.suppress(exception.NoTurn):
        return _insert(row, start_timeout, key, bounds)
    # This is the project's first command for a while.
    leases.add_turn(row['instance_project_id'])
    return _insert(row, start_timeout, key, bounds)


_INSERT = sa.insert(_COMMAND_TBL)
_INSERT_KEY = sa.insert(models.table_of(models.IdempotencyKey))
_NOW = sa.select(sqltypes.utc_in())


def _insert(
    row: Mapping[str, Any],
    start_timeout: int,
    key: Mapping[str, str] | None,
    bounds: Bounds | None,
) -> models.Command:
    with session.writer_connection() as db:
        if bounds is not None:
            leases.wait_for_turn(db, row['instance_project_id'])
        # Before the count: a repeated request is answered in a full project.
        if key is not None:
            db.execute(_INSERT_KEY, dict(key, command_uuid=row['uuid']))
        now = _now() if bounds is None else _check_room(db, row, bounds)
        row = dict(
            row,
            created_at=now,
            start_by=now + datetime.timedelta(seconds=start_timeout),
        )
        inserted = db.execute(_INSERT, row).inserted_primary_key
    assert inserted is not None
    # As it would be read: what is not in ``row`` is null.
    return models.Command(**row, id=inserted[0])


def _now() -> datetime.datetime:
    """Return the database's time in UTC."""
    with session.reader_connection() as db:
        now: datetime.datetime = db.execute(_NOW).scalar_one()
    return now


def _check_room(
    db: sa.Connection, row: Mapping[str, Any], bounds: Bounds
) -> datetime.datetime:
    """Refuse a command beyond the bound of its server or its project.

    :returns: the database's time in UTC
    """
    of_server, of_project, now = db.execute(
        _ROOM,
        {
            'project': row['instance_project_id'],
            'server': row['instance_uuid'],
            'most_of_server': bounds.of_server,
            'most_of_project': bounds.of_project or 0,
        },
    ).one()
    if of_server >= bounds.of_server:
        raise exception.ServerIsFull
    if bounds.of_project is not None and of_project >= bounds.of_project:
        raise exception.ProjectIsFull
    if row.get('is_attached'):
        _check_attached(db, row, bounds)
    at: datetime.datetime = now
    return at


def _check_attached(
    db: sa.Connection, row: Mapping[str, Any], bounds: Bounds
) -> None:
    """Refuse an attached command beyond the bound of its server or host."""
    of_server, of_host = db.execute(
        _ROOM_OF_ATTACHED,
        {
            'cell': row['cell_uuid'],
            'host': row['host'],
            'server': row['instance_uuid'],
            'most_of_server': bounds.attached_of_server,
            'most_of_host': bounds.attached_of_host,
        },
    ).one()
    if of_server >= bounds.attached_of_server:
        raise exception.ServerIsAttached
    if row['host'] != models.NOWHERE and of_host >= bounds.attached_of_host:
        raise exception.HostIsAttached


def _number_up_to(
    bound: str, *which: sa.ColumnElement[bool]
) -> sa.ScalarSelect[int]:
    """Return the number of rows, at most as many as a parameter says.

    Rows beyond the bound make no difference and are not read.

    :param bound: name of the parameter
    """
    few = sa.select(_C.id).where(*which).limit(sa.bindparam(bound)).subquery()
    return sa.select(sa.func.count()).select_from(few).scalar_subquery()


_OF_SERVER = _C.instance_uuid == sa.bindparam('server')
_UNFINISHED = _C.status.in_(
    [sa.literal(status) for status in command.UNFINISHED]
)
_OF_PROJECT = (_C.instance_project_id == sa.bindparam('project'), _UNFINISHED)
_ROOM = sa.select(
    _number_up_to('most_of_server', *_OF_PROJECT, _OF_SERVER),
    _number_up_to('most_of_project', *_OF_PROJECT),
    sqltypes.utc_in(),
)
_ATTACHED = (
    _C.is_attached.is_(True),
    _UNFINISHED,
    _C.cell_uuid == sa.bindparam('cell'),
    _C.host == sa.bindparam('host'),
)
_ROOM_OF_ATTACHED = sa.select(
    _number_up_to('most_of_server', *_ATTACHED, _OF_SERVER),
    _number_up_to('most_of_host', *_ATTACHED),
)


def get(
    uuid: str,
    *,
    instance_uuid: str | None = None,
    with_output: bool = False,
    with_inputs: bool = False,
) -> models.Command | None:
    """Return a command, or None if there is none.

    :param instance_uuid: uuid of the command's server; None for any server
    :param with_output: also read the captured output
    :param with_inputs: also read stdin and the environment's values
    """
    query = _select(uuid, with_output=with_output, with_inputs=with_inputs)
    if instance_uuid is not None:
        query = query.where(_COMMANDS.instance_uuid == instance_uuid)
    with session.reader() as db:
        return db.scalars(query).one_or_none()


def _select(
    uuid: str, *, with_output: bool = False, with_inputs: bool = False
) -> sa.Select[models.Command]:
    query = sa.select(_COMMANDS).where(
        _COMMANDS.uuid == uuid, ~_COMMANDS.deleted
    )
    if with_output:
        query = query.options(
            orm.undefer(_COMMANDS.out_data), orm.undefer(_COMMANDS.err_data)
        )
    if with_inputs:
        query = query.options(orm.undefer(_COMMANDS.inputs))
    return query


_INSTANCE_FOR = (
    sa.select(_C.instance_uuid)
    .join_from(
        _COMMAND_TBL,
        _HOST_TBL,
        sa.and_(
            _H.cell_uuid == sa.bindparam('cell'),
            _H.host == sa.bindparam('host'),
            _H.incarnation == sa.bindparam('incarnation'),
        ),
    )
    .where(_C.uuid == sa.bindparam('command'), ~_C.deleted)
)


def instance_for(
    uuid: str, *, cell_uuid: str, host: str, incarnation: str
) -> str | None:
    """Return the server of a command, for the compute service of a host.

    :param incarnation: incarnation of the compute service
    :returns: uuid of the server; None if a newer incarnation has fenced the
        service, or the command does not exist
    """
    with session.reader_connection() as db:
        found: str | None = db.execute(
            _INSTANCE_FOR,
            {
                'command': uuid,
                'cell': cell_uuid,
                'host': host,
                'incarnation': hash_of(incarnation),
            },
        ).scalar_one_or_none()
    return found


def hash_of(incarnation: str) -> str:
    """Return the hash of an incarnation that the table has."""
    return hashlib.sha256(incarnation.encode()).hexdigest()


def statuses(ids: Collection[int]) -> dict[int, str]:
    """Return the state of each existing command, by its ``id``."""
    query = sa.select(_COMMANDS.id, _COMMANDS.status).where(
        _COMMANDS.id.in_(ids)
    )
    with session.reader() as db:
        return {row.id: row.status for row in db.execute(query)}


def list_of_instance(
    instance_uuid: str,
    *,
    limit: int,
    before: int | None = None,
    statuses: Collection[str] = (),
    types: Collection[str] = (),
) -> Page:
    """Return a page of the commands of a server, without their output.

    :param limit: maximum number of commands
    :param before: ``id`` that the last page ended with
    :param statuses: states to list, as users see them; empty for all
    :param types: types to list; empty for all
    """
    found = [_COMMANDS.instance_uuid == instance_uuid, *_shown_as(statuses)]
    if types:
        found.append(_COMMANDS.type.in_(types))
    return _page(found, before, limit)


def list_of_run(
    run_uuid: str,
    *,
    limit: int,
    before: int | None = None,
    statuses: Collection[str] = (),
    instance_uuids: Collection[str] = (),
) -> Page:
    """Return a page of the commands of a run, without their output.

    :param limit: maximum number of commands
    :param before: ``id`` that the last page ended with
    :param statuses: states to list, as users see them; empty for all
    :param instance_uuids: servers whose commands to list; empty for all
    """
    found = [_COMMANDS.run_uuid == run_uuid, *_shown_as(statuses)]
    if instance_uuids:
        found.append(_COMMANDS.instance_uuid.in_(instance_uuids))
    return _page(found, before, limit)


def list_all(
    *,
    limit: int,
    before: int | None = None,
    statuses: Collection[str] = (),
    project_id: str | None = None,
    host: str | None = None,
    since: datetime.datetime | None = None,
) -> Page:
    """Return a page of the commands of all servers, without their output.

    :param limit: maximum number of commands
    :param before: ``id`` that the last page ended with
    :param statuses: states to list, as users see them; empty for all
    :param project_id: project of the servers; None for all
    :param host: host of the servers; None for all
    :param since: earliest time of acceptance; None for any
    """
    found = _shown_as(statuses)
    if project_id is not None:
        found.append(_COMMANDS.instance_project_id == project_id)
    if host is not None:
        found.append(_COMMANDS.host == host)
    if since is not None:
        found.append(_COMMANDS.created_at >= since)
    return _page(found, before, limit)


def _page(
    found: Sequence[sa.ColumnElement[bool]], before: int | None, limit: int
) -> Page:
    """Read a page of at most PAGE_BYTES, but at least one command.

    Sizes are read before rows, so that no row is read that does not fit. Rows
    that are removed between the two are left out.
    """
    with session.reader() as db:
        while True:
            ids, goes_on = _ids_of_page(db, found, before, limit)
            rows = _listed(db, ids)
            if rows or not ids:
                return Page(rows, goes_on)
            before = ids[-1]


def _ids_of_page(
    db: orm.Session,
    found: Sequence[sa.ColumnElement[bool]],
    before: int | None,
    limit: int,
) -> tuple[list[int], bool]:
    """Return the ids of a page, and whether older commands follow."""
    ids: list[int] = []
    left = PAGE_BYTES
    while True:
        # One more than the limit tells whether older ones follow.
        wanted = min(_SIZES, limit + 1 - len(ids))
        sizes = _sizes(db, found, ids[-1] if ids else before, wanted)
        for row_id, size in sizes:
            left -= size
            if len(ids) == limit or (ids and left < 0):
                return ids, True
            ids.append(row_id)
        if len(sizes) < wanted:
            return ids, False


def _sizes(
    db: orm.Session,
    found: Sequence[sa.ColumnElement[bool]],
    before: int | None,
    limit: int,
) -> Sequence[tuple[int, int]]:
    """Return ids and approximate sizes of commands in a list, in bytes."""
    size = (
        ROW_BYTES
        + sa.func.length(sa.cast(_COMMANDS.arguments, sa.Text))
        + sa.func.coalesce(sa.func.length(_COMMANDS.error), 0)
    )
    query = sa.select(_COMMANDS.id, size).where(*found, ~_COMMANDS.deleted)
    if before is not None:
        query = query.where(_COMMANDS.id < before)
    rows = db.execute(query.order_by(_COMMANDS.id.desc()).limit(limit))
    return [(row_id, size) for row_id, size in rows]


def _listed(db: orm.Session, ids: Sequence[int]) -> Sequence[models.Command]:
    return db.scalars(
        sa.select(_COMMANDS)
        .where(_COMMANDS.id.in_(ids), ~_COMMANDS.deleted)
        .options(
            orm.undefer(_COMMANDS.out_size), orm.undefer(_COMMANDS.err_size)
        )
        .order_by(_COMMANDS.id.desc())
    ).all()


def _shown_as(statuses: Collection[str]) -> list[sa.ColumnElement[bool]]:
    return [_is_shown_as(statuses)] if statuses else []


def _is_shown_as(statuses: Collection[str]) -> sa.ColumnElement[bool]:
    """Return command.shown_status() as SQL."""
    started = _COMMANDS.started_at.is_not(None)
    shown = [
        _COMMANDS.status == status
        for status in statuses
        if status not in command.UNFINISHED
    ]
    if command.PENDING in statuses:
        shown.append(
            sa.or_(
                _COMMANDS.status == command.PENDING,
                sa.and_(_COMMANDS.status == command.RUNNING, ~started),
            )
        )
    if command.RUNNING in statuses:
        shown.append(sa.and_(_COMMANDS.status == command.RUNNING, started))
    return sa.or_(*shown)


def _work(status: str) -> sa.Select[Any]:
    return sa.select(
        _C.id,
        _C.uuid,
        _C.type,
        _C.instance_uuid,
        _C.status,
        _C.attempt,
        _C.cancel_requested,
        _C.start_by,
        sqltypes.utc_in().label('now'),
    ).where(
        _C.cell_uuid == sa.bindparam('cell'),
        _C.host == sa.bindparam('host'),
        _C.status == status,
    )


def _hinted(query: sa.Select[Any], purpose: str = '') -> sa.Select[Any]:
    """Force MySQL and MariaDB to read the index of a host's work.

    Without the hint they read all waiting commands to find their servers, and
    the whole table to find the oldest command of one server.
    """
    hint = f'FORCE INDEX {purpose} (guest_agent_commands_host_idx)'
    for dialect in ('mysql', 'mariadb'):
        query = query.with_hint(_COMMAND_TBL, hint, dialect)
    return query


_RUNNING = _work(command.RUNNING).limit(MAX_RUNNING)
_WAITING = _work(command.PENDING)
#: With the leading columns of the index: MySQL skips from one server to the
#: next only if a query names all of them.
_WAITING_SERVERS = _hinted(
    _WAITING.with_only_columns(
        _C.instance_uuid, _C.cell_uuid, _C.host, _C.status
    )
    .distinct()
    .limit(MAX_SERVERS),
    'FOR GROUP BY',
)


@functools.cache
def _waiting_of(servers: int) -> sa.Executable:
    """Return the statement that reads the oldest commands of servers.

    :param servers: number of servers, which are its parameters
    """
    return sa.union_all(
        *(
            sa.select(
                _hinted(
                    _WAITING.where(
                        _C.instance_uuid == sa.bindparam(f'server_{number}')
                    )
                )
                .order_by(_C.id)
                .limit(sa.bindparam('most'))
                .subquery()
            )
            for number in range(servers)
        )
    )


def work_of_host(
    db: orm.Session | sa.Connection, cell_uuid: str, host: str, pending: int
) -> Sequence[Unfinished]:
    """Return the commands that a host runs or may claim, oldest first.

    These are all RUNNING commands and the oldest PENDING ones of each server,
    so that a server with many commands delays no other.

    :param db: current transaction
    :param pending: maximum number of PENDING commands of each server
    """
    place = {'cell': cell_uuid, 'host': host}
    rows = list(db.execute(_RUNNING, place))
    servers = db.scalars(_WAITING_SERVERS, place).all()
    for at in range(0, len(servers), _SERVERS_AT_ONCE):
        some = servers[at : at + _SERVERS_AT_ONCE]
        named = {f'server_{number}': uuid for number, uuid in enumerate(some)}
        rows += db.execute(
            _waiting_of(len(some)), {**place, **named, 'most': pending}
        )
    return [
        Unfinished(
            row.uuid,
            row.type,
            row.instance_uuid,
            row.status,
            row.attempt,
            row.cancel_requested,
            (row.start_by - row.now).total_seconds(),
        )
        for row in sorted(rows, key=lambda row: int(row.id))
    ]


_OF_CELL = (
    sa.select(*(_C[field.name] for field in dataclasses.fields(Followed)))
    .where(
        _C.cell_uuid == sa.bindparam('cell'),
        _UNFINISHED,
        _C.id > sa.bindparam('after'),
    )
    .order_by(_C.id)
    .limit(sa.bindparam('most'))
)


def unfinished_of_cell(
    cell_uuid: str, after: int, limit: int
) -> Sequence[Followed]:
    """Return a page of the unfinished commands of a cell, by ``id``.

    :param after: ``id`` that the last page ended with
    :param limit: maximum number of commands
    """
    with session.reader_connection() as db:
        rows = db.execute(
            _OF_CELL, {'cell': cell_uuid, 'after': after, 'most': limit}
        ).all()
    return [Followed(*row) for row in rows]


_STATES = sa.select(_C.uuid, _C.status, _C.attempt).where(
    _C.uuid.in_(sa.bindparam('commands', expanding=True))
)


def states(uuids: Collection[str]) -> dict[str, tuple[str, str | None]]:
    """Return state and attempt of each existing command, by its uuid."""
    with session.reader_connection() as db:
        return {
            row.uuid: (row.status, row.attempt)
            for row in db.execute(_STATES, {'commands': list(uuids)})
        }


#: A Guard as SQL; _guarded() has its parameters.
_GUARD = (
    _C.instance_uuid == sa.bindparam('guard_server'),
    sa.exists().where(
        _H.cell_uuid == sa.bindparam('guard_cell'),
        _H.host == sa.bindparam('guard_host'),
        _H.incarnation == sa.bindparam('guard_incarnation'),
    ),
)


def _guarded(guard: Guard | None) -> dict[str, object]:
    if guard is None:
        return {}
    return {
        'guard_server': guard.instance_uuid,
        'guard_cell': guard.cell_uuid,
        'guard_host': guard.host,
        'guard_incarnation': hash_of(guard.incarnation),
    }


#: The order of an attempt that has a command.
_HELD_ORDER = sa.select(
    *(_C[field.name] for field in dataclasses.fields(Order))
).where(
    _C.uuid == sa.bindparam('command'),
    ~_C.deleted,
    _C.status == command.RUNNING,
    _C.attempt == sa.bindparam('by'),
)
_CLAIM = (
    sa.update(_COMMAND_TBL)
    .where(
        _C.uuid == sa.bindparam('command'),
        sa.or_(
            _C.status == command.PENDING,
            sa.and_(
                _C.status == command.RUNNING,
                _C.attempt == sa.bindparam('by'),
                _C.started_at.is_(None),
            ),
        ),
        _C.cancel_requested == sa.false(),
        _C.start_by >= sqltypes.utc_in(sa.bindparam('window', type_=sa.Float)),
    )
    .values(
        status=command.RUNNING,
        updated_at=sqltypes.utc_in(),
        end_by=sqltypes.utc_in(
            _C.timeout + sa.bindparam('allowance', type_=sa.Float)
        ),
    )
)
_GUARDED_CLAIM = _CLAIM.where(*_GUARD)


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
    guard: Guard | None = None,
) -> Order | None:
    """Hand a PENDING command to a host.

    The same attempt may claim again, with another boot, until the command has
    started.

    :param attempt: uuid that the host made up for this claim
    :param boot_id: boot of the guest in which the command may start
    :param ticket: guest uptime (centiseconds) after which it will not start
    :param window: seconds from now until then, which may not pass start_by
    :param grace: seconds beyond window and timeout after which it is LOST
    :param guard: conditions that the statement checks too; a failure may have
        other reasons, so the caller checks them before it claims without
    :returns: the command with its inputs if this attempt has claimed it, now
        or, without a guard, in an earlier call
    """
    return _take(
        _CLAIM if guard is None else _GUARDED_CLAIM,
        uuid,
        attempt,
        guard,
        window=window,
        allowance=window + grace,
        cell_uuid=cell_uuid,
        host=host,
        boot_id=boot_id,
        ticket=ticket,
    )


_ADOPT = (
    sa.update(_COMMAND_TBL)
    .where(
        _C.uuid == sa.bindparam('command'),
        _C.status == command.RUNNING,
        _C.attempt == sa.bindparam('previous'),
    )
    .values(updated_at=sqltypes.utc_in())
)


@session.retried
def adopt(
    uuid: str, *, previous: str, attempt: str, cell_uuid: str, host: str
) -> Order | None:
    """Pass a RUNNING command from one attempt to another.

    :param previous: attempt that has the command
    :param attempt: attempt that takes over
    :returns: the command with its inputs if ``attempt`` has it, now or since
        an earlier call
    """
    return _take(
        _ADOPT,
        uuid,
        attempt,
        None,
        previous=previous,
        cell_uuid=cell_uuid,
        host=host,
    )


#: When a command started: as noted before, or ``since``, but not before its
#: POST.
_SINCE = sqltypes.utc_in(sa.bindparam('since', type_=sa.Float))
_STARTED = sa.func.coalesce(
    _C.started_at,
    sa.case((_C.created_at > _SINCE, _C.created_at), else_=_SINCE),
)
# Where a conductor is telling of an earlier change, its note_told() leaves the
# row due.
_AUDIT_DUE = sa.func.coalesce(_C.audit_at, sqltypes.utc_in())

_NOTE_STARTED = (
    sa.update(_COMMAND_TBL)
    .where(
        _C.uuid == sa.bindparam('command'),
        _C.status == command.RUNNING,
        _C.attempt == sa.bindparam('by'),
    )
    .values(
        started_at=_STARTED, audit_at=_AUDIT_DUE, updated_at=sqltypes.utc_in()
    )
)
_NOTE_GUARDED_START = _NOTE_STARTED.where(*_GUARD)


@session.retried
def note_started(
    uuid: str,
    *,
    attempt: str,
    pid: int | None,
    started_uptime: int | None,
    age: float,
    opened: Mapping[str, Any] | None = None,
    guard: Guard | None = None,
) -> str:
    """Note that the guest is known to have started the command.

    :param pid: process id in the guest
    :param started_uptime: guest uptime at the start, in centiseconds
    :param age: seconds since the start
    :param opened: handles and files that a transfer has open in the guest
    :param guard: conditions that the statement checks too, as in claim()
    :returns: command.OK, SUPERSEDED, GONE or MOVED; with a guard OK or MOVED
    """
    is_noted = _change(
        _NOTE_STARTED if guard is None else _NOTE_GUARDED_START,
        {
            **_guarded(guard),
            'command': uuid,
            'by': attempt,
            'since': -max(age, 0.0),
            'pid': pid,
            'started_uptime': started_uptime,
            'opened': opened,
        },
    )
    return command.OK if is_noted else _outcome(uuid, attempt, None, guard)


@functools.cache
def _finish(status: str, *, has_started: bool, is_guarded: bool) -> sa.Update:
    """Return the statement that ends a command as its host reports.

    :param status: state that the command ends in
    :param has_started: whether its age is a parameter
    :param is_guarded: whether a guard's parts are parameters
    """
    values = {
        **_end_of(status),
        'kept_bytes': _C.kept_bytes + sa.bindparam('output'),
    }
    if status == command.FAILED:
        # The process that was reported never became the command.
        values.update(started_at=None, pid=None)
    elif has_started:
        values['started_at'] = _STARTED
    return (
        sa.update(_COMMAND_TBL)
        .where(
            _C.uuid == sa.bindparam('command'),
            _C.attempt == sa.bindparam('by'),
            sa.or_(
                *(_C.status == source for source in command.sources_of(status))
            ),
            *(_GUARD if is_guarded else ()),
        )
        .values(values)
    )


@session.retried
def finish(
    uuid: str,
    *,
    attempt: str,
    status: str,
    values: Outcome,
    age: float | None,
    guard: Guard | None = None,
) -> str:
    """End a command that an attempt has.

    :param status: state that the command ends in
    :param values: columns that the host reports
    :param age: seconds since the start, None if the command never started
    :param guard: conditions that the statement checks too, as in claim()
    :returns: command.OK, SUPERSEDED, GONE or MOVED; with a guard OK or MOVED
    """
    parameters: dict[str, object] = {
        **_guarded(guard),
        'command': uuid,
        'by': attempt,
        'output': sum(
            len(data)
            for data in (values.get('out_data'), values.get('err_data'))
            if data
        ),
        **values,
    }
    if status == command.FAILED:
        parameters.pop('pid', None)
    elif age is not None:
        parameters['since'] = -max(age, 0.0)
    is_ended = _change(
        _finish(
            status, has_started=age is not None, is_guarded=guard is not None
        ),
        parameters,
    )
    return command.OK if is_ended else _outcome(uuid, attempt, status, guard)


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

    :param source: state that the command must be in
    :param status: state that the command ends in
    :param error: reason for the user
    :param attempt: attempt that must have the command; None for any
    :returns: False if the command was in another state or has another attempt
    """
    assert source in command.sources_of(status)
    change = (
        sa.update(_COMMANDS)
        .where(_COMMANDS.uuid == uuid, _COMMANDS.status == source)
        .values(error=error, **_end_of(status))
    )
    if attempt is not None:
        change = change.where(_COMMANDS.attempt == attempt)
    return _change(change)


@session.retried
def cancel(uuid: str) -> bool:
    """Cancel a command: end a PENDING one, ask the host of a RUNNING one.

    :returns: False if the command does not exist or has ended
    """
    # In this order: a claim that comes between them is seen by the second.
    if end(
        uuid,
        source=command.PENDING,
        status=command.CANCELLED,
        error=command.NEVER_STARTED,
    ):
        return True
    return _change(
        sa.update(_COMMANDS)
        .where(_COMMANDS.uuid == uuid, _COMMANDS.status == command.RUNNING)
        .values(cancel_requested=True, updated_at=sqltypes.utc_in())
    )


@session.retried
def delete(uuid: str) -> bool:
    """Remove a command that has ended.

    :returns: False if the command does not exist or has not ended
    """
    ended = (
        _COMMANDS.uuid == uuid,
        _COMMANDS.status.in_(command.ENDED),
        ~_COMMANDS.deleted,
    )
    # If it went at once the audit would never tell of it, and its run would
    # never count its end. So it is hidden, and the last of the two removes it.
    hide = (
        sa.update(_COMMANDS)
        .where(
            *ended,
            sa.or_(
                _COMMANDS.audit_at.is_not(None), _COMMANDS.run_due.is_not(None)
            ),
        )
        .values(_HIDDEN)
    )
    with session.writer() as db:
        keys.note_end(db, [uuid])
        return (
            session.changed(db, hide) > 0
            or session.changed(db, sa.delete(_COMMANDS).where(*ended)) > 0
        )


#: Columns of a command that its user has deleted.
_HIDDEN: Mapping[str, object] = {
    'deleted': True,
    'arguments': {},
    'error': None,
    'out_data': None,
    'err_data': None,
    'kept_bytes': 0,
}


def hide_of_run(db: orm.Session, run_uuid: str) -> None:
    """Hide all commands of a run, which have ended.

    :param db: current transaction
    """
    session.changed(
        db,
        sa.update(_COMMANDS)
        .where(_COMMANDS.run_uuid == run_uuid)
        .values(_HIDDEN)
        .execution_options(synchronize_session=False),
    )


def cancel_of_run(db: orm.Session, run_uuid: str) -> None:
    """Cancel all unfinished commands of a run, as cancel() does one.

    :param db: current transaction
    """
    of_run = _COMMANDS.run_uuid == run_uuid
    for status, values in (
        (
            command.PENDING,
            {'error': command.NEVER_STARTED, **_end_of(command.CANCELLED)},
        ),
        (
            command.RUNNING,
            {'cancel_requested': True, 'updated_at': sqltypes.utc_in()},
        ),
    ):
        session.changed(
            db,
            sa.update(_COMMANDS)
            .where(of_run, _COMMANDS.status == status)
            .values(values)
            .execution_options(synchronize_session=False),
        )


@session.retried
def withdraw(uuid: str) -> bool:
    """Remove a command that no host has claimed, with its idempotency key.

    :returns: False if the command does not exist or a host has claimed it
    """
    with session.writer() as db:
        removed = session.changed(
            db,
            sa.delete(_COMMANDS).where(
                _COMMANDS.uuid == uuid, _COMMANDS.status == command.PENDING
            ),
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
    """End overdue commands: those PENDING as FAILED, those RUNNING as LOST.

    :param limit: maximum number of commands of each state
    :returns: number of commands that were ended
    """
    return _end_overdue(
        command.PENDING, command.FAILED, _COMMANDS.start_by, NOT_STARTED, limit
    ) + _end_overdue(
        command.RUNNING, command.LOST, _COMMANDS.end_by, NOT_REPORTED, limit
    )


def _end_overdue(
    source: str, status: str, due: _Deadline, error: str, limit: int
) -> int:
    overdue = (_COMMANDS.status == source, due < sqltypes.utc_in())
    with session.reader() as db:
        ids = db.scalars(
            sa.select(_COMMANDS.id).where(*overdue).order_by(due).limit(limit)
        ).all()
    if not ids:
        return 0
    message = sa.literal(error) + sa.func.coalesce(
        sa.literal('. Last seen: ')
        + sa.func.substr(_COMMANDS.last_seen, 1, _MAX_SEEN),
        '',
    )
    change = (
        sa.update(_COMMANDS)
        .where(_COMMANDS.id.in_(ids), *overdue)
        .values(error=message, **_end_of(status))
    )
    with session.writer() as db:
        return session.changed(db, change)


@session.retried
def relocate(uuids: Collection[str], *, cell_uuid: str, host: str) -> None:
    """Note where the server of unfinished commands is now."""
    with session.writer() as db:
        db.execute(
            sa.update(_COMMANDS)
            .where(
                _COMMANDS.uuid.in_(uuids),
                _COMMANDS.status.in_(command.UNFINISHED),
            )
            .values(cell_uuid=cell_uuid, host=host)
        )


@session.retried
def note_seen(uuid: str, seen: str) -> None:
    """Note why a command does not go on, for the error of an overdue one."""
    with session.writer() as db:
        db.execute(
            sa.update(_COMMANDS)
            .where(
                _COMMANDS.uuid == uuid,
                _COMMANDS.status.in_(command.UNFINISHED),
            )
            .values(last_seen=seen)
        )


def _end_of(status: str) -> dict[str, object]:
    """Return the columns that every end sets; secrets are erased."""
    return {
        'status': status,
        'run_due': _C.run_uuid,
        'inputs': None,
        'opened': None,
        'audit_at': _AUDIT_DUE,
        'finished_at': sqltypes.utc_in(),
        'updated_at': sqltypes.utc_in(),
    }


def _change(
    change: sa.Update, values: Mapping[str, object] | None = None
) -> bool:
    with session.writer_connection() as db:
        return session.changed(db, change, values) > 0


def _take(
    change: sa.Update,
    uuid: str,
    attempt: str,
    guard: Guard | None,
    **values: object,
) -> Order | None:
    """Give a command to an attempt, and return its order if that worked.

    :param values: other parameters of the change
    """
    values.update(_guarded(guard), command=uuid, by=attempt, attempt=attempt)
    with session.writer_connection() as db:
        changed = session.changed(db, change, values)
        if guard is not None and not changed:
            # The service may be fenced: nothing is told that it was told.
            return None
        row = db.execute(
            _HELD_ORDER, {'command': uuid, 'by': attempt}
        ).one_or_none()
    return None if row is None else Order(*row)


def _outcome(
    uuid: str, attempt: str, status: str | None, guard: Guard | None
) -> str:
    """Return why a change met no row: repeated, or too late."""
    if guard is not None:
        # The service may be fenced.
        return command.MOVED
    found = states([uuid]).get(uuid)
    if found is None:
        return command.GONE
    if found == (status, attempt):
        return command.OK
    return (
        command.MOVED if found[0] in command.UNFINISHED else command.SUPERSEDED
    )
