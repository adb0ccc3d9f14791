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

"""The guest agent of a server."""

from typing import Any

from oslo_log import log as logging
import oslo_messaging
import webob.exc

from guest_agent_ext import policies
from guest_agent_ext.api import checks
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import wsgi
from guest_agent_ext.compute import rpcapi

LOG = logging.getLogger(__name__)


class AgentController(wsgi.Controller):
    """``/servers/{server_id}/guest-agent``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @servers.authorized(policies.AGENT_SHOW)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.agent_response)
    def show(self, req: Any, server: Any) -> dict[str, Any]:
        """Show whether commands can be run in a server, or why not."""
        context = req.environ['nova.context']
        return {'guest_agent': views.agent(_status(context, server))}


def _status(context: Any, server: Any) -> rpcapi.AgentStatus:
    try:
        instance = servers.read(context, server)
        checks.check(context, server, instance)
        return _ask(server, instance.host)
    except webob.exc.HTTPConflict as refusal:
        # What a command would be refused with.
        return rpcapi.unavailable(str(refusal.explanation))


def _ask(server: Any, host: str) -> rpcapi.AgentStatus:
    guests = rpcapi.ComputeAPI(servers.transport(server.cell_mapping))
    try:
        return guests.agent_status(host, server.instance_uuid)
    except oslo_messaging.MessagingException as error:
        LOG.warning(
            'Host %(host)s does not tell of a guest agent: %(error)s',
            {'host': host, 'error': error},
        )
        servers.conflict(
            'The guest agent service of the host of server %s does not '
            'answer; try again later' % server.instance_uuid
        )
