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

"""Questions of nova-api to a guest, answered at once and beside its lane.

Each holds a thread of the RPC server while the guest answers, so a guest is
asked one question at a time, and few guests at once. A guest that hangs is
left after a ping, and leaves a slot to the others from then on.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import threading
from typing import Any
from typing import TypeVar

from guest_agent_ext import clock as system_clock
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import guest_details
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import factory
from guest_agent_ext.guest.launchers import posix

CONF = conf.CONF

_Answer = TypeVar('_Answer')

#: Maximum number of agent calls under way at once: half of connection.PROBES,
#: the rest is for lanes. One of them is never a suspect's.
SLOTS = 2
#: Seconds that the calls of one question wait for slots, together.
WAIT = 5.0
#: Maximum number of suspects to remember, the latest ones.
MAX_SUSPECTS = 4096
#: Maximum number of a guest's words that are passed on, and of characters in
#: each: its root may say anything.
MAX_NAMES = 512
MAX_CHARACTERS = 255

#: The calls that transfers need, each behind ``guest-file-``.
_FILE_CALLS = ('open', 'close', 'flush', 'seek', 'read', 'write')

#: What tells that the next call may take a slot for as long, and in vain.
_SUSPICIOUS = (exception.AgentUnresponsive, exception.AgentBusy)


class Inquiries:
    """The questions to the guests of a host.

    :param guests: connection to libvirt
    :param clock: clock that waits are measured with
    """

    def __init__(
        self, guests: connection.Connection, clock: system_clock.Clock
    ) -> None:
        self._guests = guests
        self._clock = clock
        self._slots = _Slots()
        self._lock = threading.Lock()
        #: Guests that are being asked: at most one a thread of the RPC server.
        self._asked: set[str] = set()
        self._told = guest_details.Answers(clock)

    def agent_status(self, uuid: str) -> rpcapi.AgentStatus:
        """Return whether commands can be run in a guest, and its system.

        :param uuid: server's uuid
        """
        status = rpcapi.unavailable(None)
        try:
            with self._asking(uuid) as agent:
                _inspect(agent, status)
        except exception.GuestError as error:
            status['reason'] = str(error)
        return status

    def details(
        self, uuid: str, fields: Collection[str], user: str | None
    ) -> rpcapi.Details:
        """Return what a guest's agent tells of the guest.

        :param uuid: server's uuid
        :param fields: names of the parts to ask for
        :param user: user of the guest whose ssh keys are asked for
        """
        told = self._told.fresh(uuid, fields, user)
        missing = set(fields) - told.keys()
        try:
            if missing:
                with self._asking(uuid) as agent:
                    asked = guest_details.ask(
                        agent, missing, user, self._clock
                    )
                self._told.keep(uuid, asked, user)
                told.update(asked)
        except exception.GuestError as error:
            return {'reason': str(error), 'details': {}, 'unavailable': {}}
        return guest_details.answer_of(told)

    def read_output(
        self, uuid: str, command_uuid: str, stream: str, offset: int
    ) -> bytes:
        """Return what a running command has written so far.

        :param uuid: server's uuid
        :param command_uuid: command's uuid
        :param stream: ``out`` or ``err``
        :param offset: number of bytes to leave out
        :raises exception.GuestError: the guest did not answer
        """
        with self._asking(uuid) as agent:
            guest = _launcher(agent)
            if not isinstance(guest, posix.PosixLauncher):
                # Other launchers give a command's output with its end.
                return b''
            return guest.output(command_uuid, 'std' + stream, offset)

    def signal(self, uuid: str, command_uuid: str, name: str) -> None:
        """Send a signal to the process group of a command.

        :param uuid: server's uuid
        :param command_uuid: command's uuid
        :param name: one of command.SIGNALS
        :raises exception.StreamRefused: there is no such process group, or
            there are no signals in this guest
        :raises exception.GuestError: the guest did not answer
        """
        with self._asking(uuid) as agent:
            try:
                is_sent = _launcher(agent).signal(command_uuid, name)
            except (
                exception.AgentRefused,
                exception.LauncherUnavailable,
            ) as error:
                raise exception.StreamRefused('unable', str(error)) from None
        if not is_sent:
            raise exception.StreamRefused(
                'unable', 'The command does not run in the guest'
            )

    def resize(
        self, uuid: str, command_uuid: str, columns: int, rows: int
    ) -> None:
        """Set the size of the terminal of a command.

        :param uuid: server's uuid
        :param command_uuid: command's uuid
        :raises exception.StreamRefused: it has none
        :raises exception.GuestError: the guest did not answer
        """
        with self._asking(uuid) as agent:
            try:
                is_set = _launcher(agent).resize(command_uuid, columns, rows)
            except exception.LauncherUnavailable as error:
                raise exception.StreamRefused('unable', str(error)) from None
        if not is_set:
            raise exception.StreamRefused(
                'unable', 'The command has no terminal in the guest now'
            )

    @contextlib.contextmanager
    def _asking(self, uuid: str) -> Iterator[guest_agent.Agent]:
        with self._lock:
            if uuid in self._asked:
                raise exception.AgentBusy(
                    'The guest agent is being asked by another request; ask '
                    'again'
                )
            self._asked.add(uuid)
        try:
            question = _Question(self._guests, self._slots, self._clock)
            question.ping(uuid)
            yield guest_agent.Agent(
                question, uuid, CONF.guest_agent.agent_timeout
            )
        finally:
            with self._lock:
                self._asked.remove(uuid)


class _Question:
    """One question to one guest, as agent calls that each take a slot.

    :param guests: connection to libvirt
    :param slots: slots of all questions
    :param clock: clock that waits are measured with
    """

    def __init__(
        self,
        guests: connection.Connection,
        slots: '_Slots',
        clock: system_clock.Clock,
    ) -> None:
        self._guests = guests
        self._slots = slots
        self._clock = clock
        self._patience = WAIT

    def ping(self, uuid: str) -> None:
        """Ping the agent.

        :raises exception.GuestError: the agent does not answer
        """
        self._call(uuid, lambda: self._guests.ping(uuid))

    def agent_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        """Send a request to the agent; see guest.agent.Caller."""
        return self._call(
            uuid, lambda: self._guests.probe_command(uuid, request, timeout)
        )

    def _call(self, uuid: str, call: Callable[[], _Answer]) -> _Answer:
        asked_at = self._clock.now()
        with self._slots.slot(uuid, self._patience):
            self._patience -= self._clock.now() - asked_at
            return call()


class _Slots:
    """Slots of agent calls, and the guests that may not take the last one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free = SLOTS
        #: A dict for its order: the oldest are forgotten.
        self._suspects: collections.OrderedDict[str, None] = (
            collections.OrderedDict()
        )

    @contextlib.contextmanager
    def slot(self, uuid: str, timeout: float) -> Iterator[None]:
        """Hold a slot for an agent call, and learn from how the call ends.

        :param uuid: server's uuid
        :param timeout: maximum number of seconds to wait for a slot
        :raises exception.AgentBusy: no slot became free in time
        """
        self._take(uuid, timeout)
        is_suspect = False
        try:
            yield
        except _SUSPICIOUS:
            is_suspect = True
            raise
        finally:
            self._give_back(uuid, is_suspect)

    def _take(self, uuid: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._free > (uuid in self._suspects), timeout
            ):
                raise exception.AgentBusy(
                    'The host of the server is busy with questions to other '
                    'guests; ask again'
                )
            self._free -= 1

    def _give_back(self, uuid: str, is_suspect: bool) -> None:
        with self._changed:
            self._free += 1
            self._suspects.pop(uuid, None)
            if is_suspect:
                self._suspects[uuid] = None
            if len(self._suspects) > MAX_SUSPECTS:
                self._suspects.popitem(last=False)
            # All: the first that waits may be a suspect, and have to go on.
            self._changed.notify_all()


