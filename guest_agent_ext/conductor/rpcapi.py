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

"""The RPC API of guest-agent-conductor, for guest-agent-compute.

Every call may be made twice: an answer may be lost after the change was made.

Version history of the API:

    * 1.0 - Initial version: register, report, claim, refuse, adopt,
      started, finish, not_here, ended.
"""

import collections
from collections.abc import Collection
from collections.abc import Mapping
import logging
import threading
from typing import Any
from typing import TypedDict

from oslo_log import log as oslo_logging
import oslo_messaging

from guest_agent_ext import exception
from guest_agent_ext import logs
from guest_agent_ext import rpc

LOG = oslo_logging.getLogger(__name__)

TOPIC = 'guest_agent_conductor'
#: The version that a service of this release offers.
VERSION = '1.0'
#: The version of a call that names none: every release offers it. A call that
#: was added later names the version that it came with, so that services that
#: are not upgraded yet accept all others.
BASE_VERSION = '1.0'

#: PENDING commands of one server that a report hands out at most: enough work
#: until the next report. All RUNNING commands are handed out.
PENDING_PER_SERVER = 32

#: Calls of one host under way at once, beside its reports. More would only
#: wait in the conductor's queue until their callers give up.
CALLS = 16

_BACK = 'The conductor answers again'


class Service(TypedDict):
    """The caller: a host, and one start of its compute service.

    The incarnation is 128 random bits, made by the conductor: only a service
    that has registered knows the value.
    """

    host: str
    incarnation: str


class Work(TypedDict):
    """An unfinished command of the host."""

    uuid: str
    #: command.TYPES
    type: str
    instance_uuid: str
    status: str
    #: The attempt that runs the command, None while PENDING.
    attempt: str | None
    cancel_requested: bool
    #: Seconds after which the command may no longer start.
    start_in: float


class Report(TypedDict):
    """The answer to a report."""

    #: Whether a newer start of the service has taken over: this one must stop.
    fenced: bool
    work: list[Work]
    #: Commands of the service that have ended otherwise.
    ended: list[str]
    #: Commands of the service that another host runs now.
    moved: list[str]


class Terminal(TypedDict):
    """A terminal of an attached command."""

    columns: int
    rows: int
    #: Value of TERM.
    term: str


class Attach(TypedDict):
    """How a command is attached."""

    #: None for three pipes.
    terminal: Terminal | None
    #: Whether the command goes on without a client.
    detach: bool


class ExecOrder(TypedDict):
    """A program to run."""

    command: list[str]
    cwd: str | None
    user: str | None
    env: dict[str, str]
    #: base64
    stdin: str
    output_keep: str
    #: None for a command that is not attached.
    attach: Attach | None


class FileOrder(TypedDict):
    """A file to read or to write."""

    path: str
    #: Octal digits.
    mode: str | None
    append: bool
    #: Names or numbers of the guest's.
    owner: str | None
    group: str | None
    #: Handles and files that the guest has open for the transfer, as a host
    #: recorded them.
    opened: dict[str, Any] | None


class Claim(TypedDict):
    """A command, handed to an attempt."""

    uuid: str
    type: str
    #: For an exec, else None.
    exec: ExecOrder | None
    #: For a transfer, else None.
    file: FileOrder | None
    #: Arguments of an agent call, secret ones too; for other types None.
    call: dict[str, Any] | None
    #: Seconds from start.
    timeout: int
    boot_id: str
    #: Guest uptime (centiseconds) after which the command may not start.
    ticket: int
    #: Guest uptime (centiseconds) at the start, None if not known.
    started_uptime: int | None


class End(TypedDict, total=False):
    """The end of a command; fields that are not known are left out."""

    status: str
    error: str
    #: Seconds since the start; left out if the command never started.
    age: float
    pid: int
    exitcode: int
    signal: int
    #: base64
    out_data: str
    err_data: str
    out_bytes: int
    err_bytes: int


