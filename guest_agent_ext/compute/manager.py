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

"""guest-agent-compute: the lanes of a host, and what its conductor hears.

One periodic call is heartbeat, reconciliation and pick-up of work at once; the
doorbell only makes it come sooner.
"""

from collections.abc import Callable
from collections.abc import Mapping
import pathlib
import threading
import time
from typing import Any

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import version
from guest_agent_ext.compute import inquiry
from guest_agent_ext.compute import lane
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer
from guest_agent_ext.compute import transfers
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.guest import connection

CONF = conf.CONF
LOG = logging.getLogger(__name__)

_MACHINE_ID = pathlib.Path('/etc/machine-id')
#: Seconds until a conductor is asked again that did not answer.
RETRY = 2.0


class Endpoint:
    """What others may call on this service; its methods are rpcapi's.

    :param doorbell: set when there is work
    :param inquiries: answers what is asked of guests
    :param files: answers what is asked of files in them
    """

    target = oslo_messaging.Target(version=rpcapi.VERSION)

    def __init__(
        self,
        doorbell: threading.Event,
        inquiries: inquiry.Inquiries,
        files: transfers.Transfers,
    ) -> None:
        self._doorbell = doorbell
        self._inquiries = inquiries
        self._files = files

    def work(self, ctxt: Mapping[str, Any]) -> None:
        self._doorbell.set()

    def agent_status(
        self, ctxt: Mapping[str, Any], instance_uuid: str
    ) -> rpcapi.AgentStatus:
        return self._inquiries.agent_status(instance_uuid)

    def read_output(
        self,
        ctxt: Mapping[str, Any],
        instance_uuid: str,
        uuid: str,
        stream: str,
        offset: int,
    ) -> rpcapi.Output:
        return self._inquiries.read_output(instance_uuid, uuid, stream, offset)

    def open_file(
        self, ctxt: Mapping[str, Any], instance_uuid: str, uuid: str
    ) -> rpcapi.Opened:
        return self._files.open_file(instance_uuid, uuid)

    def read_chunk(
        self, ctxt: Mapping[str, Any], uuid: str, offset: int, size: int
    ) -> rpcapi.Chunk:
        return self._files.read_chunk(uuid, offset, size)

    def write_chunk(
        self, ctxt: Mapping[str, Any], uuid: str, offset: int, data: str
    ) -> rpcapi.Progress:
        return self._files.write_chunk(uuid, offset, data)

    def commit(
        self, ctxt: Mapping[str, Any], uuid: str, size: int, sha256: str
    ) -> rpcapi.Progress:
        return self._files.commit(uuid, size, sha256)

    def abort(self, ctxt: Mapping[str, Any], uuid: str, error: str) -> None:
        self._files.abort(uuid, error)