def _inspect(agent: guest_agent.Agent, status: rpcapi.AgentStatus) -> None:
    """Fill in what the agent tells, until a call fails.

    :param status: status to fill in
    """
    status['version'] = agent.version()[:MAX_CHARACTERS]
    enabled = agent.info()
    status['supported_commands'] = [
        name[:MAX_CHARACTERS]
        for name, is_enabled in sorted(enabled.items())
        if is_enabled
    ][:MAX_NAMES]
    if enabled.get('guest-get-osinfo'):
        status['os'] = _system(agent)
    types = [
        name for name, call in command.AGENT_CALLS.items() if enabled.get(call)
    ]
    status['command_types'] = types
    guest = _launcher(agent)
    guest.probe()
    status['execution'] = guest.execution
    types.append(command.EXEC)
    if guest.execution == 'guarded' and all(
        enabled.get(f'guest-file-{name}') for name in _FILE_CALLS
    ):
        types.extend(command.TRANSFERS)
    status['unavailable'] = guest.unattachable()


def _launcher(agent: guest_agent.Agent) -> launcher.Launcher:
    return factory.launcher_for(
        agent, allow_direct=CONF.guest_agent.allow_unbounded_capture
    )


def _system(agent: guest_agent.Agent) -> str | None:
    try:
        names = agent.osinfo()
    except exception.AgentRefused:
        # Small guests have no os-release.
        return None
    found = names.get('pretty-name') or names.get('id')
    return str(found)[:MAX_CHARACTERS] if found else None
