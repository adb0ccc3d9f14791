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

"""Rings the doorbells of hosts that have work, without delaying anybody.

The row is the queue: a lost doorbell costs seconds, never a command. So a
thread of its own rings, and a doorbell is dropped rather than waited for.
"""

from collections.abc import Callable
import threading

from oslo_log import log as logging

from guest_agent_ext import breaker
from guest_agent_ext import metrics

LOG = logging.getLogger(__name__)

#: Hosts of one cell that wait to be rung. The others find their work with
#: their next report.
MAX_WAITING = 1024
#: Seconds for which a cell's hosts are not rung after its broker failed.
RETRY_AFTER = 5.0

_breaker = breaker.Breaker(
    RETRY_AFTER, metrics.BREAKER_TRIPS.labels('queue').inc
)
_rung, _lost = (
    metrics.DOORBELLS.labels(outcome) for outcome in ('rung', 'lost')
)


class Doorbell:
    """Rings the hosts of one cell, from a thread that ends when all are rung.

    :param cell_uuid: uuid of the cell
    :param ring: function that rings a host, by its name, or fails
    """

    def __init__(self, cell_uuid: str, ring: Callable[[str], object]) -> None:
        self._cell_uuid = cell_uuid
        self._ring_host = ring
        self._lock = threading.Lock()
        #: A dict keeps the order; a host that is added twice is rung once.
        self._waiting: dict[str, None] = {}
        self._is_ringing = False

    def ring(self, host: str) -> None:
        """Ring a host soon, or drop the doorbell."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[host] = None
            elif host not in self._waiting:
                _lost.inc()
            if self._is_ringing:
                return
            self._is_ringing = True
        thread = threading.Thread(
            target=self._ring_all, daemon=True, name='guest-agent-doorbell'
        )
        try:
            thread.start()
        except RuntimeError as exc:
            LOG.warning('No thread to ring host %s: %s', host, exc)
            self._is_ringing = False

    def _ring_all(self) -> None:
        while (host := self._next()) is not None:
            if _breaker.allows(self._cell_uuid):
                self._ring(host)
            else:
                _lost.inc()

    def _next(self) -> str | None:
        with self._lock:
            for host in self._waiting:
                del self._waiting[host]
                return host
            self._is_ringing = False
            return None

    def _ring(self, host: str) -> None:
        try:
            self._ring_host(host)
        except Exception as exc:
            # Whatever the reason: the host asks for its work by itself.
            LOG.warning(
                'The queue of cell %s did not take the doorbell of '
                'host %s: %s',
                self._cell_uuid,
                host,
                exc,
            )
            _lost.inc()
            _breaker.failed(self._cell_uuid)
        else:
            _rung.inc()
            _breaker.worked(self._cell_uuid)
