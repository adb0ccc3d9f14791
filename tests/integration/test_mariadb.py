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

from collections.abc import Iterator
from concurrent import futures
import threading
import time
from typing import Any
import uuid

from oslo_db import exception as db_exc
import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import exception
from guest_agent_ext.db import commands
from guest_agent_ext.db import leases
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from tests.functional.db import base
from tests.functional.db import test_audit
from tests.functional.db import test_commands
from tests.functional.db import test_hosts
from tests.functional.db import test_keys
from tests.functional.db import test_leases
from tests.functional.db import test_migration
from tests.functional.db import test_purge
from tests.functional.db import test_runs
from tests.functional.db import test_session
from tests.functional.db import test_sqltypes
from tests.functional.db import test_totals
from tools.testbed.parts import mariadb as mariadb_server

#: Commands that wait of one tenant.
GREEDY = 20_000
COPIED = [
    column
    for column in models.Command.__table__.columns
    if column.name not in ('id', 'uuid', 'instance_uuid')
]
#: More threads than oslo.db keeps connections for (max_pool_size).
BUSY = 12

_DEADLOCK = pymysql.err.OperationalError


def rows_read(db: orm.Session) -> int:
    """Return how many rows this connection has read, of indexes too."""
    return sum(
        int(value)
        for _, value in db.execute(
            sa.text("SHOW SESSION STATUS LIKE 'Handler_read%'")
        )
    )


class TestMariaDB(
    test_audit.TestAudit,
    test_commands.TestCommands,
    test_hosts.TestHosts,
    test_keys.TestKeys,
    test_leases.TestLeases,
    test_migration.TestMigration,
    test_purge.TestPurge,
    test_runs.TestRuns,
    test_session.TestSession,
    test_sqltypes.TestSqltypes,
    test_totals.TestTotals,
):
    @pytest.fixture(autouse=True)
    def database(
        self, monkeypatch: pytest.MonkeyPatch, mariadb: mariadb_server.MariaDB
    ) -> Iterator[None]:
        # The character set that Nova's databases have.
        mariadb.create('queries')
        yield from base.connect(monkeypatch, mariadb.url('queries'))

    def test_work_of_a_host_is_found_by_its_index(self) -> None:
        """However much one tenant has waiting on the host."""
        base.new(instance_uuid='mine')
        with session.writer() as db:
            columns = ', '.join(f'`{column.name}`' for column in COPIED)
            db.execute(
                sa.text(
                    f'INSERT INTO guest_agent_commands (uuid, instance_uuid, '
                    f"{columns}) SELECT UUID(), CONCAT('greedy-', seq MOD 5), "
                    f'{columns} FROM guest_agent_commands, seq_1_to_{GREEDY}'
                )
            )
            db.execute(sa.text('ANALYZE TABLE guest_agent_commands'))
        with session.writer() as db:
            before = rows_read(db)
            work = commands.work_of_host(db, base.CELL, 'host', 10)
            read = rows_read(db) - before
        assert len(work) == 5 * 10 + 1
        assert 'mine' in {item.instance_uuid for item in work}
        assert read < 10 * len(work)

    def test_connections_are_kept(self) -> None:
        """To open one for each use keeps a busy conductor from its work."""
        together = threading.Barrier(BUSY)

        def ask() -> None:
            with session.reader() as db:
                db.execute(sa.text('SELECT 1'))
                together.wait(10)

        with futures.ThreadPoolExecutor(BUSY) as pool:
            for asked in [pool.submit(ask) for _ in range(BUSY)]:
                asked.result()
        assert 'Connections in pool: %d' % BUSY in (
            session.get_engine().pool.status()
        )

    def test_busy_projects_make_no_deadlocks(self) -> None:
        """They wait for their turn; a project's first ones have none yet."""
        deadlocks: list[str] = []

        def note(context: Any) -> None:
            if isinstance(context.original_exception, _DEADLOCK):
                deadlocks.append(str(context.original_exception))

        sa.event.listen(session.get_engine(), 'handle_error', note)
        bounds = commands.Bounds(100, 20)
        for _ in range(5):
            base.together(
                BUSY,
                bounds=bounds,
                instance_project_id=lambda number: 'project-%d' % (number % 2),
                key=lambda number: base.key_columns(uuid.uuid4().hex),
            )
        assert not deadlocks
        for project_id in ('project-0', 'project-1'):
            assert (
                len(commands.list_all(limit=100, project_id=project_id).rows)
                == 20
            )
            with pytest.raises(exception.ProjectIsFull):
                base.new(bounds=bounds, instance_project_id=project_id)

    def test_turn_that_nobody_gives_back_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As that of a process whose host lost its power."""
        monkeypatch.setattr(session, 'LOCK_TIMEOUT', 1)
        session.get_engine().dispose()
        bounds = commands.Bounds(9, 9)
        base.new(bounds=bounds)
        with session.writer() as db:
            leases.wait_for_turn(db, 'project')
            start = time.monotonic()
            with pytest.raises(db_exc.DBDeadlock):
                base.new(bounds=bounds)
            assert time.monotonic() - start < 20
            assert base.new(bounds=bounds, instance_project_id='other')
        assert base.new(bounds=bounds)

    def test_count_reads_no_further_than_its_index(self) -> None:
        base.new()
        statements: list[tuple[str, Any]] = []
        sa.event.listen(
            session.get_engine(),
            'before_cursor_execute',
            lambda _c, _cursor, statement, parameters, *_: statements.append(
                (statement, parameters)
            ),
        )
        base.new(bounds=commands.Bounds(9, 9))
        ((statement, parameters),) = [
            item for item in statements if 'count(' in item[0]
        ]
        with session.get_engine().connect() as connection:
            plan = (
                connection.exec_driver_sql('EXPLAIN ' + statement, parameters)
                .mappings()
                .all()
            )
        read = [row for row in plan if row['table'] == 'guest_agent_commands']
        assert len(read) == 2
        for row in read:
            assert row['key'] == 'guest_agent_commands_quota_idx'
            assert 'Using index' in row['Extra']
