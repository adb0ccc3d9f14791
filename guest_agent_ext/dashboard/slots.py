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

"""Bounds on what holds the threads of Horizon.

A transfer holds a thread from its first byte to its last, and a terminal that
waits for output does for a moment. A process of Horizon has few threads, and
pages need them too.
"""

from collections.abc import Callable
import contextlib
import threading

from django.conf import settings

#: Settings of Horizon: how many of each a process of it serves at once.
TRANSFERS, WAITS = 'GUEST_AGENT_TRANSFERS', 'GUEST_AGENT_WAITS'
DEFAULTS = {TRANSFERS: 4, WAITS: 4}


class Slots:
    """A number of slots, each taken by one request.

    :param setting: name of the setting with the number
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """Return how many there are."""
        return int(getattr(settings, self._setting, DEFAULTS[self._setting]))

    def take(self) -> Callable[[], None] | None:
        """Take a slot.

        :returns: function that gives it back, which may be called more than
            once; None if no slot is free
        """
        with self._lock:
            if self._taken >= self.number:
                return None
            self._taken += 1
        stack = contextlib.ExitStack()
        stack.callback(self._give_back)
        return stack.close

    def _give_back(self) -> None:
        with self._lock:
            self._taken -= 1


transfers = Slots(TRANSFERS)
waits = Slots(WAITS)
