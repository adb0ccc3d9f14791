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

"""Queries of runs: one command in many servers.

The conductors release the commands of a run. Whatever they do to a run is one
transaction that first changes the row of the run, so that two conductors do it
one after the other, and of a conductor that dies nothing or all is done. The
statement that ends a command of a run makes the run due
(``models.Command.run_due``).
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import datetime
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext import run
from guest_agent_ext.db import commands
from guest_agent_ext.db import keys
from guest_agent_ext.db import leases
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_RUNS = models.Run
_TARGETS = models.RunTarget
_COMMANDS = models.Command

#: Seconds for which one conductor works on a run, unless it has done before.
TAKEN_FOR = 30
#: Seconds after which a run is looked at, even if nothing has made it due: a
#: conductor of an earlier release may have ended its commands.
LOOK_AGAIN = 60
#: Seconds after which a command is released that met a bound.
RETRY_AFTER = 5
#: Maximum number of commands of a run on one host that have not started, twice
#: as many as agent calls that a host makes at once by default: a command of
#: another project waits behind one of them, not behind all. And seconds until
#: a host is tried again that has as many.
MAX_STARTING, HOST_RETRY_AFTER = 8, 0.5

#: Number of rows that one statement changes.
_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class Target:
    """A server of a new run.

    :ivar instance_uuid: uuid of the server
    :ivar command_uuid: uuid that its command gets
    """

    instance_uuid: str
    command_uuid: str


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A target that is next, and what was found of its server.

    :ivar row: target
    :ivar cell_uuid: uuid of the server's cell, or models.NOWHERE
    :ivar host: name of the server's host, or models.NOWHERE
    :ivar problem: why the server cannot take a command; None if it can
    """

    row: models.RunTarget
    cell_uuid: str = models.NOWHERE
    host: str = models.NOWHERE
    problem: str | None = None

    @property
    def place(self) -> tuple[str, str]:
        """The cell and the host."""
        return (self.cell_uuid, self.host)


@dataclasses.dataclass(frozen=True)
class Page:
    """Runs of a list, newest first.

    :ivar goes_on: True if there are older runs
    """

    rows: Sequence[models.Run]
    goes_on: bool


@session.retried
def create(
    values: Mapping[str, Any],
    targets: Sequence[Target],
    key: Mapping[str, str] | None = None,
    bound: int | None = None,
) -> models.Run:
    """Record a run with its targets, and return its row.

    :param values: columns of models.Run; times, state and counts are set here
    :param key: columns of models.IdempotencyKey
    :param bound: maximum number of runs of the project that have not ended;
        None for no bound
    :raises oslo_db.exception.DBDuplicateEntry: the key or the uuid exists
    :raises exception.TooManyRuns: the project has as many runs as its bound
    """
    row = dict(
        values,
        status=run.RUNNING,
        targets=len(targets),
        counts={run.WAITING: len(targets)},
        errors=0,
        input_size=len(json.dumps(values['inputs'])),
        cancel_requested=False,
        deleted=False,
        created_at=sqltypes.utc_in(),
        due_at=sqltypes.utc_in(),
        taken_until=sqltypes.utc_in(),
        audit_at=sqltypes.utc_in(),
    )
    with contextlib.suppress(exception.NoTurn):
        return _insert(row, targets, key, bound)
    leases.add_turn(row['project_id'])
    return _insert(row, targets, key, bound)


def _insert(
    row: Mapping[str, Any],
    targets: Sequence[Target],
    key: Mapping[str, str] | None,
    bound: int | None,
) -> models.Run:
    with session.writer() as db:
        leases.wait_for_turn(db, row['project_id'])
        # Before the count: a repeated request is answered in a full project.
        if key is not None:
            db.execute(
                sa.insert(models.IdempotencyKey).values(
                    dict(key, command_uuid=row['uuid'])
                )
            )
        if bound is not None:
            _check_room(db, row['project_id'], bound)
        db.execute(sa.insert(_RUNS).values(row))
        recorded = db.scalars(_select(row['uuid'])).one()
        db.execute(
            sa.insert(_TARGETS),
            [
                dict(
                    dataclasses.asdict(target),
                    run_id=recorded.id,
                    position=position,
                    status=run.WAITING,
                )
                for position, target in enumerate(targets)
            ],
        )
        return recorded


