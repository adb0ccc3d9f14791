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

"""libvirt: the connections to it, and what it says of guests.

Work and probes have a connection each: libvirtd works on a bounded number of
requests of one connection at once, and a guest that hangs keeps its place for
as long as the call's timeout.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import json
import re
import threading
from typing import Any

import libvirt
import libvirt_qemu
from oslo_log import log as logging

from guest_agent_ext import exception

LOG = logging.getLogger(__name__)

#: Seconds between two keepalive messages, and how many may go unanswered.
KEEPALIVE = (5, 3)
#: Seconds that opening a connection may take, and that a call waits for a
#: place among those under way.
OPEN_TIMEOUT = 10.0
PLACE_TIMEOUT = 30.0

ABSENT = 'absent'
_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: 'nostate',
    libvirt.VIR_DOMAIN_RUNNING: 'running',
    libvirt.VIR_DOMAIN_BLOCKED: 'blocked',
    libvirt.VIR_DOMAIN_PAUSED: 'paused',
    libvirt.VIR_DOMAIN_SHUTDOWN: 'shutdown',
    libvirt.VIR_DOMAIN_SHUTOFF: 'shutoff',
    libvirt.VIR_DOMAIN_CRASHED: 'crashed',
    libvirt.VIR_DOMAIN_PMSUSPENDED: 'pmsuspended',
}

# Of newer libvirts; older bindings have no names for them.
_AGENT_COMMAND_TIMEOUT = 112
_AGENT_COMMAND_FAILED = 113

_Error = Callable[[str], exception.GuestError]


def _plain(kind: type[exception.GuestError],
           may_have_run: bool) -> _Error:
    return lambda text: kind(may_have_run=may_have_run)


def _refused(text: str) -> exception.GuestError:
    """Take the agent's own words out of libvirt's."""
    words = re.sub(r"^.*?unable to execute QEMU agent command '[^']*': ", '',
                   text, flags=re.DOTALL)
    if 'has been disabled' in words:
        return exception.AgentCommandDisabled()
    return exception.AgentRefused(f'The guest agent refused: {words}')


#: What libvirt's errors mean, the first that fits: code, words of the message,
#: and what to raise.
_ERRORS: Sequence[tuple[int, str, _Error]] = (
    (libvirt.VIR_ERR_NO_DOMAIN, '',
     _plain(exception.DomainNotFound, False)),
    (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, '',
     _plain(exception.AgentNotConfigured, False)),
    (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, 'not connected',
     _plain(exception.AgentNotConnected, False)),
    (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, 'disappeared',
     _plain(exception.AgentNotConnected, True)),
    (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, '',
     _plain(exception.AgentUnresponsive, True)),
    (libvirt.VIR_ERR_AGENT_UNSYNCED, '',
     _plain(exception.AgentUnresponsive, True)),
    (_AGENT_COMMAND_TIMEOUT, '', _plain(exception.AgentUnresponsive, True)),
    (_AGENT_COMMAND_FAILED, '', _refused),
    (libvirt.VIR_ERR_OPERATION_TIMEOUT, '',
     _plain(exception.AgentBusy, False)),
    (libvirt.VIR_ERR_INTERNAL_ERROR, 'client socket is closed',
     _plain(exception.HypervisorUnavailable, False)),
    (libvirt.VIR_ERR_INTERNAL_ERROR, 'unable to execute QEMU agent command',
     _refused),
    (libvirt.VIR_ERR_SYSTEM_ERROR, 'Unable to encode message payload',
     _plain(exception.AgentReplyTooLarge, True)),
    (libvirt.VIR_ERR_RPC, 'Unable to encode message payload',
     _plain(exception.AgentReplyTooLarge, True)),
)


class Connection:
    """libvirt, for as long as the service lives.

    :param uri: of libvirt
    :param work_calls: agent calls under way at once, over all guests
    """

    def __init__(self, uri: str, work_calls: int = 4) -> None:
        _start_event_loop()
        self._work = _Channel(uri, work_calls)
        self._probe = _Channel(uri, 1)

    def agent_command(self, uuid: str, request: Mapping[str, Any],
                      timeout: int) -> Any:
        """Send a request to a domain's agent and return its answer.

        :param timeout: seconds to wait for the answer
        :raises exception.GuestError: there is none, or it is an error
        """
        return _agent_command(self._work, uuid, request, timeout)

    def ping(self, uuid: str, timeout: int = 1) -> None:
        """Have a domain's agent show that it answers."""
        _agent_command(self._probe, uuid, {'execute': 'guest-ping'}, timeout)

    def domain_state(self, uuid: str) -> str:
        """Return a domain's state in libvirt's words, or ``absent``."""
        try:
            with self._probe.place() as connection:
                return _state(connection.lookupByUUIDString(uuid))
        except exception.DomainNotFound:
            return ABSENT

    def close(self) -> None:
        self._work.close()
        self._probe.close()


