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

"""Tenants: they send commands while faults are done, and note what they asked.

Each command has a tag, which it writes to its guest's console when it runs;
each file is named by its tag, and made of it, and so is what goes through an
attached command.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import http.client
import itertools
import json
import random
import threading
import time
from typing import Any
import urllib.parse
import uuid

from tools.faults import world as fault_world
from tools.testbed import client as http_client

#: Seconds that the load's commands may take to start, and to run.
START_TIMEOUT = 30
TIMEOUT = 25
SHORT_TIMEOUT = 3

#: Seconds between two commands of a guest, and until a request is repeated.
GAP = (0.3, 1.6)
REPEAT_AFTER = 0.5
#: Seconds for which a request is repeated that gets no answer.
PATIENCE = 20.0

#: Every script gets its tag and its exit code as arguments.
RAN = 'echo "ran $0" >/dev/ttyS0; '
BURST = 150_000

#: Lines that go both ways through an attached command, bytes that are sent at
#: once, and seconds that it may run: both ends are cut off again and again.
STREAM_LINES = 5000
PIECE = 64 * 1024
STREAM_TIMEOUT = 75
#: Seconds that a request for output is held.
HELD = 1
_PREFIX = 'OpenStack-Guest-Agent-'


@dataclasses.dataclass(frozen=True)
class Script:
    """What a command does, and how it ends if nobody harms its guest."""

    text: str
    status: str
    timeout: int = TIMEOUT
    is_cancelled: bool = False
    has_output: bool = True
    is_attached: bool = False


SCRIPTS: Mapping[str, Script] = {
    'quick': Script('echo "out $0"; exit $1', 'COMPLETED'),
    'slow': Script('sleep 3; echo "out $0"; exit $1', 'COMPLETED'),
    'burst': Script(
        f'head -c {BURST} /dev/zero | tr "\\0" x >&2; echo "out $0"; exit $1',
        'COMPLETED',
    ),
    'child': Script('(setsid sleep 2) & echo "out $0"; exit $1', 'COMPLETED'),
    # Whoever is in the group of the command is told to end.
    'kill-group': Script(
        'echo "out $0"; trap "" TERM; kill 0; exit $1', 'COMPLETED'
    ),
    'endless': Script(
        'echo "out $0"; setsid sleep 98765 & sleep 98765',
        'TIMED_OUT',
        timeout=SHORT_TIMEOUT,
    ),
    'cancelled': Script(
        'echo "out $0"; setsid sleep 98765 & sleep 98765',
        'CANCELLED',
        is_cancelled=True,
    ),
    'attached': Script(
        'cat; echo "out $0"; exit $1',
        'COMPLETED',
        timeout=STREAM_TIMEOUT,
        is_attached=True,
    ),
}

#: What is not a script: a file that is written, of more than one chunk.
FILE = 'file'
FILE_LINES = 4000
KINDS = sorted([*SCRIPTS, FILE])


@dataclasses.dataclass
class Order:
    """One command that was asked for.

    :ivar exitcode: exit code of its script
    :ivar guest: guest that it was to run in
    :ivar uuid: the command's, None while no answer told it
    :ivar answers: number of answers by status; 0 stands for no answer
    :ivar was_cancelled: whether a cancel was accepted
    :ivar got: what an attached command's client has read of its stdout
    :ivar is_drained: whether the client was told that this is all
    :ivar was_gone: whether the client was told that some of it is lost
    """

    tag: str
    kind: str
    exitcode: int
    guest: str
    uuid: str | None = None
    answers: dict[int, int] = dataclasses.field(default_factory=dict)
    was_cancelled: bool = False
    got: bytes = b''
    is_drained: bool = False
    was_gone: bool = False

    @property
    def script(self) -> Script:
        return SCRIPTS[self.kind]

    @property
    def is_file(self) -> bool:
        return self.kind == FILE

    @property
    def path(self) -> str:
        return f'/root/file-{self.tag}'

    @property
    def content(self) -> bytes:
        return f'{self.tag}\n'.encode() * FILE_LINES

    @property
    def stdin(self) -> bytes:
        """Input of an attached command; no line is like another."""
        return b''.join(
            b'%d %s\n' % (number, self.tag.encode())
            for number in range(STREAM_LINES)
        )

    @property
    def stdout(self) -> bytes:
        """All that a command writes to its stdout."""
        stdin = self.stdin if self.script.is_attached else b''
        return stdin + f'out {self.tag}\n'.encode()

    def body(self) -> dict[str, Any]:
        return {
            'command': {
                'type': 'exec',
                'arguments': {
                    'command': [
                        '/bin/sh',
                        '-c',
                        RAN + self.script.text,
                        self.tag,
                        str(self.exitcode),
                    ],
                    'timeout': self.script.timeout,
                    'start_timeout': START_TIMEOUT,
                    **({'attach': True} if self.script.is_attached else {}),
                },
            }
        }


class Tenant:
    """Who sends commands to one guest, until told to stop."""

    def __init__(
        self, world: fault_world.World, guest: str, seed: str
    ) -> None:
        self.orders: list[Order] = []
        self._readers: list[Reader] = []
        self._world = world
        self._guest = guest
        self._clients = itertools.cycle(world.clients(guest))
        self._chosen = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            name=f'tenant-{guest}', target=self._run, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def join(self) -> None:
        """Wait until the clients of attached commands have gone."""
        for reader in self._readers:
            reader.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            order = Order(
                str(uuid.uuid4()),
                self._chosen.choice(KINDS),
                self._chosen.randrange(128),
                self._guest,
            )
            self.orders.append(order)
            if order.is_file:
                self._write(order)
                continue
            self._send(order)
            if order.script.is_attached and order.uuid is not None:
                reader = Reader(order, self._world.clients(self._guest))
                self._readers.append(reader)
                reader.start()
            if order.script.is_cancelled and order.uuid is not None:
                time.sleep(self._chosen.uniform(0, 3))
                self._cancel(order)
            self._stopping.wait(self._chosen.uniform(*GAP))

    def _write(self, order: Order) -> None:
        # Nobody repeats a write that was not answered.
        try:
            status = (
                next(self._clients).put_file(order.path, order.content).status
            )
        except (OSError, http.client.HTTPException):
            status = 0
        order.answers[status] = 1

    def _send(self, order: Order) -> None:
        answer = insist(
            self._clients,
            order.answers,
            lambda client: client.send(
                'POST',
                client.commands,
                order.body(),
                {'Idempotency-Key': order.tag},
            ),
        )
        if answer is not None and answer.status == 200:
            order.uuid = json.loads(answer.body)['command']['uuid']

    def _cancel(self, order: Order) -> None:
        answer = insist(
            self._clients,
            order.answers,
            lambda client: client.send(
                'POST',
                f'{client.commands}/{order.uuid}/action',
                {'cancel': None},
            ),
        )
        order.was_cancelled = answer is not None and answer.status == 202


class Reader(threading.Thread):
    """The client of an attached command, until that has ended.

    It notes in the order what it reads.

    :param order: order that was accepted
    :param clients: client of each API, which are asked in turn
    """

    def __init__(
        self, order: Order, clients: Iterable[http_client.Client]
    ) -> None:
        super().__init__(name=f'reader-{order.tag}', daemon=True)
        self._order = order
        self._clients = itertools.cycle(clients)
        self._stdin = order.stdin
        self._sent = 0
        self._is_closed = False
        self._errors = 0
        #: Streams that are not complete.
        self._open = {'out', 'err'}

    def run(self) -> None:
        while self._open and not self._order.was_gone:
            turns = [self._read(stream) for stream in tuple(self._open)]
            if not self._is_closed:
                turns.append(self._write())
            if None in turns and self._has_ended():
                return
            if not any(turns):
                time.sleep(REPEAT_AFTER)

    def _write(self) -> bool | None:
        """Send some input; tell whether it went, None if it is refused."""
        data = self._stdin[self._sent : self._sent + PIECE]
        is_last = self._sent + len(data) == len(self._stdin)
        answer = self._ask(
            'POST', 'input', data, offset=self._sent, end=str(is_last).lower()
        )
        if answer is None or answer.status != 200:
            return self._met(answer)
        accepted = json.loads(answer.body)['input']
        has_moved = accepted['next_offset'] > self._sent
        self._sent = accepted['next_offset']
        self._is_closed = accepted['end']
        return has_moved or self._is_closed

    def _read(self, stream: str) -> bool | None:
        """Read some output; tell whether there was, None if refused."""
        offset = len(self._order.got) if stream == 'out' else self._errors
        answer = self._ask(
            'GET', 'output', stream=stream, offset=offset, wait=HELD
        )
        if answer is None or answer.status != 200:
            return self._met(answer)
        if int(answer.headers[_PREFIX + 'Offset']) != offset:
            self._order.was_gone = True
            return None
        if stream == 'out':
            self._order.got += answer.body
        else:
            self._errors += len(answer.body)
        if answer.headers[_PREFIX + 'Complete'] == 'true':
            self._open.discard(stream)
            self._order.is_drained = not self._open
            return True
        return bool(answer.body)

    def _met(self, answer: http_client.Answer | None) -> bool | None:
        if answer is None or answer.status >= 500:
            return False
        self._order.was_gone |= answer.status == 410
        return None

    def _has_ended(self) -> bool:
        answer = self._ask('GET', '')
        if answer is None or answer.status >= 500:
            return False
        return answer.status != 200 or (
            json.loads(answer.body)['command']['status'] in http_client.ENDED
        )

    def _ask(
        self, method: str, what: str, body: bytes | None = None, **query: Any
    ) -> http_client.Answer | None:
        """Send a request, and return the answer if there is one."""
        client = next(self._clients)
        path = f'{client.commands}/{self._order.uuid}'
        if what:
            query['client'] = self._order.tag
            path += f'/{what}?{urllib.parse.urlencode(query)}'
        try:
            return client.send(method, path, body)
        except (OSError, http.client.HTTPException):
            return None


def insist(
    clients: Iterator[http_client.Client],
    answers: dict[int, int],
    send: Callable[[http_client.Client], http_client.Answer],
) -> http_client.Answer | None:
    """Send a request until it is answered, to each API in turn.

    :param answers: number of answers by status, which is counted up
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            answer = send(next(clients))
        except (OSError, http.client.HTTPException):
            status = 0
        else:
            status = answer.status
        answers[status] = answers.get(status, 0) + 1
        if status and status < 500:
            return answer
        time.sleep(REPEAT_AFTER)
    return None
