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

"""Runs of commands among the load, and what must hold of them.

Each asks for one command in every guest. All of its commands have its tag.
"""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import json
import random
import threading
import time
from typing import Any
import uuid

from guest_agent_ext import command
from guest_agent_ext import run
from tools.faults import load
from tools.faults import world as fault_world

_RUNS = '/guest-agent/runs'
#: Seconds between two runs.
GAP = (1.0, 4.0)
#: What their commands do; they may end with an error.
SCRIPTS = ('quick', 'slow', 'child')

_OF_RUNS = (
    'SELECT id, uuid, name, status, counts, errors, max_concurrency, '
    'max_errors, cancel_requested, targets FROM guest_agent_runs '
    'WHERE id > %d ORDER BY id'
)
_OF_TARGETS = (
    'SELECT instance_uuid, command_uuid, status FROM '
    'guest_agent_run_targets WHERE run_id = %d ORDER BY position'
)
_OF_COMMANDS = (
    'SELECT uuid, instance_uuid, status, exitcode, `signal`, created_at, '
    "finished_at FROM guest_agent_commands WHERE run_uuid = '%s'"
)


@dataclasses.dataclass
class Order:
    """One run that was asked for.

    :ivar tag: its name, and what its commands write to the consoles
    :ivar exitcode: exit code of its script
    :ivar uuid: uuid of the run, None while no answer told it
    :ivar answers: number of answers by status; 0 stands for no answer
    """

    tag: str
    kind: str
    exitcode: int
    max_concurrency: int
    max_errors: int | None
    is_cancelled: bool
    uuid: str | None = None
    answers: dict[int, int] = dataclasses.field(default_factory=dict)

    def body(self, servers: Sequence[str]) -> dict[str, Any]:
        script = load.SCRIPTS[self.kind]
        asked: dict[str, Any] = {
            'name': self.tag,
            'targets': {'servers': list(servers)},
            'max_concurrency': self.max_concurrency,
            'type': 'exec',
            'arguments': {
                'command': [
                    '/bin/sh',
                    '-c',
                    load.RAN + script.text,
                    self.tag,
                    str(self.exitcode),
                ],
                'env': {'SECRET': 'hush'},
                'timeout': script.timeout,
                'start_timeout': load.START_TIMEOUT,
            },
        }
        if self.max_errors is not None:
            asked['max_errors'] = self.max_errors
        return {'run': asked}


class Crowd:
    """Who runs commands in all guests at once, until told to stop."""

    def __init__(self, world: fault_world.World, seed: str) -> None:
        self.orders: list[Order] = []
        self._servers = [guest.uuid for _, guest in world.guests.values()]
        # Those of one guest: a run is of no server.
        self._clients = itertools.cycle(
            world.clients(next(iter(world.guests)))
        )
        self._chosen = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            name='crowd', target=self._work, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            order = Order(
                str(uuid.uuid4()),
                self._chosen.choice(SCRIPTS),
                self._chosen.choice([0, 0, 1]),
                self._chosen.randint(1, len(self._servers)),
                self._chosen.choice([None, 1, 2]),
                self._chosen.random() < 0.25,
            )
            self.orders.append(order)
            self._send(order)
            if order.is_cancelled and order.uuid is not None:
                time.sleep(self._chosen.uniform(0, 3))
                self._cancel(order)
            self._stopping.wait(self._chosen.uniform(*GAP))

    def _cancel(self, order: Order) -> None:
        load.insist(
            self._clients,
            order.answers,
            lambda client: client.send(
                'POST', f'{_RUNS}/{order.uuid}/action', {'cancel': None}
            ),
        )

    def _send(self, order: Order) -> None:
        answer = load.insist(
            self._clients,
            order.answers,
            lambda client: client.send(
                'POST',
                _RUNS,
                order.body(self._servers),
                {'Idempotency-Key': order.tag},
            ),
        )
        if answer is not None and answer.status == 202:
            order.uuid = json.loads(answer.body)['run']['uuid']


def last_id(world: fault_world.World) -> int:
    (row,) = world.rows(
        'SELECT COALESCE(MAX(id), 0) AS id FROM guest_agent_runs'
    )
    return int(row['id'])


