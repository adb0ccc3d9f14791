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

from alembic import autogenerate
from alembic.runtime import migration as alembic_migration
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.db import migration
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from tests.functional.db import base


class TestMigration:
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

    @pytest.mark.parametrize('left', [0, 1, 5])
    def test_sync_that_was_interrupted_goes_on(self, left: int) -> None:
        engine = session.get_engine()
        tables = models.Base.metadata.sorted_tables
        with engine.begin() as connection:
            connection.execute(
                sa.text(f'DELETE FROM {migration.VERSION_TABLE}')
            )
            for index in list(models.Command.__table__.indexes)[left:]:
                index.drop(connection)
            for table in tables[: -1 if left else None]:
                if table is not models.Command.__table__:
                    table.drop(connection)
        migration.sync()
        assert migration.version() == migration.head()
        self.test_migrations_make_what_the_models_say()

    def test_sync_of_what_the_first_release_made(self) -> None:
        """Its commands stay, and its services go on with the new tables."""
        uuid = base.new()
        of_runs = (models.RunTarget, models.Run)
        names = ('run_uuid', 'run_due')
        table = models.Command.__table__
        with session.get_engine().begin() as connection:
            for model in of_runs:
                model.__table__.drop(connection)
            for index in list(table.indexes):
                if any(column.name in names for column in index.columns):
                    index.drop(connection)
            for name in names:
                connection.execute(
                    sa.text(f'ALTER TABLE {table.name} DROP COLUMN {name}')
                )
            connection.execute(
                sa.text(
                    f'UPDATE {migration.VERSION_TABLE} '
                    "SET version_num = '0001'"
                )
            )
        migration.sync()
        self.test_migrations_make_what_the_models_say()
        assert base.read(uuid).run_uuid is None
        # As the first release does it, which names no other columns.
        columns = [
            column
            for column in table.columns
            if column.name not in ('id', 'uuid', *names)
        ]
        with session.get_engine().begin() as connection:
            connection.execute(
                sa.insert(table).from_select(
                    ['uuid', *(column.name for column in columns)],
                    sa.select(sa.literal('another'), *columns),
                    include_defaults=False,
                )
            )
        assert base.claim('another')
        assert base.finish('another', command.COMPLETED) == command.OK
