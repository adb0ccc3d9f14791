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

"""The cloud that is measured: every part is a process of its own."""

from collections.abc import Iterator
import contextlib
import pathlib
import tempfile

from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import mariadb
from tools.testbed.parts import rabbitmq

ROOT = pathlib.Path(__file__).parents[1]
#: Where the agents are that answer at once, see sitecustomize.py there.
STANDIN = {'PYTHONPATH': str(ROOT / 'benchmarks/standin')}


@contextlib.contextmanager
def running(**options: object) -> Iterator[testbed_cloud.Cloud]:
    """Run a cloud.

    :param options: options of the group guest_agent; the others have their
        defaults
    """
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        broker = rabbitmq.RabbitMQ(directory / 'rabbitmq')
        database = mariadb.MariaDB(directory / 'mariadb')
        try:
            broker.start()
            database.start()
            with testbed_cloud.running(
                directory / 'cloud',
                ROOT / '.cache',
                broker,
                database,
                {'guest_agent': options},
            ) as cloud:
                yield cloud
        finally:
            broker.close()
            database.stop()
