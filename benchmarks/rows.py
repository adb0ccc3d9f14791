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

"""Many commands at once, written by the database itself."""

from collections.abc import Mapping
import contextlib
from typing import Any

from tools.testbed.parts import mariadb

TABLE = 'guest_agent_commands'
#: Rows of one statement.
_BATCH = 50_000


def copy(
    database: mariadb.MariaDB,
    command: str,
    count: int,
    columns: Mapping[str, str],
) -> None:
    """Write copies of a command.

    :param command: its uuid
    :param columns: SQL of the columns that differ between copies; ``seq``
        counts in it
    """
    with contextlib.closing(database.connect('nova_api')) as connection:
        cursor = connection.cursor()
        names = [
            f'`{name}`'
            for name in _columns(cursor)
            if name not in ('id', *columns)
        ]
        for first in range(1, count + 1, _BATCH):
            last = min(first + _BATCH - 1, count)
            cursor.execute(
                f'INSERT INTO {TABLE} '
                f'({", ".join([*names, *columns])}) '
                f'SELECT {", ".join([*names, *columns.values()])} '
                f'FROM {TABLE} CROSS JOIN seq_{first}_to_{last} '
                'WHERE uuid = %s',
                [command],
            )
            connection.commit()


def query(
    database: mariadb.MariaDB, statement: str, *values: object
) -> list[tuple[Any, ...]]:
    """Run a statement on the extension's tables."""
    with contextlib.closing(database.connect('nova_api')) as connection:
        cursor = connection.cursor()
        cursor.execute(statement, values)
        connection.commit()
        return list(cursor.fetchall())


def _columns(cursor: Any) -> list[str]:
    cursor.execute(f'SHOW COLUMNS FROM {TABLE}')
    return [row[0] for row in cursor.fetchall()]
