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


"""Playbooks through the extension, with the Debian guest and the tiny one.

The one with Python has to do what ansible-core's own suite for connections to
POSIX hosts asks, and more.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest

from tests.integration import conftest
from tools.testbed import client as http
from tools.testbed import demo
from tools.testbed import processes

ROOT = pathlib.Path(__file__).parents[2]
PLAYBOOKS = pathlib.Path(__file__).with_name('playbooks')
CONNECTION = 'guest_agent_ext.guest_agent.server'


@dataclasses.dataclass(frozen=True)
class Play:
    """What a playbook printed in the end.

    :ivar recap: numbers by host and word: ``ok``, ``failed``, ``unreachable``
    """

    code: int
    text: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        _, _, lines = self.text.rpartition('PLAY RECAP')
        return {
            host: {
                word: int(number)
                for word, number in re.findall(r'(\w+)=(\d+)', rest)
            }
            for host, rest in re.findall(r'^(\S+)\s+: (ok=.*)$', lines, re.M)
        }

    def passed(self) -> 'Play':
        assert self.code == 0, self.text
        return self


class Ansible:
    """Runs playbooks with a new home.

    :ivar home: directory of Ansible's own files
    :param client: client of the server's project
    """

    def __init__(self, home: str, client: http.Client) -> None:
        self.home = home
        # What this machine has in /etc is not for tests.
        configuration = pathlib.Path(home, 'ansible.cfg')
        configuration.touch()
        self._server_id = client.server_id
        self.env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(('OS_', 'ANSIBLE_'))
            },
            'ANSIBLE_COLLECTIONS_PATH': str(ROOT / 'client'),
            'ANSIBLE_CONFIG': str(configuration),
            'ANSIBLE_GUEST_AGENT_START_TIMEOUT': '300',
            'ANSIBLE_HOME': home,
            'ANSIBLE_NOCOLOR': '1',
            'ANSIBLE_LOCAL_TEMP': f'{home}/tmp',
            'LC_ALL': 'C.UTF-8',
            'OS_AUTH_TYPE': 'admin_token',
            'OS_TOKEN': client.token,
            'OS_ENDPOINT': client.file_url('').partition('/servers/')[0],
        }

    def start(
        self,
        name: str,
        *options: str,
        hosts: Mapping[str, Mapping[str, object]] | None = None,
        env: Mapping[str, str] | None = None,
        **values: object,
    ) -> subprocess.Popen[str]:
        """Start a playbook.

        :param name: name of the file without its ending
        :param hosts: variables by host; None for the server
        :param values: variables of the play
        """
        inventory = pathlib.Path(self.home, 'inventory.json')
        inventory.write_text(
            json.dumps(
                {
                    'all': {
                        'vars': {
                            'ansible_connection': CONNECTION,
                            'ansible_host': self._server_id,
                        },
                        'hosts': hosts or {'guest': {}},
                    }
                }
            )
        )
        return subprocess.Popen(
            [
                *(sys.executable, '-m', 'ansible', 'playbook'),
                *('-i', str(inventory), '-e', json.dumps(values), *options),
                str(PLAYBOOKS / f'{name}.yml'),
            ],
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, name: str, *options: str, **values: Any) -> Play:
        """Run a playbook to its end."""
        process = self.start(name, *options, **values)
        text, _ = process.communicate(timeout=1800)
        return Play(process.returncode, text)

    def sockets(self) -> list[pathlib.Path]:
        """Return the sockets of hubs."""
        return [
            path
            for path in pathlib.Path(self.home, 'cp').glob('guest-agent-*')
            if path.suffix != '.lock'
        ]


@contextlib.contextmanager
def ansible_of(client: http.Client) -> Iterator[Ansible]:
    # A hub ends when its socket is gone.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        yield Ansible(home, client)


@pytest.fixture
def tiny(client: http.Client) -> Iterator[Ansible]:
    with ansible_of(client) as ansible:
        yield ansible


@pytest.fixture
def real(debian: conftest.Debian) -> Iterator[Ansible]:
    with ansible_of(debian.client) as ansible:
        yield ansible


def commands(client: http.Client) -> list[dict[str, Any]]:
    """Return the commands of the server, the newest first."""
    status, body = client.request('GET', client.commands)
    assert status == 200, body
    return list(body['commands'])


def test_what_ansible_asks_of_a_connection(
    real: Ansible, tmp_path: pathlib.Path
) -> None:
    real.play(
        'posix', here=str(tmp_path / 'here'), there='/root/there'
    ).passed()


def test_modules_as_files(real: Ansible, tmp_path: pathlib.Path) -> None:
    """As where pipelining is switched off."""
    play = real.play(
        'posix',
        '--tags',
        'files',
        here=str(tmp_path / 'here'),
        there='/root/there',
        ansible_pipelining=False,
    ).passed()
    assert play.recap['guest']['ok'] == 4
    copied = tmp_path / 'here-汉语/汉语.txt'
    assert copied.read_text() == '汉语\n'


def test_task_is_one_command(real: Ansible, debian: conftest.Debian) -> None:
    """With its module on stdin."""
    real.play('ping').passed()
    before = {command['uuid'] for command in commands(debian.client)}
    real.play('ping').passed()
    new = [
        command
        for command in commands(debian.client)
        if command['uuid'] not in before
    ]
    assert len(new) == 2
    assert all(
        command['arguments']['input_bytes'] > 100_000 for command in new
    )


def test_sizes(real: Ansible, tmp_path: pathlib.Path) -> None:
    big, back = tmp_path / 'big', tmp_path / 'back'
    big.write_bytes(os.urandom(3 * 1024 * 1024 + 1))
    real.play('sizes', big=str(big), back=str(back)).passed()
    assert back.read_bytes() == big.read_bytes()


def test_users(
    real: Ansible, debian: conftest.Debian, tmp_path: pathlib.Path
) -> None:
    debian.client.sh('echo "root:secret word" | chpasswd')
    real.play('users', here=str(tmp_path)).passed()
    assert (tmp_path / 'mine').read_text() == 'mine'
    assert not (tmp_path / 'shadow').exists()


def test_check_mode(real: Ansible, debian: conftest.Debian) -> None:
    play = real.play(
        'posix',
        '--check',
        '--tags',
        'files',
        here='/nowhere',
        there='/root/checked',
    )
    # What would be there is not there to be fetched.
    assert play.recap['guest']['changed'] >= 1, play.text
    listed = debian.client.sh('ls /root')['result']['out_data']
    assert 'checked' not in listed


def test_server_without_python(tiny: Ansible) -> None:
    tiny.play('tiny', there='/tmp/there').passed()


def test_many_hosts_at_once(tiny: Ansible) -> None:
    hosts: dict[str, dict[str, object]] = {
        f'web-{number}': {} for number in range(8)
    }
    play = tiny.play(
        'command', '--forks', '20', hosts=hosts, command='true', batch=5
    ).passed()
    assert [recap['ok'] for recap in play.recap.values()] == [1] * 8
    # All of them had one session.
    assert len(tiny.sockets()) == 1


def test_unreachable_is_not_failed(tiny: Ansible, embedded: demo.Demo) -> None:
    settings = embedded.settings()
    hosts = {
        'by-name': {'ansible_host': demo.SERVER},
        'by-address': {'ansible_host': '10.0.0.5'},
        demo.SERVER: {'ansible_host': '10.0.0.5'},
        'no-user': {'ansible_user': 'nobody-here'},
        'no-directory': {'ansible_guest_agent_control_path_dir': '/dev/null'},
    }
    play = tiny.play('command', hosts=hosts, command='exit 3')
    ends = {
        host: 'unreachable' if recap['unreachable'] else 'failed'
        for host, recap in play.recap.items()
        if recap['failed'] + recap['unreachable'] == 1
    }
    assert ends == {
        'by-name': 'failed',
        # No server has that name.
        'by-address': 'unreachable',
        # As the inventory of a whole project is.
        demo.SERVER: 'failed',
        'no-user': 'unreachable',
        'no-directory': 'failed',
    }, play.text
    assert 'Check the id or name of the server' in play.text
    assert 'nobody-here' in play.text
    # Somebody who may not, and nobody.
    for token, words in (
        (settings['READER_TOKEN'], 'ask its operator'),
        ('nonsense', 'Check the login'),
    ):
        play = tiny.play('command', env={'OS_TOKEN': token}, command='true')
        assert play.recap['guest']['unreachable'] == 1, play.text
        assert words in play.text


def test_task_that_takes_too_long_is_cancelled(
    tiny: Ansible, client: http.Client
) -> None:
    play = tiny.play('command', command='sleep 600', patience=5)
    assert play.recap['guest']['failed'] == 1, play.text
    newest = commands(client)[0]['uuid']
    assert client.wait(newest)['status'] == 'CANCELLED'
    play = tiny.play(
        'command', command='sleep 600', ansible_guest_agent_command_timeout=2
    )
    assert play.recap['guest']['failed'] == 1
    assert 'took too long' in play.text


def test_playbook_that_is_killed_cancels(
    tiny: Ansible, client: http.Client
) -> None:
    process = tiny.start(
        'command', command='touch /tmp/started; sleep 600', patience=600
    )
    client.sh('until rm /tmp/started 2>&-; do sleep 0.1; done', timeout=60)
    running = next(
        command['uuid']
        for command in commands(client)
        if command['status'] == 'RUNNING'
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert client.wait(running)['status'] == 'CANCELLED'


def test_no_log_holds(tiny: Ansible, embedded: demo.Demo) -> None:
    secret = f'secret-{time.monotonic_ns()}'
    # A file, because the inventory is shown.
    values = pathlib.Path(tiny.home, 'secret.json')
    values.write_text(json.dumps({'secret': secret}))
    play = tiny.play('secrets', '-vvvv', '-e', f'@{values}').passed()
    assert play.recap['guest']['ok'] >= 4
    assert secret not in play.text
    logs = list(embedded.env.parent.rglob('*.log'))
    assert logs
    for log in logs:
        assert secret.encode() not in log.read_bytes(), log


def test_hub(tiny: Ansible) -> None:
    """It is its user's alone, and another takes its place."""
    tiny.play('command', command='true').passed()
    (path,) = tiny.sockets()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    words = pathlib.Path(f'/proc/{pid_of(path)}/cmdline').read_bytes()
    assert tiny.env['OS_TOKEN'].encode() not in words
    processes.Process.of('hub', pid_of(path)).kill()
    tiny.play('command', command='true', ansible_guest_agent_idle=20).passed()
    assert tiny.sockets() == [path]
    processes.wait_for(lambda: not tiny.sockets(), 90, 'the end of the hub')