def _check_room(db: orm.Session, project_id: str, bound: int) -> None:
    unfinished = (
        sa.select(_RUNS.id)
        .where(_RUNS.project_id == project_id, _RUNS.status == run.RUNNING)
        .limit(bound)
        .subquery()
    )
    count = sa.select(sa.func.count()).select_from(unfinished)
    if db.scalars(count).one() >= bound:
        raise exception.TooManyRuns


def get(uuid: str, *, project_id: str | None = None) -> models.Run | None:
    """Return a run, or None if there is none.

    :param project_id: project of the run; None for any
    """
    query = _select(uuid)
    if project_id is not None:
        query = query.where(_RUNS.project_id == project_id)
    with session.reader() as db:
        return db.scalars(query).one_or_none()


def _select(uuid: str) -> sa.Select[models.Run]:
    return sa.select(_RUNS).where(_RUNS.uuid == uuid, ~_RUNS.deleted)


def statuses(ids: Collection[int]) -> dict[int, str]:
    """Return the state of each existing run, by its ``id``."""
    query = sa.select(_RUNS.id, _RUNS.status).where(
        _RUNS.id.in_(ids), ~_RUNS.deleted
    )
    with session.reader() as db:
        return {row.id: row.status for row in db.execute(query)}


def list_all(
    *,
    limit: int,
    before: int | None = None,
    project_id: str | None = None,
    statuses: Collection[str] = (),
) -> Page:
    """Return a page of the runs of a project, newest first.

    A page has at most commands.PAGE_BYTES, but at least one run.

    :param limit: maximum number of runs
    :param before: ``id`` that the last page ended with
    :param project_id: project of the runs; None for all
    :param statuses: states to list; empty for all
    """
    found: list[sa.ColumnElement[bool]] = [~_RUNS.deleted]
    if project_id is not None:
        found.append(_RUNS.project_id == project_id)
    if statuses:
        found.append(_RUNS.status.in_(statuses))
    if before is not None:
        found.append(_RUNS.id < before)
    newest = sa.select(_RUNS).where(*found).order_by(_RUNS.id.desc())
    rows: list[models.Run] = []
    left = commands.PAGE_BYTES
    with session.reader() as db:
        # One more than the limit tells whether older ones follow.
        for row in db.scalars(newest.limit(limit + 1)).yield_per(50):
            left -= commands.ROW_BYTES + len(json.dumps(row.arguments))
            if len(rows) == limit or (rows and left < 0):
                return Page(rows, True)
            rows.append(row)
    return Page(rows, False)


def counts_of(rows: Collection[models.Run]) -> dict[int, dict[str, int]]:
    """Count the targets of runs by the states that users see.

    One statement reads the targets of those that have not ended, so that the
    numbers of a run add up.

    :returns: numbers by run.COUNTED, by the ``id`` of the run
    """
    counts = {row.id: dict(row.counts) for row in rows}
    running = [row.id for row in rows if row.status == run.RUNNING]
    started = _COMMANDS.started_at.is_not(None)
    query = (
        sa.select(
            _TARGETS.run_id,
            _TARGETS.status,
            _COMMANDS.status.label('of_command'),
            started.label('started'),
            sa.func.count().label('number'),
        )
        .outerjoin(
            _COMMANDS,
            sa.and_(
                _COMMANDS.uuid == _TARGETS.command_uuid,
                _TARGETS.status == run.RELEASED,
            ),
        )
        .where(_TARGETS.run_id.in_(running))
        .group_by(_TARGETS.run_id, _TARGETS.status, _COMMANDS.status, started)
    )
    counts.update((run_id, {}) for run_id in running)
    with session.reader() as db:
        for item in db.execute(query) if running else ():
            status = item.status
            if status == run.RELEASED:
                status = command.shown_status(
                    item.of_command or command.LOST, bool(item.started)
                )
            _add(counts[item.run_id], status, item.number)
    return counts