def wait_for_ends(
    world: fault_world.World, after: int, timeout: float
) -> None:
    """Wait until all runs have ended, or the time is over."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not world.rows(
            f'SELECT id FROM guest_agent_runs WHERE id > {after} '
            f"AND status = '{run.RUNNING}' LIMIT 1"
        ):
            return
        time.sleep(0.5)


def check(
    world: fault_world.World, after: int, orders: Sequence[Order]
) -> tuple[list[str], dict[str, int]]:
    """Compare what was asked, what guests' consoles say, and the tables.

    :param after: the last id before
    :returns: sentences about what did not hold, and numbers of runs by end
    """
    rows: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in world.rows(_OF_RUNS % after):
        rows[row['name']].append(row)
    ran = {
        guest.uuid: world.ran_in(name)
        for name, (_, guest) in world.guests.items()
    }
    broken: list[str] = []
    for order in orders:
        found = rows[order.tag]
        times = {uuid: tags.get(order.tag, 0) for uuid, tags in ran.items()}
        problems = (
            _problems(world, order, found[0], times)
            if len(found) == 1
            else _unrecorded(order, len(found), times)
        )
        broken += [f'run {order.tag}: {problem}' for problem in problems]
    ends = collections.Counter(
        str(row['status']) for found in rows.values() for row in found
    )
    return broken, dict(ends)


def _unrecorded(
    order: Order, count: int, times: Mapping[str, int]
) -> Iterator[str]:
    if count:
        yield f'it is recorded {count} times'
    elif order.uuid is not None:
        yield 'it was accepted and is nowhere recorded'
    elif any(times.values()):
        yield 'it ran and is nowhere recorded'


def _problems(
    world: fault_world.World,
    order: Order,
    row: Mapping[str, Any],
    times: Mapping[str, int],
) -> Iterator[str]:
    targets = world.rows(_OF_TARGETS % row['id'])
    commands = world.rows(_OF_COMMANDS % row['uuid'])
    if row['status'] not in run.ENDED:
        yield f'it is {row["status"]}'
        return
    yield from _problems_of_targets(targets, commands, times)
    yield from _problems_of_counts(row, targets, commands)
    most = _most_at_once(commands)
    if most > row['max_concurrency']:
        yield f'{most} unfinished at once of {row["max_concurrency"]}'
    waiting = sum(target['status'] == run.WAITING for target in targets)
    match row['status']:
        case run.COMPLETED if waiting:
            yield f'it is COMPLETED, and {waiting} were not released'
        case run.STOPPED if row['max_errors'] is None or (
            row['errors'] < row['max_errors']
        ):
            yield f'it is STOPPED by {row["errors"]} errors'
        case run.CANCELLED if not row['cancel_requested']:
            yield 'it is CANCELLED by nobody'


def _problems_of_targets(
    targets: Sequence[Mapping[str, Any]],
    commands: Sequence[Mapping[str, Any]],
    times: Mapping[str, int],
) -> Iterator[str]:
    by_uuid = {item['uuid']: item for item in commands}
    if len(commands) != len({item['instance_uuid'] for item in commands}):
        yield 'a server has several of its commands'
    for target in targets:
        server = target['instance_uuid']
        found = by_uuid.pop(target['command_uuid'], None)
        status = None if found is None else found['status']
        has_none = target['status'] in (run.WAITING, run.REFUSED)
        if target['status'] != status and not (has_none and found is None):
            yield f'{server} is {target["status"]}, its command {status}'
        if times[server] > 1:
            yield f'it ran {times[server]} times in {server}'
        if times[server] and status in (None, command.FAILED):
            yield f'it ran in {server}, its command is {status}'
    for name in by_uuid:
        yield f'command {name} has no target'


def _problems_of_counts(
    row: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    commands: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    counts = {
        status: number
        for status, number in json.loads(row['counts']).items()
        if number
    }
    counted = collections.Counter(target['status'] for target in targets)
    if counts != counted or sum(counts.values()) != row['targets']:
        yield f'it counts {counts} of {dict(counted)}'
    errors = counted[run.REFUSED] + sum(
        run.is_error(item['status'], item['exitcode'], item['signal'])
        for item in commands
    )
    if errors != row['errors']:
        yield f'it counts {row["errors"]} errors of {errors}'


def _most_at_once(commands: Sequence[Mapping[str, Any]]) -> int:
    """Return how many commands were unfinished at once, at most."""
    # An end comes before a release at the same moment.
    changes = sorted(
        [(item['created_at'], 1) for item in commands]
        + [(item['finished_at'], -1) for item in commands]
    )
    return max(
        itertools.accumulate(change for _, change in changes), default=0
    )
