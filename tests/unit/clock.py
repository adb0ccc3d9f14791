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

"""A clock that is played: waiting takes no time."""

import threading


class FakeClock:
    """Plays clock.Clock.

    :ivar time: seconds that the clock shows
    """

    def __init__(self, time: float = 1000.0) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        """Let some seconds pass."""
        self.time += seconds

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Let the time pass at once: nobody notifies the condition."""
        self.advance(seconds)
