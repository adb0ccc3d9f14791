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


"""The hub: a process that holds a session with a cloud for others.

``hub_client`` starts it, and has the protocol. A client that goes away does
not want what it asked for: a program that runs is cancelled.
"""

import base64
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
import socket
import socketserver
import sys
import threading
import time
from typing import Any
import uuid

from keystoneauth1 import adapter
from keystoneauth1 import exceptions as auth_exceptions
import openstack
from openstack import exceptions

from guest_agent_ext.sdk import endpoints
from guest_agent_ext.sdk import files
from guest_agent_ext.sdk import hub_client
from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import programs
from guest_agent_ext.sdk import whole

#: Seconds between two looks whether there is still somebody who asks, and
#: seconds to serve those who have found the socket before it was removed.
_POLL, _DRAIN = 1.0, 0.2

_NOT_FOUND = 404
#: What to do about the answers of the API, by status.
_ADVICE: Mapping[int | None, str] = {
    401: 'Check the login in clouds.yaml or the OS_* variables',
    403: 'The policy of the cloud does not let this user run commands in '
    'servers, or a quota is used up: ask its operator',
    _NOT_FOUND: 'Check the id or name of the server and the project that the '
    'login is for, and that the cloud has the guest agent extension',
    409: '"openstack server guest show" tells whether the server can run '
    'commands, and why not',
    429: 'Run the playbook with fewer forks',
    503: 'Try again later',
}
#: Ends of commands that leave open whether they have run.
_FAR = ('FAILED', 'LOST')
_NO_END = {
    'FAILED': 'The command was not run: {}',
    'LOST': 'The connection to the command was lost, and it may have run: {}',
    'TIMED_OUT': 'The command took too long and was killed: {}',
    'CANCELLED': 'The command was cancelled: {}',
}


