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

"""Finds a server, its instance and its host for a controller.

The mapping of a server is in the API database. Its instance is in its cell,
which may be down.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
from typing import Any
from typing import cast
from typing import NoReturn
from typing import TypeVar

from nova import context as nova_context
from nova import exception as nova_exc
from nova import objects
from oslo_db import exception as db_exc
from oslo_log import log as logging
import oslo_messaging
from oslo_utils import uuidutils
import webob.exc

from guest_agent_ext import breaker
from guest_agent_ext import cells
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext import reads
from guest_agent_ext import rpc
from guest_agent_ext.api import wsgi
from guest_agent_ext.compute import rpcapi

CONF = conf.CONF
LOG = logging.getLogger(__name__)

_Found = TypeVar('_Found')

#: Seconds for which a cell that did not answer is left alone.
RETRY_AFTER = 5.0

_breaker = breaker.Breaker(
    RETRY_AFTER, metrics.BREAKER_TRIPS.labels('database').inc
)


def authorized(
    rule: str, *others: str
) -> Callable[[wsgi.Method], wsgi.Method]:
    """Find the server of a request, and check that its caller may proceed.

    The method is called with ``server``, the server's mapping, in place of
    ``server_id``. This decorator stands above those that check body and query:
    a caller who may not know of a server must not learn from a 400 that the
    server exists.

    :param rule: policy rule, checked for the server's project
    :param others: rules of which one may allow the call instead; the method
        checks which, when it knows the body
    """

    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(
            self: object,
            req: nova_types.Request,
            server_id: str,
            **kwargs: Any,
        ) -> Any:
            context = wsgi.context_of(req)
            server = find(context, server_id)
            if not any(
                policies.allows(context, other, server.project_id)
                for other in others
            ):
                policies.authorize(context, rule, server.project_id)
            return method(self, req=req, server=server, **kwargs)

        return cast(wsgi.Method, wrapper)

    return decorate


def find(
    context: nova_types.RequestContext, server_id: str
) -> nova_types.InstanceMapping:
    """Return the mapping of a server that the caller may know of.

    A server of another project counts as not found, whatever the policy says:
    one careless line there must not open every guest of the cloud.

    :raises webob.exc.HTTPNotFound: there is no such server, or it is another
        project's; the words are the same
    """
    if not uuidutils.is_uuid_like(server_id):
        _not_found(server_id)
    try:
        mapping: nova_types.InstanceMapping = (
            objects.InstanceMapping.get_by_instance_uuid(context, server_id)
        )
    except nova_exc.InstanceMappingNotFound:
        _not_found(server_id)
    if not context.is_admin and mapping.project_id != context.project_id:
        _not_found(server_id)
    return mapping


def check_project(context: nova_types.RequestContext) -> None:
    """Refuse a token that is scoped to a domain, the system or nothing.

    :raises webob.exc.HTTPForbidden: the caller acts for no project
    """
    if context.project_id:
        return
    raise webob.exc.HTTPForbidden(
        explanation='The token is scoped to no project; use one that is '
        'scoped to a project'
    )


def read(
    context: nova_types.RequestContext, mapping: nova_types.InstanceMapping
) -> nova_types.Instance:
    """Read the instance of a server from its cell, with system_metadata.

    :raises webob.exc.HTTPNotFound: the server is deleted
    :raises webob.exc.HTTPConflict: the server is not scheduled yet, or its
        cell does not answer within [guest_agent]cell_timeout
    """
    cell = mapping.cell_mapping
    if cell is None:
        conflict(
            'Server %s is not scheduled yet; it must be ACTIVE'
            % mapping.instance_uuid
        )
    try:
        return in_cell(
            context,
            cell,
            functools.partial(_get, instance_uuid=mapping.instance_uuid),
        )
    except exception.CellIsDown:
        conflict(
            'The cell of server %s is down; try again later'
            % mapping.instance_uuid
        )
    except nova_exc.InstanceNotFound:
        _not_found(mapping.instance_uuid)


def in_cell(
    context: nova_types.RequestContext,
    cell: nova_types.CellMapping,
    find: Callable[[nova_types.RequestContext], _Found],
) -> _Found:
    """Read the database of a cell, and return what was found.

    :param find: function that reads, with a context for the cell
    :raises exception.CellIsDown: the cell does not answer within
        [guest_agent]cell_timeout, or did not a moment ago
    """
    if not _breaker.allows(cell.uuid):
        raise exception.CellIsDown
    cells.follow(cell)
    try:
        found = reads.of(cell.uuid).run(
            functools.partial(_found, find, _targeted(context, cell)),
            CONF.guest_agent.cell_timeout,
        )
    except exception.ReadNotBegun:
        LOG.warning(
            'Cell %(cell)s is not read: it has as many reads under way as it '
            'may have',
            {'cell': cell.uuid},
        )
        raise exception.CellIsDown from None
    except (exception.ReadNotEnded, db_exc.DBError) as exc:
        LOG.warning(
            'Cell %(cell)s does not answer: %(error)r',
            {'cell': cell.uuid, 'error': exc},
        )
        _breaker.failed(cell.uuid)
        raise exception.CellIsDown from None
    except nova_exc.NotFound:
        _breaker.worked(cell.uuid)
        raise
    _breaker.worked(cell.uuid)
    return found


def _found(
    find: Callable[[nova_types.RequestContext], _Found],
    context: nova_types.RequestContext,
) -> _Found:
    # The log lines of this thread name the request, too.
    context.update_store()
    return find(context)


def expected(
    context: nova_types.RequestContext, mapping: nova_types.InstanceMapping
) -> nova_types.Instance:
    """Read the instance of a server, also of one that has no cell yet.

    Such a server is only a request to build it, in Nova's API database. If it
    has got its cell since its mapping was read, the mapping is mended.

    :raises webob.exc.HTTPException: as read() does
    """
    if mapping.cell_mapping is None:
        uuid = mapping.instance_uuid
        with contextlib.suppress(nova_exc.BuildRequestNotFound):
            request = objects.BuildRequest.get_by_instance_uuid(context, uuid)
            instance: nova_types.Instance = request.instance
            return instance
        mapping.cell_mapping = find(context, uuid).cell_mapping
        if mapping.cell_mapping is None:
            _not_found(uuid)
    return read(context, mapping)


def _get(
    context: nova_types.RequestContext, instance_uuid: str
) -> nova_types.Instance:
    instance: nova_types.Instance = objects.Instance.get_by_uuid(
        context, instance_uuid, expected_attrs=['system_metadata']
    )
    return instance


@contextlib.contextmanager
def asked(
    mapping: nova_types.InstanceMapping, host: str
) -> Iterator[rpcapi.ComputeAPI]:
    """Yield the client of guest-agent-compute in a server's cell.

    :param host: name of the host that the block asks
    :raises webob.exc.HTTPConflict: the host does not answer
    """
    assert mapping.cell_mapping is not None
    client = rpcapi.ComputeAPI(transport(mapping.cell_mapping))
    try:
        yield client
    except exception.HostUnreachable as error:
        LOG.warning(
            'Host %(host)s does not answer about server %(server)s: %(error)s',
            {'host': host, 'error': error, 'server': mapping.instance_uuid},
        )
        conflict(rpc.no_answer(mapping.instance_uuid, error))


def transport(cell: nova_types.CellMapping) -> oslo_messaging.Transport:
    """Return Nova's transport to the message queue of a cell."""
    cells.follow(cell)
    # target_cell() would make a context that oslo.log takes for the request's:
    # its lines would name neither request nor user.
    context = nova_context.get_admin_context()
    nova_context.set_target_cell(context, cell)
    return context.mq_connection


def _targeted(
    context: nova_types.RequestContext, cell: nova_types.CellMapping
) -> nova_types.RequestContext:
    """Return a context with the database and message queue of a cell."""
    with nova_context.target_cell(context, cell) as cell_context:
        targeted: nova_types.RequestContext = cell_context
    return targeted


def conflict(explanation: str) -> NoReturn:
    """Answer 409.

    :param explanation: words for the tenant
    """
    raise webob.exc.HTTPConflict(explanation=explanation) from None


def _not_found(server_id: str) -> NoReturn:
    # The words of Nova.
    raise webob.exc.HTTPNotFound(
        explanation='Instance %s could not be found.' % server_id
    ) from None
