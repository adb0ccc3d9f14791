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

"""The schema: which version the database has, and how to upgrade to another.

The migrations are alembic's, with a version table of our own beside Nova's in
one database.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from alembic import command as alembic
from alembic import config as alembic_config
from alembic import op
from alembic import script as alembic_script
from alembic.runtime import migration as alembic_migration
import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session

VERSION_TABLE = 'guest_agent_alembic_version'


def is_ours(name: str | None, kind: str) -> bool:
    """Return False for a table of Nova's, which migrations leave alone.

    :param kind: kind of the object, as alembic names it
    """
    return kind != 'table' or name in models.Base.metadata.tables


def sync(version: str = 'head') -> None:
    """Upgrade the database to ``version``.

    Migrations only add, so services of the old release may run meanwhile. An
    interrupted migration is continued by the next call.
    """
    with session.get_engine().begin() as connection:
        config = _config()
        config.attributes['connection'] = connection
        alembic.upgrade(config, version)


def version() -> str | None:
    """Return the version of the database, None if there are no tables."""
    with session.get_engine().connect() as connection:
        return version_of(connection)


def version_of(connection: sa.Connection) -> str | None:
    context = alembic_migration.MigrationContext.configure(
        connection, opts={'version_table': VERSION_TABLE}
    )
    return context.get_current_revision()


def head() -> str | None:
    """Return the version that this release needs."""
    scripts = alembic_script.ScriptDirectory.from_config(_config())
    return scripts.get_current_head()


def create_table(
    name: str, *columns: sa.schema.SchemaItem, **options: Any
) -> None:
    """Create a table in a migration, if missing.

    MySQL commits each statement by itself, so an interrupted migration has
    made a part of its changes.
    """
    if not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(name, *columns, **options)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column in a migration, if missing.

    :param column: column that may be null: services of the old release insert
        rows without it
    """
    found = sa.inspect(op.get_bind()).get_columns(table)
    if column.name not in {known['name'] for known in found}:
        op.add_column(table, column)


def create_index(
    name: str, table: str, columns: Sequence[str], *, unique: bool = False
) -> None:
    """Create an index in a migration, if missing."""
    found = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {index['name'] for index in found}:
        op.create_index(name, table, columns, unique=unique)


def _config() -> alembic_config.Config:
    config = alembic_config.Config()
    here = pathlib.Path(__file__).parent
    config.set_main_option('script_location', str(here / 'migrations'))
    return config
