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

"""Slots for requests that occupy a thread of the server for long."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import importlib
import threading
from typing import Any

#: Number of threads assumed for a server that does not publish its own.
THREADS = 8


class Slots:
    """Counts the slots that are taken in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    @contextlib.contextmanager
    def one(self, limit: int) -> Iterator[bool]:
        """Hold a slot for the length of the block, if one is free.

        :param limit: number of slots
        :returns: whether a slot was free
        """
        with self._lock:
            is_mine = self._taken < limit
            self._taken += is_mine
        try:
            yield is_mine
        finally:
            with self._lock:
                self._taken -= is_mine


def threads(environ: Mapping[str, object]) -> int:
    """Return the number of requests that this process serves at once."""
    if not environ.get('wsgi.multithread'):
        return 1
    for name, read in _SERVERS:
        with contextlib.suppress(ImportError):
            return read(importlib.import_module(name))
    return THREADS


#: A module that only its own server provides, and how its number of threads
#: is read.
_SERVERS: Sequence[tuple[str, Callable[[Any], int]]] = (
    ('uwsgi', lambda module: int(module.opt.get('threads', 1))),
    (
        'mod_wsgi',
        lambda module: int(getattr(module, 'threads_per_process', THREADS)),
    ),
)
