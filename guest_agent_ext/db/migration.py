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

"""The schema: which version the database has, and how to bring it forward.

The migrations are alembic's, with a version table of our own, so that they
live beside Nova's in one database.
"""

import pathlib

from alembic import command as alembic
from alembic import config as alembic_config
from alembic import script as alembic_script
from alembic.runtime import migration as alembic_migration
import sqlalchemy as sa

from guest_agent_ext.db import models
from guest_agent_ext.db import session

VERSION_TABLE = 'guest_agent_alembic_version'


def is_ours(name: str | None, kind: str) -> bool:
    """Tell whether a table is ours; all others are Nova's and left alone."""
    return kind != 'table' or name in models.Base.metadata.tables


def sync(version: str = 'head') -> None:
    """Bring the database forward to ``version``.

    Migrations only add, so the old code runs on while they do.
    """
    with session.get_engine().begin() as connection:
        config = _config()
        config.attributes['connection'] = connection
        alembic.upgrade(config, version)


def version() -> str | None:
    """Return the version that the database has, None before the first."""
    with session.get_engine().connect() as connection:
        return version_of(connection)


def version_of(connection: sa.Connection) -> str | None:
    context = alembic_migration.MigrationContext.configure(
        connection, opts={'version_table': VERSION_TABLE}
    )
    return context.get_current_revision()


def head() -> str | None:
    """Return the version that this code was written for."""
    scripts = alembic_script.ScriptDirectory.from_config(_config())
    return scripts.get_current_head()


def _config() -> alembic_config.Config:
    config = alembic_config.Config()
    here = pathlib.Path(__file__).parent
    config.set_main_option('script_location', str(here / 'migrations'))
    return config
