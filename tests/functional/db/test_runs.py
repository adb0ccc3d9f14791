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

from collections.abc import Mapping
from collections.abc import Sequence
import concurrent.futures
import dataclasses
import threading
from typing import Any
import uuid as uuid_module

from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext import run
from guest_agent_ext.db import audit
from guest_agent_ext.db import commands
from guest_agent_ext.db import keys
from guest_agent_ext.db import models
from guest_agent_ext.db import purge
from guest_agent_ext.db import runs
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests.functional.db import base

BOUNDS = commands.Bounds(100, None)


def new(
    targets: int = 3,
    key: dict[str, str] | None = None,
    bound: int | None = None,
    **values: Any,
) -> str:
    """Record a run, and return its uuid.

    :param values: columns of models.Run that are not the default
    """
    row: dict[str, Any] = {
        'uuid': str(uuid_module.uuid4()),
        'name': None,
        'project_id': 'project',
        'user_id': 'user',
        'request_id': 'req-1',
        'by_admin': False,
        'type': command.EXEC,
        'arguments': {'command': ['id']},
        'inputs': {'env': {'TOKEN': 'secret'}},
        'timeout': 60,
        'start_timeout': 300,
        'max_concurrency': 2,
        'max_errors': None,
        **values,
    }
    runs.create(
        row,
        [
            runs.Target(f'server-{number}', str(uuid_module.uuid4()))
            for number in range(targets)
        ],
        key,
        bound,
    )
    uuid: str = row['uuid']
    return uuid


def read(uuid: str) -> models.Run:
    row = runs.get(uuid)
    assert row is not None
    return row


def step(
    uuid: str,
    problems: Mapping[str, str] | None = None,
    bounds: commands.Bounds = BOUNDS,
) -> list[str]:
    """Do what a conductor does with a run that is due.

    :param problems: why servers cannot take a command, by their uuids
    :returns: uuids of the servers that got theirs
    """
    row = runs.settle(uuid)
    if row is None:
        return []
    targets = runs.waiting(row.id, runs.room(row))
    released = runs.release(uuid, candidates(targets, problems or {}), bounds)
    return [item.row.instance_uuid for item in released]


def candidates(
    targets: Sequence[models.RunTarget], problems: Mapping[str, str]
) -> list[runs.Candidate]:
    return [
        runs.Candidate(
            target, base.CELL, 'host', problems.get(target.instance_uuid)
        )
        for target in targets
    ]


def unfinished(uuid: str) -> list[models.Command]:
    return [
        row
        for row in reversed(commands.list_of_run(uuid, limit=1000).rows)
        if row.status in command.UNFINISHED
    ]


def end(
    row: models.Command, status: str = command.COMPLETED, exitcode: int = 0
) -> None:
    """End a command as its host would."""
    assert base.claim(row.uuid)
    assert base.finish(row.uuid, status, exitcode=exitcode) == command.OK


def end_all(uuid: str, **how: Any) -> None:
    for row in unfinished(uuid):
        end(row, **how)


def statuses(uuid: str) -> dict[str, int]:
    row = read(uuid)
    return {status: number for status, number in row.counts.items() if number}


def make_due(uuid: str) -> None:
    """Have the time come that a run waits for, and that of its targets."""
    with session.writer() as db:
        db.execute(
            sa.update(models.Run)
            .where(models.Run.uuid == uuid)
            .values(
                due_at=sqltypes.utc_in(-1), taken_until=sqltypes.utc_in(-1)
            )
        )
        db.execute(sa.update(models.RunTarget).values(retry_at=None))