def pid_of(path: pathlib.Path) -> int:
    """Return the process that listens at a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(told[:4], sys.byteorder)


def test_collection_is_built(tmp_path: pathlib.Path) -> None:
    """And documents itself."""
    collection = (
        ROOT / 'client/ansible_collections/guest_agent_ext/guest_agent'
    )
    env = {
        **os.environ,
        'ANSIBLE_HOME': str(tmp_path),
        'ANSIBLE_COLLECTIONS_PATH': str(ROOT / 'client'),
        'LC_ALL': 'C.UTF-8',
    }
    ansible = [sys.executable, '-m', 'ansible']
    subprocess.run(
        [*ansible, 'galaxy', 'collection', 'build', str(collection)],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
    )
    (tarball,) = tmp_path.glob('guest_agent_ext-guest_agent-*.tar.gz')
    subprocess.run(
        [
            *(*ansible, 'galaxy', 'collection', 'install', '--offline'),
            *(str(tarball), '-p', str(tmp_path / 'installed')),
        ],
        env=env,
        check=True,
        capture_output=True,
    )
    for kind, *names in (
        ('connection', 'server'),
        ('module', 'guest_command', 'guest_facts'),
    ):
        full = [f'guest_agent_ext.guest_agent.{name}' for name in names]
        subprocess.run(
            [*ansible, 'doc', '-t', kind, *full],
            env={
                **env,
                'ANSIBLE_COLLECTIONS_PATH': str(tmp_path / 'installed'),
            },
            check=True,
            capture_output=True,
        )
