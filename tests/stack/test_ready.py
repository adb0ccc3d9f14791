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

"""Commands for servers that Nova is still building or booting."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
import uuid

import pytest

from tests.stack import conftest
from tests.stack.conftest import OpenStack
from tools.stack import seed
from tools.stack import stack as stack_module
from tools.testbed import processes


@pytest.fixture
def unscheduled(stack: stack_module.Stack) -> Iterator[Callable[[], None]]:
    """Keeps Nova from scheduling servers until it is called, or to the end."""
    scheduler = stack.process('nova-scheduler')
    scheduler.pause()
    yield scheduler.resume
    scheduler.resume()


@pytest.fixture
def ask(sdk: Callable[[str], Any]) -> Iterator[Callable[..., Any]]:
    """Asks Nova for a server, and waits for nothing."""
    cloud = sdk('demo')
    servers = []

    def create(flavor: str = seed.FLAVOR) -> Any:
        servers.append(
            cloud.compute.create_server(
                name=f'ready-{uuid.uuid4().hex[:8]}',
                networks='none',
                flavor_id=cloud.compute.find_flavor(flavor).id,
                image_id=cloud.image.find_image(seed.IMAGE).id,
            )
        )
        return servers[-1]

    yield create
    for server in servers:
        cloud.compute.delete_server(server, ignore_missing=True)


@pytest.fixture
def impossible(sdk: Callable[[str], Any]) -> Iterator[str]:
    """A flavor that no host has the processors for."""
    flavor = sdk('admin').compute.create_flavor(
        name=f'impossible-{uuid.uuid4().hex[:8]}', ram=64, vcpus=4096, disk=1
    )
    yield flavor.name
    sdk('admin').compute.delete_flavor(flavor)


def post(compute: Any, server_id: str, *argv: str) -> str:
    """Have something run, and return the uuid of the command."""
    answer = compute.post(
        f'/servers/{server_id}/guest-agent/commands',
        json={
            'command': {
                'type': 'exec',
                'arguments': {'command': argv, 'start_timeout': 180},
            }
        },
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()['command']['uuid'])


def test_command_for_a_server_that_is_just_asked_for(
    demo: OpenStack,
    compute: Any,
    ask: Callable[..., Any],
    unscheduled: Callable[[], None],
) -> None:
    server = ask()
    command = post(compute, server.id, 'hostname')
    unscheduled()
    code, out, err = demo.guest('wait', server.id)
    assert (code, out) == (0, b''), err
    ended = conftest.wait(compute, server.id, command, 'COMPLETED')
    assert ended['result']['out_data'] == 'guest\n'

    def is_told() -> bool:
        answer = compute.get(f'/servers/{server.id}/os-instance-actions')
        actions = answer.json()['instanceActions']
        return 'guest_agent_exec' in {item['action'] for item in actions}

    # It was asked for before there was a server to note that of.
    processes.wait_for(is_told, 60, 'the action', gap=0.5)


def test_command_for_a_server_that_cannot_be_built(
    compute: Any,
    ask: Callable[..., Any],
    impossible: str,
    unscheduled: Callable[[], None],
) -> None:
    server = ask(impossible)
    command = post(compute, server.id, 'true')
    unscheduled()
    ended = conftest.wait(compute, server.id, command, 'FAILED')
    assert ended['error'] == 'The server could not be built'


def test_command_for_a_server_deleted_before_it_was_scheduled(
    compute: Any, ask: Callable[..., Any], unscheduled: Callable[[], None]
) -> None:
    server = ask()
    command = post(compute, server.id, 'true')
    compute.delete_server(server)
    # When the scheduler has answered, Nova forgets that there was a server.
    ended = conftest.wait(compute, server.id, command, 'FAILED')
    assert ended['error'] == 'The server was deleted'


def test_command_for_a_server_that_is_started(
    compute: Any, boot: Callable[..., str]
) -> None:
    server_id = boot()
    compute.stop_server(server_id)
    compute.wait_for_server(
        compute.get_server(server_id), status='SHUTOFF', wait=60
    )
    refused = compute.post(
        f'/servers/{server_id}/guest-agent/commands',
        json={'command': {'type': 'exec', 'arguments': {'command': ['true']}}},
    )
    assert refused.status_code == 409
    compute.start_server(server_id)
    command = post(compute, server_id, 'true')
    conftest.wait(compute, server_id, command, 'COMPLETED')
