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

"""An upgrade while commands flow: each service at its time, none lost.

There is no second release yet. One is made of this one: its RPC has a version
more, its tables a column more, with the migration for that.
"""

from collections.abc import Iterator
import contextlib
import itertools
import pathlib
import shutil
import threading

import pytest

from guest_agent_ext.db import migration
from tests.integration import test_faults
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import mariadb
from tools.testbed.parts import rabbitmq

MIGRATION = """
from alembic import op
import sqlalchemy as sa

revision = 'next'
down_revision = '{head}'


def upgrade():
    op.add_column('guest_agent_commands', sa.Column('note', sa.String(16)))
    op.create_index('guest_agent_commands_note_idx', 'guest_agent_commands',
                    ['note'])
"""
#: What the next release has in another place than this one.
CHANGES = [
    ('compute/rpcapi.py', "\nVERSION = '1.1'", "\nVERSION = '1.2'"),
    ('conductor/rpcapi.py', "\nVERSION = '1.0'", "\nVERSION = '1.1'"),
    (
        'db/models.py',
        '\n    pid: orm.Mapped[int | None]',
        '\n    note: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))'
        '\n    pid: orm.Mapped[int | None]',
    ),
]

#: Commands that have been accepted and have not ended.
WAITING = 4


@pytest.fixture(scope='module')
def next_release(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory that the next release is in."""
    directory = tmp_path_factory.mktemp('next')
    package = directory / 'guest_agent_ext'
    shutil.copytree(pathlib.Path(migration.__file__).parents[1], package)
    for name, old, new in CHANGES:
        text = (package / name).read_text()
        assert old in text
        (package / name).write_text(text.replace(old, new))
    (package / 'db/migrations/versions/next.py').write_text(
        MIGRATION.format(head=migration.head())
    )
    return directory


@pytest.fixture
def cloud(
    tmp_path_factory: pytest.TempPathFactory, cache: pathlib.Path
) -> Iterator[testbed_cloud.Cloud]:
    """A cloud of its own: its tables are not those of this release."""
    # Its path is shorter than that of the test: there are sockets in it.
    directory = tmp_path_factory.mktemp('upgrade')
    broker = rabbitmq.RabbitMQ(directory / 'rabbitmq')
    database = mariadb.MariaDB(directory / 'mariadb')
    try:
        broker.start()
        database.start()
        with testbed_cloud.running(
            directory / 'cloud', cache, broker, database
        ) as cloud:
            yield cloud
    finally:
        broker.close()
        database.stop()


class Load:
    """Who sends one command after the other, while the block is entered.

    However slow the machine is, no more than a few of them wait.
    """

    def __init__(self, client: http.Client) -> None:
        #: What each one prints, and its uuid.
        self.accepted: list[tuple[str, str]] = []
        self._client = client
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> 'Load':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def assert_works(self) -> None:
        """Wait until a command was accepted and has run."""
        seen = len(self.accepted)
        processes.wait_for(
            lambda: len(self.accepted) > seen,
            test_faults.PATIENCE,
            'a command',
        )
        number, command = self.accepted[seen]
        test_faults.assert_completed(self._client, command, 0, f'{number}\n')

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(0.3):
                return
            try:
                if self._busy():
                    continue
                status, body = self._client.post(
                    '/bin/sh',
                    '-c',
                    f'echo {number} >>/tmp/load; echo {number}',
                )
            except OSError:
                continue  # nova-api is being replaced
            if status == 200:
                self.accepted.append((str(number), body['command']['uuid']))

    def _busy(self) -> bool:
        if len(self.accepted) < WAITING:
            return False
        _, command = self.accepted[-WAITING]
        return self._client.show(command)['status'] not in http.ENDED


def replace_conductor(cloud: testbed_cloud.Cloud) -> None:
    cloud.conductor.stop()
    cloud.start_conductor()


def replace_compute(cloud: testbed_cloud.Cloud) -> None:
    cloud.compute.stop()
    cloud.start_compute()


def replace_api(cloud: testbed_cloud.Cloud) -> None:
    cloud.api.stop()
    cloud.api = cloud.nova.start_api()


def version_of(cloud: testbed_cloud.Cloud) -> str:
    with contextlib.closing(cloud.mariadb.connect('nova_api')) as connection:
        cursor = connection.cursor()
        cursor.execute(f'SELECT * FROM {migration.VERSION_TABLE}')
        (row,) = cursor.fetchall()
    return str(row[0])


#: As the admin guide has it. On the way back old services meet new ones on the
#: other side.
ORDER = (replace_conductor, replace_compute, replace_api)


def test_no_command_is_lost_by_an_upgrade_nor_by_a_rollback(
    cloud: testbed_cloud.Cloud, next_release: pathlib.Path
) -> None:
    client = cloud.client()
    this = cloud.nova
    following = this.with_environment({'PYTHONPATH': str(next_release)})
    with Load(client) as load:
        running = client.start('/bin/sh', '-c', 'sleep 25; echo out; exit 3')
        following.sync()
        assert version_of(cloud) == 'next'
        load.assert_works()
        for cloud.nova, replace in itertools.product((following, this), ORDER):
            replace(cloud)
            load.assert_works()
    test_faults.assert_completed(client, running, 3, 'out\n')
    for number, command in load.accepted:
        test_faults.assert_completed(client, command, 0, f'{number}\n')
    ran = client.sh('cat /tmp/load')['result']['out_data'].split()
    assert sorted(ran) == sorted(number for number, _ in load.accepted)
