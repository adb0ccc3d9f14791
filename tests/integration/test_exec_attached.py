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


"""Attached commands in a real guest, by nothing but HTTP."""

import hashlib
import json
import os
import pathlib
import time

import libvirt_qemu
import pytest

from tests.integration import attaching
from tests.integration import test_osc
from tests.integration.attaching import Attached
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

#: For the agent itself: its answer is on its way by then.
KILL_AGENT = {
    'execute': 'guest-exec',
    'arguments': {
        'path': '/bin/sh',
        'arg': ['-c', 'sleep 0.2; kill -9 $(pidof qemu-ga)'],
    },
}
TERMINAL = {'columns': 80, 'rows': 24, 'term': 'vt220'}


def test_streams_and_exit_code_are_the_commands(client: http.Client) -> None:
    session = Attached(
        client, '/bin/sh', '-c', 'read x; echo "out $x"; echo err >&2; exit 3'
    )
    session.write(b'hello\n', end=True)
    ended = session.end()
    assert session.got == {'out': b'out hello\n', 'err': b'err\n'}
    assert (ended['status'], ended['result']['exitcode']) == ('COMPLETED', 3)
    assert ended['result']['out_data'] == 'out hello\n'
    # What was lost with its answer is asked for again.
    answer = session.send('GET', 'output', stream='out', offset=10)
    assert (answer.status, answer.body) == (200, b'')
    assert answer.headers[attaching.PREFIX + 'Complete'] == 'true'
    assert session.send('POST', 'input', b'x', offset=6).status == 409


def test_result_keeps_what_it_always_did(client: http.Client) -> None:
    session = Attached(client, '/bin/sh', '-c', 'yes | head -c 3000000')
    ended = session.end()
    assert session.got['out'] == b'y\n' * 1500000
    result = ended['result']
    assert (result['out_bytes'], result['out_truncated']) == (3000000, True)
    assert len(result['out_data']) == 102400
    assert session.send('GET', 'output', offset=2000000).status == 410


def test_end_waits_for_the_reader(client: http.Client) -> None:
    session = Attached(client, '/bin/sh', '-c', 'echo out; exit 4')
    processes.wait_for(
        lambda: not session.read() and session.got['out'], 60, 'output'
    )
    time.sleep(3)
    assert client.show(session.uuid)['status'] == 'RUNNING'
    ended = session.end()
    assert ended['result']['exitcode'] == 4


def test_reader_that_is_away_stops_the_command(client: http.Client) -> None:
    session = Attached(client, '/bin/sh', '-c', 'yes | head -c 6000000')

    def held() -> int:
        size = client.sh(
            f'cat /run/guest-agent/*/{session.uuid}.out.[0-9]* '
            f'/run/guest-agent/{session.uuid}.out.[0-9]* 2>/dev/null | wc -c'
        )
        return int(size['result']['out_data'])

    processes.wait_for(lambda: held() == 2 * attaching.MIB, 60, 'two segments')
    time.sleep(2)
    assert held() == 2 * attaching.MIB
    ended = session.end()
    assert session.got['out'] == b'y\n' * 3000000
    assert ended['result']['exitcode'] == 0


def test_guest_without_terminals_says_what_it_lacks(
    client: http.Client,
) -> None:
    session = Attached(client, '/bin/sh', terminal=TERMINAL)
    ended = client.wait(session.uuid)
    assert ended['status'] == 'FAILED'
    assert 'script/python3' in ended['error']


def test_signal_reaches_any_command(client: http.Client) -> None:
    uuid = client.start('/bin/sh', '-c', 'trap "exit 9" USR1; sleep 60 & wait')
    client.wait(uuid, 'RUNNING')
    status, _ = client.request(
        'POST', f'{client.commands}/{uuid}/action', {'signal': 'USR1'}
    )
    assert status == 202
    ended = client.wait(uuid)
    assert (ended['status'], ended['result']['exitcode']) == ('COMPLETED', 9)
    status, _ = client.request(
        'POST', f'{client.commands}/{uuid}/action', {'signal': 'USR1'}
    )
    assert status == 409


