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

"""The pace of a host's transfers: how close their chunks follow each other.

One transfer goes as fast as its guest can. Many would keep libvirtd, the
broker and nova-api busy without a pause, and Nova's own calls waiting: the
more there are, the more room is left between their chunks.
"""

from collections.abc import Callable
import threading

from guest_agent_ext import clock as system_clock

#: Room that is left between two chunks for each transfer beyond the first, as
#: a share of the time that a chunk takes.
ROOM = 2 / 3
#: Seconds that a chunk is taken to have taken at most: a guest that hangs is
#: no reason for others to wait.
LONGEST = 0.2


class Pace:
    """The pace of a host's transfers.

    :param count: function that returns the number of transfers
    :param clock: clock that waits are measured with
    """

    def __init__(
        self, count: Callable[[], int], clock: system_clock.Clock
    ) -> None:
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    def after(self, took: float) -> float:
        """Return when the transfer that has made a chunk may make the next.

        :param took: seconds that the chunk took
        :returns: time on the clock
        """
        others = max(0, self._count() - 1)
        if not others:
            return 0.0
        apart = min(took, LONGEST) * (1 + ROOM * others)
        with self._lock:
            self._next = max(self._next, self._clock.now() - took) + apart
            return self._next
