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

"""The clock that waits are measured with.

Who waits is handed a clock, so that tests play the time and need not spend it.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """The passing of time."""

    def now(self) -> float:
        """Return the seconds since some moment in the past.

        The value never decreases; a change of the system's date does not
        show in it.
        """

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait until a condition is notified, or for some seconds at most.

        :param condition: condition whose lock the caller holds
        :param seconds: maximum number of seconds to wait
        """


class SystemClock:
    """The monotonic clock of the system."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        condition.wait(seconds)