def refusals(run_id: int, limit: int) -> Sequence[models.RunTarget]:
    """Return targets whose servers could not take a command, in their order.

    :param limit: maximum number of targets
    """
    return _targets(run_id, run.REFUSED, limit)


def due(limit: int) -> Sequence[str]:
    """Return the uuids of runs that are due and that no conductor works on.

    :param limit: maximum number of runs of each kind: whose time has come, and
        of which a command has ended
    """
    is_free = (
        _RUNS.status == run.RUNNING,
        _RUNS.taken_until <= sqltypes.utc_in(),
    )
    timed = (
        sa.select(_RUNS.uuid)
        .where(_RUNS.due_at <= sqltypes.utc_in(), *is_free)
        .order_by(_RUNS.due_at)
        .limit(limit)
    )
    marked = (
        sa.select(_COMMANDS.run_due)
        .where(_COMMANDS.run_due.is_not(None))
        .distinct()
        .join(_RUNS, _RUNS.uuid == _COMMANDS.run_due)
        .where(*is_free)
        .limit(limit)
    )
    with session.reader() as db:
        found = [*db.scalars(timed), *db.scalars(marked)]
    return [uuid for uuid in dict.fromkeys(found) if uuid is not None]


@session.retried
def take(uuid: str) -> bool:
    """Reserve a run for one conductor.

    That ends with settle() if nothing is to be done, with release() and with
    give_back(). This only spares work: whoever works on a run, also late, does
    no harm.

    :returns: False if another conductor has taken the run, or it has ended
    """
    change = (
        sa.update(_RUNS)
        .where(
            _RUNS.uuid == uuid,
            _RUNS.status == run.RUNNING,
            _RUNS.taken_until <= sqltypes.utc_in(),
        )
        .values(taken_until=sqltypes.utc_in(TAKEN_FOR))
    )
    with session.writer() as db:
        return session.changed(db, change) > 0


@session.retried
def settle(uuid: str) -> models.Run | None:
    """Count what has ended of a run, and end the run if all has.

    :returns: the run if more is to be released, or commands are to be
        cancelled; None if there is nothing to do before it is due again
    """
    with session.writer() as db:
        row = _locked(db, uuid)
        if row is None:
            return None
        counts, errors = dict(row.counts), row.errors
        ended = db.execute(
            sa.select(
                _TARGETS.id,
                _TARGETS.command_uuid,
                _COMMANDS.status,
                _COMMANDS.exitcode,
                _COMMANDS.signal,
            )
            .outerjoin(_COMMANDS, _COMMANDS.uuid == _TARGETS.command_uuid)
            .where(
                _TARGETS.run_id == row.id,
                _TARGETS.status == run.RELEASED,
                sa.or_(
                    _COMMANDS.status.in_(command.ENDED),
                    # Only an earlier release removes a command before that.
                    _COMMANDS.uuid.is_(None),
                ),
            )
        ).all()
        by_status: dict[str, list[int]] = {}
        for item in ended:
            status = item.status or command.LOST
            by_status.setdefault(status, []).append(item.id)
            errors += run.is_error(status, item.exitcode, item.signal)
        for status, ids in by_status.items():
            _move(db, ids, status)
            _add(counts, run.RELEASED, -len(ids))
            _add(counts, status, len(ids))
        _forget_ends(db, [item.command_uuid for item in ended])
        goes_on = _note(db, row, counts, errors)
        if not goes_on:
            return None
    row.counts, row.errors = counts, errors
    return row


