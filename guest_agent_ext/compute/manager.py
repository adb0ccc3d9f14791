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

"""guest-agent-compute: the lanes of a host, and its talk with the conductor.

One periodic call is heartbeat, reconciliation and pick-up of work at once; the
doorbell only makes it come sooner.
"""

import base64
import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import logging
import pathlib
import threading
from typing import Any
from typing import TypeVar

from oslo_log import log as oslo_logging
import oslo_messaging

from guest_agent_ext import clock as system_clock
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import logs
from guest_agent_ext import metrics
from guest_agent_ext import rpc
from guest_agent_ext import version
from guest_agent_ext.compute import agent_call_task
from guest_agent_ext.compute import attachment
from guest_agent_ext.compute import exec_task
from guest_agent_ext.compute import inquiry
from guest_agent_ext.compute import lane
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer_task
from guest_agent_ext.compute import transfers
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.guest import connection

CONF = conf.CONF
LOG = oslo_logging.getLogger(__name__)

_MACHINE_ID = pathlib.Path('/etc/machine-id')
#: Seconds until a conductor that did not answer is asked again, and until one
#: is asked for more where a server has more waiting than one report hands out.
RETRY, MORE_AFTER = 2.0, 1.0
#: Calls for attached commands that wait at once, each in a thread that the RPC
#: server has beside those of executor_thread_pool_size: as many as have both
#: streams of the commands that a host may have by default. Others are answered
#: at once, and nova-api asks again and again.
STREAM_WAITS = 200

#: Context of a call, of which nothing is used.
_Context = Mapping[str, object]
_Method = TypeVar('_Method', bound=Callable[..., Any])

#: Makes the task of a command, by the command's type. A transfer that the
#: conductor hands out was begun by a service before this one, or on another
#: host.
_TASKS: Mapping[str, lane.MakeTask] = {
    command.EXEC: exec_task.ExecTask,
    command.FILE_READ: transfer_task.TransferTask.adopted,
    command.FILE_WRITE: transfer_task.TransferTask.adopted,
    **dict.fromkeys(command.AGENT_CALLS, agent_call_task.AgentCallTask),
}


def _exposed(method: _Method) -> _Method:
    """Declare a method that others may call by RPC."""
    exposed: _Method = oslo_messaging.expose(method)
    return exposed