def test_one_client_at_a_time(client: http.Client) -> None:
    session = Attached(client, '/bin/cat')
    session.write(b'mine\n')
    session.until(b'mine\n')
    other = session.send('GET', 'output', client='two', offset=0)
    assert other.status == 409
    assert b'take_over' in other.body
    other = session.send(
        'GET', 'output', client='two', offset=0, take_over='true'
    )
    assert (other.status, other.body) == (200, b'mine\n')
    assert session.send('POST', 'input', b'x', offset=5).status == 409
    session.name = 'two'
    session.write(b'', end=True)
    assert session.end()['status'] == 'COMPLETED'


def test_cancel_does_not_wait_for_a_reader(client: http.Client) -> None:
    session = Attached(client, '/usr/bin/yes')
    processes.wait_for(
        lambda: not session.read() and session.got['out'], 60, 'output'
    )
    assert session.act(cancel=None) == 202
    assert client.wait(session.uuid)['status'] == 'CANCELLED'


def test_what_cannot_be_executed_fails(client: http.Client) -> None:
    session = Attached(client, '/no/such/binary')
    ended = client.wait(session.uuid)
    assert ended['status'] == 'FAILED'
    assert '/no/such/binary' in ended['error']


def kill_agent(cloud: testbed_cloud.Cloud) -> None:
    """Have the guest kill its agent, which its init starts again."""
    cloud.hypervisor.wait(cloud.guest)
    libvirt_qemu.qemuAgentCommand(
        cloud.hypervisor.domain(cloud.guest), json.dumps(KILL_AGENT), 20, 0
    )


def kill_compute(cloud: testbed_cloud.Cloud) -> None:
    cloud.compute.kill()
    cloud.start_compute()


def kill_api(cloud: testbed_cloud.Cloud) -> None:
    cloud.api.kill()
    cloud.api = cloud.nova.start_api()


def test_nothing_is_lost_or_doubled_whatever_is_killed(
    cloud: testbed_cloud.Cloud,
    pytestconfig: pytest.Config,
    tmp_path: pathlib.Path,
) -> None:
    """By the command, both ways, each of the three killed three times.

    Without --detach nobody would be there for longer than the attach_timeout
    of this cloud, while an API starts.
    """
    size = pytestconfig.getoption('mib') * attaching.MIB
    source, copy = tmp_path / 'source', tmp_path / 'copy'
    source.write_bytes(os.urandom(size))
    cli = test_osc.OpenStack(
        {
            'SERVER_ID': cloud.server_id,
            'COMPUTE_URL': cloud.nova.url,
            'TOKEN': cloud.nova.identities['member'].token,
        }
    )
    began = time.monotonic()
    with source.open('rb') as stdin, copy.open('wb') as stdout:
        cat = cli.start(
            *('server', 'guest', 'exec', '-i', '--detach', cloud.server_id),
            *('--', 'cat'),
            stdin=stdin,
            stdout=stdout,
        )
    kills = (kill_agent, kill_compute, kill_api) * 3
    for number, kill in enumerate(kills, 1):
        until = number * size // (len(kills) + 1)
        processes.wait_for(
            lambda until=until: (
                copy.stat().st_size >= until or cat.poll() is not None
            ),
            attaching.PATIENCE + size / 1e5,
            f'{until} bytes',
        )
        assert cat.poll() is None, cat.communicate()
        kill(cloud)
    _, err = cat.communicate(timeout=attaching.PATIENCE + size / 1e5)
    print(f'{size} bytes in {time.monotonic() - began:.0f} s')
    assert cat.returncode == 0, err
    assert digest_of(copy) == digest_of(source)


def digest_of(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@pytest.mark.parametrize('detach', [False, True])
def test_left_by_its_client(cloud: testbed_cloud.Cloud, detach: bool) -> None:
    """attach_timeout is 10 s in this cloud."""
    session = Attached(
        cloud.client(), '/bin/sh', '-c', 'sleep 20; echo out', detach=detach
    )
    ended = cloud.client().wait(session.uuid, timeout=attaching.PATIENCE)
    if detach:
        assert ended['status'] == 'COMPLETED'
        assert ended['result']['out_data'] == 'out\n'
    else:
        assert ended['status'] == 'CANCELLED'
        assert 'attach_timeout' in ended['error']
