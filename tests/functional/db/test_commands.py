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

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import functools
import json
import threading
import time
from typing import Any

from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.db import commands
from guest_agent_ext.db import keys
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests.functional.db import base


class TestCommands:
    def test_new_command_is_pending(self) -> None:
        row = base.read(base.new())
        assert row.status == command.PENDING
        assert row.updated_at is None
        assert 299 < (row.start_by - row.created_at).total_seconds() < 301

    @pytest.mark.parametrize('bounds', [None, commands.Bounds(10, None)])
    def test_new_command_is_answered_as_it_will_be_read(
        self, bounds: commands.Bounds | None
    ) -> None:
        first = base.read(base.new())
        values = {
            name: getattr(first, name)
            for name in (
                'type',
                'project_id',
                'user_id',
                'request_id',
                'instance_uuid',
                'instance_project_id',
                'cell_uuid',
                'host',
                'arguments',
                'inputs',
                'timeout',
            )
        }
        answered = commands.create(
            dict(values, uuid='another'), 300, None, bounds
        )
        read = base.read('another')
        for column in models.Command.__table__.columns:
            name = column.key
            assert getattr(answered, name) == getattr(read, name), name
        assert read.created_at >= first.created_at

    def test_uuid_is_unique(self) -> None:
        uuid = base.new()
        with pytest.raises(db_exc.DBDuplicateEntry):
            base.new(uuid=uuid)

    def test_what_was_seen_and_never_ran_did_not_start(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        commands.note_started(
            uuid, attempt='first', pid=7, started_uptime=100, age=1.0
        )
        assert base.read(uuid).started_at is not None
        base.finish(uuid, command.FAILED, error='not found')
        row = base.read(uuid)
        assert (row.started_at, row.pid, row.error) == (
            None,
            None,
            'not found',
        )

    def test_large_arguments_and_output_are_kept_whole(self) -> None:
        argument = 'ü' * command.MAX_ARGUMENT_BYTES
        uuid = base.new(arguments={'command': [argument]})
        output = bytes(range(256)) * (command.MAX_OUTPUT_BYTES // 256)
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED, out_data=output, err_data=output)
        row = base.read(uuid)
        assert row.arguments['command'] == [argument]
        assert (row.out_data, row.err_data) == (output, output)

    def test_one_of_many_claims_wins(self) -> None:
        uuid = base.new()
        attempts = [str(number) for number in range(16)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(lambda attempt: base.claim(uuid, attempt), attempts)
            )
        assert won.count(True) == 1
        assert base.read(uuid).attempt == attempts[won.index(True)]

    def test_claim_again_is_answered_as_the_first_time(self) -> None:
        uuid = base.new()
        assert base.claim(uuid)
        assert base.claim(uuid)
        assert not base.claim(uuid, 'second')

    def test_guard_is_part_of_each_change(self) -> None:
        fenced, current = base.register('machine'), base.register('machine')
        assert fenced and current
        right = commands.Guard('server', base.CELL, 'host', current)
        wrong = [
            dataclasses.replace(right, incarnation=fenced),
            dataclasses.replace(right, instance_uuid='another'),
            dataclasses.replace(right, cell_uuid='another'),
            dataclasses.replace(right, host='another'),
        ]
        uuid = base.new()
        note = functools.partial(
            commands.note_started,
            uuid,
            attempt='first',
            pid=7,
            started_uptime=1,
            age=0.0,
        )
        assert not any(base.claim(uuid, guard=guard) for guard in wrong)
        assert base.claim(uuid, guard=right)
        # Not even what was told is told again.
        assert not any(base.claim(uuid, guard=guard) for guard in wrong)
        for guard in wrong:
            assert note(guard=guard) == command.MOVED
        assert note(guard=right) == command.OK
        for guard in wrong:
            assert base.finish_by(uuid, guard) == command.MOVED
        assert base.read(uuid).status == command.RUNNING
        assert base.finish_by(uuid, right) == command.OK
        assert base.read(uuid).status == command.COMPLETED
        # Whether it is repeated is asked without.
        assert base.finish_by(uuid, right) == command.MOVED
        assert base.finish_by(uuid, None) == command.OK

    def test_no_claim_after_a_cancel_was_asked_for(self) -> None:
        uuid = base.new()
        with session.writer() as db:
            db.execute(
                models.Command.__table__.update().values(cancel_requested=True)
            )
        assert not base.claim(uuid)

    def test_cancel_ends_what_waits(self) -> None:
        uuid = base.new()
        assert commands.cancel(uuid)
        row = base.read(uuid)
        assert (row.status, row.inputs) == (command.CANCELLED, None)
        assert row.error == command.NEVER_STARTED
        assert not base.claim(uuid)
        assert not commands.cancel(uuid)

    def test_cancel_of_what_was_handed_out_is_its_host_s(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        assert commands.cancel(uuid) and commands.cancel(uuid)
        assert base.read(uuid).status == command.RUNNING
        (work,) = base.work_of(base.register('machine'))
        assert work.cancel_requested
        # What the guest says still decides.
        assert base.finish(uuid, command.COMPLETED) == command.OK
        assert not commands.cancel(uuid)

    def test_cancel_and_claim_cannot_both_win(self) -> None:
        for _ in range(8):
            uuid = base.new()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                claimed = pool.submit(base.claim, uuid)
                cancelled = pool.submit(commands.cancel, uuid)
                assert cancelled.result()
            row = base.read(uuid)
            assert (row.status, row.cancel_requested) == (
                (command.RUNNING, True)
                if claimed.result()
                else (command.CANCELLED, False)
            )

    def test_only_what_has_ended_is_deleted(self) -> None:
        uuid = base.new()
        assert not commands.delete(uuid)
        base.claim(uuid)
        assert not commands.delete(uuid)
        base.finish(uuid, command.LOST)
        assert commands.delete(uuid)
        assert commands.get(uuid) is None
        assert not commands.delete(uuid)

    def test_bounds_count_what_is_unfinished(self) -> None:
        waiting, ended = base.new(), base.new()
        taken = base.new(instance_uuid='other')
        base.new(instance_project_id='another')
        base.claim(taken)
        base.claim(ended)
        base.finish(ended, command.COMPLETED)
        for bounds in (commands.Bounds(1, None), commands.Bounds(1, 3)):
            with pytest.raises(exception.ServerIsFull):
                base.new(bounds=bounds)
        for bounds in (commands.Bounds(2, 2), commands.Bounds(9, 0)):
            with pytest.raises(exception.ProjectIsFull):
                base.new(bounds=bounds)
        assert base.new(bounds=commands.Bounds(2, 3))
        commands.cancel(waiting)
        assert base.new(bounds=commands.Bounds(2, 3), instance_uuid='third')

    @pytest.mark.parametrize(
        ('bounds', 'refusal'),
        [
            (commands.Bounds(3, None), exception.ServerIsFull),
            (commands.Bounds(100, 3), exception.ProjectIsFull),
        ],
    )
    def test_last_place_is_one_s(
        self,
        bounds: commands.Bounds,
        refusal: type[exception.TooManyUnfinished],
    ) -> None:
        """Of six at a time, each time, and also of a project's first."""
        for room in (3, 1, 1):
            results = base.together(6, bounds=bounds)
            assert results.count(refusal) == 6 - room
            commands.cancel(
                next(uuid for uuid in results if isinstance(uuid, str))
            )

    def test_nobody_sees_one_too_many(self) -> None:
        """Nor a key of one: who repeats it would be told of a command."""
        is_over = threading.Event()

        def watch() -> int:
            most = 0
            while not is_over.is_set():
                rows = commands.list_all(limit=100).rows
                most = max(most, len(rows))
            return most

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            seen = pool.submit(watch)
            results = base.together(
                8,
                bounds=commands.Bounds(100, 2),
                key=lambda number: base.key_columns(str(number)),
            )
            is_over.set()
        assert seen.result() <= 2
        for number, result in enumerate(results):
            found = keys.find(str(number))
            assert (found and found.command_uuid) == (
                result if isinstance(result, str) else None
            )

    def test_only_what_no_host_has_taken_is_withdrawn(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        assert not commands.withdraw(uuid)
        withdrawn = base.new(key=base.key_columns('scope'))
        assert commands.withdraw(withdrawn)
        assert keys.find('scope') is None

    def test_no_claim_whose_ticket_passes_start_by(self) -> None:
        uuid = base.new(start_timeout=10)
        assert not base.claim(uuid, window=11)
        assert base.claim(uuid, window=9)

    def test_adoption_takes_it_from_the_attempt_named(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        adopt = {'cell_uuid': base.CELL, 'host': 'other'}
        assert not commands.adopt(uuid, previous='x', attempt='y', **adopt)
        assert commands.adopt(uuid, previous='first', attempt='y', **adopt)
        assert commands.adopt(uuid, previous='first', attempt='y', **adopt)
        assert base.finish(uuid, command.COMPLETED) == command.MOVED
        assert base.finish(uuid, command.COMPLETED, 'y') == command.OK

    def test_finish_again_is_answered_as_the_first_time(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        assert base.finish(uuid, command.COMPLETED, exitcode=3) == command.OK
        assert base.finish(uuid, command.COMPLETED, exitcode=4) == command.OK
        assert base.finish(uuid, command.LOST) == command.SUPERSEDED
        assert base.read(uuid).exitcode == 3

    def test_finish_of_no_command_is_gone(self) -> None:
        assert base.finish('nobody', command.COMPLETED) == command.GONE

    def test_the_end_erases_what_was_secret(self) -> None:
        uuid = base.new()
        assert base.read(uuid).inputs
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED)
        assert base.read(uuid).inputs is None

    @pytest.mark.parametrize('status', command.ENDED)
    def test_an_end_is_final(self, status: str) -> None:
        uuid = base.new()
        base.claim(uuid)
        assert base.finish(uuid, status) == command.OK
        assert not base.claim(uuid, 'second')
        assert not commands.adopt(
            uuid,
            previous='first',
            attempt='second',
            cell_uuid=base.CELL,
            host='host',
        )
        for other in set(command.ENDED) - {status}:
            assert base.finish(uuid, other) == command.SUPERSEDED
            for source in command.sources_of(other):
                assert not commands.end(
                    uuid, source=source, status=other, error=''
                )
        assert base.read(uuid).status == status

    def test_start_is_told_from_its_age_and_kept(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        with session.writer() as db:
            db.execute(
                sa.update(models.Command).values(
                    created_at=sqltypes.utc_in(-60)
                )
            )
        commands.note_started(
            uuid, attempt='first', pid=7, started_uptime=1234, age=5.0
        )
        first = base.read(uuid)
        assert first.started_at is not None and first.updated_at is not None
        age = (first.updated_at - first.started_at).total_seconds()
        assert 4.9 < age < 5.1
        base.finish(uuid, command.COMPLETED)
        assert base.read(uuid).started_at == first.started_at

    def test_what_is_open_is_known_until_the_end(self) -> None:
        uuid = base.new(type=command.FILE_WRITE, arguments={'path': '/p'})
        base.claim(uuid)
        commands.note_started(
            uuid,
            attempt='first',
            pid=None,
            started_uptime=None,
            age=0.0,
            opened={'handle': 3},
        )
        assert base.read(uuid).opened == {'handle': 3}
        base.finish(uuid, command.COMPLETED)
        assert base.read(uuid).opened is None

    def test_overdue_pending_fails_with_what_was_seen(self) -> None:
        late, early = base.new(start_timeout=-1), base.new()
        commands.note_seen(late, 'The agent is not connected')
        assert commands.end_overdue(10) == 1
        row = base.read(late)
        assert row.status == command.FAILED
        assert row.error == (
            f'{commands.NOT_STARTED}. Last seen: The agent is not connected'
        )
        assert row.inputs is None
        assert base.read(early).status == command.PENDING

    def test_overdue_running_is_lost(self) -> None:
        late, early = base.new(), base.new()
        base.claim(late, grace=-120)
        base.claim(early)
        assert commands.end_overdue(10) == 1
        assert base.read(late).status == command.LOST
        assert base.read(late).error == commands.NOT_REPORTED
        assert base.read(early).status == command.RUNNING

    def test_end_overdue_is_bounded(self) -> None:
        for _ in range(3):
            base.new(start_timeout=-1)
        assert [commands.end_overdue(2) for _ in range(3)] == [2, 1, 0]

    def test_list_is_newest_first_by_page(self) -> None:
        uuids = [base.new() for _ in range(5)]
        base.new(instance_uuid='another')
        page = commands.list_of_instance('server', limit=3)
        rest = commands.list_of_instance(
            'server', limit=3, before=page.rows[-1].id
        )
        assert [row.uuid for row in (*page.rows, *rest.rows)] == uuids[::-1]
        assert (page.goes_on, rest.goes_on) == (True, False)

    @pytest.mark.parametrize('argument', ['x' * 60000, '\x01' * 60000])
    def test_page_ends_by_bytes(self, argument: str) -> None:
        uuids = [
            base.new(arguments={'command': [argument]}) for _ in range(40)
        ]
        seen: list[str] = []
        page = commands.Page([], goes_on=True)
        while page.goes_on:
            before = page.rows[-1].id if page.rows else None
            page = commands.list_of_instance(
                'server', limit=1000, before=before
            )
            seen += [row.uuid for row in page.rows]
            size = len(json.dumps([row.arguments for row in page.rows]))
            assert size <= commands.PAGE_BYTES
            # A page that ended early would make lists of many calls.
            assert not page.goes_on or size > commands.PAGE_BYTES * 0.6
        assert seen == uuids[::-1]

    def test_page_has_one_command_at_least(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commands, 'PAGE_BYTES', 1)
        uuids = [base.new() for _ in range(2)]
        page = commands.list_all(limit=5)
        assert ([row.uuid for row in page.rows], page.goes_on) == (
            uuids[1:],
            True,
        )
        page = commands.list_all(limit=5, before=page.rows[-1].id)
        assert ([row.uuid for row in page.rows], page.goes_on) == (
            uuids[:1],
            False,
        )

    @pytest.mark.parametrize('count', [99, 100, 101, 102])
    def test_page_of_as_many_as_there_are(
        self, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sizes are asked for by the hundred."""
        uuids = [base.new() for _ in range(101)]
        page = commands.list_of_instance('server', limit=count)
        assert [row.uuid for row in page.rows] == uuids[::-1][:count]
        assert page.goes_on == (count < 101)

    @pytest.mark.parametrize(
        ('gone', 'shown'),
        [([4], [3, 2]), ([2, 3, 4], [1, 0]), ([0, 1, 2, 3, 4], [])],
    )
    def test_page_while_rows_go_away(
        self,
        gone: list[int],
        shown: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Those go that are removed after their sizes were read."""
        uuids = [base.new() for _ in range(5)]
        read_rows = commands._listed

        def remove(db: Any, ids: Sequence[int]) -> Any:
            # In the same transaction: of another one MariaDB would not tell.
            db.execute(
                sa.delete(models.Command).where(
                    models.Command.uuid.in_(uuids[number] for number in gone)
                )
            )
            return read_rows(db, ids)

        monkeypatch.setattr(commands, '_listed', remove)
        page = commands.list_of_instance('server', limit=3)
        assert [row.uuid for row in page.rows] == [
            uuids[number] for number in shown
        ]

    def test_list_knows_the_size_of_the_output(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED, out_data='é'.encode() * 3)
        (row,) = commands.list_of_instance('server', limit=1).rows
        assert (row.out_size, row.err_size) == (6, 0)

    def test_list_filters_by_the_status_that_is_shown(self) -> None:
        waiting, handed_out, running = base.new(), base.new(), base.new()
        base.claim(handed_out)
        base.claim(running)
        commands.note_started(
            running, attempt='first', pid=1, started_uptime=1, age=0
        )

        def listed(status: str) -> set[str]:
            return {
                row.uuid
                for row in commands.list_of_instance(
                    'server', limit=10, statuses=[status]
                ).rows
            }

        assert listed(command.PENDING) == {waiting, handed_out}
        assert listed(command.RUNNING) == {running}
        assert listed(command.LOST) == set()

    def test_work_of_a_host_is_its_unfinished(self) -> None:
        began = time.monotonic()
        waiting, running, ended = base.new(), base.new(), base.new()
        base.new(host='another')
        base.claim(running)
        base.claim(ended)
        base.finish(ended, command.COMPLETED)
        second = base.new()
        base.new(), base.new()
        work = base.work_of(base.register('machine'), pending=2)
        assert [item.uuid for item in work] == [waiting, running, second]
        assert [item.attempt for item in work] == [None, 'first', None]
        age = time.monotonic() - began
        assert 299 - age < work[0].start_in <= 300

    def test_one_servers_commands_keep_none_of_another_waiting(self) -> None:
        """However many there are, and whatever else the host has to do."""
        for number in range(30):
            base.new(instance_uuid=f'greedy-{number % 3}')
        mine = base.new(instance_uuid='mine')
        others = [base.new(instance_uuid=f'z-{number}') for number in range(4)]
        work = base.work_of(base.register('machine'), pending=3)
        assert {item.uuid for item in work} >= {mine, *others}
        assert len(work) == 3 * 3 + 1 + 4

    def test_all_that_runs_is_handed_out(self) -> None:
        """To be adopted, and cancelled: none waits behind another."""
        running = [base.new() for _ in range(6)]
        for uuid in running:
            base.claim(uuid)
        commands.cancel(running[5])
        waiting = base.new()
        work = base.work_of(base.register('machine'), pending=1)
        assert [item.uuid for item in work] == [*running, waiting]
        assert work[5].cancel_requested

    def test_start_is_never_before_the_acceptance(self) -> None:
        """Whatever age a host tells."""
        started, ended = base.new(), base.new()
        for uuid in (started, ended):
            base.claim(uuid)
        commands.note_started(
            started, attempt='first', pid=1, started_uptime=1, age=1e9
        )
        commands.finish(
            ended,
            attempt='first',
            status=command.COMPLETED,
            values={},
            age=-1e9,
        )
        for row in map(base.read, (started, ended)):
            assert row.started_at is not None
            assert row.created_at <= row.started_at
            assert row.started_at <= (row.finished_at or row.updated_at)

    def test_what_was_seen_last_keeps_nobody_from_ending(self) -> None:
        """A host may have told anything; its row is ended with others."""
        seen, other = base.new(start_timeout=-1), base.new(start_timeout=-1)
        commands.note_seen(seen, 'x' * 65535)
        assert commands.end_overdue(10) == 2
        assert base.read(other).status == command.FAILED
        error = base.read(seen).error
        assert error is not None and error.startswith(commands.NOT_STARTED)
        assert len(error) < 1000