class Hub:
    """The session, and what can be asked of it.

    :param connect: function that returns a connection of openstacksdk
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: Any = None
        self._compute: adapter.Adapter | None = None
        #: UUIDs of servers by name.
        self._ids: dict[str, str] = {}

    def run(
        self,
        server: str,
        command: Sequence[str],
        stdin: str,
        *,
        is_whole: bool,
        ask: whole.Answer | None,
        is_wanted: Callable[[], bool],
        **options: Any,
    ) -> dict[str, Any]:
        """Run a program to its end.

        :param server: UUID or name of the server
        :param stdin: bytes for the program, in base64
        :param is_whole: True if stdin or output may be long, for which the
            server needs a POSIX shell
        :param ask: function that answers the questions of the program; None
            if it has none
        :param options: arguments of ``programs.run``
        """
        run: Callable[..., programs.Completed] = programs.run
        if ask is not None:
            run = whole.attached
            options['answer'] = ask
        elif is_whole:
            run = whole.run
        done = run(
            self.compute(),
            self.server_id(server),
            command,
            stdin=base64.b64decode(stdin),
            is_wanted=is_wanted,
            **options,
        )
        if done.is_cut:
            raise whole.OutputCut(
                f'The program wrote more than the {len(done.stdout)} bytes '
                'of output that are kept. Write it into a file, and fetch that'
            )
        error = done.stderr
        if done.is_error_cut:
            error += b'\n(the rest of stderr was not kept)\n'
        return {
            'code': done.returncode,
            'out': base64.b64encode(done.stdout).decode(),
            'err': base64.b64encode(error).decode(),
        }

    def put(
        self,
        server: str,
        source: str,
        path: str,
        *,
        user: str | None,
        is_wanted: Callable[[], bool],
    ) -> dict[str, Any]:
        """Copy a file into a server.

        :param source: path of the file here
        :param path: absolute path in the server
        :param user: user in the server who writes it; None for the agent's
        """
        compute, server_id = self.compute(), self.server_id(server)
        if user is None:
            files.put(compute, server_id, source, path)
            return {}
        with open(source, 'rb') as file:
            done = whole.run(
                compute,
                server_id,
                ['/bin/sh', '-c', 'cat >"$0"', path],
                stdin=file.read(),
                user=user,
                is_wanted=is_wanted,
            )
        _check(done, f'{path} was not written')
        return {}

    def get(
        self,
        server: str,
        path: str,
        to: str,
        *,
        user: str | None,
        is_wanted: Callable[[], bool],
    ) -> dict[str, Any]:
        """Copy a file out of a server.

        :param path: absolute path in the server
        :param to: path of the file here
        :param user: user in the server who reads it; None for the agent's
        """
        compute, server_id = self.compute(), self.server_id(server)
        if user is None:
            files.get(compute, server_id, path, to)
            return {}
        with files.written(to) as file:
            done = whole.attached(
                compute,
                server_id,
                ['/bin/sh', '-c', 'exec cat <"$0"', path],
                write=file.write,
                user=user,
                is_wanted=is_wanted,
            )
            _check(done, f'{path} was not read')
        return {}

    def show(self, server: str, call: str) -> dict[str, Any]:
        """Return what is told of a server's agent.

        :param call: ``details``, or nothing for the agent itself
        """
        url = f'/servers/{self.server_id(server)}/guest-agent'
        response = programs.send(
            self.compute(), 'GET', f'{url}/{call}' if call else url
        )
        (told,) = response.json().values()
        return dict(told)

    def forget(self, server: str) -> dict[str, Any]:
        """Forget what is known of a server."""
        self._ids.pop(server, None)
        return {}

    def compute(self) -> adapter.Adapter:
        """Return the adapter for the calls below ``guest-agent``."""
        with self._lock:
            if self._compute is None:
                self._connection = self._connect()
                self._compute = endpoints.compute(self._connection)
            return self._compute

    def server_id(self, server: str) -> str:
        """Return the UUID of a server.

        :param server: UUID or name
        """
        with contextlib.suppress(ValueError):
            return str(uuid.UUID(server))
        if server not in self._ids:
            self.compute()
            found = self._connection.compute.find_server(
                server, ignore_missing=False, details=False
            )
            self._ids[server] = str(found.id)
        return self._ids[server]


def _check(done: programs.Completed, what: str) -> None:
    if done.returncode:
        reason = done.stderr.decode(errors='replace').strip()
        raise OSError(f'{what}: {reason or f"exit code {done.returncode}"}')


class _Handler(socketserver.StreamRequestHandler):
    """One client with one call."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        with contextlib.suppress(OSError), server.counted():
            line = self.rfile.readline()
            if line:
                self._tell(self._answer(server.hub, json.loads(line)))

    def _answer(self, hub: Hub, asked: Mapping[str, Any]) -> dict[str, Any]:
        name, arguments = asked['call'], dict(asked['arguments'])
        asks = arguments.pop('asks', False)
        if name == 'run':
            arguments['ask'] = self._ask if asks else None
        if name in ('run', 'put', 'get'):
            arguments['is_wanted'] = self._is_there
        try:
            return {'result': CALLS[name](hub, **arguments)}
        except Exception as error:
            if _status_of(error) == _NOT_FOUND:
                # One of the same name may have been built since.
                hub.forget(arguments['server'])
            kind, text = explained(error)
            return {'error': {'kind': kind, 'text': text}}

    def _ask(self, out: bytes, err: bytes) -> tuple[bytes, bool]:
        """Have the client answer what a program says."""
        self._tell(
            {
                'said': {
                    'out': base64.b64encode(out).decode(),
                    'err': base64.b64encode(err).decode(),
                }
            }
        )
        line = self.rfile.readline()
        if not line:
            raise programs.Unwanted
        told = json.loads(line)
        return base64.b64decode(told['reply']), bool(told['over'])

    def _tell(self, what: Mapping[str, Any]) -> None:
        self.wfile.write(json.dumps(what).encode() + b'\n')

    def _is_there(self) -> bool:
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
        try:
            return bool(self.request.recv(1, flags))
        except BlockingIOError:
            return True
        except OSError:
            return False


CALLS: Mapping[str, Callable[..., dict[str, Any]]] = {
    'run': Hub.run,
    'put': Hub.put,
    'get': Hub.get,
    'show': Hub.show,
    'forget': Hub.forget,
}