def _locked(db: orm.Session, uuid: str) -> models.Run | None:
    """Wait for other transactions of a run, and return its row.

    The row is changed for the reason that leases.wait_for_turn() has.

    :param db: current transaction; this is its first statement
    :returns: None if the run has ended
    """
    change = (
        sa.update(_RUNS)
        .where(_RUNS.uuid == uuid, _RUNS.status == run.RUNNING)
        .values(taken_until=sqltypes.utc_in(TAKEN_FOR))
    )
    if not session.changed(db, change):
        return None
    return db.scalars(sa.select(_RUNS).where(_RUNS.uuid == uuid)).one()


def room(row: models.Run) -> int:
    """Return how many commands of a run may be released now."""
    if row.cancel_requested or is_stopped(row.max_errors, row.errors):
        return 0
    free: int = row.max_concurrency - row.counts.get(run.RELEASED, 0)
    waiting: int = row.counts.get(run.WAITING, 0)
    return max(0, min(free, waiting))


def is_stopped(max_errors: int | None, errors: int) -> bool:
    """Return whether there were as many errors as there may be."""
    return max_errors is not None and errors >= max_errors


def _note(
    db: orm.Session,
    row: models.Run,
    counts: Mapping[str, int],
    errors: int,
    due_in: float | None = None,
) -> bool:
    """Note the progress of a run, and end it where nothing is left to do.

    :param due_in: seconds until the run is due again; None if a conductor goes
        on with it now where it can
    :returns: whether there is something to go on with now
    """
    values: dict[str, Any] = {'counts': counts, 'errors': errors}
    if counts != row.counts:
        values['updated_at'] = sqltypes.utc_in()
    stopped = is_stopped(row.max_errors, errors)
    end = run.end_of(
        counts, is_cancelled=row.cancel_requested, is_stopped=stopped
    )
    goes_on = False
    if end is not None:
        values.update(
            status=end,
            error=_error_of(end, row, errors),
            inputs=None,
            due_at=None,
            taken_until=sqltypes.utc_in(),
            audit_at=_audit_due(),
            finished_at=sqltypes.utc_in(),
            updated_at=sqltypes.utc_in(),
        )
    else:
        goes_on = due_in is None and (
            row.cancel_requested
            or bool(
                not stopped
                and counts.get(run.WAITING)
                and counts.get(run.RELEASED, 0) < row.max_concurrency
            )
        )
        values['due_at'] = sqltypes.utc_in(
            0 if goes_on else LOOK_AGAIN if due_in is None else due_in
        )
        if not goes_on:
            values['taken_until'] = sqltypes.utc_in()
    # Not by the row itself, which would be written again at the commit.
    db.execute(
        sa.update(_RUNS)
        .where(_RUNS.id == row.id)
        .values(values)
        .execution_options(synchronize_session=False)
    )
    return goes_on


def _error_of(end: str, row: models.Run, errors: int) -> str | None:
    """Return why not all servers of a request got the command."""
    if end != run.STOPPED:
        return row.error
    stopped = '%d errors, and max_errors is %s' % (errors, row.max_errors)
    return '; '.join(filter(None, (row.error, stopped)))


def waiting(run_id: int, limit: int) -> Sequence[models.RunTarget]:
    """Return the targets that are next, in the order of release.

    :param limit: maximum number of targets
    """
    return _targets(run_id, run.WAITING, limit, _may_be_tried())


def _may_be_tried() -> sa.ColumnElement[bool]:
    return sa.func.coalesce(_TARGETS.retry_at <= sqltypes.utc_in(), sa.true())


def _targets(
    run_id: int, status: str, limit: int, *which: sa.ColumnElement[bool]
) -> Sequence[models.RunTarget]:
    query = (
        sa.select(_TARGETS)
        .where(_TARGETS.run_id == run_id, _TARGETS.status == status, *which)
        .order_by(_TARGETS.position)
        .limit(limit)
    )
    with session.reader() as db:
        return db.scalars(query).all()


