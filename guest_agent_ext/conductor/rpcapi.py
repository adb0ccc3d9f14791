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

"""What guest-agent-compute asks of guest-agent-conductor.

Every call may be made twice: an answer may be lost after the change was made.

Version history of the API:

    * 1.0 - Initial version: register, report, claim, refuse, adopt,
      started, finish, not_here, ended.
"""

from collections.abc import Collection
from collections.abc import Mapping
import threading
from typing import Any
from typing import TypedDict

import oslo_messaging

from guest_agent_ext import rpc

TOPIC = 'guest_agent_conductor'
#: What the other side offers at most.
VERSION = '1.0'
#: What a call asks for that names no version of its own: what every release
#: offers. A call that came later names the version that it came with, so that
#: all others are taken by services that are not upgraded yet.
BASE_VERSION = '1.0'

#: Calls of one host under way at once, beside its reports. More of them would
#: only wait in the conductor's queue, until nobody waits for their answers.
CALLS = 16


class Service(TypedDict):
    """Who asks: a host and which start of its compute service."""

    host: str
    incarnation: int


class Work(TypedDict):
    """An unfinished command of the host."""

    uuid: str
    #: command.TYPES
    type: str
    instance_uuid: str
    status: str
    #: The attempt that has it, None while PENDING.
    attempt: str | None
    cancel_requested: bool
    #: Seconds until it may no longer start.
    start_in: float


class Report(TypedDict):
    """The answer to a report."""

    #: A newer start of the service has taken over: this one must stop.
    fenced: bool
    work: list[Work]
    #: Commands that the service holds and that have ended without it.
    ended: list[str]
    #: Commands that the service holds and that are another's now.
    moved: list[str]


class ExecOrder(TypedDict):
    """What to run."""

    command: list[str]
    cwd: str | None
    env: dict[str, str]
    #: base64
    stdin: str
    output_keep: str


class FileOrder(TypedDict):
    """Which file to read or to write."""

    path: str
    #: Octal digits.
    mode: str | None
    append: bool
    #: What the guest has open for it, as its host noted it.
    opened: dict[str, Any] | None


class Claim(TypedDict):
    """A command, handed to an attempt."""

    uuid: str
    type: str
    #: Of an exec.
    exec: ExecOrder | None
    #: Of a transfer.
    file: FileOrder | None
    #: Seconds from start.
    timeout: int
    boot_id: str
    #: Guest uptime (centiseconds) after which it may not start.
    ticket: int
    #: Guest uptime (centiseconds) when it started, if that is known.
    started_uptime: int | None


class End(TypedDict, total=False):
    """How a command ended; what is not known is left out."""

    status: str
    error: str
    #: Seconds since it started; left out if it never did.
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

    Each method raises oslo_messaging.MessagingException (MessagingTimeout
    above all) when no answer came: the change may or may not have been made.

    :param transport: oslo.messaging transport of the cell
    :param timeout: seconds to wait for an answer
    """

    def __init__(self, transport: Any, timeout: float) -> None:
        self._client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(topic=TOPIC, version=BASE_VERSION),
            timeout=timeout,
            retry=0,
        )
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(CALLS)

    def register(self, host: str, machine_id: str, version: str) -> int | None:
        """Announce a start of the service.

        :returns: its incarnation, or None if it must not serve: another
            machine serves under this name
        """
        answer: int | None = self._call(
            'register', host=host, machine_id=machine_id, version=version
        )
        return answer

    def report(
        self,
        service: Service,
        held: Mapping[str, str],
        seen: Mapping[str, str],
    ) -> Report:
        """Say that the service lives, and ask what there is to do.

        :param held: the attempt by the uuid of each command it has
        :param seen: what stands in the way of commands, by uuid
        """
        # However busy its guests are, a host is heard.
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
        """Take a PENDING command.

        :param boot_id: of the guest
        :param ticket: guest uptime (centiseconds) after which the guest will
            refuse to start it
        :param window: seconds from now until then
        :returns: None if it is not to be had: ended, cancelled, another's
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
        """Say that a PENDING command cannot run in its guest.

        :param error: why, in words for the tenant
        """
        self._call('refuse', service=service, uuid=uuid, error=error)

    def adopt(
        self, service: Service, uuid: str, attempt: str, previous: str
    ) -> Claim | None:
        """Take over a command that was handed to ``previous``."""
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
        opened: Mapping[str, Any] | None = None,
    ) -> str:
        """Say that the guest is known to have started a command.

        :param opened: what the guest has open for a transfer, for a host that
            has to go on with it
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
        """Say how a command ended.

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
        """Say that a command's domain is gone or does not run.

        That is no verdict: the conductor knows whether the server moved, is
        about to, or was stopped.

        :param state: of the domain, in libvirt's words, or ``absent``
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
        """Return which of these commands have ended or do not exist."""
        return list(self._call('ended', service=service, uuids=list(uuids)))

    def _call(self, method: str, **arguments: Any) -> Any:
        if not self._places.acquire(timeout=self._timeout):
            raise oslo_messaging.MessagingTimeout(
                f'{CALLS} calls of this host are under way'
            )
        try:
            return self._send(method, **arguments)
        finally:
            self._places.release()

    def _send(self, method: str, **arguments: Any) -> Any:
        with rpc.errors():
            return self._client.call({}, method, **arguments)
