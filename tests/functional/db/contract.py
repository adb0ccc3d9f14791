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

"""What every database must do with commands and hosts.

test_sqlite.py here and tests/integration/test_mariadb.py run it on theirs.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import logging
from typing import Any
import uuid as uuid_module

from alembic import autogenerate
from alembic.runtime import migration as alembic_migration
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_db import options as db_options
from oslo_db.sqlalchemy import enginefacade
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.db import audit
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import keys
from guest_agent_ext.db import leases
from guest_agent_ext.db import migration
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

CELL = 'e1c4f4a5-6a07-4e5b-8c3c-0a4f0e2f6f01'


def connect(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[None]:
    """Have the queries speak to the database at ``url`` while it lasts."""
    conf = cfg.ConfigOpts()
    for group in ('api_database', 'guest_agent_database'):
        conf.register_opts(db_options.database_opts, group=group)
    conf([])
    conf.set_override('connection', url, group='api_database')
    monkeypatch.setattr(
        session, '_context_manager', enginefacade.transaction_context()
    )
    session.configure(conf)
    migration.sync()
    yield
    session.get_engine().dispose()


def new(
    start_timeout: int = 300, key: dict[str, str] | None = None, **values: Any
) -> str:
    """Record a command and return its uuid."""
    uuid = str(uuid_module.uuid4())
    commands.create(
        dict(
            {
                'uuid': uuid,
                'type': command.EXEC,
                'project_id': 'project',
                'user_id': 'user',
                'request_id': 'req-1',
                'instance_uuid': 'server',
                'instance_project_id': 'project',
                'cell_uuid': CELL,
                'host': 'host',
                'arguments': {'command': ['id']},
                'timeout': 60,
                'inputs': {'env': {'TOKEN': 'secret'}, 'stdin': 'aGk='},
            },
            **values,
        ),
        start_timeout,
        key,
    )
    return uuid


def key_columns(scope: str) -> dict[str, str]:
    return {'scope': scope, 'body_key': '00', 'body_hash': 'hash'}


def end_earlier(uuid: str, seconds: int) -> None:
    """Have a command that has ended have done so earlier."""
    with session.writer() as db:
        db.execute(
            sa.update(models.Command)
            .where(models.Command.uuid == uuid)
            .values(finished_at=sqltypes.utc_in(-seconds))
        )


def claim(
    uuid: str, attempt: str = 'first', *, window: float = 30, grace: int = 600
) -> bool:
    row = commands.claim(
        uuid,
        attempt=attempt,
        cell_uuid=CELL,
        host='host',
        boot_id='boot',
        ticket=100,
        window=window,
        grace=grace,
    )
    assert row is None or (row.uuid, row.attempt) == (uuid, attempt)
    return row is not None


def finish(
    uuid: str, status: str, attempt: str = 'first', **values: Any
) -> str:
    return commands.finish(
        uuid, attempt=attempt, status=status, values=values, age=1.0
    )


def read(uuid: str) -> models.Command:
    row = commands.get(uuid, with_output=True, with_inputs=True)
    assert row is not None
    return row


class DatabaseContract:
    """The tests; a subclass's ``database`` fixture connects."""

    def test_migrations_make_what_the_models_say(self) -> None:
        with session.get_engine().connect() as connection:
            context = alembic_migration.MigrationContext.configure(
                connection,
                opts={
                    'version_table': migration.VERSION_TABLE,
                    'compare_type': True,
                    'include_name': lambda name, kind, parents: (
                        migration.is_ours(name, kind)
                    ),
                },
            )
            assert (
                autogenerate.compare_metadata(context, models.Base.metadata)
                == []
            )

    def test_sync_again_changes_nothing(self) -> None:
        migration.sync()
        assert migration.version() == migration.head()

    def test_new_command_is_pending(self) -> None:
        row = read(new())
        assert row.status == command.PENDING
        assert row.updated_at is None
        assert 299 < (row.start_by - row.created_at).total_seconds() < 301

    def test_no_log_has_what_a_row_holds(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger='sqlalchemy.engine')
        uuid = new()
        assert commands.get(uuid, with_inputs=True) is not None
        assert 'SELECT guest_agent_commands' in caplog.text
        assert 'secret' not in caplog.text

    def test_uuid_is_unique(self) -> None:
        uuid = new()
        with pytest.raises(db_exc.DBDuplicateEntry):
            new(uuid=uuid)

    def test_large_arguments_and_output_are_kept_whole(self) -> None:
        argument = 'ü' * command.MAX_INPUT_BYTES
        uuid = new(arguments={'command': [argument]})
        output = bytes(range(256)) * (command.MAX_OUTPUT_BYTES // 256)
        claim(uuid)
        finish(uuid, command.COMPLETED, out_data=output, err_data=output)
        row = read(uuid)
        assert row.arguments['command'] == [argument]
        assert (row.out_data, row.err_data) == (output, output)

    def test_one_of_many_claims_wins(self) -> None:
        uuid = new()
        attempts = [str(number) for number in range(16)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(lambda attempt: claim(uuid, attempt), attempts)
            )
        assert won.count(True) == 1
        assert read(uuid).attempt == attempts[won.index(True)]

    def test_claim_again_is_answered_as_the_first_time(self) -> None:
        uuid = new()
        assert claim(uuid)
        assert claim(uuid)
        assert not claim(uuid, 'second')

    def test_no_claim_after_a_cancel_was_asked_for(self) -> None:
        uuid = new()
        with session.writer() as db:
            db.execute(
                models.Command.__table__.update().values(cancel_requested=True)
            )
        assert not claim(uuid)

    def test_cancel_ends_what_waits(self) -> None:
        uuid = new()
        assert commands.cancel(uuid)
        row = read(uuid)
        assert (row.status, row.inputs) == (command.CANCELLED, None)
        assert row.error == command.NEVER_STARTED
        assert not claim(uuid)
        assert not commands.cancel(uuid)

    def test_cancel_of_what_was_handed_out_is_its_host_s(self) -> None:
        uuid = new()
        claim(uuid)
        assert commands.cancel(uuid) and commands.cancel(uuid)
        assert read(uuid).status == command.RUNNING
        (work,) = work_of(register('machine'))
        assert work.cancel_requested
        # What the guest says still decides.
        assert finish(uuid, command.COMPLETED) == command.OK
        assert not commands.cancel(uuid)

    def test_cancel_and_claim_cannot_both_win(self) -> None:
        for _ in range(8):
            uuid = new()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                claimed = pool.submit(claim, uuid)
                cancelled = pool.submit(commands.cancel, uuid)
                assert cancelled.result()
            row = read(uuid)
            assert (row.status, row.cancel_requested) == (
                (command.RUNNING, True)
                if claimed.result()
                else (command.CANCELLED, False)
            )

    def test_only_what_has_ended_is_deleted(self) -> None:
        uuid = new()
        assert not commands.delete(uuid)
        claim(uuid)
        assert not commands.delete(uuid)
        finish(uuid, command.LOST)
        assert commands.delete(uuid)
        assert commands.get(uuid) is None
        assert not commands.delete(uuid)

    def test_one_of_many_with_one_key_is_recorded(self) -> None:
        def record(number: int) -> str | None:
            try:
                return new(key=key_columns('scope'))
            except db_exc.DBDuplicateEntry:
                return None

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            won = [uuid for uuid in pool.map(record, range(50)) if uuid]
        assert len(won) == 1
        found = keys.find('scope')
        assert found is not None and found.command_uuid == won[0]
        rows = commands.list_of_instance('server', limit=10)
        assert [row.uuid for row in rows] == won

    def test_key_is_forgotten_a_day_after_the_end(self) -> None:
        uuid = new(key=key_columns('ended'))
        new(key=key_columns('waiting'))
        claim(uuid)
        finish(uuid, command.COMPLETED)
        assert keys.find('ended') is not None
        end_earlier(uuid, 86401)
        assert keys.find('ended') is None
        assert keys.find('waiting') is not None
        new(key=key_columns('ended'))

    @pytest.mark.parametrize(
        ('seconds', 'is_known'), [(86300, True), (86401, False)]
    )
    def test_key_outlives_its_command(
        self, seconds: int, is_known: bool
    ) -> None:
        uuid = new(key=key_columns('scope'))
        claim(uuid)
        finish(uuid, command.COMPLETED)
        end_earlier(uuid, seconds)
        audit.note_told(uuid, command.COMPLETED)
        assert commands.delete(uuid)
        assert (keys.find('scope') is not None) is is_known

    def test_expired_keys_are_removed_in_batches(self) -> None:
        for number in range(3):
            uuid = new(key=key_columns(str(number)))
            claim(uuid)
            finish(uuid, command.COMPLETED)
            end_earlier(uuid, 86401)
        commands.delete(uuid)
        new(key=key_columns('waiting'))
        assert [keys.remove_expired(2) for _ in range(3)] == [2, 1, 0]
        assert keys.find('waiting') is not None

    def test_unfinished_are_counted_by_project_and_server(self) -> None:
        pending, taken = new(), new(instance_uuid='other')
        ended = new()
        new(instance_project_id='another')
        claim(taken)
        claim(ended)
        finish(ended, command.COMPLETED)
        assert commands.count_unfinished('project', 'other') == (1, 2)
        assert commands.withdraw(pending)
        assert commands.count_unfinished('project', 'server') == (0, 1)

    def test_only_what_no_host_has_taken_is_withdrawn(self) -> None:
        uuid = new()
        claim(uuid)
        assert not commands.withdraw(uuid)
        withdrawn = new(key=key_columns('scope'))
        assert commands.withdraw(withdrawn)
        assert keys.find('scope') is None

    def test_purge_removes_the_old_that_have_ended(self) -> None:
        old, recent, _ = new(), new(), new()
        for uuid in (old, recent):
            claim(uuid)
            finish(uuid, command.LOST)
        end_earlier(old, 101)
        end_earlier(recent, 90)
        assert commands.count_old(100) == 1
        assert commands.purge_old(100, 10) == 1
        assert commands.get(old) is None
        assert commands.get(recent) is not None
        assert commands.purge_old(100, 10) == 0

    def test_purge_is_bounded_and_takes_the_oldest(self) -> None:
        uuids = [new() for _ in range(3)]
        for age, uuid in enumerate(uuids):
            commands.cancel(uuid)
            end_earlier(uuid, 200 + age)
        assert commands.purge_old(100, 2) == 2
        assert commands.get(uuids[0]) is not None
        assert commands.purge_old(100, 2) == 1

    def test_purge_of_a_server_leaves_what_has_not_ended(self) -> None:
        ended, waiting, other = new(), new(), new(instance_uuid='other')
        for uuid in (ended, other):
            commands.cancel(uuid)
        assert commands.servers('', 10) == ['other', 'server']
        assert commands.servers('other', 10) == ['server']
        assert commands.purge_of_servers(['server', 'x'], 10) == 1
        assert commands.get(ended) is None
        assert commands.get(waiting) and commands.get(other)

    @pytest.mark.parametrize(
        ('seconds', 'is_known'), [(1000, True), (86401, False)]
    )
    def test_key_outlives_a_purge(self, seconds: int, is_known: bool) -> None:
        uuid = new(key=key_columns('scope'))
        commands.cancel(uuid)
        end_earlier(uuid, seconds)
        assert commands.purge_old(100, 10) == 1
        assert (keys.find('scope') is not None) is is_known

    def test_lease_is_one_s_until_it_is_given_back(self) -> None:
        assert leases.take('x', 'a', 60) and leases.take('x', 'a', 60)
        assert not leases.take('x', 'b', 60)
        assert leases.take('y', 'b', 60)
        leases.release('x', 'b')
        assert not leases.take('x', 'b', 60)
        leases.release('x', 'a')
        assert leases.take('x', 'b', -1)
        assert leases.take('x', 'a', 60)

    def test_one_of_many_takes_a_lease(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            taken = list(
                pool.map(
                    lambda number: leases.take('x', str(number), 60), range(16)
                )
            )
        assert taken.count(True) == 1

    def test_no_claim_whose_ticket_passes_start_by(self) -> None:
        uuid = new(start_timeout=10)
        assert not claim(uuid, window=11)
        assert claim(uuid, window=9)

    def test_adoption_takes_it_from_the_attempt_named(self) -> None:
        uuid = new()
        claim(uuid)
        adopt = {'cell_uuid': CELL, 'host': 'other'}
        assert not commands.adopt(uuid, previous='x', attempt='y', **adopt)
        assert commands.adopt(uuid, previous='first', attempt='y', **adopt)
        assert commands.adopt(uuid, previous='first', attempt='y', **adopt)
        assert finish(uuid, command.COMPLETED) == command.MOVED
        assert finish(uuid, command.COMPLETED, 'y') == command.OK

    def test_finish_again_is_answered_as_the_first_time(self) -> None:
        uuid = new()
        claim(uuid)
        assert finish(uuid, command.COMPLETED, exitcode=3) == command.OK
        assert finish(uuid, command.COMPLETED, exitcode=4) == command.OK
        assert finish(uuid, command.LOST) == command.SUPERSEDED
        assert read(uuid).exitcode == 3

    def test_finish_of_no_command_is_gone(self) -> None:
        assert finish('nobody', command.COMPLETED) == command.GONE

    def test_the_end_erases_what_was_secret(self) -> None:
        uuid = new()
        assert read(uuid).inputs
        claim(uuid)
        finish(uuid, command.COMPLETED)
        assert read(uuid).inputs is None

    @pytest.mark.parametrize('status', command.ENDED)
    def test_an_end_is_final(self, status: str) -> None:
        uuid = new()
        claim(uuid)
        assert finish(uuid, status) == command.OK
        assert not claim(uuid, 'second')
        assert not commands.adopt(
            uuid,
            previous='first',
            attempt='second',
            cell_uuid=CELL,
            host='host',
        )
        for other in set(command.ENDED) - {status}:
            assert finish(uuid, other) == command.SUPERSEDED
            for source in command.sources_of(other):
                assert not commands.end(
                    uuid, source=source, status=other, error=''
                )
        assert read(uuid).status == status

    def test_start_is_told_from_its_age_and_kept(self) -> None:
        uuid = new()
        claim(uuid)
        commands.note_started(
            uuid, attempt='first', pid=7, started_uptime=1234, age=5.0
        )
        first = read(uuid)
        assert first.started_at is not None and first.updated_at is not None
        age = (first.updated_at - first.started_at).total_seconds()
        assert 4.9 < age < 5.1
        finish(uuid, command.COMPLETED)
        assert read(uuid).started_at == first.started_at

    def test_what_is_open_is_known_until_the_end(self) -> None:
        uuid = new(type=command.FILE_WRITE, arguments={'path': '/p'})
        claim(uuid)
        commands.note_started(
            uuid,
            attempt='first',
            pid=None,
            started_uptime=None,
            age=0.0,
            opened={'handle': 3},
        )
        assert read(uuid).opened == {'handle': 3}
        finish(uuid, command.COMPLETED)
        assert read(uuid).opened is None

    def test_audit_is_told_once(self) -> None:
        uuid = new()
        claim(uuid)
        assert not audit.due(CELL, 10)
        commands.note_started(
            uuid, attempt='first', pid=1, started_uptime=1, age=0.0
        )
        assert [row.uuid for row in audit.due(CELL, 10)] == [uuid]
        assert audit.take(uuid, 60)
        assert not audit.take(uuid, 60)
        assert not audit.due(CELL, 10)
        finish(uuid, command.COMPLETED)
        # The one that tells of the start has not finished yet.
        assert not audit.due(CELL, 10)
        audit.note_told(uuid, command.RUNNING)
        (row,) = audit.due(CELL, 10)
        assert (row.audited, row.status) == (
            command.RUNNING,
            command.COMPLETED,
        )
        assert audit.take(uuid, 60)
        audit.note_told(uuid, command.COMPLETED)
        assert not audit.due(CELL, 10)

    def test_deleted_before_it_was_told_is_told(self) -> None:
        uuid = new()
        claim(uuid)
        finish(uuid, command.COMPLETED, out_data=b'out')
        assert commands.delete(uuid)
        assert not commands.delete(uuid)
        assert commands.get(uuid) is None
        assert not commands.list_of_instance('server', limit=10)
        (row,) = audit.due(CELL, 10)
        assert (row.uuid, row.arguments) == (uuid, {})
        assert audit.take(uuid, 60)
        audit.note_told(uuid, command.COMPLETED)
        assert not commands.states([uuid])

    def test_audit_that_was_not_told_is_due_again(self) -> None:
        uuid = new()
        commands.end(
            uuid, source=command.PENDING, status=command.FAILED, error='error'
        )
        assert audit.take(uuid, -1)
        assert len(audit.due(CELL, 10)) == 1
        assert not audit.due('other', 10)

    def test_overdue_pending_fails_with_what_was_seen(self) -> None:
        late, early = new(start_timeout=-1), new()
        commands.note_seen(late, 'The agent is not connected')
        assert commands.end_overdue(10) == 1
        row = read(late)
        assert row.status == command.FAILED
        assert row.error == (
            f'{commands.NOT_STARTED}. Last seen: The agent is not connected'
        )
        assert row.inputs is None
        assert read(early).status == command.PENDING

    def test_overdue_running_is_lost(self) -> None:
        late, early = new(), new()
        claim(late, grace=-120)
        claim(early)
        assert commands.end_overdue(10) == 1
        assert read(late).status == command.LOST
        assert read(late).error == commands.NOT_REPORTED
        assert read(early).status == command.RUNNING

    def test_end_overdue_is_bounded(self) -> None:
        for _ in range(3):
            new(start_timeout=-1)
        assert [commands.end_overdue(2) for _ in range(3)] == [2, 1, 0]

    def test_list_is_newest_first_by_page(self) -> None:
        uuids = [new() for _ in range(5)]
        new(instance_uuid='another')
        page = commands.list_of_instance('server', limit=3)
        rest = commands.list_of_instance('server', limit=3, before=page[-1].id)
        assert [row.uuid for row in (*page, *rest)] == uuids[::-1]

    def test_list_filters_by_the_status_that_is_shown(self) -> None:
        waiting, handed_out, running = new(), new(), new()
        claim(handed_out)
        claim(running)
        commands.note_started(
            running, attempt='first', pid=1, started_uptime=1, age=0
        )

        def listed(status: str) -> set[str]:
            return {
                row.uuid
                for row in commands.list_of_instance(
                    'server', limit=10, statuses=[status]
                )
            }

        assert listed(command.PENDING) == {waiting, handed_out}
        assert listed(command.RUNNING) == {running}
        assert listed(command.LOST) == set()

    def test_work_of_a_host_is_its_unfinished(self) -> None:
        waiting, running, ended = new(), new(), new()
        new(host='another')
        claim(running)
        claim(ended)
        finish(ended, command.COMPLETED)
        new(), new()
        work = work_of(register('machine'), limit=2)
        assert [item.uuid for item in work] == [waiting, running]
        assert [item.attempt for item in work] == [None, 'first']
        assert 299 < work[0].start_in <= 300

    def test_newer_start_of_a_service_fences_the_older(self) -> None:
        first, second = register('machine'), register('machine')
        assert (first, second) == (1, 2)
        assert hosts.heartbeat(CELL, 'host', 1, 10) is None
        assert work_of(2) == []
        uuid = new(host='another')
        assert server_for(uuid, incarnation=2) == 'server'
        assert server_for(uuid, incarnation=1) is None
        assert server_for(uuid, incarnation=2, cell_uuid='another') is None
        assert server_for(uuid, incarnation=2, host='another') is None
        assert server_for('no such', incarnation=2) is None

    def test_other_machine_is_refused_while_the_first_lives(self) -> None:
        assert register('machine') == 1
        assert register('other') is None
        assert register('other', down_time=-1) == 2

    def test_host_is_up_while_it_is_heard(self) -> None:
        assert not hosts.is_up(CELL, 'host', 60)
        register('machine')
        assert hosts.is_up(CELL, 'host', 60)
        assert not hosts.is_up(CELL, 'host', -1)
        assert not hosts.is_up('other cell', 'host', 60)

    def test_hosts_count_what_users_see(self) -> None:
        register('machine')
        _, handed_out, running = new(), new(), new()
        for uuid in (handed_out, running):
            claim(uuid)
        commands.note_started(
            running, attempt='first', pid=1, started_uptime=1, age=0
        )
        (state,) = hosts.list_all()
        assert (state.running, state.pending) == (1, 2)
        assert state.silent_for < 60


def register(machine_id: str, down_time: int = 60) -> int | None:
    return hosts.register(
        CELL, 'host', machine_id=machine_id, version='1', down_time=down_time
    )


def work_of(
    incarnation: int | None, limit: int = 10
) -> Sequence[commands.Work]:
    assert incarnation is not None
    work = hosts.heartbeat(CELL, 'host', incarnation, limit)
    assert work is not None
    return work


def server_for(
    uuid: str, *, incarnation: int, cell_uuid: str = CELL, host: str = 'host'
) -> str | None:
    return commands.instance_for(
        uuid, cell_uuid=cell_uuid, host=host, incarnation=incarnation
    )
