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

"""Nova's servers, as our controllers see them.

A server is known by its mapping in the API database. The server itself is in
its cell, which may be down.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import cast
from typing import NoReturn

from nova import context as nova_context
from nova import exception
from nova import objects
from oslo_db import exception as db_exc
from oslo_utils import uuidutils
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext import policies
from guest_agent_ext.api import breaker
from guest_agent_ext.api import wsgi

CONF = conf.CONF

#: Seconds for which a cell is not asked after it did not answer.
RETRY_AFTER = 5.0

_breaker = breaker.Breaker(RETRY_AFTER)


def authorized(rule: str) -> Callable[[wsgi.Method], wsgi.Method]:
    """Have a method called with the server, if its caller may.

    It stands above what checks body and query, so that who may not know of a
    server learns nothing of it from a 400.

    :param rule: the policy rule, asked about the server's project
    """

    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(self: Any, req: Any, server_id: str, **kwargs: Any) -> Any:
            context = req.environ['nova.context']
            server = find(context, server_id)
            policies.authorize(context, rule, server.project_id)
            return method(self, req=req, server=server, **kwargs)

        return cast(wsgi.Method, wrapper)

    return decorate


def find(context: Any, server_id: str) -> Any:
    """Return the mapping of a server that its caller may know of.

    Another project's server does not exist, whatever the policy says: one
    careless line there must not open every guest of the cloud.

    :returns: nova.objects.InstanceMapping
    :raises webob.exc.HTTPNotFound: in both cases with the same words
    """
    if not uuidutils.is_uuid_like(server_id):
        _not_found(server_id)
    try:
        mapping = objects.InstanceMapping.get_by_instance_uuid(
            context, server_id
        )
    except exception.InstanceMappingNotFound:
        _not_found(server_id)
    if not context.is_admin and mapping.project_id != context.project_id:
        _not_found(server_id)
    return mapping


def read(context: Any, mapping: Any) -> Any:
    """Return a server from its cell.

    :param mapping: nova.objects.InstanceMapping
    :returns: nova.objects.Instance with its system_metadata
    :raises webob.exc.HTTPNotFound: it is deleted
    :raises webob.exc.HTTPConflict: it is in no cell yet, or its cell does not
        answer within [guest_agent]cell_timeout
    """
    cell = mapping.cell_mapping
    if cell is None:
        conflict(
            'Server %s is not scheduled yet; it must be ACTIVE'
            % mapping.instance_uuid
        )
    if not _breaker.allows(cell.uuid):
        _cell_is_down(mapping)
    found = nova_context.scatter_gather_cells(
        context,
        [cell],
        CONF.guest_agent.cell_timeout,
        objects.Instance.get_by_uuid,
        mapping.instance_uuid,
        expected_attrs=['system_metadata'],
    )[cell.uuid]
    if found is nova_context.did_not_respond_sentinel or isinstance(
        found, db_exc.DBError
    ):
        _breaker.failed(cell.uuid)
        _cell_is_down(mapping)
    _breaker.worked(cell.uuid)
    if isinstance(found, exception.InstanceNotFound):
        _not_found(mapping.instance_uuid)
    if isinstance(found, Exception):
        raise found
    return found


def transport(cell: Any) -> Any:
    """Return the transport that Nova has to the message queue of a cell."""
    context = nova_context.get_admin_context()
    with nova_context.target_cell(context, cell) as cell_context:
        return cell_context.mq_connection


def conflict(explanation: str) -> NoReturn:
    """Answer 409."""
    raise webob.exc.HTTPConflict(explanation=explanation) from None


def _not_found(server_id: str) -> NoReturn:
    # The words of Nova.
    raise webob.exc.HTTPNotFound(
        explanation='Instance %s could not be found.' % server_id
    ) from None


def _cell_is_down(mapping: Any) -> NoReturn:
    conflict(
        'The cell of server %s is down; try again later'
        % mapping.instance_uuid
    )
