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

"""Removes commands and runs that are kept no longer, in batches.

One process does at a time.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
import functools
import uuid

from guest_agent_ext import conf
from guest_agent_ext import metrics
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import keys
from guest_agent_ext.db import leases
from guest_agent_ext.db import purge
from guest_agent_ext.db import runs

CONF = conf.CONF

#: Maximum number of rows that one statement removes, and of servers that one
#: query names.
BATCH = 200
#: Seconds between two purges of a conductor.
INTERVAL = 60
#: Seconds after its last batch until another process takes over from one that
#: died.
LEASE = 120

#: Seconds between two checks of the bounds of what is kept.
BOUNDS_INTERVAL = 600

_NAME, _BOUNDS = 'purge', 'kept-bounds'

#: Removes a batch and returns how many rows that were.
_Remove = Callable[[int], int]


def run() -> Iterator[int]:
    """Remove all that is kept no longer, unless another process does.

    :returns: number of commands removed, after each batch
    """
    holder = str(uuid.uuid4())
    if not leases.take(_NAME, holder, LEASE):
        return
    metrics.LEASE_HELD.labels(_NAME).set(1)
    try:
        for removed in _batches():
            metrics.PURGED.inc(removed)
            yield removed
            if not leases.take(_NAME, holder, LEASE):
                return
        metrics.PURGED_AT.set_to_current_time()
    finally:
        metrics.LEASE_HELD.labels(_NAME).set(0)
        leases.release(_NAME, holder)


def count() -> int:
    """Return the number of commands that are older than ``retention``."""
    return purge.count_old(CONF.guest_agent.retention)


def _batches() -> Iterator[int]:
    yield from _until_none(
        functools.partial(purge.remove_old, CONF.guest_agent.retention)
    )
    runs.mark_old(CONF.guest_agent.retention)
    if CONF.guest_agent.max_kept_runs_per_project >= 0:
        runs.mark_beyond(CONF.guest_agent.max_kept_runs_per_project)
    while (number := runs.remove_deleted(BATCH)) is not None:
        yield number
    for forgotten in _forgotten_servers():
        yield from _until_none(
            functools.partial(purge.remove_of_servers, forgotten)
        )
    for remove in (keys.remove_expired, leases.remove_expired):
        for _ in _until_none(remove):
            yield 0
    # This lease is never released: its expiry is when the bounds are checked
    # again.
    if leases.take(_BOUNDS, str(uuid.uuid4()), BOUNDS_INTERVAL):
        yield from _beyond_bounds()


def _beyond_bounds() -> Iterator[int]:
    """Remove the oldest commands beyond the bounds of what is kept."""
    group = CONF.guest_agent
    projects: dict[str, tuple[int, int]] = {}
    after = ''
    while page := purge.kept_of_servers(after, BATCH):
        for kept in page:
            rows, size = yield from _trim(
                _beyond(kept.rows, group.max_kept_per_server),
                _beyond(kept.size, group.max_kept_bytes_per_server),
                server=kept.server,
            )
            all_rows, all_size = projects.get(kept.project, (0, 0))
            projects[kept.project] = (
                all_rows + kept.rows - rows,
                all_size + kept.size - size,
            )
        yield 0
        after = page[-1].server
    for project, (rows, size) in projects.items():
        yield from _trim(
            _beyond(rows, group.max_kept_per_project),
            _beyond(size, group.max_kept_bytes_per_project),
            project=project,
        )


def _beyond(number: int, bound: int) -> int:
    return 0 if bound < 0 else max(0, number - bound)


def _trim(
    rows: int, size: int, **owner: str
) -> Generator[int, None, tuple[int, int]]:
    """Remove the oldest commands of a server or a project.

    :param rows: number of commands to remove at least
    :param size: number of bytes to remove at least
    :returns: number of commands removed, after each batch; at the end numbers
        of commands and bytes removed in all
    """
    all_rows = all_size = 0
    while rows > all_rows or size > all_size:
        removed, removed_bytes = purge.trim(
            rows=rows - all_rows, size=size - all_size, limit=BATCH, **owner
        )
        if not removed:
            # The other commands have not ended.
            break
        all_rows, all_size = all_rows + removed, all_size + removed_bytes
        yield removed
    return all_rows, all_size


def _until_none(remove: _Remove) -> Iterator[int]:
    while removed := remove(BATCH):
        yield removed


def _forgotten_servers() -> Iterator[set[str]]:
    """Return the uuids of servers that Nova has forgotten, page by page."""
    after = ''
    while uuids := purge.servers(after, BATCH):
        if forgotten := servers.forgotten(uuids):
            yield forgotten
        after = uuids[-1]
