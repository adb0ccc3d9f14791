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

Each call has a connection to itself. libvirt's client lets one of the threads
that share a connection read for all of them; beside a call to a guest that
hangs another thread's answer was seen to wait until that call had timed out.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import contextlib
import functools
import json
import queue
import re
import threading
import time
from typing import Any

import libvirt
import libvirt_qemu
from oslo_log import log as logging

from guest_agent_ext import exception
from guest_agent_ext.guest import answers

LOG = logging.getLogger(__name__)

#: Seconds between two keepalive messages, and how many may go unanswered.
KEEPALIVE = (5, 3)
#: Seconds that opening a connection may take, and that a call waits for one
#: that is free.
OPEN_TIMEOUT = 10.0
FREE_TIMEOUT = 30.0
#: Questions under way at once: to guests, and beside them to those that did
#: not answer the last one, each of which takes seconds. With the calls they
#: leave half of libvirtd's workers (20 by default) to nova-compute.
PROBES, SUSPECTS = 4, 2
#: Seconds after an error of the event loop until its next turn.
EVENT_ERROR_GAP = 1.0

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

#: What libvirt's errors mean, the first that fits: code, words of the message,
#: what to raise, and whether the agent may have had the request. A refusal by
#: the agent is told by its words alone, in libvirts old and new.
_ERRORS: Sequence[tuple[int, str, type[exception.GuestError], bool]] = (
    (libvirt.VIR_ERR_NO_DOMAIN, '', exception.DomainNotFound, False),
    (
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        '',
        exception.AgentNotConfigured,
        False,
    ),
    (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        'not connected',
        exception.AgentNotConnected,
        False,
    ),
    (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        'disappeared',
        exception.AgentNotConnected,
        True,
    ),
    # An answer too large for libvirt leaves it like that until the guest's
    # reset.
    (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        'due to an error',
        exception.AgentUnresponsive,
        False,
    ),
    # Before a request the agent is asked to show that it listens.
    (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        'synchronization',
        exception.AgentUnresponsive,
        False,
    ),
    (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        '',
        exception.AgentUnresponsive,
        True,
    ),
    (libvirt.VIR_ERR_AGENT_UNSYNCED, '', exception.AgentUnresponsive, False),
    (_AGENT_COMMAND_TIMEOUT, '', exception.AgentUnresponsive, True),
    (libvirt.VIR_ERR_OPERATION_TIMEOUT, '', exception.AgentBusy, False),
    (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        'encode message payload',
        exception.AgentReplyTooLarge,
        True,
    ),
    (
        libvirt.VIR_ERR_RPC,
        'encode message payload',
        exception.AgentReplyTooLarge,
        True,
    ),
    (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        'No complete agent response',
        exception.AgentReplyTooLarge,
        True,
    ),
    (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        ' agent: ',
        exception.AgentNotConnected,
        True,
    ),
)

#: What libvirt puts before the agent's own words.
_REFUSAL = re.compile(r"QEMU agent command '[^']*': (.*)", re.DOTALL)


class Connection:
    """libvirt, for as long as the service lives.

    :param uri: of libvirt
    :param work_calls: agent calls under way at once, over all guests
    """

    def __init__(self, uri: str, work_calls: int = 4) -> None:
        _prepare_libvirt()
        self._work = _Pool(uri, work_calls)
        self._probe = _Pool(uri, PROBES)
        self._suspect = _Pool(uri, SUSPECTS)
        # For what no guest can delay.
        self._inspect = _Channel(uri)

    def agent_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        """Send a request to a domain's agent and return its answer.

        :param timeout: seconds to wait for the answer
        :raises exception.GuestError: there is none, or it is an error
        """
        return self._call(self._work, uuid, request, timeout)

    def probe_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        """Do as agent_command, beside the work: for questions."""
        return self._call(self._probe, uuid, request, timeout)

    def ping(
        self, uuid: str, timeout: int = 1, *, is_suspect: bool = False
    ) -> None:
        """Have a domain's agent show that it answers.

        :param timeout: seconds; libvirt takes up to 5 all the same where the
            agent did not answer the call before
        :param is_suspect: it did not; it waits for others like it, and no
            other waits for it
        :raises exception.GuestError: it does not
        """
        pool = self._suspect if is_suspect else self._probe
        self._call(pool, uuid, {'execute': 'guest-ping'}, timeout)

    def is_migrating(self, uuid: str) -> bool:
        """Tell whether a domain is on its way to another host.

        :raises exception.GuestError: libvirt does not tell
        """
        try:
            with self._work.connection() as connection, _translated_errors():
                job = connection.lookupByUUIDString(uuid).jobStats()
        except exception.DomainNotRunning:
            raise self._not_running(uuid) from None
        return bool(
            job.get('operation')
            == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        )

    def domain_state(self, uuid: str) -> str:
        """Return a domain's state in libvirt's words, or ``absent``.

        :raises exception.HypervisorUnavailable: libvirt does not tell
        """
        try:
            with _translated_errors():
                domain = self._inspect.connection().lookupByUUIDString(uuid)
                return _STATES.get(domain.state()[0], 'unknown')
        except exception.DomainNotFound:
            return ABSENT

    def close(self) -> None:
        """Let go of libvirt; a later call would connect again."""
        for opened in (self._work, self._probe, self._suspect, self._inspect):
            opened.close()

    def _call(
        self,
        pool: '_Pool',
        uuid: str,
        request: Mapping[str, Any],
        timeout: int,
    ) -> Any:
        text = json.dumps(request)
        try:
            with pool.connection() as connection, _translated_errors():
                answer = libvirt_qemu.qemuAgentCommand(
                    connection.lookupByUUIDString(uuid), text, timeout, 0
                )
        except exception.DomainNotRunning:
            # libvirt does not say in which state it is.
            raise self._not_running(uuid) from None
        try:
            return json.loads(answer)['return']
        except answers.IMPROPER:
            raise exception.AgentError(may_have_run=True) from None

    def _not_running(self, uuid: str) -> exception.GuestError:
        state = self.domain_state(uuid)
        if state == ABSENT:
            return exception.DomainNotFound()
        return exception.DomainNotRunning(state)


