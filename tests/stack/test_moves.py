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


@pytest.fixture(scope='module')
def own(boot: Callable[..., str]) -> str:
    """A server for the tests here: it comes back, but its commands do not."""
    return boot()


def test_rebuild(demo: OpenStack, compute: Any, own: str) -> None:
    uuid = conftest.start(demo, compute, own, 'sleep 600')
    demo.do('server', 'rebuild', '--image', 'guest', '--wait', own)
    conftest.wait(compute, own, uuid, 'LOST')
    conftest.wait_for_agent(compute, own)
    assert demo.guest('exec', own, '--', 'echo', 'new')[1] == b'new\n'


def test_suspend_and_resume(demo: OpenStack, compute: Any, own: str) -> None:
    uuid = conftest.start(demo, compute, own, 'sleep 5; exit 9')
    demo.do('server', 'suspend', own)
    conftest.wait_for_server(compute, own, 'SUSPENDED')
    assert demo.guest('exec', own, '--', 'true')[0] == 1
    demo.do('server', 'resume', own)
    conftest.wait_for_server(compute, own, 'ACTIVE')
    result = conftest.wait(compute, own, uuid, 'COMPLETED')['result']
    assert result['exitcode'] == 9


def test_shelve_and_unshelve(demo: OpenStack, compute: Any, own: str) -> None:
    uuid = conftest.start(demo, compute, own, 'sleep 600')
    demo.do('server', 'shelve', '--wait', own)
    conftest.wait(compute, own, uuid, 'LOST')
    demo.do('server', 'unshelve', '--wait', own)
    conftest.wait_for_agent(compute, own)
    assert demo.guest('exec', own, '--', 'echo', 'back')[1] == b'back\n'


def test_lock(demo: OpenStack, admin: OpenStack, own: str) -> None:
    demo.do('server', 'lock', own)
    code, _, err = demo.guest('exec', own, '--', 'true')
    assert code == 1
    assert b'locked' in err
    assert admin.guest('exec', own, '--', 'true')[0] == 0
    demo.do('server', 'unlock', own)
