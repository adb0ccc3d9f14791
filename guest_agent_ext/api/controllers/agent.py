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

from collections.abc import Sequence

import webob.exc

from guest_agent_ext import details
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext.api import checks
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import wsgi
from guest_agent_ext.compute import rpcapi


class AgentController(wsgi.Controller):
    """``/servers/{server_id}/guest-agent``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @servers.authorized(policies.AGENT_SHOW)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.agent_response)
    def show(
        self, req: nova_types.Request, server: nova_types.InstanceMapping
    ) -> dict[str, views.View]:
        """Show whether commands can run in a server, or why not."""
        status = _status(wsgi.context_of(req), server)
        return {'guest_agent': views.agent(status)}

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409)
    @servers.authorized(policies.DETAILS)
    @validation.query_schema(schemas.details_query)
    @validation.response_body_schema(schemas.details_response)
    def details(
        self, req: nova_types.Request, server: nova_types.InstanceMapping
    ) -> dict[str, views.View]:
        """Show what the guest agent of a server tells of the guest."""
        user = req.GET.get('user')
        names = req.GET.get('fields')
        fields = (
            [name for name in details.PARTS if name != details.SSH_KEYS]
            if names is None
            else names.split(',')
        )
        if user is not None and names is None:
            fields.append(details.SSH_KEYS)
        answer = _details(wsgi.context_of(req), server, fields, user)
        return {'guest_agent_details': views.details(answer)}


def _details(
    context: nova_types.RequestContext,
    server: nova_types.InstanceMapping,
    fields: Sequence[str],
    user: str | None,
) -> rpcapi.Details:
    instance = servers.read(context, server)
    checks.check(context, server, instance, changes=False)
    # Checked just now.
    assert instance.host is not None
    with servers.asked(server, instance.host) as host:
        answer = host.agent_details(
            instance.host, server.instance_uuid, fields, user
        )
    if answer['reason'] is not None:
        servers.conflict(answer['reason'])
    return answer


def _status(
    context: nova_types.RequestContext, server: nova_types.InstanceMapping
) -> rpcapi.AgentStatus:
    try:
        instance = servers.read(context, server)
        checks.check(context, server, instance)
        # Checked just now.
        assert instance.host is not None
        with servers.asked(server, instance.host) as host:
            return host.agent_status(instance.host, server.instance_uuid)
    except webob.exc.HTTPConflict as refusal:
        # A command would be refused with the same words.
        return rpcapi.unavailable(str(refusal.explanation))
