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
from collections.abc import Iterator
import json
import os
import pathlib
import re
import subprocess
import tempfile
import textwrap
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


class Ssh:
    """OpenSSH's programs, which reach a server by its guest agent alone.

    :param demo: user of the cloud
    :param server: server, where ``tenant`` is who logs in
    :param directory: directory of the key and the configuration
    """

    def __init__(
        self, demo: OpenStack, server: str, directory: pathlib.Path
    ) -> None:
        self._env = demo.env
        self._configuration = directory / 'config'
        key = directory / 'key'
        subprocess.run(
            ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', key],
            check=True,
        )
        code, _, err = demo.guest(
            'ssh-key add', server, f'{key}.pub', '--user', 'tenant'
        )
        assert code == 0, err
        code, out, err = demo.guest(
            'exec',
            server,
            '--',
            'sh',
            '-c',
            'systemctl start ssh && ls /sys/class/net',
        )
        # No network.
        assert (code, out) == (0, b'lo\n'), err
        self._configuration.write_text(
            'Host web-1.guest\n'
            f'  ProxyCommand {demo.program} server guest exec -i {server} -- '
            'nc 127.0.0.1 22\n'
            '  User tenant\n'
            f'  IdentityFile {key}\n'
            '  BatchMode yes\n'
            '  StrictHostKeyChecking no\n'
            '  UserKnownHostsFile /dev/null\n'
            '  LogLevel ERROR\n'
        )

    def run(
        self, program: str, *argv: str | pathlib.Path, stdin: bytes = b''
    ) -> tuple[int, bytes, bytes]:
        ended = subprocess.run(
            [program, *argv],
            input=stdin,
            capture_output=True,
            timeout=180,
            env=self._env,
        )
        return ended.returncode, ended.stdout, ended.stderr

    def ssh(self, *argv: str, stdin: bytes = b'') -> tuple[int, bytes, bytes]:
        return self.run(
            'ssh', '-F', self._configuration, 'web-1.guest', *argv, stdin=stdin
        )

    def copy(
        self, program: str, *argv: str | pathlib.Path, stdin: bytes = b''
    ) -> None:
        options: list[str | pathlib.Path] = ['-F', self._configuration]
        if program == 'rsync':
            options = ['-e', f'ssh -F {self._configuration}']
        code, out, err = self.run(program, *options, *argv, stdin=stdin)
        assert code == 0, (out, err)


@pytest.fixture(scope='module')
def ssh(
    demo: OpenStack, debian: str, tmp_path_factory: pytest.TempPathFactory
) -> Ssh:
    return Ssh(demo, debian, tmp_path_factory.mktemp('ssh'))


def test_ssh_without_a_network(ssh: Ssh) -> None:
    data = os.urandom(300_000)
    code, out, err = ssh.ssh('cat; id -un >&2; exit 7', stdin=data)
    assert (code, out == data, err) == (7, True, b'tenant\n')


def test_scp_sftp_and_rsync_without_a_network(
    ssh: Ssh, tmp_path: pathlib.Path
) -> None:
    here, back = tmp_path / 'here', tmp_path / 'back'
    here.write_bytes(os.urandom(300_000))
    ssh.copy('scp', here, 'web-1.guest:there')
    ssh.copy(
        'sftp',
        '-b',
        '-',
        'web-1.guest',
        stdin=b'mkdir tree\nrename there tree/there\n',
    )
    ssh.copy('rsync', '-a', 'web-1.guest:tree/', back)
    assert (back / 'there').read_bytes() == here.read_bytes()


@pytest.fixture
def home() -> Iterator[pathlib.Path]:
    """Ansible's own directory. When it is gone, its session ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield pathlib.Path(name)


def test_playbook_of_the_guide(
    stack: stack_module.Stack,
    demo: OpenStack,
    debian: str,
    pytestconfig: pytest.Config,
    tmp_path: pathlib.Path,
    home: pathlib.Path,
) -> None:
    """Word for word, with the collection that pip has installed."""
    page = pytestconfig.rootpath / 'doc/source/user/ansible.rst'
    for name in ('servers.yml', 'site.yml'):
        (tmp_path / name).write_text(code_block(page.read_text(), name))
    demo.do('server', 'set', '--name', 'web-1', debian)
    done = subprocess.run(
        [
            stack.place.client_bin / 'ansible-playbook',
            *('-i', 'servers.yml', 'site.yml'),
        ],
        cwd=tmp_path,
        env={
            **demo.env,
            # For a socket, whose path may not be long.
            'ANSIBLE_HOME': str(home),
            'LC_ALL': 'C.UTF-8',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert '"page.stdout": "web-1 has Debian"' in done.stdout
    assert 'changed=3' in done.stdout


def code_block(page: str, name: str) -> str:
    """Return a code block of a page.

    :param page: text of the page
    :param name: name of the block
    """
    found = re.search(
        rf'^( *)\.\. code-block:: yaml\n +:name: {re.escape(name)}\n\n'
        r'((?:(?: {3}.*)?\n)+)',
        page,
        re.M,
    )
    assert found is not None, name
    return textwrap.dedent(found[2])


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
        # The image is there a moment before the task has ended.
        processes.wait_for(
            lambda: compute.get_server(debian).task_state is None,
            60,
            'the end of the snapshot',
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
