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


"""The file transfers of a host, as nova-api asks for them by RPC."""

import base64
from collections.abc import Callable
import threading
import time

from guest_agent_ext import conf
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer

CONF = conf.CONF

#: Transfers of one server at once: one that hangs leaves places to others.
PLACES_OF_SERVER = 4

#: Has a lane begin with the transfer that is made for it; None if the host has
#: too many lanes, or does not serve yet.
Begin = Callable[
    [str, Callable[[task.Lane], transfer.Transfer]], transfer.Transfer | None
]

_BUSY: rpcapi.Refusal = {
    'kind': 'busy',
    'message': 'The host of the server has as many file transfers as it may '
    'have at once; try again',
}
_BUSY_SERVER: rpcapi.Refusal = {
    'kind': 'busy',
    'message': 'The server has as many file transfers as it may have at once; '
    'try again',
}
_UNKNOWN: rpcapi.Refusal = {
    'kind': 'ended',
    'message': 'The transfer was interrupted',
}


class Transfers:
    """Answers what nova-api asks of a host's transfers.

    :param begin: has the lane of a server begin
    """

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._lock = threading.Lock()
        #: By the uuid of the command: transfers and their servers. Those that
        #: have ended stay a while, to answer what is asked again.
        self._known: dict[str, tuple[transfer.Transfer, str]] = {}
        self._pace = pace.Pace(lambda: len(self._servers()))

    def open_file(self, instance_uuid: str, uuid: str) -> rpcapi.Opened:
        try:
            return self._begun(instance_uuid, uuid).open()
        except transfer.Refused as error:
            return {'refusal': error.refusal, 'size': 0, 'data': None}

    def read_chunk(self, uuid: str, offset: int, size: int) -> rpcapi.Chunk:
        try:
            data = self._find(uuid).read(offset, min(size, rpcapi.READ_CHUNK))
        except transfer.Refused as error:
            return {'refusal': error.refusal, 'data': ''}
        return {'refusal': None, 'data': base64.b64encode(data).decode()}

    def write_chunk(
        self, uuid: str, offset: int, data: str
    ) -> rpcapi.Progress:
        try:
            self._find(uuid).write(offset, base64.b64decode(data))
        except transfer.Refused as error:
            return {'refusal': error.refusal, 'done': False}
        return {'refusal': None, 'done': True}

    def commit(self, uuid: str, size: int, sha256: str) -> rpcapi.Progress:
        try:
            is_done = self._find(uuid).commit(size, sha256)
        except transfer.Refused as error:
            return {'refusal': error.refusal, 'done': False}
        return {'refusal': None, 'done': is_done}

    def abort(self, uuid: str, error: str) -> None:
        with self._lock:
            known = self._known.get(uuid)
        if known is not None:
            known[0].abort(error)

    def _find(self, uuid: str) -> transfer.Transfer:
        with self._lock:
            known = self._known.get(uuid)
        if known is None:
            raise transfer.Refused(_UNKNOWN)
        return known[0]

    def _begun(self, instance_uuid: str, uuid: str) -> transfer.Transfer:
        with self._lock:
            self._forget()
            if uuid in self._known:
                # A message may come twice.
                return self._known[uuid][0]
            servers = self._servers()
            if len(servers) >= CONF.guest_agent.max_transfers_per_host:
                raise transfer.Refused(_BUSY)
            if servers.count(instance_uuid) >= PLACES_OF_SERVER:
                raise transfer.Refused(_BUSY_SERVER)
            item = self._begin(
                instance_uuid,
                lambda lane: transfer.Transfer(lane, uuid, self._pace),
            )
            if item is None:
                raise transfer.Refused(_BUSY)
            self._known[uuid] = item, instance_uuid
            return item

    def _servers(self) -> list[str]:
        """Return the server of each transfer that is under way."""
        return [
            server
            for item, server in tuple(self._known.values())
            if not item.is_done
        ]

    def _forget(self) -> None:
        now = time.monotonic()
        for uuid in [
            uuid
            for uuid, (item, _) in self._known.items()
            if item.is_done and now > item.lease_until
        ]:
            del self._known[uuid]
