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

"""guest-agent-api, which the catalog has as ``guest-agent``."""

from collections.abc import Callable
from concurrent import futures
import contextlib
from typing import Any

from tests.stack import conftest
from tools.stack import stack as stack_module

#: More than the threads of either API.
WAITERS = 12


def test_command_finds_it_in_the_catalog(
    stack: stack_module.Stack, demo: conftest.OpenStack, server: str
) -> None:
    # A client that sends to Nova's endpoint whatever the catalog has.
    code, out, err = demo.run('server', 'guest', 'show', server, '--debug')
    assert code == 0, err
    url = stack.place.url('guest-agent', f'/v2.1/servers/{server}/guest-agent')
    assert url.encode() in err


def test_commands_run_while_nova_api_is_stopped(
    stack: stack_module.Stack, compute: Any, boot: Callable[..., str]
) -> None:
    # A process that asks nova-api for anything.
    server = boot()
    url = stack.place.url('guest-agent', f'/v2.1/servers/{server}/guest-agent')
    with contextlib.ExitStack() as ended:
        stack.process('nova-api').stop()
        ended.callback(stack.start_nova_api)
        answer = compute.post(
            f'{url}/commands',
            json={
                'command': {
                    'type': 'exec',
                    'arguments': {'command': ['sh', '-c', 'exit 7']},
                }
            },
            headers={'Prefer': 'wait=25'},
        )
    shown = answer.json()['command']
    assert (shown['status'], shown['result']['exitcode']) == ('COMPLETED', 7)


def test_waits_take_no_thread_of_nova_api(
    stack: stack_module.Stack, compute: Any, server: str
) -> None:
    # Clients that wait at guest-agent-api, as many as either has threads: Nova
    # answers as before.
    url = stack.place.url('guest-agent', f'/v2.1/servers/{server}/guest-agent')
    made = compute.post(
        f'{url}/commands',
        json={
            'command': {
                'type': 'exec',
                'arguments': {'command': ['sleep', '20']},
            }
        },
    ).json()['command']['uuid']
    with futures.ThreadPoolExecutor(WAITERS) as pool:
        waits = [
            pool.submit(
                compute.get,
                f'{url}/commands/{made}',
                headers={'Prefer': 'wait=10'},
            )
            for _ in range(WAITERS)
        ]
        answer = compute.get(f'/servers/{server}', timeout=5)
        assert answer.status_code == 200
        assert not all(wait.done() for wait in waits)
    compute.post(f'{url}/commands/{made}/action', json={'cancel': None})
    held = [
        wait for wait in waits if 'Preference-Applied' in wait.result().headers
    ]
    assert held, 'nobody waited'