class _Channel:
    """One connection, opened when it is needed and again when it has died."""

    def __init__(self, uri: str, places: int) -> None:
        self._uri = uri
        self._places = threading.BoundedSemaphore(places)
        self._lock = threading.Lock()
        self._connection: Any = None
        self._opening: _Opening | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[Any]:
        """Take a place among the calls under way.

        libvirt's errors are translated here.
        """
        if not self._places.acquire(timeout=PLACE_TIMEOUT):
            raise exception.HypervisorUnavailable(
                'The host of the server is too busy', may_have_run=False)
        try:
            connection = self._get()
            try:
                yield connection
            except libvirt.libvirtError as error:
                self._drop_if_dead(connection)
                raise _translated(error) from None
        finally:
            self._places.release()

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _get(self) -> Any:
        with self._lock:
            if self._connection is not None:
                return self._connection
            opening = self._opening
            if opening is None:
                # One at a time: where libvirt hangs each would leave a
                # thread behind.
                opening = self._opening = _Opening(self._uri)
        connection = opening.wait(OPEN_TIMEOUT)
        with self._lock:
            if self._opening is opening and opening.is_over:
                self._opening = None
                self._connection = connection
        if connection is None:
            raise exception.HypervisorUnavailable()
        return connection

    def _drop_if_dead(self, connection: Any) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            if connection.isAlive():
                return
        with self._lock:
            if self._connection is connection:
                self._connection = None


class _Opening:
    """A connection that is being opened, which has no bound of its own."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connection: Any = None
        self._done = threading.Event()
        threading.Thread(name='open-libvirt', target=self._open,
                         daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout: float) -> Any:
        """Return the connection, None if there is none by then."""
        self._done.wait(timeout)
        return self._connection

    def _open(self) -> None:
        try:
            connection = libvirt.open(self._uri)
            connection.setKeepAlive(*KEEPALIVE)
            self._connection = connection
        except libvirt.libvirtError as error:
            LOG.warning('libvirt cannot be reached: %s', error)
        finally:
            self._done.set()


def _agent_command(channel: _Channel, uuid: str, request: Mapping[str, Any],
                   timeout: int) -> Any:
    text = json.dumps(request)
    try:
        with channel.place() as connection:
            domain = connection.lookupByUUIDString(uuid)
            answer = libvirt_qemu.qemuAgentCommand(domain, text, timeout, 0)
    except _NotRunning:
        raise exception.DomainNotRunning(_look(channel, uuid)) from None
    return json.loads(answer)['return']


class _NotRunning(exception.GuestError):
    """libvirt says only that the domain does not run."""


def _look(channel: _Channel, uuid: str) -> str:
    with channel.place() as connection:
        return _state(connection.lookupByUUIDString(uuid))


def _state(domain: Any) -> str:
    return _STATES.get(domain.state()[0], 'unknown')


def _translated(error: libvirt.libvirtError) -> exception.GuestError:
    code, text = error.get_error_code(), error.get_error_message() or ''
    if code == libvirt.VIR_ERR_OPERATION_INVALID and 'not running' in text:
        return _NotRunning()
    if error.get_error_domain() == libvirt.VIR_FROM_RPC and (
            code == libvirt.VIR_ERR_SYSTEM_ERROR):
        return exception.HypervisorUnavailable(may_have_run=True)
    for known, words, make in _ERRORS:
        if code == known and words in text:
            return make(text)
    LOG.warning('libvirt: code %(code)s: %(text)s',
                {'code': code, 'text': text})
    return exception.AgentError(may_have_run=True)


@functools.cache
def _start_event_loop() -> None:
    """Run libvirt's event loop; keepalive needs it, once in a process."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(name='libvirt-events', target=run, daemon=True).start()
