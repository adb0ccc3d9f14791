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
import contextlib
from typing import Any
from typing import TypeVar

from oslo_config import cfg
from oslo_db import api as oslo_db_api
from oslo_db.sqlalchemy import enginefacade
import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import logs

_context_manager = enginefacade.transaction_context()

_Function = TypeVar('_Function')


class _Context:
    """What oslo.db keeps the state of one transaction on."""


def configure(conf: cfg.ConfigOpts) -> None:
    """Say which database it is; nothing is connected yet.

    ``[guest_agent_database]``, or Nova's API database where that names no
    connection. May be called again, as long as nothing is connected.
    """
    group = conf.guest_agent_database
    if not group.connection:
        group = conf.api_database
    if _context_manager.is_started:
        return
    _context_manager.configure(**_kept(dict(group.items())))
    _context_manager.append_on_engine_create(_hide_parameters)


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    """Have a pool keep as many connections as it may open.

    Those over max_pool_size would be closed after each use, and to open one
    costs PyMySQL as much time of the processor as ten transactions: it reads
    the system's certificates. A conductor that fell behind did little else.
    """
    size, overflow = options['max_pool_size'], options['max_overflow']
    # None, 0 and less stand for a default, or for any number.
    if not (size and overflow and size > 0 and overflow > 0):
        return options
    return dict(options, max_pool_size=size + overflow, max_overflow=0)


def _hide_parameters(engine: sa.Engine) -> None:
    # What a tenant sent is a parameter of our statements: it must appear in
    # no exception and in no log.
    engine.hide_parameters = True
    # Rows would be logged at DEBUG all the same: a logger of its own.
    engine.logging_name = 'guest_agent_ext'
    sa.log.instance_logger(engine)
    logs.hide_rows('sqlalchemy.engine.Engine.guest_agent_ext')


def get_engine() -> sa.Engine:
    """Return the engine that writes."""
    engine: sa.Engine = _context_manager.writer.get_engine()
    return engine


@contextlib.contextmanager
def reader() -> Iterator[orm.Session]:
    """One transaction that reads; its connection is given back at the end."""
    with _context_manager.reader.using(_Context()) as session:
        yield session


@contextlib.contextmanager
def writer() -> Iterator[orm.Session]:
    """One transaction that writes.

    Its first statement writes: on SQLite a transaction that has read before
    cannot wait for another writer, it fails.
    """
    with _context_manager.writer.using(_Context()) as session:
        yield session


def changed(db: orm.Session, change: sa.UpdateBase) -> int:
    """Execute a change and return how many rows it met."""
    # By its types only a cursor's result counts rows.
    result: Any = db.execute(change)
    return int(result.rowcount)


def retried(function: _Function) -> _Function:
    """Decorate a function whose transaction is repeated after a deadlock."""
    # It keeps name and docstring, and by its types nothing.
    retrying: Any = oslo_db_api.wrap_db_retry(
        max_retries=5,
        retry_interval=0.1,
        max_retry_interval=1,
        retry_on_deadlock=True,
    )
    decorated: _Function = retrying(function)
    return decorated
