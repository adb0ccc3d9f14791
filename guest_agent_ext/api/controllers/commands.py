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

"""The commands of a server."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from oslo_db import exception as db_exc
from oslo_utils import uuidutils
import webob
import webob.exc

from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext.api import acceptance
from guest_agent_ext.api import command_request
from guest_agent_ext.api import doorbell
from guest_agent_ext.api import idempotency
from guest_agent_ext.api import output
from guest_agent_ext.api import pages
from guest_agent_ext.api import raw
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import streams
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import waiting
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


class CommandsController(wsgi.Controller):
    """``/servers/{server_id}/guest-agent/commands``"""

    @wsgi.idempotent
    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409, 410, 422, 429, 503)
    @servers.authorized(policies.CREATE, *policies.CREATE_RULES.values())
    @validation.query_schema(schemas.no_query)
    @validation.schema(schemas.create)
    @validation.response_body_schema(schemas.show_response)
    def create(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        body: command_request.Body,
    ) -> wsgi.ResponseObject:
        """Run a command in a server."""
        policies.authorize(
            wsgi.context_of(req),
            policies.CREATE_RULES[body['command']['type']],
            server.project_id,
        )
        order = command_request.order_of(body['command'])
        key = idempotency.key_of(req, server.instance_uuid, body)
        row = _repeated(key) or _accept(
            wsgi.context_of(req), server, order, key
        )
        return _shown(req, server, row)

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @servers.authorized(policies.INDEX)
    @validation.query_schema(schemas.index_query)
    @validation.response_body_schema(schemas.index_response)
    def index(
        self, req: nova_types.Request, server: nova_types.InstanceMapping
    ) -> pages.Page:
        """List the commands of a server, newest first, without output."""
        before = pages.marked(
            req, 'this server', lambda uuid: _find(server, uuid)
        )

        def read(limit: int) -> commands.Page:
            return commands.list_of_instance(
                server.instance_uuid,
                limit=limit,
                before=before,
                statuses=req.GET.getall('status'),
                types=req.GET.getall('type'),
            )

        return pages.page(
            req, 'servers/%s/guest-agent/commands' % server.instance_uuid, read
        )

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @servers.authorized(policies.SHOW)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.show_response)
    def show(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        command_id: str,
    ) -> wsgi.ResponseObject:
        """Show a command with its output."""
        return _shown(req, server, _read(server, command_id, with_output=True))

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409, 410, 503)
    @servers.authorized(policies.OUTPUT)
    @validation.query_schema(schemas.output_query)
    def output(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        command_id: str,
    ) -> webob.Response:
        """Read what a command has written, also while the command runs."""
        row = _read(server, command_id, with_output=True)
        stream = req.GET.get('stream') or 'out'
        offset = int(req.GET.get('offset') or 0)
        if row.is_attached:
            piece = streams.read(req, server, row, stream, offset)
        else:
            piece = output.read(server, row, stream, offset)
        return raw.response(piece.data, piece.headers())

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409, 410, 411, 413, 503)
    @servers.authorized(policies.INPUT)
    @validation.query_schema(schemas.input_query)
    @validation.response_body_schema(schemas.input_response)
    def input(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        command_id: str,
    ) -> dict[str, object]:
        """Send input to an attached command."""
        row = _read(server, command_id)
        accepted = streams.write(req, server, row)
        return {
            'input': {
                'next_offset': accepted.next_offset,
                'end': accepted.is_closed,
            }
        }

    @wsgi.response(202)
    @wsgi.expected_errors(400, 403, 404, 409, 503)
    @servers.authorized(policies.CANCEL)
    @validation.query_schema(schemas.no_query)
    @validation.schema(schemas.action)
    @validation.response_body_schema(schemas.no_response)
    def act(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        command_id: str,
        body: dict[str, Any],
    ) -> None:
        """Cancel a command, send it a signal, or resize its terminal.

        To cancel is to kill its processes, or never to start the command.
        """
        [action] = body
        if action != 'cancel':
            policies.authorize(
                wsgi.context_of(req), policies.SIGNAL, server.project_id
            )
        row = _read(server, command_id)
        _ACTIONS[action](server, row, body[action])

    @wsgi.response(204)
    @wsgi.expected_errors(400, 403, 404, 409)
    @servers.authorized(policies.DELETE)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.no_response)
    def delete(
        self,
        req: nova_types.Request,
        server: nova_types.InstanceMapping,
        command_id: str,
    ) -> None:
        """Delete a command that has ended."""
        row = _read(server, command_id)
        if not commands.delete(row.uuid):
            servers.conflict(
                'Command %s has not ended; cancel it first' % row.uuid
            )


def _cancel(
    server: nova_types.InstanceMapping, row: models.Command, _: None
) -> None:
    if not commands.cancel(row.uuid):
        servers.conflict('Command %s has already ended' % row.uuid)
    _ring(server, row)


_ACTIONS: Mapping[
    str, Callable[[nova_types.InstanceMapping, models.Command, Any], None]
] = {'cancel': _cancel, 'resize': streams.resize, 'signal': streams.signal}


def _shown(
    req: nova_types.Request,
    server: nova_types.InstanceMapping,
    row: models.Command,
) -> wsgi.ResponseObject:
    """Answer a command, after a wait for its end if the request prefers."""
    row, headers = waiting.waited(req, row)
    viewer = views.viewer_of(wsgi.context_of(req), server.project_id)
    return wsgi.ResponseObject(
        {'command': views.show(row, viewer)}, headers=headers
    )


def _find(
    server: nova_types.InstanceMapping, uuid: str, with_output: bool = False
) -> models.Command | None:
    if not uuidutils.is_uuid_like(uuid):
        return None
    return commands.get(
        uuid, instance_uuid=server.instance_uuid, with_output=with_output
    )


def _read(
    server: nova_types.InstanceMapping, uuid: str, with_output: bool = False
) -> models.Command:
    """Return a command of a server.

    :raises webob.exc.HTTPNotFound: the server has no such command
    """
    row = _find(server, uuid, with_output)
    if row is None:
        raise webob.exc.HTTPNotFound(
            explanation='Command %s could not be found.' % uuid
        )
    return row


def _repeated(key: idempotency.Key | None) -> models.Command | None:
    """Return the command that was accepted with a key before, if any.

    :raises webob.exc.HTTPGone: the command has been deleted
    """
    if key is None or (uuid := key.find()) is None:
        return None
    return commands.get(uuid, with_output=True) or key.gone(uuid)


def _accept(
    context: nova_types.RequestContext,
    server: nova_types.InstanceMapping,
    order: command_request.Order,
    key: idempotency.Key | None,
) -> models.Command:
    uuid = uuidutils.generate_uuid()
    try:
        row = acceptance.accept(context, server, uuid, order, key)
    except db_exc.DBDuplicateEntry:
        # Another request with this key was recorded a moment ago.
        return _repeated(key) or acceptance.unknown(uuid, key)
    _ring(server, row)
    return row


def _ring(server: nova_types.InstanceMapping, row: models.Command) -> None:
    if row.host != models.NOWHERE and server.cell_mapping is not None:
        doorbell.ring(server.cell_mapping, row.host)
