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

from collections.abc import Sequence
from typing import Any
from typing import NoReturn

from oslo_db import exception as db_exc
from oslo_utils import uuidutils
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext import policies
from guest_agent_ext.api import doorbell
from guest_agent_ext.api import idempotency
from guest_agent_ext.api import output
from guest_agent_ext.api import pages
from guest_agent_ext.api import raw
from guest_agent_ext.api import recording
from guest_agent_ext.api import requests
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import waiting
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF


class CommandsController(wsgi.Controller):
    """``/servers/{server_id}/guest-agent/commands``

    ``server`` is a nova.objects.InstanceMapping, found by servers.authorized.
    """

    @wsgi.idempotent
    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409, 410, 422, 429, 503)
    @servers.authorized(policies.CREATE)
    @validation.query_schema(schemas.no_query)
    @validation.schema(schemas.create)
    @validation.response_body_schema(schemas.show_response)
    def create(self, req: Any, server: Any, body: dict[str, Any]) -> Any:
        """Record a command, and tell its host."""
        context = req.environ['nova.context']
        asked = requests.exec_of(body)
        key = idempotency.key_of(req, server, body)
        row = _repeated(key) or _accept(context, server, asked, key)
        return _shown(req, server, row)

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @servers.authorized(policies.INDEX)
    @validation.query_schema(schemas.index_query)
    @validation.response_body_schema(schemas.index_response)
    def index(self, req: Any, server: Any) -> dict[str, Any]:
        """List commands, newest first, without their output."""
        before = pages.marked(
            req, 'this server', lambda uuid: _find(server, uuid)
        )

        def read(limit: int) -> Sequence[models.Command]:
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
    def show(self, req: Any, server: Any, command_id: str) -> Any:
        """Show a command with its output."""
        return _shown(req, server, _read(server, command_id, with_output=True))

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404, 409)
    @servers.authorized(policies.OUTPUT)
    @validation.query_schema(schemas.output_query)
    def output(self, req: Any, server: Any, command_id: str) -> Any:
        """Answer what a command has written, also while it runs."""
        row = _read(server, command_id, with_output=True)
        piece = output.read(
            server,
            row,
            req.GET.get('stream', 'out'),
            int(req.GET.get('offset', 0)),
        )
        return raw.response(piece.data, piece.headers())

    @wsgi.response(202)
    @wsgi.expected_errors(400, 403, 404, 409)
    @servers.authorized(policies.CANCEL)
    @validation.query_schema(schemas.no_query)
    @validation.schema(schemas.cancel)
    @validation.response_body_schema(schemas.no_response)
    def cancel(
        self, req: Any, server: Any, command_id: str, body: dict[str, Any]
    ) -> None:
        """Have a command never start, or be killed."""
        row = _read(server, command_id)
        if not commands.cancel(row.uuid):
            _conflict(row.uuid, 'has already ended')
        if row.host and server.cell_mapping is not None:
            doorbell.ring(server.cell_mapping, row.host)

    @wsgi.response(204)
    @wsgi.expected_errors(400, 403, 404, 409)
    @servers.authorized(policies.DELETE)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.no_response)
    def delete(self, req: Any, server: Any, command_id: str) -> None:
        """Delete a command that has ended."""
        row = _read(server, command_id)
        if not commands.delete(row.uuid):
            _conflict(row.uuid, 'has not ended; cancel it first')


def _shown(req: Any, server: Any, row: models.Command) -> Any:
    """Answer a command, once it has ended if the request prefers that."""
    row, headers = waiting.waited(req, row)
    viewer = views.viewer_of(req.environ['nova.context'], server.project_id)
    return wsgi.ResponseObject(
        {'command': views.show(row, viewer)}, headers=headers
    )


def _find(
    server: Any, uuid: str, with_output: bool = False
) -> models.Command | None:
    if not uuidutils.is_uuid_like(uuid):
        return None
    return commands.get(
        uuid, instance_uuid=server.instance_uuid, with_output=with_output
    )


def _read(server: Any, uuid: str, with_output: bool = False) -> models.Command:
    """Return a command of a server.

    :raises webob.exc.HTTPNotFound: it has none of this uuid
    """
    row = _find(server, uuid, with_output)
    if row is None:
        raise webob.exc.HTTPNotFound(
            explanation='Command %s could not be found.' % uuid
        )
    return row


def _conflict(uuid: str, problem: str) -> NoReturn:
    servers.conflict('Command %s %s' % (uuid, problem))


def _repeated(key: idempotency.Key | None) -> models.Command | None:
    """Return the command that a request with this key was accepted as.

    :raises webob.exc.HTTPGone: it has been deleted
    """
    uuid = key.find() if key is not None else None
    if uuid is None:
        return None
    row = commands.get(uuid, with_output=True)
    if row is None:
        idempotency.gone(uuid)
    return row


def _accept(
    context: Any,
    server: Any,
    asked: requests.Order,
    key: idempotency.Key | None,
) -> models.Command:
    uuid = uuidutils.generate_uuid()
    try:
        row = recording.accept(context, server, uuid, asked, key)
    except db_exc.DBDuplicateEntry:
        # Another request with this key was recorded a moment ago; it may have
        # been withdrawn since, by the bounds.
        return _repeated(key) or recording.unknown(uuid, key)
    doorbell.ring(server.cell_mapping, row.host)
    return row
