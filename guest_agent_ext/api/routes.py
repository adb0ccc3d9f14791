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

"""Every call of the API, in one table."""

from collections.abc import Sequence
import dataclasses

from guest_agent_ext.api import wsgi
from guest_agent_ext.api.controllers import agent
from guest_agent_ext.api.controllers import commands
from guest_agent_ext.api.controllers import files
from guest_agent_ext.api.controllers import hosts
from guest_agent_ext.api.controllers import metrics
from guest_agent_ext.api.controllers import project_commands
from guest_agent_ext.api.controllers import runs

_AGENT = '/servers/{server_id}/guest-agent'
_COMMANDS = _AGENT + '/commands'
_RUNS = '/guest-agent/runs'
_RUN = _RUNS + '/{run_id}'


@dataclasses.dataclass(frozen=True)
class Route:
    """A call and the controller's method that answers the call.

    :ivar path: path below /v2.1; a project's id may stand before it
    """

    method: str
    path: str
    controller: type[wsgi.Controller]
    action: str
    resource: type[wsgi.Resource] = wsgi.Resource


ROUTES: Sequence[Route] = (
    Route('GET', _AGENT, agent.AgentController, 'show'),
    Route('GET', _AGENT + '/details', agent.AgentController, 'details'),
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
        'act',
    ),
    Route(
        'POST',
        _COMMANDS + '/{command_id}/input',
        commands.CommandsController,
        'input',
        wsgi.RawResource,
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
        project_commands.ProjectCommandsController,
        'index',
    ),
    Route('POST', _RUNS, runs.RunsController, 'create'),
    Route('GET', _RUNS, runs.RunsController, 'index'),
    Route('GET', _RUN, runs.RunsController, 'show'),
    Route('DELETE', _RUN, runs.RunsController, 'delete'),
    Route('GET', _RUN + '/commands', runs.RunsController, 'list_commands'),
    Route('POST', _RUN + '/action', runs.RunsController, 'act'),
    Route('GET', '/guest-agent/hosts', hosts.HostsController, 'index'),
    Route(
        'DELETE', '/guest-agent/hosts/{host}', hosts.HostsController, 'delete'
    ),
    Route('GET', '/guest-agent/metrics', metrics.MetricsController, 'show'),
)


def mapper() -> wsgi.ProjectMapper:
    """Return a mapper of Nova's with our routes only."""
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