class ConductorAPI:
    """Client of the conductor, over the queue of the own cell.

    Each method raises exception.ConductorUnreachable when no answer came: the
    change may or may not have been made. The client logs the first failure,
    and the first answer after that.

    :param transport: oslo.messaging transport of the cell
    :param timeout: seconds to wait for an answer
    """

    def __init__(
        self, transport: oslo_messaging.Transport, timeout: float
    ) -> None:
        self._client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(topic=TOPIC, version=BASE_VERSION),
            timeout=timeout,
            retry=0,
        )
        self._timeout = timeout
        self._slots = threading.BoundedSemaphore(CALLS)
        self._trouble = logs.Trouble(LOG, logging.WARNING)
        #: By the name of a call that the conductor's release does not offer.
        self._missing: collections.defaultdict[str, logs.Trouble] = (
            collections.defaultdict(lambda: logs.Trouble(LOG, logging.WARNING))
        )

    def register(self, host: str, machine_id: str, version: str) -> str | None:
        """Register a start of the service.

        :returns: incarnation, or None if the service must not serve: another
            machine serves under this name
        """
        answer: str | None = self._call(
            'register', host=host, machine_id=machine_id, version=version
        )
        return answer

    def report(
        self,
        service: Service,
        held: Mapping[str, str],
        seen: Mapping[str, str],
    ) -> Report:
        """Report that the service is alive, and ask for work.

        :param held: attempts of the service, by uuid of the command
        :param seen: obstacles to commands, in words for the tenant, by uuid
        """
        # Without a slot: a host reports however busy its guests are.
        answer: Report = self._send(
            'report', service=service, held=dict(held), seen=dict(seen)
        )
        return answer

    def claim(
        self,
        service: Service,
        uuid: str,
        attempt: str,
        boot_id: str,
        ticket: int,
        window: float,
    ) -> Claim | None:
        """Claim a PENDING command.

        :param boot_id: boot id of the guest
        :param ticket: guest uptime (centiseconds) after which the guest
            refuses to start the command
        :param window: seconds from now until then
        :returns: None if the command has ended, is cancelled or is claimed by
            another attempt
        """
        answer: Claim | None = self._call(
            'claim',
            service=service,
            uuid=uuid,
            attempt=attempt,
            boot_id=boot_id,
            ticket=ticket,
            window=window,
        )
        return answer

    def refuse(self, service: Service, uuid: str, error: str) -> None:
        """Report that a PENDING command cannot run in its guest.

        :param error: reason, in words for the tenant
        """
        self._call('refuse', service=service, uuid=uuid, error=error)

    def adopt(
        self, service: Service, uuid: str, attempt: str, previous: str
    ) -> Claim | None:
        """Adopt a command of another attempt.

        :param attempt: id of the new attempt
        :param previous: id of the attempt that is replaced
        :returns: None if the command has ended or is another attempt's
        """
        answer: Claim | None = self._call(
            'adopt',
            service=service,
            uuid=uuid,
            attempt=attempt,
            previous=previous,
        )
        return answer

    def started(
        self,
        service: Service,
        uuid: str,
        attempt: str,
        pid: int | None,
        started_uptime: int | None,
        age: float,
        opened: Mapping[str, object] | None = None,
    ) -> str:
        """Report that the guest has started a command.

        :param pid: process id in the guest
        :param started_uptime: guest uptime (centiseconds) at the start
        :param age: seconds since the start
        :param opened: handles and files that the guest has open for a
            transfer, for a host that adopts it
        :returns: command.OK, SUPERSEDED, GONE or MOVED
        """
        return str(
            self._call(
                'started',
                service=service,
                uuid=uuid,
                attempt=attempt,
                pid=pid,
                started_uptime=started_uptime,
                age=age,
                opened=opened,
            )
        )

    def finish(
        self, service: Service, uuid: str, attempt: str, end: End
    ) -> str:
        """Report the end of a command.

        :returns: command.OK, SUPERSEDED, GONE or MOVED
        """
        return str(
            self._call(
                'finish', service=service, uuid=uuid, attempt=attempt, end=end
            )
        )

    def not_here(
        self, service: Service, uuid: str, attempt: str, state: str
    ) -> str:
        """Report that a command's domain is gone or does not run.

        That does not end the command: the conductor knows whether the server
        has moved, is about to move, or was stopped.

        :param state: state of the domain, in libvirt's words, or ``absent``
        :returns: command.OK (wait), SUPERSEDED, GONE or MOVED
        """
        return str(
            self._call(
                'not_here',
                service=service,
                uuid=uuid,
                attempt=attempt,
                state=state,
            )
        )

    def ended(self, service: Service, uuids: Collection[str]) -> list[str]:
        """Return those commands that have ended or do not exist."""
        return list(self._call('ended', service=service, uuids=list(uuids)))

    def _call(self, method: str, **arguments: Any) -> Any:
        if not self._slots.acquire(timeout=self._timeout):
            raise exception.ConductorUnreachable(
                f'{CALLS} calls of this host are under way'
            )
        try:
            return self._send(method, **arguments)
        finally:
            self._slots.release()

    def _send(self, method: str, **arguments: Any) -> Any:
        try:
            with rpc.errors(exception.ConductorUnreachable):
                answer = self._client.call({}, method, **arguments)
        except exception.ConductorUnreachable as error:
            self._note_failure(method, error)
            raise
        self._trouble.end(_BACK)
        self._missing[method].end('guest-agent-conductor offers %s', method)
        return answer

    def _note_failure(
        self, method: str, error: exception.ConductorUnreachable
    ) -> None:
        match error.cause:
            case 'not offered':
                self._trouble.end(_BACK)
                self._missing[method].note(
                    '',
                    'guest-agent-conductor is of a release that does not '
                    'offer %s, upgrade it: %s',
                    method,
                    error,
                )
            case 'failed':
                self._trouble.note(
                    'failed',
                    'guest-agent-conductor failed at %s: %s; see its log',
                    method,
                    error,
                )
            case 'no answer':
                self._trouble.note(
                    '', 'No answer from the conductor to %s: %s', method, error
                )
