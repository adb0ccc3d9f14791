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

"""Nova's own tools beside our tables."""

import contextlib
import pathlib
import subprocess
import sys

import pytest

from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import nova

_BIN = pathlib.Path(sys.prefix) / 'bin'


def run(
    cloud: testbed_cloud.Cloud, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            _BIN / program,
            '--config-file',
            cloud.nova.directory / 'nova.conf',
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def query(cloud: testbed_cloud.Cloud, database: str, statement: str) -> int:
    """Execute a statement; return the first number that it answers."""
    with contextlib.closing(cloud.mariadb.connect(database)) as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        row = cursor.fetchone()
        connection.commit()
    return int(row[0]) if row else 0


def test_api_db_sync_leaves_our_tables_alone(
    cloud: testbed_cloud.Cloud,
) -> None:
    before = query(cloud, 'nova_api', 'SELECT COUNT(*) FROM guest_agent_hosts')
    assert before
    ended = run(cloud, 'nova-manage', 'api_db', 'sync')
    assert ended.returncode == 0, ended.stderr
    assert (
        query(cloud, 'nova_api', 'SELECT COUNT(*) FROM guest_agent_hosts')
        == before
    )
    assert cloud.client().run('/bin/true')['status'] == 'COMPLETED'


def test_archive_deleted_rows_works_in_all_cells(
    cloud: testbed_cloud.Cloud,
) -> None:
    query(
        cloud,
        nova.CELL,
        'INSERT INTO services (host, topic, report_count, deleted, '
        "deleted_at) VALUES ('gone', 'gone', 0, 99, NOW())",
    )
    ended = run(
        cloud,
        'nova-manage',
        'db',
        'archive_deleted_rows',
        '--all-cells',
        '--verbose',
    )
    # 1 says that rows were archived.
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert (
        query(
            cloud,
            nova.CELL,
            "SELECT COUNT(*) FROM shadow_services WHERE host = 'gone'",
        )
        == 1
    )


@pytest.mark.parametrize('command', ['sync', 'version'])
def test_our_own_sync_tells_the_version(
    cloud: testbed_cloud.Cloud, command: str
) -> None:
    ended = run(cloud, 'guest-agent-manage', 'db', command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == '0002\n'
