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


"""Attached commands of the SDK and the CLI, with a server that is played.

The server holds to the contract of the API: offsets, windows, long polls, one
client, an end that is told when all was read. It runs the programs here, with
a pty where a terminal is asked for, and loses answers when it is told to.
"""

from collections.abc import Callable
from collections.abc import Iterator
import fcntl
import hashlib
from http import server
import itertools
import json
import os
import pathlib
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import Any
from urllib import parse

from keystoneauth1 import adapter
from keystoneauth1 import session
from keystoneauth1 import token_endpoint
from openstack import exceptions
import pytest

from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import retries
from tests.integration import screen
from tools.testbed import processes

OPENSTACK = pathlib.Path(sys.executable).with_name('openstack')
SERVER = '6d2f9a6c-34f5-4f6e-9f0e-1c7d1f8c2a55'
ID = '0b1e8a52-8d5c-4c19-92a4-6f5f9e0c7a11'
BASE = f'/v2.1/servers/{SERVER}'
#: Bytes of a stream that the server keeps, and takes at once.
WINDOW = 300_000


class Played:
    """A command as the server knows it.

    :ivar resized: sizes that were set
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.lock = threading.Condition()
        self.data = {'out': b'', 'err': b''}
        self.base = {'out': 0, 'err': 0}
        self.is_at_end = {'out': False, 'err': 'terminal' in arguments}
        self.is_read = dict(self.is_at_end)
        self.taken = 0
        self.in_closed = False
        self.status = 'RUNNING'
        self.code: int | None = None
        self.resized: list[dict[str, int]] = []
        self.terminal: int | None = None
        self._start(arguments)

    def _start(self, arguments: dict[str, Any]) -> None:
        size = arguments.get('terminal')
        sides: dict[str, Any] = dict.fromkeys(
            ('stdin', 'stdout', 'stderr'), subprocess.PIPE
        )
        if size:
            self.terminal, inner = pty.openpty()
            self.set_size(size)
            sides = dict.fromkeys(sides, inner)
        self.process = subprocess.Popen(
            arguments['command'],
            env={**os.environ, **(arguments.get('env') or {})},
            start_new_session=True,
            preexec_fn=(
                (lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
                if size
                else None
            ),
            **sides,
        )
        if size:
            os.close(inner)
            self._thread(self._copy, 'out', self.terminal)
            return
        assert self.process.stdout and self.process.stderr
        self._thread(self._copy, 'out', self.process.stdout.fileno())
        self._thread(self._copy, 'err', self.process.stderr.fileno())

    def _thread(self, target: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def set_size(self, size: dict[str, int]) -> None:
        assert self.terminal is not None
        self.resized.append(size)
        fcntl.ioctl(
            self.terminal,
            termios.TIOCSWINSZ,
            struct.pack('4H', size['rows'], size['columns'], 0, 0),
        )

    def _copy(self, name: str, source: int) -> None:
        while True:
            try:
                data = os.read(source, 65536)
            except OSError:
                data = b''
            with self.lock:
                self.data[name] += data
                self.is_at_end[name] = not data
                self.lock.notify_all()
                # Whoever does not read stops the program.
                self.lock.wait_for(lambda: len(self.data[name]) < WINDOW)
            if not data:
                return

    def view(self) -> dict[str, Any]:
        with self.lock:
            if self.status == 'RUNNING' and all(self.is_read.values()):
                self.code = self.process.wait(10)
                self.status = 'COMPLETED'
            result = None
            if self.status == 'COMPLETED':
                assert self.code is not None
                is_killed = self.code < 0
                result = {
                    'exitcode': None if is_killed else self.code,
                    'signal': -self.code if is_killed else None,
                }
            return {
                'uuid': ID,
                'status': self.status,
                'error': None if result else 'It was cancelled',
                'result': result,
            }

    def output(self, name: str, offset: int, wait: int) -> Any:
        with self.lock:
            if offset < self.base[name]:
                return 410, {}, b''
            # All below the offset is acknowledged.
            self.data[name] = self.data[name][offset - self.base[name] :]
            self.base[name] = offset
            self.lock.notify_all()
            self.lock.wait_for(
                lambda: self.data[name] or self.is_at_end[name], min(wait, 1)
            )
            data = self.data[name][: 256 * 1024]
            self.is_read[name] |= self.is_at_end[name] and not data
            prefix = 'OpenStack-Guest-Agent-'
            return (
                200,
                {
                    prefix + 'Offset': str(offset),
                    prefix + 'Next-Offset': str(offset + len(data)),
                    prefix + 'Complete': str(self.is_read[name]).lower(),
                },
                data,
            )

    def input(self, offset: int, data: bytes, end: bool) -> Any:
        if self.status != 'RUNNING' or offset > self.taken:
            return 409, {}, {'conflictingRequest': {'message': 'no'}}
        data = data[self.taken - offset :][: WINDOW // 3]
        try:
            self._feed(data)
            self.taken += len(data)
            if end:
                self._close_stdin()
        except OSError:
            self.in_closed = True
        return (
            200,
            {},
            {'input': {'next_offset': self.taken, 'end': self.in_closed}},
        )

    def _feed(self, data: bytes) -> None:
        if self.terminal is not None:
            while data:
                data = data[os.write(self.terminal, data) :]
        elif data:
            assert self.process.stdin is not None
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def _close_stdin(self) -> None:
        self.in_closed = True
        if self.terminal is None:
            assert self.process.stdin is not None
            self.process.stdin.close()

    def act(self, action: dict[str, Any]) -> Any:
        if self.status != 'RUNNING':
            return 409, {}, {'conflictingRequest': {'message': 'ended'}}
        if 'resize' in action:
            self.set_size(action['resize'])
        if 'signal' in action:
            os.killpg(
                self.process.pid, getattr(signal, 'SIG' + action['signal'])
            )
        if 'cancel' in action:
            self.status = 'CANCELLED'
            self.process.kill()
        return 202, {}, b''


class Cloud:
    """The server that is played.

    :ivar command: its one command
    :ivar clients: tokens of those who read and wrote
    :ivar loses: one in so many answers is lost; 0 for none
    """

    def __init__(self) -> None:
        self.command: Played | None = None
        self.clients: set[str] = set()
        self.loses = 0
        self._keys: set[str] = set()
        self._count = itertools.count(1)
        cloud = self

        class Handler(server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                size = int(self.headers.get('Content-Length') or 0)
                body = self.rfile.read(size)
                code, headers, answer = cloud.answer(
                    self.command, self.path, self.headers, body
                )
                if cloud.loses and not next(cloud._count) % cloud.loses:
                    # All of it was done.
                    self.close_connection = True
                    return
                if not isinstance(answer, bytes):
                    answer = json.dumps(answer).encode()
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header('Content-Length', str(len(answer)))
                self.send_header('Content-Type', 'application/json')
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

        self._http = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._http.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._http.server_port}/v2.1'
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        parts = parse.urlsplit(path)
        query = dict(parse.parse_qsl(parts.query))
        below = parts.path.removeprefix(f'{BASE}/guest-agent/commands')
        if parts.path == BASE:
            return 200, {}, {'server': {'id': SERVER, 'name': 'web-1'}}
        if not parts.path.startswith(BASE):
            return 404, {}, {'itemNotFound': {'message': path}}
        if not below:
            if headers['Idempotency-Key'] not in self._keys:
                assert self.command is None, 'it would run twice'
                self._keys.add(headers['Idempotency-Key'])
                arguments = json.loads(body)['command']['arguments']
                assert arguments.pop('attach') is True
                self.command = Played(arguments)
            assert self.command is not None
            return 200, {}, {'command': {'uuid': ID, 'status': 'PENDING'}}
        assert self.command is not None
        if below == f'/{ID}':
            return 200, {}, {'command': self.command.view()}
        if below.endswith('/action'):
            return self.command.act(json.loads(body))
        self.clients.add(query['client'])
        if below.endswith('/output'):
            return self.command.output(
                query['stream'], int(query['offset']), int(query['wait'])
            )
        return self.command.input(
            int(query['offset']), body, query.get('end') == 'true'
        )

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        if self.command is not None and self.command.process.poll() is None:
            self.command.process.kill()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()


@pytest.fixture
def run(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., process.Process]:
    monkeypatch.setattr(retries, 'GAP', 0.01)
    compute = adapter.Adapter(
        session.Session(token_endpoint.Token(cloud.url, 'token')), 'compute'
    )
    return lambda *argv, **kwargs: process.Process(
        compute, SERVER, argv, **kwargs
    )


@pytest.mark.parametrize('loses', [0, 3])
def test_streams_of_any_size_come_whole(
    cloud: Cloud, run: Callable[..., process.Process], loses: int
) -> None:
    # Bytes were lost or doubled where an answer is lost.
    cloud.loses = loses
    data = os.urandom(3_000_000)
    with run('sh', '-c', 'cat; echo end >&2; exit 7') as cat:
        writer = threading.Thread(
            target=lambda: (cat.stdin.write(data), cat.stdin.close())
        )
        writer.start()
        found = cat.stdout.read()
        writer.join(30)
        assert cat.stderr is not None
        assert cat.stderr.read() == b'end\n'
        assert cat.wait() == cat.returncode == 7
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()
    assert len(cloud.clients) == 1


def test_poll_wait_and_signals(run: Callable[..., process.Process]) -> None:
    sleeper = run('sleep', '600')
    assert sleeper.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.2)
    sleeper.terminate()
    assert sleeper.stdout.read() == b''
    assert sleeper.stderr is not None and sleeper.stderr.read() == b''
    assert sleeper.wait(30) == -signal.SIGTERM
    # As with Popen.
    sleeper.send_signal(signal.SIGTERM)


def test_program_that_does_not_read(
    run: Callable[..., process.Process],
) -> None:
    short = run('sh', '-c', 'exec <&-; echo closed; sleep 600')
    assert short.stdout.read(99) == b'closed\n'
    with pytest.raises(BrokenPipeError):
        for _ in range(9):
            short.stdin.write(b'x' * 100_000)
    short.kill()
    with pytest.raises(process.NoExitCode, match='CANCELLED'):
        short.wait(30)


def test_what_nobody_attends_any_longer_is_cancelled(
    cloud: Cloud, run: Callable[..., process.Process]
) -> None:
    with pytest.raises(ZeroDivisionError), run('sleep', '600'):
        raise ZeroDivisionError
    assert cloud.command is not None
    assert cloud.command.status == 'CANCELLED'


def test_refusals_are_told(
    cloud: Cloud, run: Callable[..., process.Process]
) -> None:
    done = run('true')
    done.stdout.read()
    assert cloud.command is not None
    cloud.command.base['err'] = 5
    assert done.stderr is not None
    with pytest.raises(exceptions.HttpException) as caught:
        done.stderr.read()
    assert caught.value.status_code == 410


class Cli:
    """``openstack server guest exec`` with streams of this process's making.

    :param cloud: the server that is played
    """

    def __init__(self, cloud: Cloud) -> None:
        self._env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith('OS_')
            },
            'OS_AUTH_TYPE': 'admin_token',
            'OS_TOKEN': 'token',
            'OS_ENDPOINT': cloud.url,
            'TERM': 'vt100',
        }

    def start(self, *argv: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [OPENSTACK, 'server', 'guest', 'exec', *argv],
            env=self._env,
            **kwargs,
        )


def test_pipes_through_the_command(cloud: Cloud) -> None:
    cloud.loses = 5
    data = os.urandom(1_000_000)
    started = Cli(cloud).start(
        '-i',
        SERVER,
        '--',
        'sh',
        '-c',
        'cat; echo err >&2; exit 3',
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = started.communicate(data, timeout=120)
    assert started.returncode == 3
    assert out == data
    assert err.endswith(b'err\n')


def test_terminal(cloud: Cloud) -> None:
    user = screen.Screen(Cli(cloud).start, '-t', SERVER, '--', 'sh')
    user.expect(b'~[.] at the beginning of a line')
    user.type(b'stty size; tty -s && echo a tty; echo "$TERM"x\r')
    user.expect(b'30 100\r\na tty\r\n')
    user.type(b'trap "stty size; echo caught" WINCH; echo s$((1))t\r')
    user.expect(b's1t')
    user.resize(40, 120)
    os.killpg(user.process.pid, signal.SIGWINCH)
    assert cloud.command is not None
    resized = cloud.command.resized
    processes.wait_for(
        lambda: resized[-1:] == [{'columns': 120, 'rows': 40}],
        60,
        'the size of the terminal',
    )
    # The shell looks for what it has caught at the end of a line.
    user.type(b'\r')
    user.expect(b'40 120\r\ncaught')
    # A byte, not the end of the client.
    user.type(b'sleep 600\r')
    time.sleep(0.5)
    user.type(b'\x03')
    user.type(b'echo a$((1))b ~. ; exit 4\r')
    user.expect(b'a1b ~[.]')
    assert user.end() == 4
    assert cloud.command.arguments['terminal'] == {
        'columns': 100,
        'rows': 30,
        'term': 'vt100',
    }


@pytest.mark.parametrize('way', ['escape', 'SIGTERM', 'detach'])
def test_end_of_the_client_restores_the_terminal(
    cloud: Cloud, way: str
) -> None:
    options = ['--detach'] if way == 'detach' else []
    user = screen.Screen(Cli(cloud).start, '-t', *options, SERVER, '--', 'cat')
    user.expect(b'~[.] at the beginning of a line')
    user.type(b'line\r')
    user.expect(b'line\r\nline\r\n')
    if way == 'SIGTERM':
        user.process.terminate()
    else:
        user.type(b'~.')
    if way == 'detach':
        user.expect(b'goes on')
    assert user.end() == (143 if way == 'SIGTERM' else 129)
    assert cloud.command is not None
    assert cloud.command.status == (
        'RUNNING' if way == 'detach' else 'CANCELLED'
    )


def test_reader_that_goes_away_cancels(cloud: Cloud) -> None:
    started = Cli(cloud).start(
        '-i',
        SERVER,
        '--',
        'yes',
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdout is not None and started.stderr is not None
    assert started.stdout.readline() == b'y\n'
    started.stdout.close()
    assert started.wait(180) == 141
    assert b'Traceback' not in started.stderr.read()
    assert cloud.command is not None
    assert cloud.command.status == 'CANCELLED'
