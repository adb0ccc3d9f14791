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

import pytest
import sqlalchemy as sa

from guest_agent_ext.db import session
from tests.functional.db import contract
from tools.testbed import mariadb as mariadb_server

#: More threads than oslo.db keeps connections for (max_pool_size).
BUSY = 12


class TestMariaDB(contract.DatabaseContract):
    @pytest.fixture(autouse=True)
    def database(
        self, monkeypatch: pytest.MonkeyPatch, mariadb: mariadb_server.MariaDB
    ) -> Iterator[None]:
        # The character set that Nova's databases have.
        mariadb.create('queries')
        yield from contract.connect(monkeypatch, mariadb.url('queries'))

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
