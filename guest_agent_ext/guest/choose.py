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

"""Which launcher a guest gets."""

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import direct
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import posix
from guest_agent_ext.guest import windows

_NEEDED = ('guest-exec', 'guest-exec-status')


def launcher_for(
    agent: guest_agent.Agent, *, allow_direct: bool = False
) -> launcher.Launcher:
    """Choose by what the agent allows and by what the guest says it is.

    :param allow_direct: do without a launcher in the guest where none works;
        otherwise its probe tells so
    :raises exception.AgentBusy: its file systems are frozen
    :raises exception.AgentCommandDisabled: the guest does not allow it
    """
    enabled = agent.info()
    if not enabled.get('guest-exec', False) and _is_frozen(agent):
        # For the time of a snapshot nothing but a ping is enabled.
        raise exception.AgentBusy(
            "The server's file systems are frozen for a snapshot"
        )
    for name in _NEEDED:
        if not enabled.get(name, False):
            raise exception.AgentCommandDisabled()
    guarded: launcher.Launcher = posix.PosixLauncher(agent)
    if _system(agent, enabled) == 'mswindows':
        guarded = windows.WindowsLauncher(agent)
    if allow_direct and not _works(guarded):
        return direct.DirectLauncher(agent)
    return guarded


def _works(guarded: launcher.Launcher) -> bool:
    try:
        guarded.probe()
    except exception.LauncherUnavailable:
        return False
    return True


def _is_frozen(agent: guest_agent.Agent) -> bool:
    try:
        return agent.fsfreeze_status() == 'frozen'
    except exception.AgentRefused:
        return False


def _system(agent: guest_agent.Agent, enabled: dict[str, bool]) -> str | None:
    """Return what guest-get-osinfo says, None where it says nothing.

    Small POSIX guests have no os-release; a Windows guest always knows.
    """
    if not enabled.get('guest-get-osinfo', False):
        return None
    try:
        return agent.osinfo().get('id')
    except exception.AgentRefused:
        return None
