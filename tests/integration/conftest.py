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
import contextlib
import dataclasses
import pathlib
import time

import pytest

from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import demo
from tools.testbed.parts import libvirtd
from tools.testbed.parts import mariadb as mariadb_server
from tools.testbed.parts import rabbitmq as rabbitmq_server


@dataclasses.dataclass(frozen=True)
class Debian:
    """A Debian guest that runs behind a server of an embedded cloud.

    :ivar settings: what is in ``.demo/env`` of its cloud
    :ivar client: a member of its project
    :ivar agent: its agent, reached through libvirt
    """

    settings: dict[str, str]
    client: http.Client
    agent: guest_agent.Agent

    def run(self, *argv: str, timeout: float = 180) -> str:
        """Run a command that succeeds, by the agent alone.

        :param argv: the program, as a path, and its arguments
        :param timeout: seconds
        :returns: its stdout, without the newline at the end
        """
        pid = self.agent.exec(argv[0], argv[1:])
        deadline = time.monotonic() + timeout
        while not (status := self.agent.exec_status(pid)).exited:
            assert time.monotonic() < deadline, argv
            time.sleep(0.1)
        assert status.exitcode == 0, (argv, status, status.out, status.err)
        return status.out.decode().rstrip('\n')


@pytest.fixture(scope='session')
def cache(pytestconfig: pytest.Config) -> pathlib.Path:
    """What is kept between runs: the guests' images."""
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
def debian(
    tmp_path_factory: pytest.TempPathFactory, cache: pathlib.Path
) -> Iterator[Debian]:
    """A Debian guest that has booted."""
    cloud = demo.Demo(tmp_path_factory.mktemp('debian'), cache)
    with contextlib.ExitStack() as stack:
        cloud.up(guest=libvirtd.Debian())
        stack.callback(cloud.down)
        guests = connection.Connection(cloud.libvirt_uri)
        stack.callback(guests.close)
        client = client_of(cloud)
        debian = Debian(
            cloud.settings(),
            client,
            guest_agent.Agent(guests, client.server_id, timeout=20),
        )
        debian.run('/bin/systemctl', 'is-system-running', '--wait')
        yield debian


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
    return client_of(embedded)


def client_of(cloud: demo.Demo) -> http.Client:
    settings = cloud.settings()
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
