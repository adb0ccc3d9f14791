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


"""Accepts commands of every type: checks, bounds and records them."""

import contextlib
from typing import NoReturn

from oslo_db import exception as db_exc
import webob.exc

from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext.api import checks
from guest_agent_ext.api import command_request
from guest_agent_ext.api import errors
from guest_agent_ext.api import idempotency
from guest_agent_ext.api import quota
from guest_agent_ext.api import servers
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


def accept(
    context: nova_types.RequestContext,
    server: nova_types.InstanceMapping,
    uuid: str,
    order: command_request.Order,
    key: idempotency.Key | None = None,
) -> models.Command:
    """Record a command, if its server can run it now or soon.

    :param uuid: uuid of the new command
    :returns: the command, with its output
    :raises oslo_db.exception.DBDuplicateEntry: the key is taken
    :raises webob.exc.HTTPError: the command is refused
    """
    servers.check_project(context)
    find = servers.expected if order.may_wait else servers.read
    instance = find(context, server)
    checks.check(
        context,
        server,
        instance,
        changes=order.changes,
        may_wait=order.may_wait,
    )
    bounds = quota.bounds_of(server)
    with quota.refusals(server, bounds):
        row = _record(
            _row(context, server, instance, uuid, order),
            order.start_timeout,
            key,
            bounds,
        )
    metrics.ACCEPTED.labels(row.type).inc()
    return row


def unknown(uuid: str, key: idempotency.Key | None) -> NoReturn:
    """Answer 503: nobody can tell whether a command is recorded."""
    advice = (
        'Look for it before you ask again'
        if key is None
        else 'Repeat the request with the same %s' % wsgi.IDEMPOTENCY_KEY
    )
    raise webob.exc.HTTPServiceUnavailable(
        explanation='The database did not answer: command %s may have been '
        'accepted. %s.' % (uuid, advice)
    )


def _row(
    context: nova_types.RequestContext,
    server: nova_types.InstanceMapping,
    instance: nova_types.Instance,
    uuid: str,
    order: command_request.Order,
) -> dict[str, object]:
    cell = server.cell_mapping
    return {
        'uuid': uuid,
        'type': order.type,
        'project_id': context.project_id,
        'user_id': context.user_id,
        'request_id': context.request_id,
        'instance_uuid': server.instance_uuid,
        'instance_project_id': server.project_id,
        'cell_uuid': models.NOWHERE if cell is None else cell.uuid,
        'host': instance.host or models.NOWHERE,
        'arguments': order.arguments,
        'inputs': order.inputs,
        'timeout': order.timeout,
        'is_attached': order.is_attached,
    }


def _record(
    values: dict[str, object],
    start_timeout: int,
    key: idempotency.Key | None,
    bounds: commands.Bounds,
) -> models.Command:
    """Insert the row of a command, and return the row.

    :raises oslo_db.exception.DBDuplicateEntry: the key is taken
    :raises exception.TooManyUnfinished: a bound is reached
    :raises webob.exc.HTTPServiceUnavailable: nobody can tell whether the row
        is there, or there is none because the database is too busy
    """
    try:
        return commands.create(
            values,
            start_timeout,
            None if key is None else key.columns(),
            bounds,
        )
    except db_exc.DBConnectionError:
        # The commit may have succeeded all the same: only the row tells.
        uuid = str(values['uuid'])
        return _find(uuid) or unknown(uuid, key)
    except db_exc.DBDeadlock:
        raise webob.exc.HTTPServiceUnavailable(
            explanation='The command could not be recorded: too many of '
            'project %s are being recorded at once; try again'
            % values['instance_project_id'],
            headers=errors.RETRY,
        ) from None


def _find(uuid: str) -> models.Command | None:
    with contextlib.suppress(db_exc.DBConnectionError):
        return commands.get(uuid, with_output=True)
    return None
