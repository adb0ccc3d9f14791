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

"""guest-agent-api as a process of its own, beside nova-api."""

from collections.abc import Iterator
from concurrent import futures
import time

import pytest

from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes


@pytest.fixture(scope='module')
def port() -> int:
    return processes.free_port()


@pytest.fixture(scope='module')
def process(
    running_cloud: testbed_cloud.Cloud, port: int
) -> Iterator[processes.Process]:
    """A guest-agent-api with the configuration of nova-api."""
    started = running_cloud.nova.start_guest_agent_api(port)
    yield started
    started.stop()


@pytest.fixture
def client(
    cloud: testbed_cloud.Cloud, process: processes.Process, port: int
) -> http.Client:
    """A member, who sends requests to guest-agent-api."""
    return cloud.nova.client('member', cloud.server_id, port)


def test_commands_run_while_nova_api_is_dead(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    # An application that is loaded, and lacks what Nova's own entry point sets
    # up: messages, objects, the database.
    cloud.api.kill()
    shown = client.sh('cat; exit 7', input_data='by its own process')
    assert shown['status'] == 'COMPLETED'
    assert shown['result']['exitcode'] == 7
    assert shown['result']['out_data'] == 'by its own process'


def test_files_pass_through(client: http.Client) -> None:
    # A pipeline that reads a body as a whole, or refuses a large one.
    data = bytes(range(256)) * 1024
    assert client.put_file('/tmp/through', data).status == 204
    assert client.get_file('/tmp/through').body == data


def test_waits_are_slots_of_its_own(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    # Eight threads are assumed of this server, four of them for waiters: a
    # fifth is answered at once there, and nova-api has all of its own.
    uuid = client.start('sleep', '60')
    path = f'{client.commands}/{uuid}'
    client.wait(uuid, 'RUNNING')

    def wait(of: http.Client, seconds: int) -> tuple[bool, float]:
        began = time.monotonic()
        answer = of.send('GET', path, headers={'Prefer': f'wait={seconds}'})
        assert answer.status == 200, answer.body
        waited = 'Preference-Applied' in answer.headers
        return waited, time.monotonic() - began

    with futures.ThreadPoolExecutor() as pool:
        held = [pool.submit(wait, client, 12) for _ in range(4)]
        time.sleep(2)
        assert not wait(client, 1)[0]
        assert wait(cloud.client(), 1)[0]
        assert not any(future.done() for future in held)
        cloud.client().cancel(uuid)
        assert all(future.result()[0] for future in held)


def test_token_is_asked_for(client: http.Client, port: int) -> None:
    # A pipeline without Keystone.
    nobody = http.Client(f'http://127.0.0.1:{port}/v2.1', '', client.server_id)
    assert nobody.request('GET', nobody.commands)[0] == 401
    status, body = client.request('GET', '/servers/detail')
    assert (status, body['itemNotFound']['code']) == (404, 404)