@session.retried
def release(
    uuid: str, candidates: Sequence[Candidate], bounds: commands.Bounds
) -> Sequence[Candidate]:
    """Give their commands to targets, as far as the bounds allow.

    Nothing is released beyond ``max_concurrency`` or ``max_errors``, and
    nothing twice. Where a bound of the project or of a server is reached, the
    target waits, and the run is due again soon.

    :param candidates: targets that are next, in the order of release
    :param bounds: bounds of each server and of the project
    :returns: those whose commands were recorded
    """
    with contextlib.suppress(exception.NoTurn):
        return _release(uuid, candidates, bounds)
    row = get(uuid)
    if row is None:
        return []
    leases.add_turn(row.project_id)
    return _release(uuid, candidates, bounds)


def _release(
    uuid: str, candidates: Sequence[Candidate], bounds: commands.Bounds
) -> Sequence[Candidate]:
    with session.writer() as db:
        row = _locked(db, uuid)
        if row is None:
            return []
        leases.wait_for_turn(db, row.project_id)
        still = _still_waiting(db, candidates)
        progress = _Progress(
            row,
            _Room(db, row.project_id, still, bounds),
            _starting(db, row.id),
        )
        for candidate in still:
            progress.consider(candidate)
        _record(db, row, progress.released)
        for refused in progress.refused:
            _move(db, [refused.row.id], run.REFUSED, error=refused.problem)
        for blocked, seconds in (
            (progress.blocked, RETRY_AFTER),
            (progress.crowded, HOST_RETRY_AFTER),
        ):
            _move(
                db,
                [item.row.id for item in blocked],
                run.WAITING,
                retry_at=sqltypes.utc_in(seconds),
            )
        if progress.is_full:
            due_in: float = RETRY_AFTER
        elif candidates:
            # Where only some were blocked, others may follow at once.
            due_in = progress.due_in()
        else:
            due_in = _retry_in(db, row.id)
        _note(db, row, progress.counts, progress.errors, due_in)
    return progress.released


def _retry_in(db: orm.Session, run_id: int) -> float:
    """Return the seconds until a target may be tried again."""
    soonest = sa.select(
        sa.func.min(_TARGETS.retry_at).label('at'),
        sqltypes.utc_in().label('now'),
    ).where(_TARGETS.run_id == run_id, _TARGETS.status == run.WAITING)
    found = db.execute(soonest).one()
    if found.at is None:
        return RETRY_AFTER
    seconds: float = (found.at - found.now).total_seconds()
    return max(0.0, min(RETRY_AFTER, seconds))


@session.retried
def give_back(uuid: str, seconds: float) -> None:
    """Give a run back that was taken, as it is.

    :param seconds: time until the run is due again, if nothing makes it due
        before
    """
    change = (
        sa.update(_RUNS)
        .where(_RUNS.uuid == uuid, _RUNS.status == run.RUNNING)
        .values(due_at=sqltypes.utc_in(seconds), taken_until=sqltypes.utc_in())
    )
    with session.writer() as db:
        session.changed(db, change)


def _still_waiting(
    db: orm.Session, candidates: Iterable[Candidate]
) -> list[Candidate]:
    """Return the candidates that no other conductor has released."""
    ids = [candidate.row.id for candidate in candidates]
    found = set(
        db.scalars(
            sa.select(_TARGETS.id).where(
                _TARGETS.id.in_(ids), _TARGETS.status == run.WAITING
            )
        )
    )
    return [item for item in candidates if item.row.id in found]


def _starting(db: orm.Session, run_id: int) -> dict[tuple[str, str], int]:
    """Count the commands of a run that have not started, by cell and host."""
    query = (
        sa.select(
            _COMMANDS.cell_uuid,
            _COMMANDS.host,
            sa.func.count().label('number'),
        )
        .join(_TARGETS, _TARGETS.command_uuid == _COMMANDS.uuid)
        .where(
            _TARGETS.run_id == run_id,
            _TARGETS.status == run.RELEASED,
            _COMMANDS.started_at.is_(None),
            _COMMANDS.status.in_(command.UNFINISHED),
        )
        .group_by(_COMMANDS.cell_uuid, _COMMANDS.host)
    )
    return {(row.cell_uuid, row.host): row.number for row in db.execute(query)}


