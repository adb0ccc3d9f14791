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

"""Looks at the commands that somebody waits for.

One look serves all who wait in this process: however many they are, the
database is asked as often as for a few.
"""

from collections.abc import Iterator
import contextlib
import threading
import time

from guest_agent_ext.db import commands

#: Seconds for which a look is good.
FRESH = 0.01


class Looks:
    """What is known of the commands that are waited for."""

    def __init__(self) -> None:
        # Held while one looks; who comes meanwhile has that look.
        self._lock = threading.Lock()
        #: How many wait for each command, by its row's id.
        self._waiting: dict[int, int] = {}
        self._statuses: dict[int, str] = {}
        self._looked_at = float('-inf')

    @contextlib.contextmanager
    def one(self, row_id: int) -> Iterator[None]:
        """Have looks include a command."""
        with self._lock:
            self._waiting[row_id] = self._waiting.get(row_id, 0) + 1
            # None has included it.
            self._looked_at = float('-inf')
        try:
            yield
        finally:
            with self._lock:
                self._waiting[row_id] -= 1
                if not self._waiting[row_id]:
                    del self._waiting[row_id]

    def status(self, row_id: int) -> str | None:
        """Return the state of one of them; None if it is gone.

        :raises oslo_db.exception.DBError: the database was asked in vain
        """
        with self._lock:
            if time.monotonic() - self._looked_at > FRESH:
                self._statuses = commands.statuses(list(self._waiting))
                self._looked_at = time.monotonic()
            return self._statuses.get(row_id)
