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

"""The file transfers of a host: which there are, and how many there may be."""

from collections.abc import Callable
import threading

from guest_agent_ext import clock as system_clock
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.compute import transfer_calls
from guest_agent_ext.compute import transfer_task

CONF = conf.CONF

#: Maximum number of transfers of one server at once: hung ones leave slots to
#: other servers.
SLOTS_OF_SERVER = 4

#: Has the lane of a server begin with the task that is made for its guest.
#: Returns None if the host has too many lanes, or does not serve yet.
Begin = Callable[
    [str, Callable[[compute_session.Session], transfer_task.TransferTask]],
    transfer_task.TransferTask | None,
]

#: Kinds of refusals, and their reasons in words for the tenant.
_Refusal = tuple[exception.RefusalKind, str]
_BUSY: _Refusal = (
    'busy',
    'The host of the server has as many file transfers as it may have '
    'at once; try again',
)
_BUSY_SERVER: _Refusal = (
    'busy',
    'The server has as many file transfers as it may have at once; try again',
)
_UNKNOWN: _Refusal = ('ended', 'The transfer was interrupted')


class Transfers:
    """The transfers of a host, by the uuids of their commands.

    :param begin: function that has the lane of a server begin
    :param clock: clock that waits are measured with
    """

    def __init__(self, begin: Begin, clock: system_clock.Clock) -> None:
        self._begin = begin
        self._clock = clock
        self._lock = threading.Lock()
        #: Transfers with the uuids of their servers. Those that have ended
        #: stay a while, to answer what is asked again.
        self._known: dict[str, tuple[transfer_task.TransferTask, str]] = {}
        self._pace = pace.Pace(lambda: len(self._servers()), clock)

    def begin(
        self, instance_uuid: str, uuid: str
    ) -> transfer_calls.TransferCalls:
        """Begin a transfer, and return the calls for its file.

        :param instance_uuid: server's uuid
        :param uuid: command's uuid
        :raises exception.TransferRefused: no slot is free for the transfer
        """
        with self._lock:
            self._forget_old()
            if uuid in self._known:
                # A message may come twice.
                return self._known[uuid][0].calls
            servers = self._servers()
            if len(servers) >= CONF.guest_agent.max_transfers_per_host:
                raise exception.TransferRefused(*_BUSY)
            if servers.count(instance_uuid) >= SLOTS_OF_SERVER:
                raise exception.TransferRefused(*_BUSY_SERVER)
            item = self._begin(
                instance_uuid,
                lambda session: transfer_task.TransferTask(
                    session, uuid, self._pace
                ),
            )
            if item is None:
                raise exception.TransferRefused(*_BUSY)
            self._known[uuid] = item, instance_uuid
            return item.calls

    def find(self, uuid: str) -> transfer_calls.TransferCalls:
        """Return the calls for the file of a transfer.

        :param uuid: command's uuid
        :raises exception.TransferRefused: the host has no such transfer
        """
        with self._lock:
            known = self._known.get(uuid)
        if known is None:
            raise exception.TransferRefused(*_UNKNOWN)
        return known[0].calls

    def _servers(self) -> list[str]:
        """Return the server of each transfer that is under way."""
        return [
            server
            for item, server in tuple(self._known.values())
            if not item.is_done
        ]

    def _forget_old(self) -> None:
        now = self._clock.now()
        for uuid, (item, _) in list(self._known.items()):
            if item.is_done and now > item.calls.lease_until:
                del self._known[uuid]
