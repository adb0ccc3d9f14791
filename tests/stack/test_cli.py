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

"""The real ``openstack`` command with a server that Nova booted."""

from collections.abc import Callable
import hashlib
import os
import pathlib
import signal
import time

from tests.stack.conftest import OpenStack


def test_streams_and_exit_code(demo: OpenStack, server: str) -> None:
    code, out, err = demo.guest(
        'exec',
        server,
        '--stdin',
        '-',
        '--env',
        'NAME=a b',
        '--cwd',
        '/tmp',
        '--',
        'sh',
        '-c',
        'cat; pwd; echo "$NAME" >&2; exit 7',
        stdin=b'in\0put\n',
    )
    assert (code, out, err) == (7, b'in\0put\n/tmp\n', b'a b\n')


def test_what_cannot_be_run(demo: OpenStack, server: str) -> None:
    code, out, err = demo.guest('exec', server, '--', '/no/such/program')
    assert (code, out) == (255, b'')
    assert b'could not be executed' in err


def test_timeout(demo: OpenStack, server: str) -> None:
    code, out, _ = demo.guest(
        'exec',
        server,
        '--timeout',
        '1',
        '--',
        'sh',
        '-c',
        'echo kept; sleep 600',
    )
    assert (code, out) == (124, b'kept\n')


def test_interrupt_cancels(demo: OpenStack, server: str) -> None:
    process = demo.start(
        'server',
        'guest',
        'exec',
        server,
        '--',
        'sh',
        '-c',
        'echo started; sleep 600',
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b'started\n'
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    latest = demo.json('server', 'guest', 'command', 'list', server)[0]
    assert latest['Status'] == 'CANCELLED'


def test_command_that_is_not_waited_for(demo: OpenStack, server: str) -> None:
    code, out, _ = demo.guest(
        'exec', server, '--no-wait', '--', 'sleep', '600'
    )
    assert code == 0
    uuid = out.decode().split()[1]
    assert demo.guest('command cancel', server, uuid)[0] == 0
    deadline = time.monotonic() + 60
    while True:
        shown = demo.json('server', 'guest', 'command', 'show', server, uuid)
        if shown['status'] == 'CANCELLED' or time.monotonic() > deadline:
            break
    assert shown['status'] == 'CANCELLED'
    assert demo.guest('command delete', server, uuid)[0] == 0
    assert demo.guest('command show', server, uuid)[0] == 1


def test_file_there_and_back(
    demo: OpenStack, server: str, tmp_path: pathlib.Path
) -> None:
    here, back = tmp_path / 'here', tmp_path / 'back'
    here.write_bytes(os.urandom(4 * 1024 * 1024 + 7))
    assert demo.guest('file put', server, str(here), '/tmp/there')[0] == 0
    _, out, _ = demo.guest('exec', server, '--', 'sha256sum', '/tmp/there')
    assert (
        out.split()[0].decode()
        == hashlib.sha256(here.read_bytes()).hexdigest()
    )
    assert demo.guest('file get', server, '/tmp/there', str(back))[0] == 0
    assert back.read_bytes() == here.read_bytes()


def test_agent_and_hosts(
    demo: OpenStack, admin: OpenStack, server: str
) -> None:
    agent = demo.json('server', 'guest', 'show', server)
    assert (agent['status'], agent['execution']) == ('available', 'guarded')
    hosts = {
        host['Host']: host['State']
        for host in admin.json('guest', 'agent', 'host', 'list')
    }
    assert hosts['compute-1'] == 'up'


def test_server_by_name(demo: OpenStack, server: str) -> None:
    name = demo.json('server', 'show', server)['name']
    assert demo.guest('exec', name, '--', 'hostname')[1] == b'guest\n'


def test_nova_tells_the_story(demo: OpenStack, server: str) -> None:
    """The audit is where operators look for it."""
    demo.guest('exec', server, '--', 'true')
    events = demo.json('server', 'event', 'list', server)
    assert 'guest_agent_exec' in {event['Action'] for event in events}


def test_unknown_server(
    cloud: Callable[[str], OpenStack], server: str
) -> None:
    code, _, err = cloud('other').guest('exec', server, '--', 'true')
    assert code == 1
    assert b'No Server found' in err
