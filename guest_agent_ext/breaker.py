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

"""Delays further attempts at what has just failed."""

from collections.abc import Callable
from collections.abc import Hashable
import threading
import time


class Breaker:
    """Remembers what failed, and allows one attempt per period from then on.

    :param period: seconds between two attempts at what has failed
    :param on_failure: function to call after each failed attempt
    """

    def __init__(
        self, period: float, on_failure: Callable[[], object] = lambda: None
    ) -> None:
        self._period = period
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._closed_until: dict[Hashable, float] = {}

    def allows(self, key: Hashable) -> bool:
        """Return whether the caller may make an attempt now.

        After a failure one caller per period may.
        """
        now = time.monotonic()
        with self._lock:
            until = self._closed_until.get(key)
            if until is None:
                return True
            if now < until:
                return False
            # Others are refused while this attempt is under way.
            self._closed_until[key] = now + self._period
            return True

    def failed(self, key: Hashable) -> None:
        """Record that an attempt failed."""
        with self._lock:
            self._closed_until[key] = time.monotonic() + self._period
        self._on_failure()

    def worked(self, key: Hashable) -> None:
        """Record that an attempt succeeded: everybody may try again."""
        with self._lock:
            self._closed_until.pop(key, None)
