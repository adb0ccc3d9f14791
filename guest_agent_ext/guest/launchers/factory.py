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

"""The choice of a launcher for a guest."""

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest.launchers import base
from guest_agent_ext.guest.launchers import direct
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import windows

_NEEDED = ('guest-exec', 'guest-exec-status')


def launcher_for(
    agent: guest_agent.Agent, *, allow_direct: bool = False
) -> base.Launcher:
    """Choose a launcher by the guest's system and the calls of its agent.

    :param allow_direct: permission to return a DirectLauncher if no launcher
        works in the guest; without it the launcher's probe() raises
    :raises exception.AgentBusy: the guest's file systems are frozen
    :raises exception.AgentCommandDisabled: the guest does not let its agent
        start programs
    """
    enabled = agent.info()
    if not enabled.get('guest-exec', False) and agent.is_frozen():
        # During a snapshot only a ping is enabled.
        raise exception.AgentBusy(guest_agent.FROZEN)
    for name in _NEEDED:
        if not enabled.get(name, False):
            raise exception.AgentCommandDisabled()
    guarded: base.Launcher = posix.PosixLauncher(agent)
    if _system(agent, enabled) == 'mswindows':
        guarded = windows.WindowsLauncher(agent)
    if allow_direct and not _works(guarded):
        return direct.DirectLauncher(agent)
    return guarded


def _works(guarded: base.Launcher) -> bool:
    try:
        guarded.probe()
    except exception.LauncherUnavailable:
        return False
    return True


def _system(agent: guest_agent.Agent, enabled: dict[str, bool]) -> str | None:
    """Return the id of the guest's operating system, None if not known.

    Small POSIX guests have no os-release file; a Windows guest always knows.
    """
    if not enabled.get('guest-get-osinfo', False):
        return None
    try:
        return agent.osinfo().get('id')
    except exception.AgentRefused:
        return None