class _Room:
    """How many commands the project and its servers may still have."""

    def __init__(
        self,
        db: orm.Session,
        project_id: str,
        candidates: Sequence[Candidate],
        bounds: commands.Bounds,
    ) -> None:
        self._of_server = bounds.of_server
        of = (
            _COMMANDS.instance_project_id == project_id,
            _COMMANDS.status.in_(command.UNFINISHED),
        )
        self._servers: dict[str, int] = {
            row.instance_uuid: row.number
            for row in db.execute(
                sa.select(
                    _COMMANDS.instance_uuid, sa.func.count().label('number')
                )
                .where(
                    *of,
                    _COMMANDS.instance_uuid.in_(
                        [item.row.instance_uuid for item in candidates]
                    ),
                )
                .group_by(_COMMANDS.instance_uuid)
            )
        }
        self._of_project: int | None = None
        if bounds.of_project is not None:
            few = sa.select(_COMMANDS.id).where(*of).limit(bounds.of_project)
            self._of_project = (
                bounds.of_project
                - db.scalars(
                    sa.select(sa.func.count()).select_from(few.subquery())
                ).one()
            )

    @property
    def is_full(self) -> bool:
        """Whether the project has as many commands as it may have."""
        return self._of_project is not None and self._of_project <= 0

    def has_for(self, instance_uuid: str) -> bool:
        """Return whether a server may have another command."""
        return self._servers.get(instance_uuid, 0) < self._of_server

    def take(self) -> None:
        """Note that a command is added, to a server that is met once only."""
        if self._of_project is not None:
            self._of_project -= 1


class _Progress:
    """What becomes of candidates, one after the other.

    :param starting: numbers of commands of the run that have not started, by
        cell and host
    :ivar blocked: candidates whose servers have as many commands as they may
    :ivar crowded: candidates on hosts with MAX_STARTING
    :ivar is_full: whether a target was left because the project may have no
        more
    """

    def __init__(
        self,
        row: models.Run,
        room: _Room,
        starting: dict[tuple[str, str], int],
    ) -> None:
        self._row = row
        self._room = room
        self._starting = starting
        self.counts = dict(row.counts)
        self.errors = row.errors
        self.released: list[Candidate] = []
        self.refused: list[Candidate] = []
        self.blocked: list[Candidate] = []
        self.crowded: list[Candidate] = []
        self.is_full = False

    def consider(self, candidate: Candidate) -> None:
        """Release or refuse a candidate, or leave it waiting."""
        if not self._goes_on():
            return
        if candidate.problem is not None:
            self.refused.append(candidate)
            self._count(run.REFUSED)
            self.errors += 1
        elif self._room.is_full:
            self.is_full = True
        elif not self._room.has_for(candidate.row.instance_uuid):
            self.blocked.append(candidate)
        elif self._is_crowded(candidate.place):
            self.crowded.append(candidate)
        else:
            self._room.take()
            self._starting[candidate.place] = (
                self._starting.get(candidate.place, 0) + 1
            )
            self.released.append(candidate)
            self._count(run.RELEASED)

    def _is_crowded(self, place: tuple[str, str]) -> bool:
        # Servers that have no host yet do not share one.
        _, host = place
        return (
            host != models.NOWHERE
            and self._starting.get(place, 0) >= MAX_STARTING
        )

    def due_in(self) -> float:
        """Return the seconds until there is more to do for sure."""
        more = self._goes_on() and self.counts.get(run.WAITING)
        return 0 if more else LOOK_AGAIN

    def _goes_on(self) -> bool:
        return (
            not self._row.cancel_requested
            and not is_stopped(self._row.max_errors, self.errors)
            and self.counts.get(run.RELEASED, 0) < self._row.max_concurrency
        )

    def _count(self, status: str) -> None:
        _add(self.counts, run.WAITING, -1)
        _add(self.counts, status, 1)


