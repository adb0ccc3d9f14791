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

"""The connection to the database that holds our tables."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from typing import Any
from typing import TypeVar

from oslo_config import cfg
from oslo_db import api as oslo_db_api
from oslo_db.sqlalchemy import enginefacade
import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import logs

#: Seconds that a statement waits for the lock of another transaction. Our
#: transactions hold locks for milliseconds, but that of a machine that lost
#: its power holds them until the database notices.
LOCK_TIMEOUT = 5
#: How to set the timeout, by dialect. Without it MySQL waits for a minute and
#: PostgreSQL for ever; SQLite waits for five seconds.
_SET_LOCK_TIMEOUT: Mapping[str, str] = {
    'mysql': 'SET SESSION innodb_lock_wait_timeout = %d',
    'mariadb': 'SET SESSION innodb_lock_wait_timeout = %d',
    'postgresql': "SET lock_timeout = '%ds'",
}

_context_manager = enginefacade.transaction_context()

_Function = TypeVar('_Function')


class _Context:
    """The object that oslo.db attaches the state of one transaction to."""


def configure(conf: cfg.ConfigOpts) -> None:
    """Set which database to use; nothing is connected yet.

    That is the one of ``[guest_agent_database]``, or Nova's API database if
    that has no ``connection``. A call after the first connection has no
    effect.
    """
    group = conf.guest_agent_database
    if not group.connection:
        group = conf.api_database
    if _context_manager.is_started:
        return
    # Our threads are native, and need not be told to let others work.
    _context_manager.configure(
        **_kept(dict(group.items())), thread_checkin=False
    )
    _context_manager.append_on_engine_create(_hide_parameters)
    _context_manager.append_on_engine_create(_bound_waits)


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    """Return options for a pool that closes no connection after use.

    Connections over max_pool_size would be closed after each use, and PyMySQL
    spends as much processor time on opening one as on ten transactions: it
    reads the system's certificates. A conductor that fell behind did little
    else.
    """
    size, overflow = options['max_pool_size'], options['max_overflow']
    # None, zero and negative numbers mean a default or no limit.
    if not (size and overflow and size > 0 and overflow > 0):
        return options
    return dict(options, max_pool_size=size + overflow, max_overflow=0)


def _hide_parameters(engine: sa.Engine) -> None:
    # The data of tenants, which no exception and no log may show, are
    # parameters of our statements.
    engine.hide_parameters = True
    # SQLAlchemy logs rows at DEBUG nevertheless. A logger of our own can be
    # filtered.
    engine.logging_name = 'guest_agent_ext'
    sa.log.instance_logger(engine)
    logs.hide_rows('sqlalchemy.engine.Engine.guest_agent_ext')


def _bound_waits(engine: sa.Engine) -> None:
    """Set LOCK_TIMEOUT on each connection of an engine."""
    setting = _SET_LOCK_TIMEOUT.get(engine.dialect.name)
    if setting is None:
        return

    def bound(connection: Any, _record: Any) -> None:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(setting % LOCK_TIMEOUT)
        # A rollback would undo the setting on PostgreSQL.
        connection.commit()

    sa.event.listen(engine, 'connect', bound)
    # oslo.db has opened a connection already, to test it.
    engine.dispose()


def get_engine() -> sa.Engine:
    """Return the engine of the writer."""
    engine: sa.Engine = _context_manager.writer.get_engine()
    return engine


@contextlib.contextmanager
def reader() -> Iterator[orm.Session]:
    """Open a transaction that reads."""
    with _context_manager.reader.using(_Context()) as session:
        yield session


@contextlib.contextmanager
def writer() -> Iterator[orm.Session]:
    """Open a transaction that writes.

    Its first statement must write: on SQLite a transaction that has read
    cannot wait for another writer, and fails.
    """
    with _context_manager.writer.using(_Context()) as session:
        yield session


@contextlib.contextmanager
def reader_connection() -> Iterator[sa.Connection]:
    """Open a transaction that reads columns, without the ORM.

    A session takes three times the processor time of its connection, so what
    every command passes uses the connection.
    """
    with get_engine().connect() as connection:
        yield connection


@contextlib.contextmanager
def writer_connection() -> Iterator[sa.Connection]:
    """Open a transaction that writes, without the ORM.

    As in writer(), its first statement must write.
    """
    with get_engine().begin() as connection:
        yield connection


def changed(
    db: orm.Session | sa.Connection,
    change: sa.UpdateBase,
    values: Mapping[str, object] | None = None,
) -> int:
    """Execute a change, and return the number of rows that matched.

    :param db: current transaction, which has read no objects that the change
        is to be seen in
    :param values: parameters of the statement
    """
    # Else the ORM would read which rows match before it changes them.
    result = db.execute(
        change, values, execution_options={'synchronize_session': False}
    )
    assert isinstance(result, sa.CursorResult)
    return int(result.rowcount)


def retried(function: _Function) -> _Function:
    """Decorate a function that is called again after a deadlock."""
    # oslo.db's decorator is not typed.
    retrying: Any = oslo_db_api.wrap_db_retry(
        max_retries=5,
        retry_interval=0.1,
        max_retry_interval=1,
        retry_on_deadlock=True,
    )
    decorated: _Function = retrying(function)
    return decorated