class ComputeManager:
    """The service of one host.

    Its exposed methods are those of rpcapi.ComputeAPI; they run in threads of
    the RPC server.

    :param host: name that nova-compute has for this host
    :param transport: oslo.messaging transport of the cell
    :param guests: connection to libvirt
    :param clock: clock that waits are measured with
    :ivar stopping: event that is set when the service must not go on
    :ivar is_fenced: whether a newer start of the service has taken over
    """

    target = oslo_messaging.Target(version=rpcapi.VERSION)

    def __init__(
        self,
        host: str,
        transport: Any,
        guests: connection.Connection,
        clock: system_clock.Clock | None = None,
    ) -> None:
        self.stopping = threading.Event()
        self.is_fenced = False
        self._host = host
        self._guests = guests
        self._clock = clock or system_clock.SystemClock()
        self._conductor = conductor_rpcapi.ConductorAPI(
            transport, CONF.guest_agent.conductor_timeout
        )
        self._service: conductor_rpcapi.Service | None = None
        self._lanes: dict[str, lane.Lane] = {}
        #: Logs the types of commands that this release does not know.
        self._unknown = logs.Trouble(LOG, logging.WARNING)
        self._lock = threading.Lock()
        self._doorbell = threading.Event()
        self._inquiries = inquiry.Inquiries(guests, self._clock)
        self._stream_waits = threading.BoundedSemaphore(STREAM_WAITS)
        self._transfers = transfers.Transfers(self._begin, self._clock)
        self._server = rpc.create_server(
            transport,
            oslo_messaging.Target(topic=rpcapi.TOPIC, server=host),
            self,
            access_policy=oslo_messaging.ExplicitRPCAccessPolicy,
        )
        self._threads = [
            # start() waits for a broker that is not there.
            threading.Thread(name='serve', target=self._serve, daemon=True),
            threading.Thread(
                name='report', target=self._report_forever, daemon=True
            ),
        ]

    def _serve(self) -> None:
        self._server.start(
            override_pool_size=self._server.conf.executor_thread_pool_size
            + STREAM_WAITS
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the calls under way; what runs in guests runs on."""
        self.stopping.set()
        self._doorbell.set()
        deadline = self._clock.now() + CONF.guest_agent.drain_timeout
        stopper = threading.Thread(target=self._server.stop, daemon=True)
        stopper.start()
        with self._lock:
            lanes = list(self._lanes.values())
        for item in lanes:
            item.stop()
        for join in (*(item.join for item in lanes), stopper.join):
            join(max(0.0, deadline - self._clock.now()))
        self._guests.close()

    def count_lanes(self, *, suspect: bool) -> int:
        """Return the number of guests that have lanes.

        :param suspect: whether to count the guests that did not answer their
            last call, or the others
        """
        with self._lock:
            lanes = list(self._lanes.values())
        return sum(item.is_suspect == suspect for item in lanes)

    # What others call by RPC. Chunks and output are base64 here alone.

    @_exposed
    def work(self, ctxt: _Context) -> None:
        self._doorbell.set()

    @_exposed
    def agent_status(
        self, ctxt: _Context, instance_uuid: str
    ) -> rpcapi.AgentStatus:
        return self._inquiries.agent_status(instance_uuid)

    @_exposed
    def agent_details(
        self,
        ctxt: _Context,
        instance_uuid: str,
        fields: list[str],
        user: str | None,
    ) -> rpcapi.Details:
        return self._inquiries.details(instance_uuid, fields, user)

    @_exposed
    def read_output(
        self,
        ctxt: _Context,
        instance_uuid: str,
        uuid: str,
        stream: str,
        offset: int,
    ) -> rpcapi.Output:
        try:
            data = self._inquiries.read_output(
                instance_uuid, uuid, stream, offset
            )
        except exception.GuestError as error:
            return {'data': '', 'reason': str(error)}
        return {'data': _encoded(data), 'reason': None}

    @_exposed
    def open_file(
        self, ctxt: _Context, instance_uuid: str, uuid: str
    ) -> rpcapi.Opened:
        try:
            opened = self._transfers.begin(instance_uuid, uuid).open()
        except exception.TransferRefused as error:
            return {
                'refusal': rpcapi.refusal_of(error),
                'size': 0,
                'data': None,
            }
        data = None if opened.data is None else _encoded(opened.data)
        return {'refusal': None, 'size': opened.size, 'data': data}

    @_exposed
    def read_chunk(
        self, ctxt: _Context, uuid: str, offset: int, size: int
    ) -> rpcapi.Chunk:
        try:
            data = self._transfers.find(uuid).read(
                offset, min(size, rpcapi.READ_CHUNK)
            )
        except exception.TransferRefused as error:
            return {'refusal': rpcapi.refusal_of(error), 'data': ''}
        return {'refusal': None, 'data': _encoded(data)}

    @_exposed
    def write_chunk(
        self, ctxt: _Context, uuid: str, offset: int, data: str
    ) -> rpcapi.Progress:
        try:
            self._transfers.find(uuid).write(offset, base64.b64decode(data))
        except exception.TransferRefused as error:
            return {'refusal': rpcapi.refusal_of(error), 'done': False}
        return {'refusal': None, 'done': True}

    @_exposed
    def commit(
        self, ctxt: _Context, uuid: str, size: int, sha256: str
    ) -> rpcapi.Progress:
        try:
            is_done = self._transfers.find(uuid).commit(size, sha256)
        except exception.TransferRefused as error:
            return {'refusal': rpcapi.refusal_of(error), 'done': False}
        return {'refusal': None, 'done': is_done}

    @_exposed
    def abort(self, ctxt: _Context, uuid: str, error: str) -> None:
        # Nobody waits for an answer to this.
        with contextlib.suppress(exception.TransferRefused):
            self._transfers.find(uuid).abort(error)

    @_exposed
    def read_stream(
        self,
        ctxt: _Context,
        instance_uuid: str,
        uuid: str,
        client: str,
        take_over: bool,
        stream: str,
        offset: int,
        wait: float,
    ) -> rpcapi.StreamPiece:
        try:
            found = self._attached(instance_uuid, uuid)
            found.admit(client, take_over=take_over)
            with self._stream_wait(wait) as seconds:
                output = found.read(stream, offset, rpcapi.READ_CHUNK, seconds)
        except exception.StreamRefused as error:
            return {
                'refusal': rpcapi.stream_refusal_of(error),
                'data': '',
                'complete': False,
            }
        return {
            'refusal': None,
            'data': _encoded(output.data),
            'complete': output.is_complete,
        }

    @_exposed
    def write_stream(
        self,
        ctxt: _Context,
        instance_uuid: str,
        uuid: str,
        client: str,
        take_over: bool,
        offset: int,
        data: str,
        end: bool,
        wait: float,
    ) -> rpcapi.StreamProgress:
        try:
            found = self._attached(instance_uuid, uuid)
            found.admit(client, take_over=take_over)
            with self._stream_wait(wait) as seconds:
                accepted = found.write(
                    offset, base64.b64decode(data), end=end, wait=seconds
                )
        except exception.StreamRefused as error:
            return {
                'refusal': rpcapi.stream_refusal_of(error),
                'next_offset': offset,
                'closed': False,
            }
        return {
            'refusal': None,
            'next_offset': accepted.next_offset,
            'closed': accepted.is_closed,
        }

    @_exposed
    def resize(
        self,
        ctxt: _Context,
        instance_uuid: str,
        uuid: str,
        columns: int,
        rows: int,
    ) -> rpcapi.Done:
        return _done(
            lambda: self._inquiries.resize(instance_uuid, uuid, columns, rows)
        )

    @_exposed
    def signal(
        self, ctxt: _Context, instance_uuid: str, uuid: str, name: str
    ) -> rpcapi.Done:
        return _done(lambda: self._inquiries.signal(instance_uuid, uuid, name))

    def _attached(
        self, instance_uuid: str, uuid: str
    ) -> attachment.Attachment:
        """Return the calls for an attached command that is under way.

        :raises exception.StreamRefused: it is not, or not yet
        """
        with self._lock:
            item = self._lanes.get(instance_uuid)
        known = None if item is None else item.find(uuid)
        if (
            not isinstance(known, exec_task.ExecTask)
            or known.attachment is None
        ):
            raise exception.StreamRefused(
                'later', 'The command is not under way on its host; try again'
            )
        return known.attachment

    @contextlib.contextmanager
    def _stream_wait(self, wait: float) -> Iterator[float]:
        """Yield the seconds that a call may wait.

        Nearly all threads of the RPC server could wait otherwise.
        """
        has_slot = self._stream_waits.acquire(blocking=False)
        try:
            yield min(wait, rpcapi.MAX_STREAM_WAIT) if has_slot else 0.0
        finally:
            if has_slot:
                self._stream_waits.release()

    # The report's thread.

    def _report_forever(self) -> None:
        while not self.stopping.is_set():
            self._doorbell.clear()
            self._doorbell.wait(self._report_safely())

    def _report_safely(self) -> float:
        """Report, and return the seconds until the next report."""
        try:
            if self._report():
                return MORE_AFTER
        except exception.ConductorUnreachable:
            # Its client has logged it.
            return RETRY
        except Exception:
            LOG.exception('The report failed; it is made again')
        return float(CONF.guest_agent.report_interval)

    def _report(self) -> bool:
        """Report, and tell whether there is more to do than was handed out."""
        service = self._service or self._register()
        if service is None:
            return False
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
        metrics.REPORTED_AT.set_to_current_time()
        if report['fenced']:
            LOG.error(
                'A newer guest-agent-compute serves host %s; stopping',
                self._host,
            )
            self.is_fenced = True
            self.stopping.set()
            return False
        offered = {work['uuid'] for work in report['work']}
        for item in lanes:
            item.drop(report['ended'], clear=True)
            item.drop(report['moved'], clear=False)
            item.keep_offered(offered)
        for work in report['work']:
            self._offer(service, work)
        return _has_more(report['work'])

    def _register(self) -> conductor_rpcapi.Service | None:
        """Announce this start of the service to the conductor.

        :returns: none if another machine serves under the host's name
        """
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
        LOG.info('Serving host %s', self._host)
        self._service = {'host': self._host, 'incarnation': incarnation}
        return self._service

    def _offer(
        self, service: conductor_rpcapi.Service, work: conductor_rpcapi.Work
    ) -> None:
        if work['type'] not in command.TYPES:
            self._unknown.note(
                work['type'],
                'Commands of type %s are of a later release and '
                'wait until this service is upgraded',
                work['type'],
            )
            return
        if work['type'] in command.TRANSFERS and work['attempt'] is None:
            # A transfer begins when nova-api has it opened.
            return
        with self._lock:
            item = self._lane_of(service, work['instance_uuid'])
            if item is not None:
                item.offer(work)

    # Lanes.

    def _begin(
        self,
        instance_uuid: str,
        make: Callable[[compute_session.Session], transfer_task.TransferTask],
    ) -> transfer_task.TransferTask | None:
        with self._lock:
            if self._service is None:
                return None
            item = self._lane_of(self._service, instance_uuid)
            if item is None:
                return None
            begun = make(item.session)
            item.begin(begun)
            return begun

    def _lane_of(
        self, service: conductor_rpcapi.Service, uuid: str
    ) -> lane.Lane | None:
        """Return the lane of a server, None if there may be no more lanes."""
        if self.stopping.is_set():
            return None
        item = self._lanes.get(uuid)
        if item is None and len(self._lanes) < CONF.guest_agent.max_lanes:
            session = compute_session.Session(
                uuid, self._guests, self._conductor, service, self._clock
            )
            item = self._lanes[uuid] = lane.Lane(
                session, make_task, self._leave
            )
            item.start()
        return item

    def _leave(self, item: lane.Lane) -> bool:
        """Forget a lane that is to end, unless work was added meanwhile."""
        with self._lock:
            if not item.is_empty:
                return False
            self._lanes.pop(item.session.uuid, None)
            return True


def make_task(
    session: compute_session.Session, work: conductor_rpcapi.Work
) -> task.Task:
    """Return the task of a command.

    :param session: guest of the command's server
    :param work: command, as the conductor handed it out
    """
    return _TASKS[work['type']](session, work)


def _done(act: Callable[[], None]) -> rpcapi.Done:
    try:
        act()
    except exception.StreamRefused as error:
        return {'refusal': rpcapi.stream_refusal_of(error)}
    except exception.GuestError as error:
        return {'refusal': {'kind': 'later', 'message': str(error)}}
    return {'refusal': None}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _has_more(work: Collection[conductor_rpcapi.Work]) -> bool:
    """Tell whether a server has as much waiting as a report hands out."""
    pending = collections.Counter(
        item['instance_uuid']
        for item in work
        if item['status'] == command.PENDING
    )
    return max(pending.values(), default=0) >= (
        conductor_rpcapi.PENDING_PER_SERVER
    )


def _machine_id() -> str:
    try:
        return _MACHINE_ID.read_text().strip()
    except FileNotFoundError:
        return ''