class _Pool:
    """Connections, each for one call at a time.

    :param size: calls under way at once
    """

    def __init__(self, uri: str, size: int) -> None:
        self._channels = [_Channel(uri) for _ in range(size)]
        # The last one used is used next, so that no more are opened than are
        # needed.
        self._free: queue.LifoQueue[_Channel] = queue.LifoQueue()
        for channel in self._channels:
            self._free.put(channel)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """Borrow a connection.

        :raises exception.GuestError: it cannot be opened, or none became free
            in time
        """
        try:
            channel = self._free.get(timeout=FREE_TIMEOUT)
        except queue.Empty:
            raise exception.AgentBusy(
                'The host of the server is busy with calls to other guests'
            ) from None
        try:
            yield channel.connection()
        finally:
            self._free.put(channel)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


class _Channel:
    """A connection, opened when it is needed and again when it has died."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._opened: futures.Future[Any] | None = None

    def connection(self) -> Any:
        """Return the connection.

        :raises exception.HypervisorUnavailable: it cannot be opened
        """
        with self._lock:
            if self._opened is None or _has_died(self._opened):
                self._opened = _open(self._uri)
            opened = self._opened
        try:
            return opened.result(OPEN_TIMEOUT)
        except futures.TimeoutError:
            LOG.warning('libvirt does not answer')
        except libvirt.libvirtError as error:
            LOG.warning('libvirt cannot be reached: %s', error)
        raise exception.HypervisorUnavailable()

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is None or not opened.done():
            return
        with contextlib.suppress(libvirt.libvirtError):
            opened.result().close()


def _open(uri: str) -> 'futures.Future[Any]':
    """Open a connection in a thread: libvirt sets no bound to that.

    Who waits for it shares it, so that a libvirt that hangs gets one thread
    of ours and not one with each call.
    """
    opened: futures.Future[Any] = futures.Future()

    def run() -> None:
        try:
            connection = libvirt.open(uri)
            connection.setKeepAlive(*KEEPALIVE)
        except Exception as error:
            opened.set_exception(error)
        else:
            opened.set_result(connection)

    threading.Thread(name='libvirt-open', target=run, daemon=True).start()
    return opened


def _has_died(opened: 'futures.Future[Any]') -> bool:
    if not opened.done():
        return False
    return bool(opened.exception()) or not opened.result().isAlive()


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise libvirt's errors as ours.

    Without a trace of the original: its text may be what the guest said.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise _translated(error) from None


def _translated(error: libvirt.libvirtError) -> exception.GuestError:
    code, text = error.get_error_code(), error.get_error_message() or ''
    for known, words, kind, may_have_run in _ERRORS:
        if code == known and words in text:
            return kind(may_have_run=may_have_run)
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return exception.HypervisorUnavailable(may_have_run=True)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return exception.DomainNotRunning()
    refusal = _REFUSAL.search(text)
    if refusal is not None:
        return _refused(refusal[1])
    LOG.warning(
        'libvirt error %(code)s from %(domain)s',
        {'code': code, 'domain': error.get_error_domain()},
    )
    return exception.AgentError(may_have_run=True)


def _refused(words: str) -> exception.GuestError:
    """Tell the agent's refusals apart by its own words."""
    if 'frozen' in words:
        return exception.AgentBusy(
            "The server's file systems are frozen for a snapshot"
        )
    if 'has been disabled' in words:
        return exception.AgentCommandDisabled()
    return exception.AgentRefused(
        f'The guest agent refused: {answers.text(words)}'
    )


@functools.cache
def _prepare_libvirt() -> None:
    """Run libvirt's event loop, which keepalive needs: once in a process."""
    # It would print each error, and with it what guests said.
    libvirt.registerErrorHandler(_ignore, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(
        name='libvirt-events', target=_run_event_loop, daemon=True
    ).start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception("libvirt's event loop failed")
            time.sleep(EVENT_ERROR_GAP)


def _ignore(context: None, error: Sequence[Any]) -> None:
    """Every error is raised too."""
