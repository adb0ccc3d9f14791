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

"""Every call there is. Read it from top to bottom."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from guest_agent_ext.api import agent
from guest_agent_ext.api import commands
from guest_agent_ext.api import files
from guest_agent_ext.api import hosts
from guest_agent_ext.api import incidents
from guest_agent_ext.api import wsgi

_AGENT = '/servers/{server_id}/guest-agent'
_COMMANDS = _AGENT + '/commands'


@dataclasses.dataclass(frozen=True)
class Route:
    """A call: which method of which controller answers it.

    :param path: below /v2.1; a project's id may stand before it
    """

    method: str
    path: str
    controller: type[Any]
    action: str
    resource: type[Any] = wsgi.Resource


ROUTES: Sequence[Route] = (
    Route('GET', _AGENT, agent.AgentController, 'show'),
    Route('POST', _COMMANDS, commands.CommandsController, 'create'),
    Route('GET', _COMMANDS, commands.CommandsController, 'index'),
    Route(
        'GET', _COMMANDS + '/{command_id}', commands.CommandsController, 'show'
    ),
    Route(
        'DELETE',
        _COMMANDS + '/{command_id}',
        commands.CommandsController,
        'delete',
    ),
    Route(
        'GET',
        _COMMANDS + '/{command_id}/output',
        commands.CommandsController,
        'output',
    ),
    Route(
        'POST',
        _COMMANDS + '/{command_id}/action',
        commands.CommandsController,
        'cancel',
    ),
    Route(
        'GET',
        _AGENT + '/file-read',
        files.FilesController,
        'read',
        wsgi.RawResource,
    ),
    Route(
        'POST',
        _AGENT + '/file-write',
        files.FilesController,
        'write',
        wsgi.RawResource,
    ),
    Route(
        'GET',
        '/guest-agent/commands',
        incidents.AllCommandsController,
        'index',
    ),
    Route('GET', '/guest-agent/hosts', hosts.HostsController, 'index'),
)


def mapper() -> Any:
    """Return Nova's mapper with our routes and no others."""
    found = wsgi.ProjectMapper()
    for route in ROUTES:
        found.create_route(
            route.path,
            route.method,
            route.resource(route.controller()),
            route.action,
        )
    found.create_regs([])
    return found