class Server(socketserver.ThreadingUnixStreamServer):
    """The socket of a hub, which is removed when nobody asks any more.

    :param path: path of the socket
    :param hub: the hub
    :param idle: seconds that it stays when nobody asks
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, hub: Hub, idle: float) -> None:
        self.hub = hub
        self._path = path
        self._idle = idle
        self._lock = threading.Lock()
        self._active = 0
        self._last = time.monotonic()
        # Whole or not at all, in place of one whose hub was killed.
        new = f'{path}.{os.getpid()}'
        before = os.umask(0o177)
        try:
            super().__init__(new, _Handler)
        finally:
            os.umask(before)
        os.rename(new, path)
        self._inode = os.stat(path).st_ino

    @contextlib.contextmanager
    def counted(self) -> Any:
        """Note that somebody asks while the block runs."""
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                self._last = time.monotonic()

    def serve(self) -> None:
        """Serve until nobody has asked for long enough."""
        self.timeout = _POLL
        while not self._is_over():
            self.handle_request()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        # Those that had connected are still served.
        self.timeout = _DRAIN
        self.handle_request()
        while self._is_busy():
            self.handle_request()
        self.server_close()

    def _is_over(self) -> bool:
        with self._lock:
            if self._active:
                return False
            if time.monotonic() - self._last > self._idle:
                return True
        try:
            return os.stat(self._path).st_ino != self._inode
        except OSError:
            return True

    def _is_busy(self) -> bool:
        with self._lock:
            return bool(self._active)


def explained(error: Exception) -> tuple[str, str]:
    """Return the kind of an error, and a text that says what to do."""
    far, here = hub_client.UNREACHABLE, hub_client.FAILED
    if isinstance(error, exceptions.HttpException):
        return _kind_of(error), _advised(error)
    if isinstance(error, process.NoExitCode):
        text = _NO_END[error.status].format(
            error.error or 'no reason is known'
        )
        return far if error.status in _FAR else here, text
    if isinstance(error, exceptions.DuplicateResource):
        return far, f'{error}. Use the id of the server'
    if isinstance(
        error, exceptions.SDKException | auth_exceptions.ClientException
    ):
        return far, (
            f'No session with the cloud: {error}. Set OS_CLOUD or '
            'ansible_guest_agent_cloud to an entry of clouds.yaml, or the '
            'OS_* variables'
        )
    if isinstance(error, whole.OutputCut | OSError | ValueError):
        return here, str(error)
    return here, f'{type(error).__name__}: {error}'


def _status_of(error: Exception) -> int | None:
    """Return the status of an answer; None for other errors."""
    if isinstance(error, exceptions.NotFoundException):
        # Also that of a list without the server in it.
        return _NOT_FOUND
    if isinstance(error, exceptions.HttpException):
        return error.status_code
    return None


def _kind_of(error: exceptions.HttpException) -> str:
    """Return whether an answer is about the way to the server."""
    # What does not fit the API, and files that are not there.
    is_own = 'file-' in str(error.url) or _status_of(error) not in _ADVICE
    return hub_client.FAILED if is_own else hub_client.UNREACHABLE


def _advised(error: exceptions.HttpException) -> str:
    text = str(error.details or error.message).rstrip('. ')
    if _kind_of(error) == hub_client.FAILED:
        return text
    return f'{text}. {_ADVICE[_status_of(error)]}'


def main() -> None:
    """Be the hub that the command line describes, as a JSON object."""
    options = json.loads(sys.argv[1])

    def connect() -> Any:
        # None is not the same as nothing there.
        chosen = {'cloud': options['cloud'], 'region_name': options['region']}
        return openstack.connect(
            app_name='guest-agent-hub',
            **{name: value for name, value in chosen.items() if value},
        )

    server = Server(options['path'], Hub(connect), options['idle'])
    sys.stdout.buffer.write(hub_client.READY)
    sys.stdout.flush()
    # Whoever started it waits for the end of its output, and has no place for
    # more.
    with open(os.devnull, 'wb') as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    server.serve()
