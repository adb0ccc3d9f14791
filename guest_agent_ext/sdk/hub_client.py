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


"""Asks the hub, the process that holds a session with a cloud for others.

A client that lives for a moment only, as each task of a playbook does, would
spend more time on imports and on its login than on its request. The first one
starts the hub, the others find it by a socket in a directory that is the
user's alone, as those of ssh find their master. It ends when nobody has asked
for a minute.

This module imports nothing but the standard library; ``hub`` is the other
side. A call and its answer are a line of JSON each.
"""

import base64
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import select
import socket
import subprocess
import sys
from typing import Any

#: Seconds that the hub stays when nobody asks.
IDLE = 60
#: What the hub prints when it listens.
READY = b'ready\n'
#: Kinds of errors: the server could not be reached, or the program may not
#: have run to its end; what was asked cannot be done; the hub is gone.
UNREACHABLE, FAILED, GONE = 'unreachable', 'failed', 'gone'

#: Starts the hub, with no modules of the current directory.
_MAIN = (
    'import sys; sys.path[:] = filter(None, sys.path); '
    'from guest_agent_ext.sdk import hub; hub.main()'
)
#: Seconds within which the hub has started.
_START = 60
#: Maximum length of the path of a socket on every system.
_MAX_PATH = 100

#: Takes what a program has written to stdout and stderr since the last time,
#: and returns bytes for its stdin, and True if it has no more questions.
Answer = Callable[[bytes, bytes], tuple[bytes, bool]]


class HubError(Exception):
    """A call was not done.

    :ivar kind: ``unreachable``, ``failed`` or ``gone``
    :ivar text: reason, and what to do
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclasses.dataclass(frozen=True)
class HubClient:
    """The calls of the hub of one cloud.

    :ivar directory: directory of the socket
    :ivar cloud: name of the cloud in clouds.yaml; None for ``OS_CLOUD`` and
        its kin
    :ivar region: name of the region; None for the configured one
    :ivar idle: seconds that the hub stays when nobody asks
    """

    directory: str
    cloud: str | None = None
    region: str | None = None
    idle: int = IDLE

    def call(
        self, name: str, *, answer: Answer | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Have the hub do something, and return what came of it.

        :param name: one of ``hub.CALLS``
        :param answer: function that answers the questions of a program
        :param arguments: arguments of the call, as JSON can tell them
        :raises HubError: it was not done
        """
        arguments['asks'] = answer is not None
        line = json.dumps({'call': name, 'arguments': arguments})
        with self._connected() as channel:
            try:
                channel.write(line.encode() + b'\n')
                channel.flush()
                return self._read(channel, answer)
            except OSError as error:
                raise HubError(
                    GONE,
                    'The process that holds the session with the cloud has '
                    f'ended ({error}); what was asked may have been done',
                ) from error

    @property
    def path(self) -> str:
        """The path of the socket, which is another for another login."""
        login = [
            sorted(
                item
                for item in os.environ.items()
                if item[0].startswith('OS_')
            ),
            os.getcwd(),
            self.cloud,
            self.region,
            __file__,
        ]
        name = hashlib.sha256(json.dumps(login).encode()).hexdigest()[:16]
        return os.path.join(self.directory, f'guest-agent-{name}')

    def _read(
        self, channel: io.BufferedRWPair, answer: Answer | None
    ) -> dict[str, Any]:
        while line := channel.readline():
            told: dict[str, Any] = json.loads(line)
            if 'error' in told:
                raise HubError(told['error']['kind'], told['error']['text'])
            if 'result' in told:
                return dict(told['result'])
            assert answer is not None
            reply, is_over = answer(
                *(
                    base64.b64decode(told['said'][name])
                    for name in ('out', 'err')
                )
            )
            told = {'reply': base64.b64encode(reply).decode(), 'over': is_over}
            channel.write(json.dumps(told).encode() + b'\n')
            channel.flush()
        raise ConnectionResetError('no answer')

    @contextlib.contextmanager
    def _connected(self) -> Iterator[io.BufferedRWPair]:
        """Connect to the hub, and start it if there is none."""
        path = self.path
        if len(path) > _MAX_PATH:
            raise HubError(
                FAILED,
                f'The path of a socket is too long: {path}. Choose a shorter '
                'directory',
            )
        with socket.socket(socket.AF_UNIX) as connection:
            if not _connects(connection, path):
                os.makedirs(self.directory, mode=0o700, exist_ok=True)
                with open(path + '.lock', 'w') as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if not _connects(connection, path):
                        self._start(path)
                        connection.connect(path)
            with connection.makefile('rwb') as channel:
                yield channel

    def _start(self, path: str) -> None:
        options = {
            'path': path,
            'cloud': self.cloud,
            'region': self.region,
            'idle': self.idle,
        }
        # Its stdout is for its first line, or for the reason why it is not
        # there. It outlives this process, and is not ended by the terminal.
        hub = subprocess.Popen(
            [sys.executable, '-c', _MAIN, json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert hub.stdout is not None
        with hub.stdout as stdout:
            told = b''
            while not told.endswith(READY):
                if not select.select([stdout], [], [], _START)[0]:
                    hub.kill()
                    break
                piece = os.read(stdout.fileno(), 4096)
                if not piece:
                    break
                told += piece
        if not told.endswith(READY):
            raise HubError(
                UNREACHABLE,
                'The process that holds the session with the cloud did not '
                'start: ' + told.decode(errors='replace').strip()[-2000:],
            )


def _connects(connection: socket.socket, path: str) -> bool:
    try:
        connection.connect(path)
    except OSError:
        return False
    return True
