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

from collections.abc import Callable
import functools
import hashlib
import json
import random
import threading
import time
from typing import Any
import urllib.parse

import pytest

from tests.integration import conftest
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

MIB = 1024 * 1024
#: Seconds that anything may take here.
PATIENCE = 240
PREFIX = 'OpenStack-Guest-Agent-'


class Attached:
    """A client of an attached command; each byte is asked for by its offset.

    :ivar got: what was read so far, by stream
    :ivar retried: requests that were repeated
    """

    def __init__(
        self,
        client: http.Client,
        *argv: str,
        name: str = 'one',
        **arguments: Any,
    ) -> None:
        self.client = client
        self.name = name
        self.uuid = client.start(*argv, **{'attach': True, **arguments})
        self.got = {'out': b'', 'err': b''}
        self.sent = 0
        self.retried = 0
        self.seen = 0

    def send(
        self, method: str, what: str, body: bytes | None = None, **query: Any
    ) -> http.Answer:
        query.setdefault('client', self.name)
        path = f'{self.client.commands}/{self.uuid}/{what}?'
        return self.client.send(
            method, path + urllib.parse.urlencode(query), body
        )

    def repeated(self, ask: Callable[[], http.Answer]) -> http.Answer:
        """Ask until the host answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = ask()
            if answer.status != 503:
                return answer
            assert time.monotonic() < deadline, answer.body
            self.retried += 1
            time.sleep(0.2)

    def read(self, stream: str = 'out', wait: int = 5) -> bool:
        """Read what comes next; tell whether the stream is complete."""
        offset = len(self.got[stream])
        answer = self.repeated(
            lambda: self.send(
                'GET', 'output', stream=stream, offset=offset, wait=wait
            )
        )
        assert answer.status == 200, (answer.status, answer.body)
        assert int(answer.headers[PREFIX + 'Offset']) == offset
        self.got[stream] += answer.body
        return answer.headers[PREFIX + 'Complete'] == 'true'

    def drain(self, stream: str = 'out') -> bytes:
        deadline = time.monotonic() + PATIENCE
        while not self.read(stream):
            assert time.monotonic() < deadline, self.got[stream][-300:]
        return self.got[stream]

    def write(self, data: bytes, *, end: bool = False) -> None:
        deadline = time.monotonic() + PATIENCE
        is_closed = False
        while data or (end and not is_closed):
            assert time.monotonic() < deadline
            piece = data[: 256 * 1024]
            answer = self.repeated(
                functools.partial(
                    self.send,
                    'POST',
                    'input',
                    piece,
                    offset=self.sent,
                    end=str(end and len(piece) == len(data)).lower(),
                )
            )
            assert answer.status == 200, (answer.status, answer.body)
            accepted = answer_of(answer)
            data = data[accepted['next_offset'] - self.sent :]
            self.sent = accepted['next_offset']
            is_closed = accepted['end']
            if is_closed:
                return

    def until(self, expected: bytes) -> bytes:
        """Read until something is there, and forget what came up to it."""
        deadline = time.monotonic() + PATIENCE
        while expected not in self.got['out'][self.seen :]:
            assert time.monotonic() < deadline, self.got
            assert not self.read(), self.got
        at = self.got['out'].index(expected, self.seen) + len(expected)
        shown = self.got['out'][self.seen : at]
        self.seen = at
        return shown

    def act(self, **action: Any) -> int:
        return self.client.request(
            'POST', f'{self.client.commands}/{self.uuid}/action', action
        )[0]

    def end(self) -> dict[str, Any]:
        """Read the rest, and return the command as it ended."""
        self.drain('out')
        self.drain('err')
        return self.client.wait(self.uuid, timeout=PATIENCE)


def answer_of(answer: http.Answer) -> Any:
    return json.loads(answer.body)['input']


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
    assert answer.headers[PREFIX + 'Complete'] == 'true'
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

    processes.wait_for(lambda: held() == 2 * MIB, 60, 'two segments')
    time.sleep(2)
    assert held() == 2 * MIB
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


def test_terminal(debian: conftest.Debian) -> None:
    session = Attached(
        debian.client,
        '/bin/sh',
        '-i',
        terminal=TERMINAL,
        env={'PS1': 'ready# '},
    )
    session.until(b'ready# ')
    session.write(b'stty size; echo "is $TERM"\r')
    assert b'24 80' in session.until(b'is vt220')
    session.until(b'ready# ')
    assert session.act(resize={'columns': 132, 'rows': 50}) == 202
    session.write(b'stty size\r')
    session.until(b'50 132')
    session.until(b'ready# ')
    session.write(b'sleep 600\r')
    session.until(b'sleep 600')
    time.sleep(1)
    session.write(b'\x03')
    session.until(b'ready# ')
    session.write(b'exit 5\r')
    ended = session.end()
    assert (ended['status'], ended['result']['exitcode']) == ('COMPLETED', 5)


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


def test_killed_service_loses_and_doubles_no_byte(
    cloud: testbed_cloud.Cloud,
) -> None:
    """The compute service is killed twice."""
    source = random.Random(19).randbytes(6 * MIB)
    session = Attached(cloud.client(), '/bin/cat')
    failures: list[BaseException] = []

    def write() -> None:
        try:
            session.write(source, end=True)
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for share in (0.2, 0.6):
        while len(session.got['out']) < share * len(source):
            assert not failures and not session.read()
        cloud.compute.kill()
        cloud.start_compute()
    session.drain()
    writer.join(PATIENCE)
    assert not failures
    digest = hashlib.sha256(session.got['out']).hexdigest()
    assert digest == hashlib.sha256(source).hexdigest()
    ended = session.end()
    assert (ended['status'], ended['result']['exitcode']) == ('COMPLETED', 0)
    assert ended['result']['out_bytes'] == len(source)


@pytest.mark.parametrize('detach', [False, True])
def test_left_by_its_client(cloud: testbed_cloud.Cloud, detach: bool) -> None:
    """attach_timeout is 10 s in this cloud."""
    session = Attached(
        cloud.client(), '/bin/sh', '-c', 'sleep 20; echo out', detach=detach
    )
    ended = cloud.client().wait(session.uuid, timeout=PATIENCE)
    if detach:
        assert ended['status'] == 'COMPLETED'
        assert ended['result']['out_data'] == 'out\n'
    else:
        assert ended['status'] == 'CANCELLED'
        assert 'attach_timeout' in ended['error']
