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

"""Runs schedules: faults and tenants side by side, then what must hold."""

import collections
from collections.abc import Sequence
import dataclasses
import threading
import time

from guest_agent_ext.db import runs as db_runs
from tools.faults import invariants
from tools.faults import kinds
from tools.faults import load
from tools.faults import runs
from tools.faults import schedule
from tools.faults import world as fault_world
from tools.faults.traps import traps

#: Seconds that each command of a run may take to be released and to end: what
#: a conductor that dies has taken is left alone for some time, and that may
#: happen before and after.
RUN_BOUND = (
    load.START_TIMEOUT
    + load.TIMEOUT
    + fault_world.KILL_GRACE
    + invariants.GRACE
    + 2 * db_runs.TAKEN_FOR
)

#: Seconds that commands go on to come after the last fault has begun.
AFTER = 2.0


@dataclasses.dataclass
class Total:
    """What came of all runs."""

    runs: int = 0
    broken: list[str] = dataclasses.field(default_factory=list)
    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    lost: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: 'Total') -> None:
        self.runs += other.runs
        self.broken += other.broken
        self.counts.update(other.counts)
        self.lost += other.lost

    def report(self) -> str:
        lines = [f'{self.runs} runs']
        lines += [
            f'{count:6} {name}' for name, count in sorted(self.counts.items())
        ]
        lines += [
            f'not met by a kill: {place}'
            for place in traps.KILLS
            if not self.counts[f'trap {place}']
        ]
        lines += [f'LOST {why}' for why in self.lost]
        lines += [f'BROKEN {problem}' for problem in self.broken]
        return '\n'.join(lines)


def run(world: fault_world.World, seed: int, number: int) -> Total:
    """Run one schedule, wait for the end of every command, and check all."""
    began = time.monotonic()
    faults = schedule.make(seed, number, kinds.targets(world))
    after, after_run = invariants.last_id(world), runs.last_id(world)
    tenants = [
        load.Tenant(world, guest, f'{seed}/{number}/{guest}')
        for guest in world.guests
    ]
    crowd = runs.Crowd(world, f'{seed}/{number}/runs')
    total = Total(runs=1)
    senders: list[load.Tenant | runs.Crowd] = [*tenants, crowd]
    for sender in senders:
        sender.start()
    _do_all(world, faults, total)
    time.sleep(AFTER)
    for sender in senders:
        sender.stop()
    for trap in world.disarm():
        total.counts[f'trap {trap} not met'] += 1
        total.counts[f'trap {trap}'] -= 1
    world.wait_until_well()
    runs.wait_for_ends(world, after_run, RUN_BOUND * len(world.guests))
    invariants.wait_for_ends(world, after, invariants.LONGEST)
    for tenant in tenants:
        tenant.join()
    orders = [order for tenant in tenants for order in tenant.orders]
    outcome = invariants.check(world, after, orders, faults)
    broken, ends = runs.check(world, after_run, crowd.orders)
    outcome.broken += broken
    total.broken += [f'run {number}: {problem}' for problem in outcome.broken]
    for status, count in ends.items():
        total.counts[f'run ended {status}'] += count
    total.lost += [f'run {number}: {why}' for why in outcome.lost]
    _count(total, orders, outcome)
    print(
        f'seed {seed} run {number}: {len(orders)} commands, '
        f'{dict(total.counts)} in {time.monotonic() - began:.0f} s',
        flush=True,
    )
    for problem in total.broken:
        print(f'  BROKEN {problem}', flush=True)
    for fault in faults if total.broken else ():
        print(f'  {fault}', flush=True)
    return total


def check_rest(world: fault_world.World, total: Total) -> list[str]:
    """Check what may take a while: that nothing is left behind."""
    for name, count in world.usage().items():
        print(f'{name}: {count}')
    return invariants.check_left(
        world,
        sum(
            count
            for name, count in total.counts.items()
            if name in kinds.ENDS_PROGRAMS or '.kill-' in name
        ),
    )


def _do_all(
    world: fault_world.World, faults: Sequence[schedule.Fault], total: Total
) -> None:
    """Do faults in time, side by side; those of one target one by one."""
    began = time.monotonic()
    locks: dict[str, threading.Lock] = collections.defaultdict(threading.Lock)
    lock = threading.Lock()

    def do(fault: schedule.Fault) -> None:
        if fault.kind == 'trap':
            world.arm(fault.target)
            failure = None
        else:
            with locks[fault.target]:
                failure = kinds.do(
                    world, fault.kind, fault.target, fault.seconds
                )
        name = (
            f'{fault.kind} {fault.target}'
            if (fault.kind == 'trap')
            else fault.kind
        )
        with lock:
            total.counts[name if failure is None else f'{name} failed'] += 1

    doing = [
        threading.Thread(target=do, args=[fault], daemon=True)
        for fault in faults
    ]
    for fault, thread in zip(faults, doing, strict=True):
        locks[fault.target]  # made here, used there
        time.sleep(max(0.0, began + fault.at - time.monotonic()))
        thread.start()
    for thread in doing:
        thread.join()


def _count(
    total: Total, orders: Sequence[load.Order], outcome: invariants.Outcome
) -> None:
    for status, count in outcome.ends.items():
        total.counts[f'ended {status}'] += count
    for order in orders:
        for answer, count in order.answers.items():
            total.counts[f'answered {answer or "nothing"}'] += count
