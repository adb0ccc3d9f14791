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

"""Connections and rows for the tests of the database.

conftest.py runs them on SQLite, tests/integration/test_mariadb.py on MariaDB.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import threading
from typing import Any
import uuid as uuid_module

from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_db import options as db_options
from oslo_db.sqlalchemy import enginefacade
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import migration
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

CELL = 'e1c4f4a5-6a07-4e5b-8c3c-0a4f0e2f6f01'


def connect(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[None]:
    """Connect the queries to a database and create its tables.

    :param url: URL of the database
    """
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
    start_timeout: int = 300,
    key: dict[str, str] | None = None,
    bounds: commands.Bounds | None = None,
    **values: Any,
) -> str:
    """Record a command, and return its uuid.

    :param values: columns of models.Command that are not the default
    """
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
        bounds,
    )
    return uuid


def together(count: int, **values: Any) -> list[Any]:
    """Record commands at the same time.

    :param count: number of commands
    :param values: arguments of new(), or functions of a command's number
    :returns: uuid of each command, or class of the exception that refused it
    """
    start = threading.Barrier(count, timeout=30)

    def record(number: int) -> Any:
        start.wait()
        try:
            return new(
                **{
                    name: value(number) if callable(value) else value
                    for name, value in values.items()
                }
            )
        except (exception.TooManyUnfinished, db_exc.DBDuplicateEntry) as error:
            return type(error)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(record, range(count)))


def key_columns(scope: str) -> dict[str, str]:
    return {'scope': scope, 'body_key': '00', 'body_hash': 'hash'}


def end_earlier(uuid: str, seconds: int) -> None:
    """Set the end of a command to ``seconds`` ago."""
    with session.writer() as db:
        db.execute(
            sa.update(models.Command)
            .where(models.Command.uuid == uuid)
            .values(finished_at=sqltypes.utc_in(-seconds))
        )


def claim(
    uuid: str,
    attempt: str = 'first',
    *,
    window: float = 30,
    grace: int = 600,
    guard: commands.Guard | None = None,
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
        guard=guard,
    )
    assert row is None or (row.uuid, row.attempt) == (uuid, attempt)
    return row is not None


def finish(
    uuid: str, status: str, attempt: str = 'first', **values: Any
) -> str:
    return commands.finish(
        uuid, attempt=attempt, status=status, values=values, age=1.0
    )


def finish_by(uuid: str, guard: commands.Guard | None) -> str:
    """End a command as COMPLETED under a guard."""
    return commands.finish(
        uuid,
        attempt='first',
        status=command.COMPLETED,
        values={},
        age=1.0,
        guard=guard,
    )


def read(uuid: str) -> models.Command:
    row = commands.get(uuid, with_output=True, with_inputs=True)
    assert row is not None
    return row


def register(machine_id: str, down_time: int = 60) -> str | None:
    return hosts.register(
        CELL, 'host', machine_id=machine_id, version='1', down_time=down_time
    )


def work_of(
    incarnation: str | None, pending: int = 10
) -> Sequence[commands.Unfinished]:
    assert incarnation is not None
    work = hosts.heartbeat(CELL, 'host', incarnation, pending)
    assert work is not None
    return work


def server_for(
    uuid: str, *, incarnation: str, cell_uuid: str = CELL, host: str = 'host'
) -> str | None:
    return commands.instance_for(
        uuid, cell_uuid=cell_uuid, host=host, incarnation=incarnation
    )
