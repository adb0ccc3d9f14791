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

"""What Nova itself does to a server while commands run in it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.stack import conftest
from tests.stack.conftest import OpenStack
from tools.testbed import processes


@pytest.fixture(scope='module')
def own(boot: Callable[..., str]) -> str:
    """A server for the tests here: it comes back, but its commands do not."""
    return boot()


def _start(demo: OpenStack, server_id: str, script: str) -> str:
    code, out, err = demo.guest('exec', server_id, '--no-wait', '--', 'sh',
                                '-c', script)
    assert code == 0, err
    uuid = out.decode().split()[1]
    _wait(demo, server_id, uuid, 'RUNNING')
    return uuid


def _wait(demo: OpenStack, server_id: str, uuid: str, status: str,
          timeout: float = 120) -> dict[str, Any]:
    shown: dict[str, Any] = {}

    def is_so() -> bool:
        shown.update(demo.json('server', 'guest', 'command', 'show',
                               server_id, uuid))
        return shown['status'] == status

    processes.wait_for(is_so, timeout, f'{status}, not {shown}')
    return shown


def _wait_for_agent(demo: OpenStack, server_id: str) -> None:
    processes.wait_for(
        lambda: conftest.agent_status(demo, server_id) == 'available', 60,
        'the agent')


def test_rebuild(demo: OpenStack, own: str) -> None:
    uuid = _start(demo, own, 'sleep 600')
    demo.do('server', 'rebuild', '--image', 'guest', '--wait', own)
    _wait(demo, own, uuid, 'LOST')
    _wait_for_agent(demo, own)
    assert demo.guest('exec', own, '--', 'echo', 'new')[1] == b'new\n'


def test_suspend_and_resume(demo: OpenStack, own: str) -> None:
    uuid = _start(demo, own, 'sleep 5; exit 9')
    demo.do('server', 'suspend', own)
    _until(demo, own, 'SUSPENDED')
    assert demo.guest('exec', own, '--', 'true')[0] == 1
    demo.do('server', 'resume', own)
    _until(demo, own, 'ACTIVE')
    result = _wait(demo, own, uuid, 'COMPLETED')['result']
    assert result['exitcode'] == 9


def test_shelve_and_unshelve(demo: OpenStack, own: str) -> None:
    uuid = _start(demo, own, 'sleep 600')
    demo.do('server', 'shelve', '--wait', own)
    _wait(demo, own, uuid, 'LOST')
    demo.do('server', 'unshelve', '--wait', own)
    _wait_for_agent(demo, own)
    assert demo.guest('exec', own, '--', 'echo', 'back')[1] == b'back\n'


def test_lock(demo: OpenStack, admin: OpenStack, own: str) -> None:
    demo.do('server', 'lock', own)
    code, _, err = demo.guest('exec', own, '--', 'true')
    assert code == 1
    assert b'locked' in err
    assert admin.guest('exec', own, '--', 'true')[0] == 0
    demo.do('server', 'unlock', own)


def _until(demo: OpenStack, server_id: str, status: str) -> None:
    processes.wait_for(
        lambda: demo.json('server', 'show', server_id)['status'] == status,
        120, status)
