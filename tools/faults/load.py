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
each file is named by its tag, and made of it.
"""

from collections.abc import Callable
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


@dataclasses.dataclass(frozen=True)
class Script:
    """What a command does, and how it ends if nobody harms its guest."""

    text: str
    status: str
    timeout: int = TIMEOUT
    is_cancelled: bool = False
    has_output: bool = True


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
    """

    tag: str
    kind: str
    exitcode: int
    guest: str
    uuid: str | None = None
    answers: dict[int, int] = dataclasses.field(default_factory=dict)
    was_cancelled: bool = False

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
                },
            }
        }


class Tenant:
    """Who sends commands to one guest, until told to stop."""

    def __init__(
        self, world: fault_world.World, guest: str, seed: str
    ) -> None:
        self.orders: list[Order] = []
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
