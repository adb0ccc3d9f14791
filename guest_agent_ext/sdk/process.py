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


"""Attached commands, used like ``subprocess.Popen``.

A program that runs in a server, with its streams::

    from guest_agent_ext.sdk import process

    with process.Process(connection.compute, server_id, ['sort']) as sort:
        sort.stdin.write(b'b\\na\\n')
        sort.stdin.close()
        print(sort.stdout.read(), sort.stderr.read())
        print(sort.wait())

Both output streams are to be read to their ends: the server tells the end of
a command when all of its output was read.

Each call names the offset of its bytes, and is sent again if its answer is
lost: no byte is lost or comes twice.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import signal as signals
import subprocess
import time
from types import TracebackType
from typing import Any
from typing import cast
import uuid

from keystoneauth1 import adapter
from openstack import exceptions
import requests

from guest_agent_ext.sdk import retries

#: Type of the service in the catalog that has threads for long polls.
SERVICE_TYPE = 'guest-agent'
#: Seconds that the server may hold a request, if its own maximum is not less.
LONG_POLL = 30
#: Maximum number of bytes of stdin in one request.
PIECE = 256 * 1024
#: Minimum and maximum seconds between two requests that the server answers
#: without having anything to say, and the backoff factor.
MIN_GAP, MAX_GAP, GROWTH = 0.05, 1.0, 1.5

_PREFIX = 'OpenStack-Guest-Agent-'
_ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')


@dataclasses.dataclass(frozen=True)
class Terminal:
    """A terminal that a command gets.

    :ivar columns: width in characters, 1 to 1000
    :ivar rows: height in characters, 1 to 1000
    :ivar term: type of the terminal, the command's ``TERM``
    """

    columns: int = 80
    rows: int = 24
    term: str = 'xterm-256color'


class NoExitCode(Exception):
    """A command ended without exit code and signal.

    :ivar status: ``FAILED``, ``TIMED_OUT``, ``CANCELLED`` or ``LOST``
    :ivar error: reason
    """

    def __init__(self, status: str, error: str) -> None:
        super().__init__(f'{status}: {error}')
        self.status = status
        self.error = error


class Process:
    """A program that runs in a server, with streams of any length.

    The streams have no buffer here: a write returns when the server has taken
    the bytes, a read when there are some. Each may be used by one thread at a
    time. A program that nobody reads from stops, as at a full pipe.

    :ivar id: UUID of the command
    :ivar args: program and arguments
    :ivar stdin: stream to the program; closing it is the end of file
    :ivar stdout: stream of the program, or of its terminal
    :ivar stderr: stream of the program; None with a terminal
    :ivar returncode: exit code, or the negative number of the signal that
        ended the program; None until poll() or wait() has seen the end
    :param compute: adapter of the compute service or of guest-agent-api
    :param server_id: UUID of the server
    :param args: program and arguments
    :param terminal: terminal of the program; None for pipes
    :param env: variables added to the environment
    :param cwd: working directory
    :param user: name or number of the user in the server
    :param timeout: seconds after which the program is killed
    :param start_timeout: seconds within which the program must start
    :param detach: True if the program goes on when no client is attached
    :raises openstack.exceptions.HttpException: the request was refused
    """

    def __init__(
        self,
        compute: adapter.Adapter,
        server_id: str,
        args: Sequence[str],
        *,
        terminal: Terminal | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: int | None = None,
        start_timeout: int | None = None,
        detach: bool = False,
    ) -> None:
        optional = {
            'terminal': terminal and dataclasses.asdict(terminal),
            'env': env and dict(env),
            'cwd': cwd,
            'user': user,
            'timeout': timeout,
            'start_timeout': start_timeout,
            'detach': detach or None,
        }
        arguments = {'command': list(args), 'attach': True} | {
            name: value
            for name, value in optional.items()
            if value is not None
        }
        self.args = list(args)
        self.returncode: int | None = None
        self._compute = compute
        self._url = f'/servers/{server_id}/guest-agent/commands'
        self._client = uuid.uuid4().hex
        self._is_over = False
        key = str(uuid.uuid4())
        body = self._json(
            'POST',
            '',
            json={'command': {'type': 'exec', 'arguments': arguments}},
            headers={'Idempotency-Key': key},
        )
        self.id = str(body['command']['uuid'])
        self._url += '/' + self.id
        self.stdin: io.RawIOBase = _Input(self)
        self.stdout: io.RawIOBase = _Output(self, 'out')
        self.stderr: io.RawIOBase | None = (
            None if terminal else _Output(self, 'err')
        )

    def poll(self) -> int | None:
        """Return the exit code if the program has ended, else None.

        :raises NoExitCode: the command ended without one
        """
        return self._seen(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        The end is told when all output was read; without that, this waits for
        the time after which the server gives up a command without a client.

        :param timeout: maximum number of seconds; None for no maximum
        :raises subprocess.TimeoutExpired: the program runs on
        :raises NoExitCode: the command ended without an exit code
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        backoff = _Backoff()
        while True:
            left = (
                LONG_POLL if deadline is None else deadline - time.monotonic()
            )
            code = self._seen(max(0, min(LONG_POLL, int(left))))
            if code is not None:
                return code
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            backoff.sleep(deadline)

    def send_signal(self, number: int) -> None:
        """Send a signal to the program's process group.

        :param number: one of SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1,
            SIGUSR2
        """
        if self.returncode is None:
            name = signals.Signals(number).name.removeprefix('SIG')
            self._act({'signal': name})

    def terminate(self) -> None:
        """Send SIGTERM to the program's process group."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """Cancel the command: all of its processes are killed."""
        self._is_over = True
        if self.returncode is None:
            self._act({'cancel': None})

    def leave(self) -> None:
        """Let the program go on without a client.

        It stops at a full pipe; how long it stays is the server's choice
        where it was started without ``detach``.
        """
        self._is_over = True

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program that its terminal has another size.

        :param columns: width in characters
        :param rows: height in characters
        """
        self._act({'resize': {'columns': columns, 'rows': rows}})

    def __enter__(self) -> 'Process':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the command if its end was not seen; close the streams.

        Nobody would read what the program writes from now on.
        """
        if not self._is_over:
            self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def _act(self, action: dict[str, object]) -> None:
        try:
            self._send('POST', '/action', json=action)
        except exceptions.ConflictException:
            # What has ended gets no signal, as with Popen.
            if not self._has_ended():
                raise

    def _seen(self, wait: int) -> int | None:
        if self.returncode is None:
            headers = {'Prefer': f'wait={wait}'} if wait else {}
            command = self._json('GET', '', headers=headers)['command']
            if command['status'] in _ENDED:
                self._is_over = True
                self.returncode = _code_of(command)
        return self.returncode

    def _has_ended(self) -> bool:
        return self._json('GET', '')['command']['status'] in _ENDED

    def _json(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        return cast(dict[str, Any], self._send(method, path, **kwargs).json())

    def _send(
        self, method: str, path: str, **kwargs: Any
    ) -> requests.Response:
        """Send a request, which the server may get more than once."""

        def send() -> requests.Response:
            response: requests.Response = self._compute.request(
                self._url + path,
                method,
                # The log would show what is in the streams.
                log=False,
                raise_exc=False,
                **kwargs,
            )
            exceptions.raise_from_response(response)
            return response

        return retries.repeated(send)


class _Stream(io.RawIOBase):
    """A stream of a process.

    :param process: the process
    """

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._offset = 0

    def _send(
        self, method: str, path: str, **kwargs: Any
    ) -> requests.Response | None:
        """Send a request about the stream.

        :returns: the answer; None if the command has ended
        """
        kwargs['params']['client'] = self._process._client
        try:
            return self._process._send(method, path, **kwargs)
        except exceptions.ConflictException:
            if self._process._has_ended():
                return None
            raise


class _Output(_Stream):
    """stdout or stderr.

    :param name: ``out`` or ``err``
    """

    def __init__(self, process: Process, name: str) -> None:
        super().__init__(process)
        self._name = name
        self._data = memoryview(b'')
        self._is_complete = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        backoff = _Backoff()
        while not self._data and not self._is_complete:
            self._fetch()
            if not self._data and not self._is_complete:
                backoff.sleep()
        view = memoryview(buffer).cast('B')
        size = min(len(view), len(self._data))
        view[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    def _fetch(self) -> None:
        params = {
            'stream': self._name,
            'offset': self._offset,
            'wait': LONG_POLL,
        }
        response = self._send('GET', '/output', params=params)
        if response is None:
            # It ended with nothing to read, as one that never started.
            self._is_complete = True
            return
        first = int(response.headers.get(_PREFIX + 'Offset', self._offset))
        if first != self._offset:
            raise OSError(
                f'{first - self._offset} bytes of {self._name} are gone: '
                'another client has read them'
            )
        self._data = memoryview(response.content)
        self._offset += len(response.content)
        self._is_complete = (
            response.headers.get(_PREFIX + 'Complete') == 'true'
        )


class _Input(_Stream):
    """stdin."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Send all of the bytes.

        :raises BrokenPipeError: the program has ended or has closed stdin
        """
        if self.closed:
            raise ValueError('write to closed file')
        view = memoryview(data).cast('B')
        done, backoff = 0, _Backoff()
        while done < len(view):
            taken, is_closed = self._give(bytes(view[done : done + PIECE]))
            done += taken
            if is_closed:
                raise BrokenPipeError('The program has closed stdin')
            if taken:
                backoff = _Backoff()
            else:
                backoff.sleep()
        return done

    def close(self) -> None:
        """Send the end of file, unless the process is left or has ended."""
        if self.closed:
            return
        # First, since the finalizer closes again whatever happens.
        super().close()
        backoff = _Backoff()
        while not self._process._is_over:
            try:
                if self._give(b'', end='true')[1]:
                    return
            except BrokenPipeError:
                return
            backoff.sleep()

    def __del__(self) -> None:
        # A finalizer runs anywhere, and must not wait for a server: a process
        # that is forgotten has no end of file, and is cancelled in time.
        super().close()

    def _give(self, data: bytes, **params: str) -> tuple[int, bool]:
        """Send bytes once.

        :returns: number of bytes that the server took, and True if stdin is
            closed
        """
        offset = self._offset
        response = self._send(
            'POST',
            '/input',
            params={'offset': offset, **params},
            data=data,
            headers={
                'Content-Type': 'application/octet-stream',
                'Content-Length': str(len(data)),
            },
        )
        if response is None:
            raise BrokenPipeError('The program has ended')
        answer = response.json()['input']
        self._offset = int(answer['next_offset'])
        if not offset <= self._offset <= offset + len(data):
            raise OSError(
                f'The server expects byte {self._offset} of stdin, but '
                f'{offset + len(data)} are sent: another client writes'
            )
        return self._offset - offset, bool(answer['end'])


class _Backoff:
    """A gap between requests that grows."""

    def __init__(self) -> None:
        self._gap = MIN_GAP

    def sleep(self, deadline: float | None = None) -> None:
        left = self._gap if deadline is None else deadline - time.monotonic()
        time.sleep(max(0.0, min(self._gap, left)))
        self._gap = min(self._gap * GROWTH, MAX_GAP)


def best_endpoint(compute: adapter.Adapter) -> adapter.Adapter:
    """Return an adapter of the endpoint that serves attached commands best.

    That is guest-agent-api where the catalog has it, else Nova's.

    :param compute: the compute proxy of a connection
    """
    has_own = compute.session.get_endpoint(
        compute.auth,
        service_type=SERVICE_TYPE,
        interface=compute.interface,
        region_name=compute.region_name,
    )
    if not has_own:
        return compute
    return adapter.Adapter(
        compute.session,
        SERVICE_TYPE,
        interface=compute.interface,
        region_name=compute.region_name,
        auth=compute.auth,
    )


def _code_of(command: Mapping[str, Any]) -> int:
    result = command.get('result') or {}
    if command['status'] == 'COMPLETED':
        if result.get('exitcode') is not None:
            return int(result['exitcode'])
        return -int(result.get('signal') or 0)
    raise NoExitCode(command['status'], command.get('error') or '')