class ComputeManager:
    """The service of one host.

    :param host: nova-compute's name of this host
    :param transport: oslo.messaging transport of the cell
    :param guests: the connection to libvirt
    """

    def __init__(
        self, host: str, transport: Any, guests: connection.Connection
    ) -> None:
        self.stopping = threading.Event()
        self.is_fenced = False
        self._host = host
        self._guests = guests
        self._conductor = conductor_rpcapi.ConductorAPI(
            transport, CONF.guest_agent.conductor_timeout
        )
        self._service: conductor_rpcapi.Service | None = None
        self._lanes: dict[str, lane.Lane] = {}
        self._lock = threading.Lock()
        self._doorbell = threading.Event()
        self._server = oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic=rpcapi.TOPIC, server=host),
            [
                Endpoint(
                    self._doorbell,
                    inquiry.Inquiries(guests),
                    transfers.Transfers(self._begin),
                )
            ],
            executor='threading',
        )
        self._threads = [
            # start() waits for a broker that is not there.
            threading.Thread(
                name='serve', target=self._server.start, daemon=True
            ),
            threading.Thread(
                name='report', target=self._report_forever, daemon=True
            ),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the calls under way; what runs in guests runs on."""
        self.stopping.set()
        self._doorbell.set()
        deadline = time.monotonic() + CONF.guest_agent.drain_timeout
        stopper = threading.Thread(target=self._server.stop, daemon=True)
        stopper.start()
        with self._lock:
            lanes = list(self._lanes.values())
        for item in lanes:
            item.stop()
        for join in (*(item.join for item in lanes), stopper.join):
            join(max(0.0, deadline - time.monotonic()))
        self._guests.close()

    def _report_forever(self) -> None:
        while not self.stopping.is_set():
            self._doorbell.clear()
            self._doorbell.wait(self._report_safely())

    def _report_safely(self) -> float:
        """Report, and return the seconds until the next report."""
        try:
            self._report()
        except oslo_messaging.MessagingException as error:
            LOG.warning('No answer from the conductor: %s', error)
            return RETRY
        except Exception:
            LOG.exception('Could not report; will do again')
        return float(CONF.guest_agent.report_interval)

    def _report(self) -> None:
        service = self._service or self._register()
        if service is None:
            return None
        with self._lock:
            lanes = list(self._lanes.values())
        held = {
            uuid: attempt
            for item in lanes
            for uuid, attempt in item.held().items()
        }
        seen = {
            uuid: what
            for item in lanes
            for uuid, what in item.take_seen().items()
        }
        report = self._conductor.report(service, held, seen)
        if report['fenced']:
            return self._yield_to_newer()
        offered = {work['uuid'] for work in report['work']}
        for item in lanes:
            item.drop(report['ended'], clear=True)
            item.drop(report['moved'], clear=False)
            item.keep_offered(offered)
        for work in report['work']:
            self._offer(service, work)
        return None

    def _register(self) -> conductor_rpcapi.Service | None:
        incarnation = self._conductor.register(
            self._host, _machine_id(), version.version_string()
        )
        if incarnation is None:
            LOG.error(
                'Another machine serves as host %s; waiting until it '
                'has been silent for service_down_time',
                self._host,
            )
            return None
        LOG.info(
            'Serving host %(host)s, incarnation %(incarnation)s',
            {'host': self._host, 'incarnation': incarnation},
        )
        self._service = {'host': self._host, 'incarnation': incarnation}
        return self._service

    def _yield_to_newer(self) -> None:
        LOG.error(
            'A newer guest-agent-compute serves host %s; stopping', self._host
        )
        self.is_fenced = True
        self.stopping.set()

    def _offer(
        self, service: conductor_rpcapi.Service, work: conductor_rpcapi.Work
    ) -> None:
        if work['type'] != command.EXEC and work['attempt'] is None:
            # A transfer begins when nova-api has it opened.
            return
        with self._lock:
            item = self._lane_of(service, work['instance_uuid'])
            if item is not None:
                item.offer(work)

    def _begin(
        self,
        instance_uuid: str,
        make: Callable[[task.Lane], transfer.Transfer],
    ) -> transfer.Transfer | None:
        with self._lock:
            if self._service is None:
                return None
            item = self._lane_of(self._service, instance_uuid)
            if item is None:
                return None
            begun = make(item)
            item.begin(begun)
            return begun

    def _lane_of(
        self, service: conductor_rpcapi.Service, uuid: str
    ) -> lane.Lane | None:
        """Return the lane of a server, None if there may be no more."""
        if self.stopping.is_set():
            return None
        item = self._lanes.get(uuid)
        if item is None and len(self._lanes) < CONF.guest_agent.max_lanes:
            item = self._lanes[uuid] = lane.Lane(
                uuid, self._guests, self._conductor, service, self._leave
            )
            item.start()
        return item

    def _leave(self, item: lane.Lane) -> bool:
        """Let a lane go, unless it was given work meanwhile."""
        with self._lock:
            if not item.is_empty:
                return False
            self._lanes.pop(item.uuid, None)
            return True


def _machine_id() -> str:
    try:
        return _MACHINE_ID.read_text().strip()
    except FileNotFoundError:
        return ''
