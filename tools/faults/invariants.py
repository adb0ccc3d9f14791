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

"""What must hold after every run, whatever was done."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
import re
import time
from typing import Any

from guest_agent_ext import command
from guest_agent_ext.api.controllers import files
from tools.faults import kinds
from tools.faults import load
from tools.faults import schedule
from tools.faults import world as fault_world
from tools.testbed import processes

#: Seconds beyond its timeouts and graces that a command may take to end: while
#: the database or both conductors are away nobody can end it. The longest
#: fault of that kind is 9 seconds, two may follow each other, and a conductor
#: needs some seconds to come back.
OUTAGE = 40

#: Seconds after a command's own timeouts within which it has ended.
GRACE = fault_world.OUTAGE_GRACE + fault_world.SWEEP_INTERVAL + OUTAGE
#: Seconds within which a file has: its lease is what ends it when nova-api is
#: gone.
FILE_BOUND = (
    files.START_TIMEOUT
    + fault_world.TRANSFER_GRACE
    + fault_world.TRANSFER_TIMEOUT
    + GRACE
)

#: Seconds within which every command has.
LONGEST = max(
    FILE_BOUND,
    load.START_TIMEOUT + load.STREAM_TIMEOUT + fault_world.KILL_GRACE + GRACE,
)

#: Seconds after the end of all commands until nothing is left in guests: a
#: launch that was sent twice keeps its lock until its ticket has expired.
CLEAN_AFTER = 120

_QUERY = (
    'SELECT uuid, status, arguments, started_at, exitcode, `signal`, '
    'error, out_data, out_bytes, err_bytes, finished_at, '
    'TIMESTAMPDIFF(SECOND, created_at, COALESCE(finished_at, '
    'UTC_TIMESTAMP())) AS age FROM guest_agent_commands '
    'WHERE id > %d AND run_uuid IS NULL ORDER BY id'
)

#: Threads and open files that a program has at most when all is quiet, however
#: much has failed before: those that answered many calls at once stay.
MOST = 120

#: Marked processes, and what is kept of commands.
_LEFT = (
    'for p in /proc/[0-9]*; do '
    'grep -q "^Max file locks *[0-9]" $p/limits 2>/dev/null && '
    'cat $p/cmdline | tr "\\0" " "; '
    # Not of a command: the guest's name, and the tools that it has.
    'done; ls /run/guest-agent | grep -vx -e name.id -e attach.tools; '
    'ls /root/.ga-* 2>/dev/null; '
    'ls -l /proc/$(pidof qemu-ga)/fd | grep /root; exit 0'
)

_LOST_HANDLE = re.compile(r'/\.ga-[0-9a-f-]{36} \(deleted\)$')

#: The files that were written, each with its hash, and no longer there after.
_FILES = (
    'cd /root; for f in file-*; do [ -f "$f" ] || continue; '
    'set -- $(sha256sum "$f"); echo "${f#file-} $1"; rm "$f"; done'
)

#: Rows, or what is in them, that are kept for nobody.
_LEFT_ROWS = {
    'inputs of commands that have ended': 'SELECT uuid FROM '
    'guest_agent_commands WHERE finished_at IS NOT NULL '
    'AND (inputs IS NOT NULL OR opened IS NOT NULL)',
    'ends that were not told to the audit': 'SELECT uuid FROM '
    'guest_agent_commands WHERE audit_at IS NOT NULL',
    'keys of commands that there are not': 'SELECT command_uuid AS uuid '
    'FROM guest_agent_idempotency_keys '
    'WHERE finished_at IS NULL AND command_uuid NOT IN '
    '(SELECT uuid FROM guest_agent_commands '
    'UNION SELECT uuid FROM guest_agent_runs)',
    'inputs of runs that have ended': 'SELECT uuid FROM guest_agent_runs '
    'WHERE finished_at IS NOT NULL AND inputs IS NOT NULL',
    'ends that no run has counted': 'SELECT uuid FROM guest_agent_commands '
    'WHERE run_due IS NOT NULL',
    'runs that were not told to the audit': 'SELECT uuid FROM '
    'guest_agent_runs WHERE audit_at IS NOT NULL',
}


@dataclasses.dataclass
class Outcome:
    """What came of one run.

    :ivar broken: sentences about what did not hold
    :ivar ends: number of commands by their end
    :ivar lost: why commands were LOST
    """

    broken: list[str]
    ends: dict[str, int]
    lost: list[str]

    def count(self, end: str) -> None:
        self.ends[end] = self.ends.get(end, 0) + 1


def last_id(world: fault_world.World) -> int:
    (row,) = world.rows(
        'SELECT COALESCE(MAX(id), 0) AS id FROM guest_agent_commands'
    )
    return int(row['id'])


def wait_for_ends(
    world: fault_world.World, after: int, timeout: float
) -> None:
    """Wait until all commands have ended, or the time is over."""
    unfinished = ', '.join(f"'{status}'" for status in command.UNFINISHED)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not world.rows(
            'SELECT id FROM guest_agent_commands WHERE id > '
            f'{after} AND status IN ({unfinished}) LIMIT 1'
        ):
            return
        time.sleep(0.5)


def check(
    world: fault_world.World,
    after: int,
    orders: Sequence[load.Order],
    faults: Sequence[schedule.Fault],
) -> Outcome:
    """Compare what was asked, what guests' consoles say, and the table.

    :param after: the last id before the run
    """
    ran = world.ran()
    hashes = {name: _hashes(world, name) for name in world.guests}
    rows = {_tag(row): row for row in world.rows(_QUERY % after)}
    outcome = Outcome([], {}, [])
    for order in orders:
        if order.is_file:
            problems = _problems_of_file(
                order,
                rows.get(order.tag),
                hashes[order.guest].get(order.tag),
                faults,
            )
            outcome.broken += [
                f'{order.kind} {order.tag} in {order.guest}: {problem}'
                for problem in problems
            ]
            if order.tag in rows:
                outcome.count(f'{order.kind} {rows[order.tag]["status"]}')
            continue
        row = rows.get(order.tag)
        if row is None:
            outcome.broken += _check_unrecorded(order, ran)
            continue
        status = row['status']
        outcome.count(status)
        outcome.broken += [
            f'{status} {order.kind} {row["uuid"]} in {order.guest}: {problem} '
            f'({row["error"]})'
            for problem in _problems(order, row, ran.get(order.tag, 0), faults)
        ]
        if status == command.LOST:
            outcome.lost.append(f'{order.guest}: {row["error"]}')
    return outcome


def _tag(row: Mapping[str, Any]) -> str:
    arguments = json.loads(row['arguments'])
    if 'path' in arguments:
        return str(arguments['path'].partition('-')[2])
    return str(arguments['command'][3])


def _hashes(world: fault_world.World, name: str) -> dict[str, str]:
    """Return what was written in a guest, by tag, and remove it."""
    host, guest = world.guests[name]
    lines = host.run(guest, _FILES).splitlines()
    return dict(line.split() for line in lines)


def _check_unrecorded(
    order: load.Order, ran: Mapping[str, int]
) -> Iterator[str]:
    if order.tag in ran:
        yield f'{order.tag} ran in {order.guest} and is nowhere recorded'
    if order.uuid is not None:
        yield f'{order.uuid} was accepted and is nowhere recorded'


def _problems(
    order: load.Order,
    row: Mapping[str, Any],
    times: int,
    faults: Sequence[schedule.Fault],
) -> Iterator[str]:
    script = order.script
    status = row['status']
    if times > 1:
        yield f'it ran {times} times'
    yield from _problems_of_time(
        row,
        load.START_TIMEOUT + script.timeout + fault_world.KILL_GRACE + GRACE,
    )
    if status == command.FAILED and times:
        yield 'it ran'
    if status == command.CANCELLED and not row['started_at'] and times:
        yield 'it ran, and is said not to have started'
    if status == command.COMPLETED:
        yield from _problems_of_result(order, row, times, faults)
    if script.is_attached:
        yield from _problems_of_stream(order, row, faults)
    if status == command.CANCELLED != script.status:
        yield f'it should be {script.status}'
    # An attached command waits for its reader, who asks a busy machine.
    if status == command.TIMED_OUT != script.status and not (
        script.is_attached or _may_be_uncancelled(order, faults)
    ):
        yield f'it should be {script.status}'
    if status == command.LOST and not _may_be_lost(order, faults):
        yield 'no fault explains that'


def _problems_of_stream(
    order: load.Order, row: Mapping[str, Any], faults: Sequence[schedule.Fault]
) -> Iterator[str]:
    """Tell what is wrong with what the client of a command has read."""
    if not order.stdout.startswith(order.got):
        at = len(os.path.commonprefix([order.stdout, order.got]))
        yield f'from byte {at} on its reader has what was not written'
    is_whole = order.got == order.stdout
    is_harmed = _may_be_lost(order, faults)
    if order.was_gone and not is_harmed:
        yield 'its reader was told that some is lost, and no fault explains it'
    if (
        order.is_drained
        and row['status'] == command.COMPLETED
        and not (is_whole or is_harmed)
    ):
        yield f'its reader was told that {len(order.got)} bytes are all'
    # It waits for its reader until then.
    if (
        row['status'] == command.COMPLETED
        and row['age'] < order.script.timeout
        and not (is_whole or order.was_gone)
    ):
        yield (
            f'its reader has {len(order.got)} bytes of {len(order.stdout)}, '
            'and it was not waited for'
        )


def _problems_of_file(
    order: load.Order,
    row: Mapping[str, Any] | None,
    found: str | None,
    faults: Sequence[schedule.Fault],
) -> Iterator[str]:
    status = None if row is None else row['status']
    if (
        found is not None
        and found != hashlib.sha256(order.content).hexdigest()
    ):
        yield f'{status}, and it is there in part'
    if 204 in order.answers and status != command.COMPLETED:
        yield f'it was written, and is said to be {status}'
    if row is None:
        if found is not None:
            yield 'it is there, and nowhere recorded'
        return
    yield from _problems_of_time(row, FILE_BOUND)
    if (
        status == command.COMPLETED
        and found is None
        and not _reboots(order, faults)
    ):
        yield 'it is not there'
    if status not in (command.COMPLETED, command.LOST) and found is not None:
        yield f'it is there, and is said to be {status} ({row["error"]})'
    if status == command.LOST and not _may_be_lost(order, faults):
        yield f'no fault explains that it is LOST ({row["error"]})'


def _problems_of_time(row: Mapping[str, Any], bound: float) -> Iterator[str]:
    if row['status'] not in command.ENDED:
        yield 'it has not ended'
    if row['age'] > bound:
        yield f'it took {row["age"]} seconds, of {bound} at most'


def _reboots(order: load.Order, faults: Sequence[schedule.Fault]) -> bool:
    return any(
        kinds.KINDS[fault.kind].reboots and fault.target == order.guest
        for fault in faults
        if fault.kind in kinds.KINDS
    )


def _may_be_uncancelled(
    order: load.Order, faults: Sequence[schedule.Fault]
) -> bool:
    """Tell whether a cancel may have come too late, or not at all.

    An accepted one is no promise: its host may not hear of it in time.
    """
    host = order.guest.partition('/')[0]
    return order.script.is_cancelled and (
        not order.was_cancelled
        or any(
            fault.target in ('broker', 'database', host, order.guest)
            for fault in faults
        )
    )


def _problems_of_result(
    order: load.Order,
    row: Mapping[str, Any],
    times: int,
    faults: Sequence[schedule.Fault],
) -> Iterator[str]:
    script = order.script
    if script.status != command.COMPLETED:
        yield f'it should be {script.status}'
    if not times:
        yield 'it never ran'
    if (row['exitcode'], row['signal']) != (order.exitcode, None):
        yield (
            f'exit code {row["exitcode"]}, signal {row["signal"]} in the '
            f'place of {order.exitcode}'
        )
    # In a guest whose /run is full not all of the output can be kept; that it
    # is missing is told.
    output = order.stdout
    is_full = any(
        fault.kind == 'fill-run' and fault.target == order.guest
        for fault in faults
    )
    if row['out_data'] != output[: command.MAX_OUTPUT_BYTES] and not (
        is_full
        and output.startswith(row['out_data'] or b'')
        and row['out_bytes'] == len(output)
    ):
        yield f'{len(row["out_data"] or b"")} bytes of output are not its own'
    if script.is_attached and row['out_bytes'] != len(output):
        yield f'{row["out_bytes"]} bytes counted of {len(output)}'
    if order.kind == 'burst' and row['err_bytes'] != load.BURST:
        yield f'{row["err_bytes"]} bytes counted of {load.BURST}'


def _may_be_lost(order: load.Order, faults: Sequence[schedule.Fault]) -> bool:
    # Longer than the grace no end is waited for: faults of one guest follow
    # each other.
    host = order.guest.partition('/')[0]
    silence = sum(
        fault.seconds
        for fault in faults
        if fault.target in (order.guest, host)
    )
    return silence > fault_world.OUTAGE_GRACE or any(
        kinds.KINDS[fault.kind].may_lose and fault.target == order.guest
        for fault in faults
        if fault.kind in kinds.KINDS
    )


def left_in(world: fault_world.World, name: str, kills: int) -> str:
    """Return what guests still have of commands that have ended.

    :param kills: number of removed files that may still be open: nobody knows
        a handle that was opened while a service was killed
    """
    host, guest = world.guests[name]
    lines = host.run(guest, _LEFT).splitlines()
    lost = [line for line in lines if _LOST_HANDLE.search(line)][:kills]
    return '\n'.join(line for line in lines if line not in lost)


def check_left(world: fault_world.World, kills: int) -> list[str]:
    """Wait until nothing is left behind; return what stays.

    :param kills: number of services that had no chance to clean up
    """
    # What a service left that was killed, the next command's finds.
    for name in world.guests:
        world.clients(name)[0].run('/bin/true')
    left: dict[str, str] = {}

    def is_clean() -> bool:
        left.clear()
        left.update(
            {
                name: text
                for name in world.guests
                if (text := left_in(world, name, kills))
            }
        )
        left.update(
            {
                name: f'{len(rows)} rows'
                for name, query in _LEFT_ROWS.items()
                if (rows := world.rows(query))
            }
        )
        left.update(
            {
                name: str(count)
                for name, count in world.usage().items()
                if count > MOST
            }
        )
        return not left

    try:
        processes.wait_for(is_clean, CLEAN_AFTER, 'clean guests')
    except processes.StartError:
        return [
            f'{name}: there is left {text!r}' for name, text in left.items()
        ]
    return []
