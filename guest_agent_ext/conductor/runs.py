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

"""Releases the commands of runs.

A conductor keeps nothing of a run in memory: it takes one that is due, counts
what has ended, releases what may follow, and gives the run back. If it dies
meanwhile, another conductor does the same after runs.TAKEN_FOR seconds.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import json
import threading

from oslo_db import exception as db_exc
from oslo_log import log as logging

from guest_agent_ext import backoff
from guest_agent_ext import breaker
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import limits
from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext import reads
from guest_agent_ext import server_checks
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models
from guest_agent_ext.db import runs

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Threads that work on runs, each on one run at a time: a cell that hangs
#: delays the runs that have servers there, and few others.
WORKERS = 3
#: Number of due runs that one query asks for.
PAGE = 20
#: Maximum number of commands that are released at once, and of bytes that
#: their arguments and inputs have together, but at least one command. The
#: turn of the project is held so long.
BATCH, BATCH_BYTES = 50, 4 * 1024 * 1024
#: Gaps between two queries for runs that are due, since the last that was.
GAPS = backoff.Exponential(first=0.05, longest=1.0, factor=1.5)
#: Seconds for which a cell that did not answer is left alone.
RETRY_AFTER = 5.0

CELL_IS_DOWN = 'The cell of server %s is down; try again later'
NOT_FOUND = 'Instance %s could not be found.'

_breaker = breaker.Breaker(
    RETRY_AFTER, metrics.BREAKER_TRIPS.labels('database').inc
)

#: Rings the doorbell of a host, by the uuid of its cell and its name.
Ring = Callable[[str, str], None]


def work(stopping: threading.Event, ring: Ring) -> None:
    """Work on runs that are due, one after the other, until told to stop.

    :param ring: function that rings the doorbell of a host
    """
    idle = 0
    while not stopping.is_set():
        try:
            idle = 0 if work_on_due(ring) else idle + 1
        except Exception:
            metrics.PASS_FAILURES.inc()
            LOG.exception('Runs that are due cannot be read')
            idle += 1
        stopping.wait(GAPS.gap(idle))


def work_on_due(ring: Ring) -> bool:
    """Work on each run that is due now, unless another conductor does.

    :returns: whether there was one
    """
    found = False
    for uuid in runs.due(PAGE):
        if runs.take(uuid):
            found = True
            try:
                _work_on(uuid, ring)
            except Exception:
                metrics.PASS_FAILURES.inc()
                LOG.exception(
                    'Run %(run)s is tried again in %(gap)s seconds',
                    {'run': uuid, 'gap': runs.TAKEN_FOR},
                )
    return found


def _work_on(uuid: str, ring: Ring) -> None:
    """Count what has ended of a run, and release what may follow."""
    row = runs.settle(uuid)
    if row is None:
        return
    if row.cancel_requested:
        for cell_uuid, host in runs.cancelled_hosts(uuid):
            ring(cell_uuid, host)
        runs.give_back(uuid, runs.LOOK_AGAIN)
        return
    try:
        of_project = limits.of_project(row.project_id)
    except limits.UNREADABLE as error:
        LOG.error("Keystone's limits cannot be read: %s", error)
        runs.give_back(uuid, runs.RETRY_AFTER)
        return
    targets = runs.waiting(row.id, min(runs.room(row), _batch_of(row)))
    released = runs.release(
        uuid,
        list(_candidates(row, targets)),
        commands.Bounds(
            CONF.guest_agent.max_unfinished_per_server, of_project
        ),
    )
    if released:
        metrics.ACCEPTED.labels(row.type).inc(len(released))
    for place in {item.place for item in released}:
        if models.NOWHERE not in place:
            ring(*place)


def _batch_of(row: models.Run) -> int:
    """Return how many commands of a run are released at once."""
    size = len(json.dumps(row.arguments)) + row.input_size
    return max(1, min(BATCH, BATCH_BYTES // size))


def _candidates(
    row: models.Run, targets: Sequence[models.RunTarget]
) -> Iterator[runs.Candidate]:
    """Find out which servers can take a command now."""
    cells = servers.cells_of({target.instance_uuid for target in targets})
    here: dict[str, dict[str, servers.Guest] | None] = {}
    for cell in cells.values():
        if cell is not None and cell.uuid not in here:
            here[cell.uuid] = _guests(
                cell,
                [
                    uuid
                    for uuid, other in cells.items()
                    if other is not None and other.uuid == cell.uuid
                ],
            )
    # Many servers are on one host.
    is_up = functools.cache(
        lambda cell_uuid, host: hosts.is_up(
            cell_uuid, host, CONF.guest_agent.service_down_time
        )
    )
    for target in targets:
        uuid = target.instance_uuid
        cell = cells.get(uuid)
        if cell is None:
            yield _unscheduled(row, target, is_there=uuid in cells)
            continue
        guests = here[cell.uuid]
        if guests is None:
            yield runs.Candidate(target, problem=CELL_IS_DOWN % uuid)
        elif uuid not in guests:
            yield runs.Candidate(target, problem=NOT_FOUND % uuid)
        else:
            guest = guests[uuid]
            yield runs.Candidate(
                target,
                cell.uuid,
                guest.host or models.NOWHERE,
                server_checks.problem_of(
                    guest,
                    is_up=functools.partial(is_up, cell.uuid),
                    may_be_locked=row.by_admin,
                    may_wait=True,
                ),
            )


def _unscheduled(
    row: models.Run, target: models.RunTarget, *, is_there: bool
) -> runs.Candidate:
    """Find out whether a server without a cell can take a command.

    :param is_there: whether Nova has been asked for the server
    """
    uuid = target.instance_uuid
    instance = servers.requested(uuid) if is_there else None
    if instance is None:
        return runs.Candidate(target, problem=NOT_FOUND % uuid)
    return runs.Candidate(
        target,
        problem=server_checks.problem_of(
            instance,
            is_up=lambda host: False,
            may_be_locked=row.by_admin,
            may_wait=True,
        ),
    )


def _guests(
    cell: nova_types.CellMapping, uuids: Sequence[str]
) -> dict[str, servers.Guest] | None:
    """Read servers of a cell; None if the cell does not answer in time."""
    if not _breaker.allows(cell.uuid):
        return None
    try:
        found = reads.of(cell.uuid).run(
            functools.partial(servers.guests, cell, uuids),
            CONF.guest_agent.cell_timeout,
        )
    except (exception.CellReadError, db_exc.DBError) as error:
        LOG.warning(
            'Cell %(cell)s does not answer: %(error)r',
            {'cell': cell.uuid, 'error': error},
        )
        _breaker.failed(cell.uuid)
        return None
    _breaker.worked(cell.uuid)
    return found
