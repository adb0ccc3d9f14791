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

"""Has a request wait for the end of its command: ``Prefer: wait=N``.

Who waits has a thread of the server for as long, but no connection to the
database: one is taken for each look, which serves all who wait.
"""

from collections.abc import Mapping
import contextlib
import re
import time
from typing import Any

from oslo_db import exception as db_exc

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.api import looks
from guest_agent_ext.api import places
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF

#: Seconds between two looks: at least, at most, and as a share of the wait so
#: far, which is then by how much a wait is too long.
MIN_GAP, MAX_GAP, GAP_SHARE = 0.01, 0.04, 0.1

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.I)


_places = places.Places()
_looks = looks.Looks()


def waited(
    req: Any, row: models.Command
) -> tuple[models.Command, dict[str, str]]:
    """Wait for a command's end as long as a request prefers.

    :param row: the command as it was
    :returns: the command as it is, with its output, and the headers that tell
        whether this has waited
    """
    seconds = preferred(req.headers)
    if seconds is None:
        return row, {}
    with _places.one(_limit(req.environ)) as has_place:
        if not has_place:
            return row, {}
        # What was accepted is answered, also if the database stays away.
        with contextlib.suppress(db_exc.DBError):
            with _looks.one(row.id):
                _wait(row.id, seconds)
            row = commands.get(row.uuid, with_output=True) or row
    return row, {'Preference-Applied': 'wait=%d' % seconds}


def preferred(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that a request prefers to wait, None if none.

    As RFC 7240 wants it, what is not understood is as if it were not there.
    """
    found = _WAIT.search(headers.get('Prefer', ''))
    if found is None:
        return None
    maximum: int = CONF.guest_agent.max_wait
    return min(int(found[1]), maximum)


def _wait(row_id: int, seconds: int) -> None:
    began = time.monotonic()
    while _looks.status(row_id) in command.UNFINISHED:
        elapsed = time.monotonic() - began
        if elapsed >= seconds:
            return
        gap = max(MIN_GAP, min(MAX_GAP, elapsed * GAP_SHARE))
        time.sleep(min(gap, seconds - elapsed))


def _limit(environ: Mapping[str, Any]) -> int:
    """Return how many may wait in this process."""
    threads = places.threads(environ)
    limit: int | None = CONF.guest_agent.max_waiters
    if threads == 1:
        # Nobody else would be served.
        return 0
    return threads // 2 if limit is None else limit
