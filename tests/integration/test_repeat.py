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

"""Requests that are repeated, on MariaDB and in a real guest."""

import concurrent.futures
import json
import uuid

import pytest

from tests.integration import test_nova_manage
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud


@pytest.fixture
def client(cloud: testbed_cloud.Cloud) -> http.Client:
    return cloud.client()


def post(client: http.Client, key: str, script: str) -> http.Answer:
    return client.send(
        'POST',
        client.commands,
        {
            'command': {
                'type': 'exec',
                'arguments': {'command': ['/bin/sh', '-c', script]},
            }
        },
        {'Idempotency-Key': key, 'Prefer': 'wait=20'},
    )


def uuid_of(answer: http.Answer) -> str:
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)['command']['uuid'])


def test_fifty_at_once_run_once(client: http.Client) -> None:
    key = str(uuid.uuid4())
    script = f'echo x >>/tmp/{key}'
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(lambda _: post(client, key, script), range(50))
        )
    (command,) = {uuid_of(answer) for answer in answers}
    client.wait(command)
    assert client.sh(f'cat /tmp/{key}')['result']['out_data'] == 'x\n'


def test_command_that_has_shut_its_server_down(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    key = str(uuid.uuid4())
    command = uuid_of(post(client, key, 'echo off'))
    client.wait(command)
    with cloud.server(vm_state='stopped', power_state=4):
        again = post(client, key, 'echo off')
        assert post(client, key + 'x', 'echo off').status == 409
    assert uuid_of(again) == command
    assert json.loads(again.body)['command']['status'] == 'COMPLETED'


def test_purge_forgets_the_command_and_not_its_key(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    key = str(uuid.uuid4())
    command = uuid_of(post(client, key, 'echo old'))
    client.wait(command)
    test_nova_manage.query(
        cloud,
        'nova_api',
        'UPDATE guest_agent_commands SET finished_at = '
        f"finished_at - INTERVAL 86390 SECOND WHERE uuid = '{command}'",
    )
    ended = test_nova_manage.run(cloud, 'guest-agent-manage', 'purge')
    assert ended.returncode == 0, ended.stderr
    test_nova_manage.query(
        cloud,
        'nova_api',
        'UPDATE guest_agent_commands SET finished_at = '
        f"finished_at - INTERVAL 20 SECOND WHERE uuid = '{command}'",
    )
    ended = test_nova_manage.run(cloud, 'guest-agent-manage', 'purge')
    assert ended.returncode == 0, ended.stderr
    status, _ = client.request('GET', f'{client.commands}/{command}')
    assert status == 404