class TestRuns:
    def test_targets_get_their_commands_in_their_order(self) -> None:
        uuid = new(targets=5)
        assert runs.due(10) == [uuid]
        assert step(uuid) == ['server-0', 'server-1']
        assert statuses(uuid) == {run.WAITING: 3, run.RELEASED: 2}
        assert step(uuid) == []
        first, second = unfinished(uuid)
        assert (first.instance_uuid, first.run_uuid) == ('server-0', uuid)
        end(second)
        assert step(uuid) == ['server-2']
        end(first)
        end_all(uuid)
        assert step(uuid) == ['server-3', 'server-4']
        end_all(uuid)
        assert step(uuid) == []
        row = read(uuid)
        assert (row.status, row.errors) == (run.COMPLETED, 0)
        assert row.finished_at is not None
        assert statuses(uuid) == {command.COMPLETED: 5}

    def test_command_is_what_the_run_asks_for(self) -> None:
        uuid = new(targets=1)
        step(uuid)
        (row,) = unfinished(uuid)
        found = base.read(row.uuid)
        assert found.status == command.PENDING
        assert found.arguments == {'command': ['id']}
        assert found.inputs == {'env': {'TOKEN': 'secret'}}
        assert (found.cell_uuid, found.host) == (base.CELL, 'host')
        assert found.instance_project_id == found.project_id == 'project'
        assert (found.user_id, found.request_id) == ('user', 'req-1')
        # It counts from the release.
        assert (found.start_by - found.created_at).total_seconds() == 300

    def test_run_is_due_when_a_command_ends(self) -> None:
        uuid = new()
        step(uuid)
        assert runs.due(10) == []
        row, _ = unfinished(uuid)
        end(row)
        assert runs.due(10) == [uuid]
        step(uuid)
        assert runs.due(10) == []

    @pytest.mark.parametrize('how', ['end', 'cancel', 'overdue'])
    def test_every_end_makes_it_due(self, how: str) -> None:
        uuid = new(start_timeout=-1 if how == 'overdue' else 300)
        step(uuid)
        row = unfinished(uuid)[0]
        if how == 'end':
            commands.end(
                row.uuid,
                source=command.PENDING,
                status=command.FAILED,
                error='error',
            )
        elif how == 'cancel':
            commands.cancel(row.uuid)
        else:
            commands.end_overdue(10)
        assert runs.due(10) == [uuid]

    def test_it_is_looked_at_again_even_if_nothing_makes_it_due(self) -> None:
        """A conductor of an earlier release ends commands without a mark."""
        uuid = new(targets=1)
        step(uuid)
        end_all(uuid)
        with session.writer() as db:
            db.execute(sa.update(models.Command).values(run_due=None))
        assert runs.due(10) == []
        make_due(uuid)
        assert runs.due(10) == [uuid]
        step(uuid)
        assert read(uuid).status == run.COMPLETED

    def test_command_that_was_removed_is_not_waited_for(self) -> None:
        uuid = new(targets=1)
        step(uuid)
        with session.writer() as db:
            db.execute(sa.delete(models.Command))
        make_due(uuid)
        step(uuid)
        assert statuses(uuid) == {command.LOST: 1}
        assert (read(uuid).status, read(uuid).errors) == (run.COMPLETED, 1)

    def test_one_conductor_works_on_a_run(self) -> None:
        uuid = new()
        assert runs.take(uuid)
        assert not runs.take(uuid)
        assert runs.due(10) == []
        # It gives the run back.
        step(uuid)
        end_all(uuid)
        assert runs.due(10) == [uuid]
        assert runs.take(uuid)

    def test_run_of_a_conductor_that_died_is_taken_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uuid = new()
        monkeypatch.setattr(runs, 'TAKEN_FOR', -1)
        assert runs.take(uuid)
        assert runs.due(10) == [uuid]
        # It died after it had counted, and before it released.
        assert runs.settle(uuid) is not None
        assert runs.due(10) == [uuid]

    def test_conductors_at_once_release_no_more_than_allowed(self) -> None:
        uuid = new(targets=20, max_concurrency=3)
        together = threading.Barrier(4)

        def work() -> list[str]:
            row = runs.settle(uuid)
            assert row is not None
            targets = runs.waiting(row.id, runs.room(row))
            together.wait(30)
            return [
                item.row.instance_uuid
                for item in runs.release(uuid, candidates(targets, {}), BOUNDS)
            ]

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = [pool.submit(work) for _ in range(4)]
            released = [name for item in found for name in item.result()]
        assert sorted(released) == ['server-0', 'server-1', 'server-2']
        assert len(unfinished(uuid)) == 3
        assert statuses(uuid) == {run.WAITING: 17, run.RELEASED: 3}

    def test_late_conductor_releases_no_more_than_allowed(self) -> None:
        """Also if it has chosen other targets."""
        uuid = new(targets=6, max_concurrency=3)
        row = runs.settle(uuid)
        assert row is not None
        late = candidates(runs.waiting(row.id, 6)[2:], {})
        assert len(step(uuid)) == 3
        assert runs.release(uuid, late, BOUNDS) == []
        end(unfinished(uuid)[0])
        # That end is not counted yet.
        assert runs.release(uuid, late, BOUNDS) == []
        assert runs.settle(uuid) is not None
        (released,) = runs.release(uuid, late, BOUNDS)
        assert released.row.instance_uuid == 'server-3'

    def test_late_conductor_releases_nothing_twice(self) -> None:
        uuid = new(targets=2, max_concurrency=9)
        row = runs.settle(uuid)
        assert row is not None
        late = candidates(runs.waiting(row.id, 2), {})
        step(uuid)
        assert runs.release(uuid, late, BOUNDS) == []
        end_all(uuid)
        assert runs.release(uuid, late, BOUNDS) == []
        assert step(uuid) == []
        assert statuses(uuid) == {command.COMPLETED: 2}
        assert runs.release(uuid, late, BOUNDS) == []
        assert len(commands.list_of_run(uuid, limit=9).rows) == 2

    @pytest.mark.parametrize(
        ('status', 'exitcode', 'is_error'),
        [
            (command.COMPLETED, 0, False),
            (command.COMPLETED, 3, True),
            (command.FAILED, 0, True),
            (command.TIMED_OUT, 0, True),
            (command.LOST, 0, True),
            (command.CANCELLED, 0, False),
        ],
    )
    def test_errors(self, status: str, exitcode: int, is_error: bool) -> None:
        uuid = new(targets=2, max_concurrency=1, max_errors=1)
        step(uuid)
        end_all(uuid, status=status, exitcode=exitcode)
        assert step(uuid) == ([] if is_error else ['server-1'])
        row = read(uuid)
        assert row.errors == is_error
        assert row.status == (run.STOPPED if is_error else run.RUNNING)
        if is_error:
            assert row.error == '1 errors, and max_errors is 1'

    def test_what_runs_ends_before_a_run_is_stopped(self) -> None:
        uuid = new(targets=4, max_errors=1)
        step(uuid)
        first, second = unfinished(uuid)
        end(first, exitcode=1)
        assert step(uuid) == []
        assert read(uuid).status == run.RUNNING
        end(second)
        assert step(uuid) == []
        assert read(uuid).status == run.STOPPED
        assert statuses(uuid) == {run.WAITING: 2, command.COMPLETED: 2}

    def test_last_error_stops_nothing(self) -> None:
        uuid = new(targets=1, max_errors=1)
        step(uuid)
        end_all(uuid, exitcode=1)
        step(uuid)
        assert read(uuid).status == run.COMPLETED
        assert read(uuid).error is None

    def test_server_that_cannot_take_it_is_an_error(self) -> None:
        uuid = new(targets=4)
        assert step(uuid, {'server-0': 'It is locked'}) == ['server-1']
        # It left its place to another.
        assert step(uuid) == ['server-2']
        row = read(uuid)
        assert row.errors == 1
        (refused,) = runs.refusals(row.id, 10)
        assert refused.instance_uuid == 'server-0'
        assert refused.error == 'It is locked'
        assert commands.get(refused.command_uuid) is None
        assert statuses(uuid) == {
            run.REFUSED: 1,
            run.RELEASED: 2,
            run.WAITING: 1,
        }

    def test_refusals_end_a_run(self) -> None:
        uuid = new(targets=2)
        step(uuid, {'server-0': 'down', 'server-1': 'down'})
        assert read(uuid).status == run.COMPLETED
        assert statuses(uuid) == {run.REFUSED: 2}

    def test_refusals_stop_a_run(self) -> None:
        """Nothing is released behind the error that is one too many."""
        uuid = new(targets=3, max_concurrency=3, max_errors=1)
        assert step(uuid, {'server-1': 'down'}) == ['server-0']
        assert statuses(uuid) == {
            run.RELEASED: 1,
            run.REFUSED: 1,
            run.WAITING: 1,
        }
        end_all(uuid)
        step(uuid)
        assert read(uuid).status == run.STOPPED

    def test_full_project_makes_a_run_wait(self) -> None:
        other = base.new()
        uuid = new(targets=3)
        bounds = commands.Bounds(100, 2)
        assert step(uuid, bounds=bounds) == ['server-0']
        assert read(uuid).status == run.RUNNING
        # It is tried again before long, and not at once.
        assert runs.due(10) == []
        make_due(uuid)
        assert step(uuid, bounds=bounds) == []
        commands.cancel(other)
        make_due(uuid)
        assert step(uuid, bounds=bounds) == ['server-1']

    def test_full_server_makes_no_other_wait(self) -> None:
        base.new(instance_uuid='server-0')
        uuid = new(targets=3, max_concurrency=1)
        bounds = commands.Bounds(1, None)
        assert step(uuid, bounds=bounds) == []
        # The others are next, at once.
        assert runs.due(10) == [uuid]
        assert step(uuid, bounds=bounds) == ['server-1']
        end_all(uuid)
        assert step(uuid, bounds=bounds) == ['server-2']
        end_all(uuid)
        assert step(uuid, bounds=bounds) == []
        assert statuses(uuid) == {command.COMPLETED: 2, run.WAITING: 1}
        assert runs.due(10) == []
        make_due(uuid)
        with session.writer() as db:
            db.execute(
                sa.delete(models.Command).where(
                    models.Command.run_uuid.is_(None)
                )
            )
        assert step(uuid, bounds=bounds) == ['server-0']

    def test_run_does_not_crowd_a_host(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many of its servers are there."""
        monkeypatch.setattr(runs, 'MAX_STARTING', 2)
        uuid = new(targets=6, max_concurrency=6)
        row = runs.settle(uuid)
        assert row is not None
        found = candidates(runs.waiting(row.id, 6), {})
        found[3:] = [
            dataclasses.replace(item, host='other') for item in found[3:]
        ]
        released = [
            item.row.instance_uuid
            for item in runs.release(uuid, found, BOUNDS)
        ]
        assert released == ['server-0', 'server-1', 'server-3', 'server-4']
        # Before long, and when one has started, the next ones follow.
        assert step(uuid) == []
        assert self._due_in(uuid) < 1
        first, *_ = unfinished(uuid)
        assert base.claim(first.uuid)
        make_due(uuid)
        assert step(uuid) == []
        commands.note_started(
            first.uuid, attempt='first', pid=1, started_uptime=1, age=0.0
        )
        make_due(uuid)
        assert step(uuid) == ['server-2']

    def test_servers_without_a_host_crowd_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runs, 'MAX_STARTING', 1)
        uuid = new(targets=3, max_concurrency=3)
        row = runs.settle(uuid)
        assert row is not None
        found = [
            dataclasses.replace(item, host=models.NOWHERE)
            for item in candidates(runs.waiting(row.id, 3), {})
        ]
        assert len(runs.release(uuid, found, BOUNDS)) == 3

    def _due_in(self, uuid: str) -> float:
        query = sa.select(
            models.Run.due_at, sqltypes.utc_in().label('now')
        ).where(models.Run.uuid == uuid)
        with session.reader() as db:
            found = db.execute(query).one()
        seconds: float = (found.due_at - found.now).total_seconds()
        return seconds

    def test_bounds_that_cannot_be_read_postpone_it(self) -> None:
        uuid = new()
        assert runs.take(uuid)
        assert runs.settle(uuid) is not None
        runs.give_back(uuid, 5)
        assert runs.due(10) == []
        make_due(uuid)
        assert step(uuid) == ['server-0', 'server-1']

    def test_cancel(self) -> None:
        uuid = new(targets=4)
        step(uuid)
        first, second = unfinished(uuid)
        assert base.claim(first.uuid)
        assert runs.cancel(uuid)
        assert base.read(first.uuid).cancel_requested
        assert base.read(second.uuid).status == command.CANCELLED
        assert runs.cancelled_hosts(uuid) == [(base.CELL, 'host')]
        assert runs.due(10) == [uuid]
        row = runs.settle(uuid)
        assert row is not None
        assert (row.cancel_requested, runs.room(row)) == (True, 0)
        runs.give_back(uuid, 60)
        assert runs.due(10) == []
        assert base.finish(first.uuid, command.CANCELLED) == command.OK
        assert runs.settle(uuid) is None
        assert read(uuid).status == run.CANCELLED
        assert statuses(uuid) == {command.CANCELLED: 2, run.WAITING: 2}
        assert not runs.cancel(uuid)

    def test_cancelled_run_releases_nothing(self) -> None:
        uuid = new()
        row = runs.settle(uuid)
        assert row is not None
        late = candidates(runs.waiting(row.id, 2), {})
        assert runs.cancel(uuid)
        assert runs.release(uuid, late, BOUNDS) == []
        assert read(uuid).status == run.CANCELLED
        assert not unfinished(uuid)

    def test_inputs_are_erased_at_the_end(self) -> None:
        uuid = new(targets=1)
        step(uuid)
        assert self._inputs() == [{'env': {'TOKEN': 'secret'}}]
        end_all(uuid)
        step(uuid)
        assert self._inputs() == [None]

    def _inputs(self) -> list[Any]:
        with session.reader() as db:
            return list(db.scalars(sa.select(models.Run.inputs)))

    def test_command_that_is_deleted_before_its_end_is_counted(self) -> None:
        uuid = new(targets=1)
        step(uuid)
        (row,) = unfinished(uuid)
        end(row, exitcode=1)
        # The audit has told of it, so only the run has not counted it.
        audit.note_told(row.uuid, command.COMPLETED)
        assert commands.delete(row.uuid)
        assert commands.get(row.uuid) is None
        step(uuid)
        assert statuses(uuid) == {command.COMPLETED: 1}
        assert read(uuid).errors == 1
        assert not commands.states([row.uuid])

    def test_audit_does_not_remove_what_is_not_counted(self) -> None:
        uuid = new(targets=1)
        step(uuid)
        (row,) = unfinished(uuid)
        end(row)
        assert commands.delete(row.uuid)
        audit.note_told(row.uuid, command.COMPLETED)
        assert commands.states([row.uuid])
        step(uuid)
        assert statuses(uuid) == {command.COMPLETED: 1}
        assert not commands.states([row.uuid])

    def test_counts_that_users_see(self) -> None:
        uuid, other = new(targets=3, max_concurrency=3), new()
        step(uuid)
        first, second, _ = unfinished(uuid)
        base.claim(first.uuid)
        base.claim(second.uuid)
        commands.note_started(
            second.uuid, attempt='first', pid=1, started_uptime=1, age=0.0
        )
        idle = read(other)
        assert self._counts(uuid) == {command.PENDING: 2, command.RUNNING: 1}
        assert runs.counts_of([read(uuid), idle]) == {
            read(uuid).id: {command.PENDING: 2, command.RUNNING: 1},
            idle.id: {run.WAITING: 3},
        }
        base.finish(second.uuid, command.COMPLETED)
        # Whether its end is counted in the row, or not.
        for _ in range(2):
            assert self._counts(uuid) == {
                command.PENDING: 2,
                command.COMPLETED: 1,
            }
            step(uuid)
        runs.cancel(uuid)
        end_all(uuid)
        step(uuid)
        assert self._counts(uuid) == {
            command.COMPLETED: 2,
            command.CANCELLED: 1,
        }
        assert runs.counts_of([]) == {}

    def _counts(self, uuid: str) -> dict[str, int]:
        row = read(uuid)
        return {
            status: number
            for status, number in runs.counts_of([row])[row.id].items()
            if number
        }

    def test_list(self) -> None:
        first, second = new(), new()
        foreign = new(project_id='other')
        runs.cancel(first)
        runs.settle(first)

        def found(**which: Any) -> list[str]:
            return [row.uuid for row in runs.list_all(limit=9, **which).rows]

        assert found() == [foreign, second, first]
        assert found(project_id='project') == [second, first]
        assert found(statuses=[run.CANCELLED]) == [first]
        page = runs.list_all(limit=1, project_id='project')
        assert page.goes_on
        page = runs.list_all(
            limit=1, project_id='project', before=page.rows[0].id
        )
        assert ([row.uuid for row in page.rows], page.goes_on) == (
            [first],
            False,
        )

    def test_page_is_bounded_in_bytes(self) -> None:
        for _ in range(3):
            new(arguments={'command': ['x' * (commands.PAGE_BYTES // 2)]})
        page = runs.list_all(limit=9)
        assert (len(page.rows), page.goes_on) == (1, True)

    def test_statuses_of_those_that_are_waited_for(self) -> None:
        row = read(new())
        assert runs.statuses([row.id, 999]) == {row.id: run.RUNNING}

    def test_bound_of_a_project(self) -> None:
        first = new(bound=1)
        with pytest.raises(exception.TooManyRuns):
            new(bound=1)
        new(bound=1, project_id='other')
        runs.cancel(first)
        runs.settle(first)
        assert new(bound=1)

    def test_parallel_requests_fill_the_bound_exactly(self) -> None:
        start = threading.Barrier(6, timeout=30)

        def record(_: int) -> bool:
            start.wait()
            try:
                return bool(new(bound=2))
            except exception.TooManyRuns:
                return False

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(record, range(6))) == 2

    def test_key(self) -> None:
        uuid = new(key=base.key_columns('scope'), targets=1)
        with pytest.raises(db_exc.DBDuplicateEntry):
            new(key=base.key_columns('scope'))
        found = keys.find('scope')
        assert found is not None
        assert found.command_uuid == uuid
        runs.cancel(uuid)
        runs.settle(uuid)
        assert runs.delete(uuid)
        audit.note_run_told(uuid, run.CANCELLED)
        while runs.remove_deleted(10) is not None:
            pass
        # The key outlives its run.
        assert keys.find('scope') is not None
        with session.writer() as db:
            db.execute(
                sa.update(models.IdempotencyKey).values(
                    finished_at=sqltypes.utc_in(-keys.KEPT_FOR - 1)
                )
            )
        assert keys.find('scope') is None

    def test_key_of_a_run_that_has_not_ended_is_kept(self) -> None:
        uuid = new(key=base.key_columns('scope'))
        assert not keys.remove_expired(10)
        runs.cancel(uuid)
        runs.settle(uuid)
        with session.writer() as db:
            db.execute(
                sa.update(models.Run).values(
                    finished_at=sqltypes.utc_in(-keys.KEPT_FOR - 1)
                )
            )
        assert keys.remove_expired(10) == 1

    def test_delete(self) -> None:
        uuid = new(targets=2)
        assert not runs.delete(uuid)
        step(uuid)
        rows = unfinished(uuid)
        end_all(uuid)
        step(uuid)
        assert runs.delete(uuid)
        assert not runs.delete(uuid)
        assert runs.get(uuid) is None
        assert all(commands.get(row.uuid) is None for row in rows)
        # The audit has to tell of all three.
        assert runs.remove_deleted(10) is None
        audit.note_run_told(uuid, run.COMPLETED)
        audit.note_told(rows[0].uuid, command.COMPLETED)
        assert runs.remove_deleted(10) == 0
        assert runs.remove_deleted(10) is None
        assert list(commands.states([row.uuid for row in rows])) == [
            rows[1].uuid
        ]
        audit.note_told(rows[1].uuid, command.COMPLETED)
        assert not commands.states([rows[1].uuid])
        with session.reader() as db:
            assert not db.scalars(sa.select(models.RunTarget)).all()

    def test_purge(self) -> None:
        """The commands of a run are kept as long as the run."""
        uuid = new(targets=3, max_concurrency=3)
        step(uuid)
        first, *others = unfinished(uuid)
        end(first)
        base.end_earlier(first.uuid, 100)
        assert purge.count_old(50) == purge.remove_old(50, 10) == 0
        end_all(uuid)
        step(uuid)
        runs.mark_old(50)
        assert runs.remove_deleted(10) is None
        with session.writer() as db:
            db.execute(
                sa.update(models.Run).values(
                    finished_at=sqltypes.utc_in(-100), audit_at=None
                )
            )
        assert runs.mark_old(50) == 1
        assert runs.remove_deleted(2) == 2
        assert runs.remove_deleted(2) == 1
        assert runs.remove_deleted(2) == 0
        assert runs.remove_deleted(2) is None
        assert not commands.states([first.uuid, *(o.uuid for o in others)])

    def test_oldest_runs_go_where_too_many_are_kept(self) -> None:
        running, *ended = (new(targets=1) for _ in range(4))
        other = new(project_id='other')
        for uuid in (*ended, other):
            runs.cancel(uuid)
            runs.settle(uuid)
        assert runs.mark_beyond(4) == 0
        assert runs.mark_beyond(2) == 1
        assert runs.get(ended[0]) is None
        assert all(runs.get(uuid) for uuid in (running, *ended[1:], other))
        assert runs.mark_beyond(0) == 3
        assert runs.get(running)

    def test_what_was_wrong_at_first_is_told_at_the_end(self) -> None:
        done, stopped = (
            new(targets=2, max_concurrency=1, max_errors=1, error='cell down')
            for _ in range(2)
        )
        for uuid in (done, stopped):
            step(uuid)
            end_all(uuid, exitcode=int(uuid == stopped))
            step(uuid)
        end_all(done)
        step(done)
        assert read(done).error == 'cell down'
        assert (
            read(stopped).error == 'cell down; 1 errors, and max_errors is 1'
        )

    def test_purge_leaves_what_is_not_counted(self) -> None:
        uuid = new(targets=1)
        step(uuid)
        (row,) = unfinished(uuid)
        end(row)
        assert purge.remove_of_servers(['server-0'], 10) == 0
        assert purge.trim(server='server-0', rows=1, size=0, limit=9) == (0, 0)
        step(uuid)
        assert purge.remove_of_servers(['server-0'], 10) == 1

    def test_commands_whose_run_is_gone_are_purged(self) -> None:
        uuid = base.new(run_uuid='gone')
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED)
        base.end_earlier(uuid, 100)
        assert purge.count_old(50) == purge.remove_old(50, 10) == 1

    def test_audit_tells_of_start_and_end(self) -> None:
        uuid = new(targets=1)
        (row,) = audit.due_runs(10)
        assert (row.uuid, row.audited) == (uuid, None)
        assert audit.take(uuid, 60, models.Run)
        assert not audit.take(uuid, 60, models.Run)
        audit.note_run_told(uuid, run.RUNNING)
        assert not audit.due_runs(10)
        runs.cancel(uuid)
        runs.settle(uuid)
        (row,) = audit.due_runs(10)
        assert (row.audited, row.status) == (run.RUNNING, run.CANCELLED)
        audit.note_run_told(uuid, run.CANCELLED)
        assert not audit.due_runs(10)

    def test_list_of_a_run_s_commands(self) -> None:
        uuid = new(targets=3, max_concurrency=3)
        base.new()
        step(uuid)
        end(unfinished(uuid)[0])

        def found(**which: Any) -> list[str]:
            page = commands.list_of_run(uuid, limit=9, **which)
            return [row.instance_uuid for row in page.rows]

        assert found() == ['server-2', 'server-1', 'server-0']
        assert found(statuses=[command.COMPLETED]) == ['server-0']
        assert found(instance_uuids=['server-1']) == ['server-1']
