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

import ctypes
import signal
import threading
from typing import Protocol

#: Of mallopt(3), and bytes from which on memory is mapped on its own.
_M_MMAP_THRESHOLD = -3
_LARGE = 128 * 1024


class Service(Protocol):
    """What can be served."""

    def start(self) -> None:
        """Start its threads and return."""

    def stop(self) -> None:
        """Finish what is under way, in bounded time."""


def return_memory() -> None:
    """Have large buffers go back to the system when they are freed.

    glibc learns to keep them in the heap of each thread that had one, and the
    chunks of files pass through many threads.
    """
    libc = ctypes.CDLL(None)
    # Other libraries than glibc do not learn this.
    if hasattr(libc, 'mallopt'):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)


def serve(service: Service, stopping: threading.Event) -> None:
    """Run a service until SIGTERM, SIGINT, or until it stops by itself.

    :param stopping: set by the service when it must not go on
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stopping.set())
    service.start()
    stopping.wait()
    service.stop()
