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

"""What nova-api wants to know of a guest now, beside what its lane does.

These calls hold a thread of the RPC server while the guest answers, so they
are few at once, and a guest that hangs is left after a ping.
"""

import base64
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import threading
from typing import Any

from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import choose
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import posix

CONF = conf.CONF

#: Guests asked at once: half of connection.PROBES, the rest is for lanes.
PLACES = 2
#: Seconds that a call waits for such a place.
WAIT = 5.0
#: What of a guest's words is passed on: its root may say anything.
MAX_NAMES = 512
MAX_CHARACTERS = 255


class Inquiries:
    """Asks the guests of a host.

    :param guests: the connection to libvirt
    """

    def __init__(self, guests: connection.Connection) -> None:
        self._guests = guests
        self._places = threading.BoundedSemaphore(PLACES)

    def agent_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        """Take a request to an agent; see guest.agent.Caller."""
        return self._guests.probe_command(uuid, request, timeout)

    def agent_status(self, uuid: str) -> rpcapi.AgentStatus:
        """Tell whether commands can be run in a guest, and what it is."""
        status = rpcapi.unavailable(None)
        try:
            with self._asking(uuid) as agent:
                _inspect(agent, status)
        except exception.GuestError as error:
            status['reason'] = str(error)
        return status

    def read_output(
        self, uuid: str, command_uuid: str, stream: str, offset: int
    ) -> rpcapi.Output:
        """Read what a running command has written so far."""
        try:
            with self._asking(uuid) as agent:
                data = _read(agent, command_uuid, stream, offset)
        except exception.GuestError as error:
            return {'data': '', 'reason': str(error)}
        return {'data': base64.b64encode(data).decode(), 'reason': None}

    @contextlib.contextmanager
    def _asking(self, uuid: str) -> Iterator[guest_agent.Agent]:
        if not self._places.acquire(timeout=WAIT):
            raise exception.AgentBusy(
                'The host of the server is busy with questions to other '
                'guests; ask again'
            )
        try:
            self._guests.ping(uuid)
            yield guest_agent.Agent(self, uuid, CONF.guest_agent.agent_timeout)
        finally:
            self._places.release()


def _read(
    agent: guest_agent.Agent, command_uuid: str, stream: str, offset: int
) -> bytes:
    guest = _launcher(agent)
    if not isinstance(guest, posix.PosixLauncher):
        # Other launchers give a command's output with its end.
        return b''
    return guest.output(command_uuid, 'std' + stream, offset)


def _inspect(agent: guest_agent.Agent, status: rpcapi.AgentStatus) -> None:
    """Fill in what the agent tells, until something stands in the way."""
    status['version'] = agent.version()[:MAX_CHARACTERS]
    enabled = agent.info()
    status['supported_commands'] = [
        name[:MAX_CHARACTERS]
        for name, is_enabled in sorted(enabled.items())
        if is_enabled
    ][:MAX_NAMES]
    if enabled.get('guest-get-osinfo'):
        status['os'] = _system(agent)
    status['execution'] = _launcher(agent).execution


def _launcher(agent: guest_agent.Agent) -> launcher.Launcher:
    return choose.launcher_for(
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
