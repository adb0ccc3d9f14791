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
import json
import threading
import time
from typing import Any
import uuid

import libvirt_qemu
from playwright import sync_api
import pytest

from tests.stack import conftest
from tests.stack.conftest import OpenStack
from tools.stack import seed
from tools.stack import stack as stack_module
from tools.testbed import processes


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


def test_terminal_of_the_panel(
    log_in: Callable[..., sync_api.Page], debian: str
) -> None:
    page = log_in('demo')
    page.goto(f'/project/instances/{debian}/?tab=instance_details__guest')
    terminal = page.locator('[data-part="terminal"]')
    terminal.get_by_role('button', name='Open a terminal').click()
    rows = terminal.locator('.xterm-rows')
    sync_api.expect(rows).to_contain_text('#')
    page.keyboard.type('tty; exit 4\n')
    sync_api.expect(rows).to_contain_text('/dev/pts/')
    sync_api.expect(terminal.locator('[data-field="state"]')).to_contain_text(
        'exit code 4'
    )


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
    command = conftest.start(
        demo, compute, debian, 'echo ran >>/root/count; sync; sleep 600'
    )
    demo.do('server', 'reboot', '--wait', debian)
    conftest.wait(compute, debian, command, 'LOST')
    conftest.wait_for_agent(compute, debian)
    assert demo.guest('exec', debian, '--', 'cat', '/root/count')[1] == (
        b'ran\n'
    )


#: Seconds for which the server is paused.
PAUSE = 8


class Traffic:
    """Commands that are posted in a server, one after the other, until told.

    :param compute: openstacksdk's compute of a user
    """

    def __init__(self, compute: Any, server_id: str) -> None:
        self._commands = f'/servers/{server_id}/guest-agent/commands'
        self._compute = compute
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._post_all)
        self.ended: list[dict[str, Any]] = []

    def __enter__(self) -> 'Traffic':
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._enough.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _post_all(self) -> None:
        while not self._enough.is_set():
            answer = self._compute.post(
                self._commands,
                json={
                    'command': {
                        'type': 'exec',
                        'arguments': {'command': ['/bin/echo', 'out']},
                    }
                },
                headers={'Prefer': 'wait=30'},
            )
            if answer.status_code == 409:
                # The server is paused, or a snapshot's task is beginning.
                self._enough.wait(0.2)
                continue
            self.ended.append(answer.json()['command'])


def _journal(demo: OpenStack, server: str) -> bytes:
    return demo.guest(
        'exec',
        server,
        '--',
        'sh',
        '-c',
        'journalctl -q -o cat -u qemu-guest-agent | grep -v guest-exec',
    )[1]


def test_nova_and_masakari_use_the_agent_beside_commands(
    stack: stack_module.Stack, demo: OpenStack, compute: Any, debian: str
) -> None:
    """Their calls work, and no command feels them."""
    running = [
        conftest.start(
            demo,
            compute,
            debian,
            'for i in $(seq 40); do echo $i; sleep 0.5; done; exit 7',
        )
        for _ in range(4)
    ]
    hash_before = demo.guest('exec', debian, '--', 'getent', 'shadow', 'root')
    domain = stack.cells[1].hypervisor.connect().lookupByUUIDString(debian)
    with Traffic(compute, debian) as traffic:
        # Masakari's introspective monitor.
        for _ in range(20):
            answer = libvirt_qemu.qemuAgentCommand(
                domain, '{"execute": "guest-ping"}', 10, 0
            )
            assert json.loads(answer) == {'return': {}}
        compute.change_server_password(debian, f'pass-{uuid.uuid4().hex}')
        image = compute.create_server_image(
            debian, f'quiesced-{uuid.uuid4().hex}', wait=True, timeout=180
        )
        compute.pause_server(debian)
        conftest.wait_for_server(compute, debian, 'PAUSED')
        # Its clock stands still meanwhile.
        time.sleep(PAUSE)
        compute.unpause_server(debian)
        conftest.wait_for_server(compute, debian, 'ACTIVE')
        before = len(traffic.ended)
        processes.wait_for(
            lambda: len(traffic.ended) > before + 1, 60, 'more commands'
        )
    assert image.status.lower() == 'active'
    hash_after = demo.guest('exec', debian, '--', 'getent', 'shadow', 'root')
    assert hash_after != hash_before
    assert b'guest-fsfreeze' in _journal(demo, debian)
    details = f'/servers/{debian}/guest-agent/details?fields=time'
    told = compute.get(details).json()['guest_agent_details']['time']
    assert abs(told['offset']) < PAUSE / 2
    for command in running:
        ended = conftest.wait(compute, debian, command, 'COMPLETED')
        assert ended['result']['exitcode'] == 7
        assert len(ended['result']['out_data'].split()) == 40
    for ended in traffic.ended:
        assert ended['status'] == 'COMPLETED', ended
        assert ended['result']['out_data'] == 'out\n'