def _record(
    db: orm.Session, row: models.Run, released: Sequence[Candidate]
) -> None:
    """Record the commands of targets, as the run's request has them."""
    if not released:
        return
    # Literal times let the driver send many rows as one statement.
    now: datetime.datetime = db.scalars(sa.select(sqltypes.utc_in())).one()
    inputs = db.scalars(
        sa.select(_RUNS.inputs).where(_RUNS.id == row.id)
    ).one()
    of_all = {
        'run_uuid': row.uuid,
        'type': row.type,
        'status': command.PENDING,
        'project_id': row.project_id,
        'user_id': row.user_id,
        'request_id': row.request_id,
        'instance_project_id': row.project_id,
        'arguments': row.arguments,
        'inputs': inputs,
        'timeout': row.timeout,
        'created_at': now,
        'start_by': now + datetime.timedelta(seconds=row.start_timeout),
        'is_attached': False,
        'cancel_requested': False,
        'deleted': False,
        'kept_bytes': len(json.dumps(row.arguments)),
    }
    db.execute(
        sa.insert(_COMMANDS),
        [
            {
                **of_all,
                'uuid': item.row.command_uuid,
                'instance_uuid': item.row.instance_uuid,
                'cell_uuid': item.cell_uuid,
                'host': item.host,
            }
            for item in released
        ],
    )
    _move(db, [item.row.id for item in released], run.RELEASED)


def _move(
    db: orm.Session, ids: Sequence[int], status: str, **values: Any
) -> None:
    """Change the status of targets."""
    for at in range(0, len(ids), _AT_ONCE):
        db.execute(
            sa.update(_TARGETS)
            .where(_TARGETS.id.in_(ids[at : at + _AT_ONCE]))
            .values(status=status, **values)
            .execution_options(synchronize_session=False)
        )


def _forget_ends(db: orm.Session, uuids: Sequence[str]) -> None:
    """Note that the ends of commands are counted.

    Those that their users have deleted meanwhile are removed, unless the audit
    has to tell of them.
    """
    for at in range(0, len(uuids), _AT_ONCE):
        which = _COMMANDS.uuid.in_(uuids[at : at + _AT_ONCE])
        db.execute(
            sa.update(_COMMANDS)
            .where(which)
            .values(run_due=None)
            .execution_options(synchronize_session=False)
        )
        db.execute(
            sa.delete(_COMMANDS)
            .where(which, _COMMANDS.deleted, _COMMANDS.audit_at.is_(None))
            .execution_options(synchronize_session=False)
        )


def _add(counts: dict[str, int], status: str, number: int) -> None:
    counts[status] = counts.get(status, 0) + number


@session.retried
def cancel(uuid: str) -> bool:
    """Cancel a run: nothing more is released, and what runs is cancelled.

    :returns: False if the run does not exist or has ended
    """
    with session.writer() as db:
        row = _locked(db, uuid)
        if row is None:
            return False
        db.execute(
            sa.update(_RUNS)
            .where(_RUNS.id == row.id)
            .values(
                cancel_requested=True,
                updated_at=sqltypes.utc_in(),
                due_at=sqltypes.utc_in(),
                taken_until=sqltypes.utc_in(),
            )
            .execution_options(synchronize_session=False)
        )
        commands.cancel_of_run(db, uuid)
    return True


def cancelled_hosts(uuid: str) -> Sequence[tuple[str, str]]:
    """Return cells and hosts of commands of a run that are to be cancelled."""
    query = (
        sa.select(_COMMANDS.cell_uuid, _COMMANDS.host)
        .where(
            _COMMANDS.run_uuid == uuid,
            _COMMANDS.status == command.RUNNING,
            _COMMANDS.cancel_requested,
        )
        .distinct()
    )
    with session.reader() as db:
        return [(row.cell_uuid, row.host) for row in db.execute(query)]


