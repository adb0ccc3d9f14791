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

"""A server with a distribution in it, from its image to its reboot."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.stack import conftest
from tests.stack.conftest import OpenStack
from tools.stack import seed
from tools.stack import stack as stack_module


@pytest.fixture(scope='module')
def debian(
    stack: stack_module.Stack,
    pytestconfig: pytest.Config,
    boot: Callable[..., str],
) -> str:
    """A server that has booted from the Debian image."""
    seed.debian_image(stack.as_admin(), pytestconfig.rootpath / '.cache')
    return boot(image=seed.DEBIAN, flavor=seed.DEBIAN)


def test_user_of_the_guest(demo: OpenStack, debian: str) -> None:
    code, out, err = demo.guest(
        'exec',
        debian,
        '--user',
        'tenant',
        '--',
        'sh',
        '-c',
        'id -un; id -Gn; pwd; exit 7',
    )
    assert (code, out) == (7, b'tenant\ntenant adm\n/\n'), err


def test_agent_that_is_restarted_by_a_command(
    demo: OpenStack, debian: str
) -> None:
    code, out, err = demo.guest(
        'exec',
        debian,
        '--',
        'sh',
        '-c',
        'echo before; systemctl restart qemu-guest-agent; sleep 2; '
        'echo after; exit 7',
    )
    assert (code, out) == (7, b'before\nafter\n'), err


def test_reboot(demo: OpenStack, compute: Any, debian: str) -> None:
    """What ran is lost, and not begun again; what follows runs."""
    uuid = conftest.start(
        demo, compute, debian, 'echo ran >>/root/count; sync; sleep 600'
    )
    demo.do('server', 'reboot', '--wait', debian)
    conftest.wait(compute, debian, uuid, 'LOST')
    conftest.wait_for_agent(compute, debian)
    assert demo.guest('exec', debian, '--', 'cat', '/root/count')[1] == (
        b'ran\n'
    )
