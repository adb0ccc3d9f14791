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

"""What failed a moment ago is not tried again at once."""

from collections.abc import Hashable
import threading
import time


class Breaker:
    """Remembers what failed, and lets one caller in a while try it again.

    :param period: seconds between two tries of what has failed
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._lock = threading.Lock()
        self._closed_until: dict[Hashable, float] = {}

    def allows(self, key: Hashable) -> bool:
        """Tell whether to try, and if it failed before, who tries."""
        now = time.monotonic()
        with self._lock:
            until = self._closed_until.get(key)
            if until is None:
                return True
            if now < until:
                return False
            # The others go on waiting while this one tries.
            self._closed_until[key] = now + self._period
            return True

    def failed(self, key: Hashable) -> None:
        """Note that a try failed."""
        with self._lock:
            self._closed_until[key] = time.monotonic() + self._period

    def worked(self, key: Hashable) -> None:
        """Note that a try did not fail: everybody may try again."""
        with self._lock:
            self._closed_until.pop(key, None)
