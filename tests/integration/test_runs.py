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

"""Runs, with every part real, and what dies meanwhile killed by its pid."""

from collections.abc import Iterator
import json
from typing import Any
import uuid

import pytest

from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

RUNS = '/guest-agent/runs'
#: As long as another conductor takes to take a run over, and services to come
#: up on a small machine.
PATIENCE = 150


@pytest.fixture
def client(cloud: testbed_cloud.Cloud) -> Iterator[http.Client]:
    yield cloud.client()
    cloud.mend()


def post(client: http.Client, script: str, **values: Any) -> str:
    """Ask for a run of a script in the server, and return its uuid."""
    answer = client.send(
        'POST',
        RUNS,
        {
            'run': {
                'targets': {'servers': [client.server_id]},
                'type': 'exec',
                'arguments': {'command': ['/bin/sh', '-c', script]},
                **values,
            }
        },
    )
    assert answer.status == 202, answer.body
    found: str = json.loads(answer.body)['run']['uuid']
    return found


def show(client: http.Client, run: str) -> dict[str, Any]:
    status, body = client.request('GET', f'{RUNS}/{run}')
    assert status == 200, body
    return dict(body['run'])


def wait(client: http.Client, run: str, **counts: int) -> dict[str, Any]:
    """Wait until a run has ended, or has these counts."""
    found: dict[str, Any] = {}

    def is_so() -> bool:
        found.update(show(client, run))
        if counts:
            return counts.items() <= found['counts'].items()
        return bool(found['status'] != 'RUNNING')

    processes.wait_for(is_so, PATIENCE, f'run {run}')
    return found


def command_of(client: http.Client, run: str) -> dict[str, Any]:
    status, body = client.request('GET', f'{RUNS}/{run}/commands')
    assert status == 200, body
    (command,) = body['commands']
    return client.show(command['uuid'])


def test_run(client: http.Client) -> None:
    run = post(client, 'echo out; exit 3', max_errors=1)
    ended = wait(client, run)
    assert (ended['status'], ended['errors']) == ('COMPLETED', 1)
    command = command_of(client, run)
    assert command['run_uuid'] == run
    assert command['result']['exitcode'] == 3
    assert command['result']['out_data'] == 'out\n'


def test_cancel_kills_what_runs(client: http.Client) -> None:
    run = post(client, 'sleep 98765')
    wait(client, run, RUNNING=1)
    status, _ = client.request(
        'POST', f'{RUNS}/{run}/action', {'cancel': None}
    )
    assert status == 202
    assert wait(client, run)['status'] == 'CANCELLED'
    ended = client.sh(
        'for p in /proc/[0-9]*; do tr "\\0" " " <$p/cmdline; echo; done '
        '2>/dev/null | grep "^sleep 98765"'
    )
    assert ended['result']['exitcode'] == 1, ended


def test_conductor_killed_while_a_run_is_under_way(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    go, ran = f'/tmp/go-{uuid.uuid4()}', f'/tmp/ran-{uuid.uuid4()}'
    run = post(
        client, f'echo x >>{ran}; until [ -e {go} ]; do sleep 0.1; done'
    )
    wait(client, run, RUNNING=1)
    cloud.conductor.kill()
    # Accepted while nobody works on runs.
    other = post(client, f'echo x >>{ran}')
    cloud.hypervisor.touch(cloud.guest, go)
    cloud.start_conductor()
    for found in (run, other):
        ended = wait(client, found)
        assert ended['status'] == 'COMPLETED'
        assert ended['counts']['COMPLETED'] == 1
    assert client.sh(f'cat {ran}')['result']['out_data'] == 'x\nx\n'


def test_two_conductors(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    another = cloud.nova.start_conductor()
    try:
        ran = f'/tmp/ran-{uuid.uuid4()}'
        found = [post(client, f'echo x >>{ran}') for _ in range(5)]
        for run in found:
            assert wait(client, run)['counts']['COMPLETED'] == 1
    finally:
        another.stop()
    assert client.sh(f'wc -l <{ran}')['result']['out_data'].strip() == '5'


def test_server_that_is_shut_off_is_refused(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    with cloud.server(vm_state='stopped'):
        ended = wait(client, post(client, 'echo out'))
    assert ended['counts']['REFUSED'] == 1
    (refused,) = ended['refused']
    assert 'vm_state stopped' in refused['error']
