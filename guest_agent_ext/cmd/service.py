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

"""What the main of a service does besides making it."""

import signal
import threading
from typing import Protocol


class Service(Protocol):
    """What can be served."""

    def start(self) -> None:
        """Start its threads and return."""

    def stop(self) -> None:
        """Finish what is under way, in bounded time."""


def serve(service: Service, stopping: threading.Event) -> None:
    """Run a service until SIGTERM, SIGINT, or until it stops by itself.

    :param stopping: set by the service when it must not go on
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stopping.set())
    service.start()
    stopping.wait()
    service.stop()
