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


"""Accepts commands: what is checked, bounded and recorded for every type."""

import contextlib
from typing import Any
from typing import NoReturn

from oslo_db import exception as db_exc
import webob.exc

from guest_agent_ext.api import checks
from guest_agent_ext.api import idempotency
from guest_agent_ext.api import quota
from guest_agent_ext.api import requests
from guest_agent_ext.api import servers
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


def accept(
    context: Any,
    server: Any,
    uuid: str,
    order: requests.Order,
    key: idempotency.Key | None = None,
) -> models.Command:
    """Record a command for a server in which it can run now.

    :param server: nova.objects.InstanceMapping
    :param uuid: that the command is to have
    :returns: the command, with its output
    :raises oslo_db.exception.DBDuplicateEntry: the key is taken
    :raises webob.exc.HTTPError: it is refused
    """
    instance = servers.read(context, server)
    checks.check(context, server, instance, changes=order.changes)
    bounds = quota.Bounds(server)
    bounds.check(new=1)
    row = _record(
        _row(context, server, instance, uuid, order), order.start_timeout, key
    )
    _check_again(bounds, row.uuid, key)
    return row


def unknown(uuid: str, key: idempotency.Key | None) -> NoReturn:
    """Answer that nobody can tell whether a command is recorded."""
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
    context: Any, server: Any, instance: Any, uuid: str, order: requests.Order
) -> dict[str, Any]:
    return {
        'uuid': uuid,
        'type': order.type,
        'project_id': context.project_id,
        'user_id': context.user_id,
        'request_id': context.request_id,
        'instance_uuid': server.instance_uuid,
        'instance_project_id': server.project_id,
        'cell_uuid': server.cell_mapping.uuid,
        'host': instance.host,
        'arguments': order.arguments,
        'inputs': order.inputs,
        'timeout': order.timeout,
    }


def _record(
    values: dict[str, Any], start_timeout: int, key: idempotency.Key | None
) -> models.Command:
    """Record a command, and return what was recorded.

    :raises oslo_db.exception.DBDuplicateEntry: the key is taken
    :raises webob.exc.HTTPServiceUnavailable: nobody can tell whether it is
        recorded
    """
    try:
        return commands.create(
            values, start_timeout, None if key is None else key.columns()
        )
    except db_exc.DBConnectionError:
        # Its commit may have been made all the same: only the row tells.
        return _find(values['uuid']) or unknown(values['uuid'], key)


def _find(uuid: str) -> models.Command | None:
    with contextlib.suppress(db_exc.DBConnectionError):
        return commands.get(uuid, with_output=True)
    return None


def _check_again(
    bounds: quota.Bounds, uuid: str, key: idempotency.Key | None
) -> None:
    """Take a command back if parallel requests have passed a bound.

    Each of them counts after its own commit, so the last one sees all.
    """
    try:
        bounds.check(new=0)
    except webob.exc.HTTPError:
        # It stands if a host was faster: it may be running.
        if commands.withdraw(uuid):
            raise
    except db_exc.DBConnectionError:
        unknown(uuid, key)