@session.retried
def delete(uuid: str) -> bool:
    """Hide a run that has ended with its commands, which the purge removes.

    :returns: False if the run does not exist or has not ended
    """
    change = (
        sa.update(_RUNS)
        .where(_RUNS.uuid == uuid, _RUNS.status.in_(run.ENDED), ~_RUNS.deleted)
        .values(deleted=True, due_at=sqltypes.utc_in())
    )
    with session.writer() as db:
        if not session.changed(db, change):
            return False
        keys.note_end(db, [uuid])
        commands.hide_of_run(db, uuid)
    return True


def _audit_due() -> sa.ColumnElement[datetime.datetime]:
    # As in commands.py.
    return sa.func.coalesce(_RUNS.audit_at, sqltypes.utc_in())


@session.retried
def mark_old(age: int) -> int:
    """Delete runs that ended long ago.

    :param age: seconds since their end
    :returns: number of runs
    """
    change = (
        sa.update(_RUNS)
        .where(_RUNS.finished_at < sqltypes.utc_in(-age), ~_RUNS.deleted)
        .values(deleted=True, due_at=sqltypes.utc_in())
    )
    with session.writer() as db:
        return session.changed(db, change)


@session.retried
def mark_beyond(bound: int) -> int:
    """Delete the oldest runs of projects that have too many, and have ended.

    :param bound: maximum number of runs of a project
    :returns: number of runs
    """
    kept = sa.select(_RUNS.project_id).where(~_RUNS.deleted)
    crowded = kept.group_by(_RUNS.project_id).having(sa.func.count() > bound)
    with session.reader() as db:
        newest_beyond = {
            project_id: db.scalars(
                sa.select(_RUNS.id)
                .where(_RUNS.project_id == project_id, ~_RUNS.deleted)
                .order_by(_RUNS.id.desc())
                .offset(bound)
                .limit(1)
            ).one_or_none()
            for project_id in db.scalars(crowded).all()
        }
    marked = 0
    for project_id, newest in newest_beyond.items():
        if newest is None:
            continue
        change = (
            sa.update(_RUNS)
            .where(
                _RUNS.project_id == project_id,
                _RUNS.id <= newest,
                _RUNS.status.in_(run.ENDED),
                ~_RUNS.deleted,
            )
            .values(deleted=True, due_at=sqltypes.utc_in())
        )
        with session.writer() as db:
            marked += session.changed(db, change)
    return marked


@session.retried
def remove_deleted(limit: int) -> int | None:
    """Remove a part of the commands of one deleted run, or the run itself.

    :param limit: maximum number of commands
    :returns: number of commands that were removed; None if no run is deleted
    """
    with session.reader() as db:
        row = db.scalars(
            sa.select(_RUNS)
            .where(
                _RUNS.due_at <= sqltypes.utc_in(),
                _RUNS.deleted,
                _RUNS.audit_at.is_(None),
            )
            .order_by(_RUNS.due_at)
            .limit(1)
        ).one_or_none()
        if row is None:
            return None
        # Those that the audit has to tell of are removed after that.
        uuids = db.scalars(
            sa.select(_COMMANDS.uuid)
            .where(
                _COMMANDS.run_uuid == row.uuid,
                ~sa.and_(_COMMANDS.deleted, _COMMANDS.audit_at.is_not(None)),
            )
            .limit(limit)
        ).all()
    with session.writer() as db:
        keys.note_end(db, [row.uuid, *uuids])
        if uuids:
            return session.changed(
                db, sa.delete(_COMMANDS).where(_COMMANDS.uuid.in_(uuids))
            )
        db.execute(sa.delete(_TARGETS).where(_TARGETS.run_id == row.id))
        db.execute(sa.delete(_RUNS).where(_RUNS.id == row.id))
    return 0
