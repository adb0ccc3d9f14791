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

"""Answers a request when its command or run has ended: ``Prefer: wait=N``.

A waiting request occupies a thread of the server, but no connection to the
database: the status is polled, and one query serves all who wait in the
process. So the database is queried as often for many waiting requests as for a
few.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import re
import threading
import time
from typing import TypeVar

from oslo_db import exception as db_exc

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext.api import slots
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import runs

CONF = conf.CONF

#: Poll every 10 % of the elapsed time, between 10 and 40 ms: an end is
#: answered at most that much too late.
MIN_GAP, MAX_GAP, GAP_SHARE = 0.01, 0.04, 0.1
#: Seconds for which the statuses that were read last are used again.
FRESH = 0.01

_Read = Callable[[Collection[int]], dict[int, str]]
_Row = TypeVar('_Row', models.Command, models.Run)

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.I)


class StatusCache:
    """Reads the status of each command, or run, that a request waits for.

    :param read: function that reads statuses, by the ids of the rows
    """

    def __init__(self, read: _Read | None = None) -> None:
        self._read = read or (lambda ids: commands.statuses(ids))
        # Held during a query: who comes meanwhile shares its result.
        self._lock = threading.Lock()
        #: Number of requests that wait for each of them, by its row's id.
        self._waiting: dict[int, int] = {}
        self._statuses: dict[int, str] = {}
        self._read_at = float('-inf')

    @contextlib.contextmanager
    def watching(self, row_id: int) -> Iterator[None]:
        """Include a row in the queries while the block runs."""
        with self._lock:
            self._waiting[row_id] = self._waiting.get(row_id, 0) + 1
            # The last query may not have included it.
            self._read_at = float('-inf')
        try:
            yield
        finally:
            with self._lock:
                self._waiting[row_id] -= 1
                if not self._waiting[row_id]:
                    del self._waiting[row_id]

    def status(self, row_id: int) -> str | None:
        """Return the status of a watched row; None if the row is gone.

        :raises oslo_db.exception.DBError: the query failed
        """
        with self._lock:
            if time.monotonic() - self._read_at > FRESH:
                self._statuses = self._read(list(self._waiting))
                self._read_at = time.monotonic()
            return self._statuses.get(row_id)


_slots = slots.Slots()
_cache = StatusCache()
_cache_of_runs = StatusCache(runs.statuses)


def waited(
    req: nova_types.Request, row: models.Command
) -> tuple[models.Command, dict[str, str]]:
    """Wait for a command's end as long as a request prefers.

    :param row: command as it was
    :returns: the command as it is, with its output, and a header that tells
        of the wait, if the request has waited
    """
    return _waited(
        req, row, _cache, lambda: commands.get(row.uuid, with_output=True)
    )


def waited_for_run(
    req: nova_types.Request, row: models.Run
) -> tuple[models.Run, dict[str, str]]:
    """Wait for a run's end as long as a request prefers.

    :param row: run as it was
    :returns: the run as it is, and a header as of waited()
    """
    return _waited(req, row, _cache_of_runs, lambda: runs.get(row.uuid))


def _waited(
    req: nova_types.Request,
    row: _Row,
    cache: StatusCache,
    read: Callable[[], _Row | None],
) -> tuple[_Row, dict[str, str]]:
    seconds = preferred(req.headers)
    if seconds is None:
        return row, {}
    with slot(req.environ) as has_slot:
        if not has_slot:
            return row, {}
        # What was accepted is answered, also if the database stays away.
        with contextlib.suppress(db_exc.DBError):
            with cache.watching(row.id):
                _wait(cache, row.id, seconds)
            row = read() or row
    return row, {'Preference-Applied': 'wait=%d' % seconds}


def slot(
    environ: Mapping[str, object],
) -> contextlib.AbstractContextManager[bool]:
    """Hold a slot of this process for a request that waits, if one is free.

    :returns: whether a slot was free
    """
    return _slots.one(_limit(environ))


def preferred(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that a request prefers to wait, None if none.

    A value that is not understood is ignored, as RFC 7240 asks.
    """
    found = _WAIT.search(headers.get('Prefer', ''))
    if found is None:
        return None
    maximum: int = CONF.guest_agent.max_wait
    return min(int(found[1]), maximum)


def _wait(cache: StatusCache, row_id: int, seconds: int) -> None:
    began = time.monotonic()
    # RUNNING is the state of a run, too.
    while cache.status(row_id) in command.UNFINISHED:
        elapsed = time.monotonic() - began
        if elapsed >= seconds:
            return
        gap = max(MIN_GAP, min(MAX_GAP, elapsed * GAP_SHARE))
        time.sleep(min(gap, seconds - elapsed))


def _limit(environ: Mapping[str, object]) -> int:
    """Return the number of requests that may wait in this process."""
    threads = slots.threads(environ)
    limit: int | None = CONF.guest_agent.max_waiters
    if threads == 1:
        # Nobody else would be served.
        return 0
    return threads // 2 if limit is None else limit
