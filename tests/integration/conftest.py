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

"""The real things, started once for all tests that ask for them.

What cannot be started is an error, never a skip.
"""

from collections.abc import Iterator
import pathlib

import pytest

from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import demo
from tools.testbed import mariadb as mariadb_server
from tools.testbed import rabbitmq as rabbitmq_server


@pytest.fixture(scope='session')
def cache(pytestconfig: pytest.Config) -> pathlib.Path:
    """What is kept between runs: the guest's image."""
    return pytestconfig.rootpath / '.cache'


@pytest.fixture(scope='session')
def mariadb(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[mariadb_server.MariaDB]:
    """A MariaDB with no databases in it."""
    server = mariadb_server.MariaDB(tmp_path_factory.mktemp('mariadb'))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope='session')
def rabbitmq(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[rabbitmq_server.RabbitMQ]:
    """A RabbitMQ."""
    broker = rabbitmq_server.RabbitMQ(tmp_path_factory.mktemp('rabbitmq'))
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope='session')
def embedded(
    tmp_path_factory: pytest.TempPathFactory, cache: pathlib.Path
) -> Iterator[demo.Demo]:
    """What ``make up`` starts, in a directory and on a port of its own."""
    cloud = demo.Demo(tmp_path_factory.mktemp('embedded'), cache)
    cloud.up()
    yield cloud
    cloud.down()


@pytest.fixture
def client(embedded: demo.Demo) -> http.Client:
    """A member of the project of the embedded cloud's server."""
    settings = embedded.settings()
    return http.Client(
        settings['COMPUTE_URL'], settings['TOKEN'], settings['SERVER_ID']
    )


@pytest.fixture(scope='session')
def running_cloud(
    tmp_path_factory: pytest.TempPathFactory,
    cache: pathlib.Path,
    rabbitmq: rabbitmq_server.RabbitMQ,
    mariadb: mariadb_server.MariaDB,
) -> Iterator[testbed_cloud.Cloud]:
    """The cloud of separate processes, as the last test left it."""
    with testbed_cloud.running(
        tmp_path_factory.mktemp('cloud'), cache, rabbitmq, mariadb
    ) as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: testbed_cloud.Cloud) -> testbed_cloud.Cloud:
    """The cloud of separate processes, with all of them running."""
    running_cloud.mend()
    return running_cloud
