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

"""What a tenant sends and gets appears in no log and in no process list.

Everything logs at DEBUG, notifications go to the log, and each path has a
canary of its own in arguments, environment, stdin and output.
"""

import base64
from collections.abc import Iterator
from concurrent import futures
import contextlib
import dataclasses
import itertools
import pathlib
import threading
import time
import uuid

import pytest

from guest_agent_ext.compute import rpcapi
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

PATIENCE = 90


class Canary:
    """A word, and everything that a command may carry it in."""

    def __init__(self) -> None:
        self.word = f'canary{uuid.uuid4().hex}'
        # Its base64, wherever it begins: the ends depend on what is beside.
        self._needles = [self.word.encode()] + [
            base64.b64encode(bytes(lead) + self.word.encode())[4:-4]
            for lead in range(3)
        ]

    def script(self, then: str = '') -> tuple[str, ...]:
        """Return a command that has it and writes it."""
        return (
            '/bin/sh',
            '-c',
            f'echo "$1" "$SECRET" >&2; cat; {then}',
            'sh',
            self.word,
        )

    @property
    def inputs(self) -> dict[str, object]:
        return {'env': {'SECRET': self.word}, 'input_data': self.word}

    def is_in(self, data: bytes) -> bool:
        return any(needle in data for needle in self._needles)


@dataclasses.dataclass
class Watch:
    """Looks at the host's processes until stopped, for a canary."""

    canary: Canary

    def __post_init__(self) -> None:
        self.seen: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> 'Watch':
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(0.01):
            for process in pathlib.Path('/proc').glob('[0-9]*'):
                self._look_at(process)

    def _look_at(self, process: pathlib.Path) -> None:
        for name in ('cmdline', 'environ'):
            # It may have ended.
            with contextlib.suppress(OSError):
                if self.canary.is_in((process / name).read_bytes()):
                    self.seen.add((process / 'cmdline').read_text())


@pytest.fixture
def client(cloud: testbed_cloud.Cloud) -> http.Client:
    return cloud.client()


@pytest.fixture
def canary(cloud: testbed_cloud.Cloud) -> Iterator[Canary]:
    """A canary that is seen in no log, no process, and no row's inputs."""
    canary = Canary()
    with Watch(canary) as watch:
        yield canary
        # What is late is logged late.
        cloud.mend()
        cloud.wait_for_reports(2)
    assert not watch.seen
    assert not [
        path for path in logs(cloud) if canary.is_in(path.read_bytes())
    ]
    assert inputs_left(cloud) == []


def logs(cloud: testbed_cloud.Cloud) -> list[pathlib.Path]:
    """Return the logs of Nova, Keystone, libvirt, RabbitMQ and MariaDB."""
    base = cloud.nova.directory.parents[1]
    found = [path for path in base.rglob('*.log') if path.is_file()]
    assert {
        'nova-api.log',
        'guest-agent-conductor-nova.log',
        'guest-agent-compute-compute-1.log',
    } <= {path.name for path in found}
    return found


def inputs_left(cloud: testbed_cloud.Cloud) -> list[str]:
    with contextlib.closing(cloud.mariadb.connect('nova_api')) as connection:
        cursor = connection.cursor()
        cursor.execute(
            'SELECT uuid FROM guest_agent_commands WHERE inputs IS NOT NULL '
            "AND status NOT IN ('PENDING', 'RUNNING')"
        )
        return list(itertools.chain.from_iterable(cursor.fetchall()))


def start(
    client: http.Client, canary: Canary, then: str = '', **arguments: object
) -> str:
    return client.start(*canary.script(then), **{**canary.inputs, **arguments})


