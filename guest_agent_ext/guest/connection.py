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

"""Connections to libvirt, which carry the requests to guests' agents.

Each call has a connection to itself. If threads share a connection, libvirt's
client has one of them read for all: while one call waited for a guest that
hangs, the answer to another thread arrived only after that call's timeout.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib
import functools
import json
import logging
import queue
import random
import re
import threading
import time
from typing import Any

import libvirt
import libvirt_qemu
from oslo_log import log as oslo_logging

from guest_agent_ext import exception
from guest_agent_ext import logs
from guest_agent_ext import metrics
from guest_agent_ext import untrusted
from guest_agent_ext.guest import agent as guest_agent

LOG = oslo_logging.getLogger(__name__)

#: Seconds between two keepalive messages, and the number of them that may stay
#: unanswered.
KEEPALIVE = (5, 3)
#: Maximum seconds of opening a connection, and of waiting for a free one.
OPEN_TIMEOUT = 10.0
FREE_TIMEOUT = 30.0
#: Maximum number of probes under way at once, and of pings to suspects: guests
#: that did not answer the last call, where each ping takes seconds. Together
#: with the work calls they leave half of libvirtd's workers (20 by default) to
#: nova-compute.
PROBES, SUSPECTS = 4, 2
#: Seconds between an error of the event loop and its next iteration.
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

# Only newer bindings have a name for this code.
_AGENT_COMMAND_TIMEOUT = 112

#: The meaning of libvirt's errors; the first match counts. Code, part of the
#: message, exception to raise, and whether the agent may have received the
#: request. A refusal by the agent has no code of its own, and is recognized by
#: its message alone.
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
    # After an answer too large for libvirt this error persists until the guest
    # is reset.
    (
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        'due to an error',
        exception.AgentUnresponsive,
        False,
    ),
    # libvirt synchronizes with the agent before it sends a request.
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

#: The prefix that libvirt adds to the agent's error message.
_REFUSAL = re.compile(r"QEMU agent command '[^']*': (.*)", re.DOTALL)


class Connection:
    """A connection to libvirt for the lifetime of the service.

    :param uri: libvirt URI
    :param work_calls: maximum number of agent calls under way at once, over
        all guests
    """

    def __init__(self, uri: str, work_calls: int = 4) -> None:
        _prepare_libvirt()
        trouble = logs.Trouble(LOG, logging.WARNING)
        self._work = _Pool('work', uri, work_calls, trouble)
        self._probe = _Pool('probe', uri, PROBES, trouble)
        self._suspect = _Pool('suspect', uri, SUSPECTS, trouble)
        # For calls that no guest can delay.
        self._inspect = _Channel(uri, trouble)

    def agent_command(
        self, uuid: str, request: guest_agent.Json, timeout: int
    ) -> Any:
        """Send a request to a domain's agent and return the answer.

        :param uuid: UUID of the domain
        :param request: object that is sent as JSON
        :param timeout: maximum seconds to wait for the answer
        :returns: value of ``return`` in the answer
        :raises exception.GuestError: no answer came, or an error
        """
        return self._call(self._work, uuid, request, timeout)

    def probe_command(
        self, uuid: str, request: guest_agent.Json, timeout: int
    ) -> Any:
        """Send a request as agent_command() does, without a work connection.

        For questions of nova-api, which must not delay commands.
        """
        return self._call(self._probe, uuid, request, timeout)

    def ping(
        self, uuid: str, timeout: int = 1, *, is_suspect: bool = False
    ) -> None:
        """Return if a domain's agent answers.

        :param uuid: UUID of the domain
        :param timeout: maximum seconds to wait; libvirt may wait for up to 5
            if the agent did not answer the call before
        :param is_suspect: True if the agent did not answer the call before:
            the ping uses connections that only such guests share
        :raises exception.GuestError: no answer came
        """
        pool = self._suspect if is_suspect else self._probe
        # Unlike guest-ping, guest-sync is not logged in the guest's journal.
        number = random.randrange(2**31)
        answer = self._call(
            pool,
            uuid,
            {'execute': 'guest-sync', 'arguments': {'id': number}},
            timeout,
        )
        if answer != number:
            raise exception.AgentUnresponsive()

    def domain_state(self, uuid: str) -> str:
        """Return the state of a domain, ``absent`` if libvirt has none.

        :param uuid: UUID of the domain
        :returns: libvirt's name of the state
        :raises exception.HypervisorUnavailable: libvirt does not answer
        """
        try:
            with _translated_errors():
                domain = self._inspect.connection().lookupByUUIDString(uuid)
                return _STATES.get(domain.state()[0], 'unknown')
        except exception.DomainNotFound:
            return ABSENT

    def close(self) -> None:
        """Close all connections. A later call opens them again."""
        for opened in (self._work, self._probe, self._suspect, self._inspect):
            opened.close()

    def _call(
        self, pool: '_Pool', uuid: str, request: guest_agent.Json, timeout: int
    ) -> Any:
        try:
            with pool.seconds.time():
                return self._send(pool, uuid, request, timeout)
        except exception.GuestError as error:
            metrics.AGENT_CALL_FAILURES.labels(type(error).__name__).inc()
            raise

    def _send(
        self, pool: '_Pool', uuid: str, request: guest_agent.Json, timeout: int
    ) -> Any:
        text = json.dumps(request)
        try:
            with pool.connection() as connection, _translated_errors():
                domain = connection.lookupByUUIDString(uuid)
                if (
                    domain.jobStats().get('operation')
                    == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
                ):
                    raise exception.DomainMigrating()
                answer = libvirt_qemu.qemuAgentCommand(
                    domain, text, timeout, 0
                )
        except exception.DomainNotRunning:
            # libvirt's error does not name the state.
            state = self.domain_state(uuid)
            raise (
                exception.DomainNotFound()
                if state == ABSENT
                else exception.DomainNotRunning(state)
            ) from None
        try:
            return json.loads(answer)['return']
        except untrusted.IMPROPER:
            raise exception.AgentError(may_have_run=True) from None


class _Pool:
    """A pool of connections, each for one call at a time.

    :param name: kind of the calls, a label of the metrics
    :param uri: libvirt URI
    :param size: number of connections
    :param trouble: log of libvirt's outages
    """

    def __init__(
        self, name: str, uri: str, size: int, trouble: logs.Trouble
    ) -> None:
        self.seconds = metrics.AGENT_CALL_SECONDS.labels(name)
        self._channels = [_Channel(uri, trouble) for _ in range(size)]
        # The last one used is used next, so that no more are opened than are
        # needed.
        self._free: queue.LifoQueue[_Channel] = queue.LifoQueue()
        for channel in self._channels:
            self._free.put(channel)

    @contextlib.contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        """Borrow a connection of the pool.

        :raises exception.GuestError: the connection cannot be opened, or none
            became free in time
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
    """A connection that is opened on demand, and again after its death."""

    def __init__(self, uri: str, trouble: logs.Trouble) -> None:
        self._uri = uri
        self._trouble = trouble
        self._lock = threading.Lock()
        self._opened: futures.Future[libvirt.virConnect] | None = None

    def connection(self) -> libvirt.virConnect:
        """Return the connection.

        :raises exception.HypervisorUnavailable: libvirt cannot be reached
        """
        with self._lock:
            if self._opened is None or _has_died(self._opened):
                self._opened = _open(self._uri)
            opened = self._opened
        try:
            connection = opened.result(OPEN_TIMEOUT)
        except futures.TimeoutError:
            self._trouble.note('silent', 'libvirt does not answer')
            raise exception.HypervisorUnavailable() from None
        except libvirt.libvirtError as error:
            self._trouble.note(
                str(error), 'libvirt cannot be reached: %s', error
            )
            raise exception.HypervisorUnavailable() from None
        self._trouble.end('libvirt answers again')
        return connection

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is None or not opened.done():
            return
        with contextlib.suppress(libvirt.libvirtError):
            opened.result().close()


def _open(uri: str) -> 'futures.Future[libvirt.virConnect]':
    """Open a connection in a thread, as libvirt knows no timeout for that.

    All calls that wait for the connection share the future, so that a libvirt
    that hangs costs one thread and not one for each call.
    """
    opened: futures.Future[libvirt.virConnect] = futures.Future()

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


def _has_died(opened: 'futures.Future[libvirt.virConnect]') -> bool:
    if not opened.done():
        return False
    return bool(opened.exception()) or not opened.result().isAlive()


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise libvirt's errors as those of the exception module.

    The original is not chained: its text may come from the guest.
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
    """Return the exception for a refusal, by the agent's message."""
    if 'frozen' in words:
        return exception.AgentBusy(
            "The server's file systems are frozen for a snapshot"
        )
    if 'has been disabled' in words:
        return exception.AgentCommandDisabled()
    return exception.AgentRefused(
        f'The guest agent refused: {untrusted.text(words)}'
    )


@functools.cache
def _prepare_libvirt() -> None:
    """Start libvirt's event loop, which keepalive needs, once in a process."""
    # Each error is raised as well. The default handler would print it, though
    # it may quote the guest.
    libvirt.registerErrorHandler(lambda context, error: None, None)
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
