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

"""A MariaDB of our own."""

import contextlib
import pathlib
import subprocess

import pymysql

from tools.testbed import processes

_USER = 'testbed'


class MariaDB:
    """A database server on a loopback port, its files apart from others.

    It syncs nothing to the disk: it is quick, and loses its data when the
    machine goes down. What was committed survives when it is killed.

    :param directory: directory of its files; kept, a second start is quicker
    :ivar port: port that it listens on
    """

    def __init__(
        self, directory: pathlib.Path, port: int | None = None
    ) -> None:
        self._directory = directory
        self.port = port or processes.free_port()
        self._process: processes.Process | None = None

    def url(self, database: str) -> str:
        """Return the URL of a database for SQLAlchemy."""
        return (
            f'mysql+pymysql://{_USER}:{_USER}@127.0.0.1:{self.port}'
            f'/{database}?charset=utf8mb4'
        )

    def connect(self, database: str) -> pymysql.Connection:
        """Open a connection to a database."""
        return pymysql.connect(
            host='127.0.0.1',
            port=self.port,
            user=_USER,
            password=_USER,
            database=database,
        )

    def copy(
        self, database: str, table: str, column: str, value: str, new: str
    ) -> None:
        """Copy the rows that have a value, with another in its place."""
        with contextlib.closing(self.connect(database)) as connection:
            cursor = connection.cursor()
            cursor.execute(
                'SELECT column_name FROM information_schema.columns WHERE '
                "table_schema = %s AND table_name = %s AND extra = ''",
                [database, table],
            )
            others = ''.join(
                f', `{name}`'
                for (name,) in cursor.fetchall()
                if name != column
            )
            cursor.execute(
                f'INSERT INTO {table} (`{column}`{others}) '
                f'SELECT %s{others} FROM {table} WHERE `{column}` = %s',
                [new, value],
            )
            connection.commit()

    @property
    def process(self) -> processes.Process:
        """The server's process, to be paused or killed."""
        if self._process is None:
            raise processes.StartError('MariaDB has not been started')
        return self._process

    def start(self, timeout: float = 60) -> None:
        """Start the server, and wait until connections are accepted.

        :param timeout: seconds
        """
        data = self._directory / 'data'
        if not data.exists():
            self._install(data)
        self._process = processes.start(
            'mariadb',
            [
                'mariadbd',
                '--no-defaults',
                '--user=root',
                f'--datadir={data}',
                f'--socket={self._directory}/socket',
                f'--port={self.port}',
                '--bind-address=127.0.0.1',
                f'--init-file={self._accounts()}',
                '--skip-name-resolve',
                '--skip-log-bin',
                '--innodb-flush-log-at-trx-commit=2',
                '--innodb-flush-method=nosync',
                '--innodb-doublewrite=0',
                '--innodb-buffer-pool-size=64M',
                '--max-connections=500',
            ],
            self._directory / 'mariadb.log',
        )
        processes.wait_for(
            lambda: processes.listening(self.port),
            timeout,
            'MariaDB',
            self._process,
        )

    def create(self, *databases: str) -> None:
        """Create databases, dropping what had their names."""
        self._execute(
            *(f'DROP DATABASE IF EXISTS {name}' for name in databases)
        )
        self.provide(*databases)

    def provide(self, *databases: str) -> None:
        """Create those databases that are not there yet."""
        self._execute(
            *(
                f'CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb3'
                for name in databases
            )
        )

    def _execute(self, *statements: str) -> None:
        subprocess.run(
            [
                'mariadb',
                '--no-defaults',
                '--user=root',
                f'--socket={self._directory}/socket',
                '--execute',
                ';'.join(statements),
            ],
            check=True,
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def _install(self, data: pathlib.Path) -> None:
        data.mkdir(parents=True)
        with (self._directory / 'mariadb.log').open('ab') as log:
            subprocess.run(
                [
                    'mariadb-install-db',
                    '--no-defaults',
                    '--user=root',
                    f'--datadir={data}',
                    '--skip-test-db',
                    '--auth-root-authentication-method=socket',
                ],
                stdout=log,
                stderr=log,
                check=True,
            )

    def _accounts(self) -> pathlib.Path:
        """Write the statements that the server executes at its start."""
        path = self._directory / 'accounts.sql'
        path.write_text(
            f"CREATE USER IF NOT EXISTS '{_USER}'@'127.0.0.1' "
            f"IDENTIFIED BY '{_USER}';\n"
            f"GRANT ALL ON *.* TO '{_USER}'@'127.0.0.1';\n"
        )
        return path