def test_canary_is_found_where_it_is() -> None:
    """The search itself, which would else find nothing for ever."""
    canary = Canary()
    for lead in range(4):
        text = b'x' * lead + canary.word.encode() + b'yz'
        assert canary.is_in(text)
        assert canary.is_in(base64.b64encode(text))
    assert not canary.is_in(base64.b64encode(Canary().word.encode()))
    with Watch(canary) as watch, contextlib.ExitStack() as stack:
        process = processes.start(
            'sleep',
            ['/bin/sleep', '20'],
            pathlib.Path('/dev/null'),
            {'SECRET': canary.word},
        )
        stack.callback(process.kill)
        processes.wait_for(lambda: watch.seen, 10, 'the canary')


def test_completed(client: http.Client, canary: Canary) -> None:
    ended = client.wait(start(client, canary))
    assert ended['status'] == 'COMPLETED'
    assert ended['result']['out_data'] == canary.word
    assert ended['result']['err_data'].split() == [canary.word] * 2


def test_read_while_it_runs(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    command = start(client, canary, 'sleep 15')
    client.wait(command, 'RUNNING')
    output = f'{client.commands}/{command}/output?stream=out'
    assert client.send('GET', output).body.decode() == canary.word
    cloud.compute.pause()
    late = client.send('GET', output)
    cloud.compute.resume()
    assert late.status >= 400
    client.wait(command, timeout=PATIENCE)
    status, body = client.request('GET', client.commands)
    assert status == 200
    assert canary.is_in(str(body).encode())


def test_failed(client: http.Client, canary: Canary) -> None:
    ended = client.run('/no/such/binary', canary.word, **canary.inputs)
    assert ended['status'] == 'FAILED'
    ended = client.run('/bin/true', cwd=f'/{canary.word}', **canary.inputs)
    assert ended['status'] == 'FAILED'


def test_timed_out(client: http.Client, canary: Canary) -> None:
    ended = client.wait(start(client, canary, 'sleep 60', timeout=1))
    assert ended['status'] == 'TIMED_OUT'


def test_cancelled(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    command = start(client, canary, 'sleep 60')
    client.wait(command, 'RUNNING')
    client.cancel(command)
    assert client.wait(command)['status'] == 'CANCELLED'
    cloud.compute.pause()
    command = start(client, canary)
    client.cancel(command)
    assert client.wait(command)['status'] == 'CANCELLED'


def test_lost(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    command = start(client, canary, 'sleep 600')
    client.wait(command, 'RUNNING')
    cloud.hypervisor.domain(cloud.guest).reset()
    assert client.wait(command, timeout=PATIENCE)['status'] == 'LOST'
    cloud.hypervisor.wait(cloud.guest)


@pytest.mark.parametrize(
    'arguments',
    [
        {'timeout': 0},
        {'unknown': 1},
        {'input_encoding': 'base64'},
        {'env': {'0': 'x'}},
    ],
)
def test_refused(
    client: http.Client, canary: Canary, arguments: dict[str, object]
) -> None:
    status, _ = client.post(*canary.script(), **{**canary.inputs, **arguments})
    assert status == 400


def test_conductor_that_answers_too_late(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    """oslo.messaging logs an answer that nobody waits for any more."""
    commands = [start(client, canary) for _ in range(4)]
    for _ in range(2):
        log = processes.Log(cloud.compute)
        cloud.conductor.pause()
        log.wait_for('No answer from the conductor')
        cloud.conductor.resume()
        # What lasts is not told again.
        log.wait_for('The conductor answers again')
        cloud.wait_for_host('up')
        commands.append(start(client, canary))
    for command in commands:
        client.wait(command, timeout=PATIENCE)


def test_database_that_is_away(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    command = start(client, canary, 'sleep 10')
    client.wait(command, 'RUNNING')
    log = processes.Log(cloud.compute)
    cloud.mariadb.process.stop()
    status, _ = client.post(*canary.script(), **canary.inputs)
    assert status >= 500
    # Its end cannot be recorded.
    log.wait_for(r'compute\.lane .*(waits for the conductor|next step)')
    cloud.mariadb.start()
    assert client.wait(command, timeout=PATIENCE)['status'] == 'COMPLETED'


def test_libvirtd_and_broker_that_are_away(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    commands = [start(client, canary, 'sleep 2') for _ in range(3)]
    cloud.hypervisor.process.kill()
    cloud.rabbitmq.stop()
    commands.append(start(client, canary, start_timeout=60))
    cloud.rabbitmq.start()
    cloud.hypervisor.start()
    for command in commands:
        client.wait(command, timeout=PATIENCE)


def test_notifications_and_action_tell_of_it(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    ended = client.wait(start(client, canary))
    log = cloud.nova.directory / 'guest-agent-conductor-nova.log'
    action = (
        f'/servers/{client.server_id}/os-instance-actions/'
        f'{ended["request_id"]}'
    )

    def is_told() -> bool:
        sent = [
            line
            for line in log.read_text().splitlines()
            if ended['uuid'] in line and 'event_type' in line
        ]
        return len(sent) == 2

    processes.wait_for(is_told, 20, 'the notifications')
    status, body = cloud.client('admin').request('GET', action)
    assert status == 200
    assert body['instanceAction']['action'] == 'guest_agent_exec'
    assert not canary.is_in(str(body).encode())


def test_file_there_and_back(client: http.Client, canary: Canary) -> None:
    # Enough for chunks beside the one that comes with the opening.
    data = canary.word.encode() * 20000
    assert client.put_file('/root/secret', data).status == 204
    assert client.get_file('/root/secret').body == data
    refused = client.put_file('/no/such/directory/f', data)
    assert refused.status == 409
    assert not canary.is_in(refused.body)


def test_chunk_that_comes_too_late(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    data = canary.word.encode() * 100000
    assert client.put_file('/root/secret', data).status == 204
    with futures.ThreadPoolExecutor(1) as pool:
        read = pool.submit(client.get_file, '/root/secret')
        client.wait(transfer_of(client), 'RUNNING')
        cloud.compute.pause()
        # Longer than nova-api waits for an answer.
        time.sleep(rpcapi.TIMEOUT + 2)
        cloud.compute.resume()
        assert read.result().body == data


def transfer_of(client: http.Client) -> str:
    """Return the uuid of the read that has just begun."""
    path = f'{client.commands}?type=file-read&status=RUNNING&limit=1'

    def begun() -> object:
        return client.request('GET', path)[1]['commands']

    processes.wait_for(begun, 20, 'the transfer')
    return str(client.request('GET', path)[1]['commands'][0]['uuid'])


def set_password(
    client: http.Client, canary: Canary, **arguments: object
) -> tuple[int, str]:
    """Ask for a password; return the status, and the uuid if accepted."""
    status, body = client.request(
        'POST',
        client.commands,
        {
            'command': {
                'type': 'set-password',
                'arguments': {
                    'user': 'root',
                    'password': canary.word,
                    **arguments,
                },
            }
        },
    )
    assert not canary.is_in(str(body).encode())
    return status, body['command']['uuid'] if status == 200 else ''


def test_password_to_set(
    cloud: testbed_cloud.Cloud, client: http.Client, canary: Canary
) -> None:
    """Whatever becomes of it: the small guest's tools refuse some."""
    status, command = set_password(client, canary)
    assert status == 200
    ended = client.wait(command)
    assert ended['status'] in ('COMPLETED', 'FAILED')
    assert not canary.is_in(str(ended).encode())
    assert set_password(client, canary, unknown=1)[0] == 400
    assert set_password(client, canary, crypted=canary.word)[0] == 400
    cloud.compute.pause()
    _, command = set_password(client, canary)
    client.cancel(command)
    assert client.wait(command)['status'] == 'CANCELLED'
    cloud.compute.resume()
    # Its conductor is away when its end is known.
    log = processes.Log(cloud.compute)
    cloud.conductor.pause()
    _, command = set_password(client, canary)
    log.wait_for('No answer from the conductor')
    cloud.conductor.resume()
    ended = client.wait(command, timeout=PATIENCE)
    assert ended['status'] in ('COMPLETED', 'FAILED')
