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

"""The guest-agent-compute services, for admins."""

from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext.api import schemas
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import hosts

CONF = conf.CONF


class HostsController(wsgi.Controller):
    """``/guest-agent/hosts`` and ``/guest-agent/hosts/{host}``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403)
    @policies.authorized(policies.HOSTS_INDEX)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.hosts_response)
    def index(self, req: nova_types.Request) -> dict[str, list[views.View]]:
        """List the services and the number of commands of their hosts."""
        down_time = CONF.guest_agent.service_down_time
        return {
            'hosts': [
                views.host(state, down_time) for state in hosts.list_all()
            ]
        }

    @wsgi.response(204)
    @wsgi.expected_errors(400, 403, 404, 409)
    @policies.authorized(policies.HOSTS_DELETE)
    @validation.query_schema(schemas.host_delete_query)
    @validation.response_body_schema(schemas.no_response)
    def delete(self, req: nova_types.Request, host: str) -> None:
        """Remove a service that is down and has no commands left."""
        hosts.remove(
            host, req.GET.get('cell'), CONF.guest_agent.service_down_time
        )
