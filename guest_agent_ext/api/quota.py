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

"""Bounds the unfinished commands of a server and of its project."""

from collections.abc import Iterator
import contextlib

from oslo_log import log as logging
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import limits
from guest_agent_ext import nova_types
from guest_agent_ext.api import errors
from guest_agent_ext.db import commands

CONF = conf.CONF
LOG = logging.getLogger(__name__)


def bounds_of(server: nova_types.InstanceMapping) -> commands.Bounds:
    """Return the bounds of a server and of its project.

    :raises webob.exc.HTTPServiceUnavailable: Keystone, which knows the
        project's, does not answer
    """
    try:
        of_project = limits.of_project(server.project_id)
    except limits.UNREADABLE as error:
        LOG.error("Keystone's limits cannot be read: %s", error)
        raise webob.exc.HTTPServiceUnavailable(
            explanation='The limits of project %s cannot be read; try again '
            'later' % server.project_id,
            headers=errors.RETRY,
        ) from None
    return commands.Bounds(
        CONF.guest_agent.max_unfinished_per_server,
        of_project,
        CONF.guest_agent.max_attached_per_server,
        CONF.guest_agent.max_attached_per_host,
    )


@contextlib.contextmanager
def refusals(
    server: nova_types.InstanceMapping, bounds: commands.Bounds
) -> Iterator[None]:
    """Answer a refusal of the block with the bound that is reached.

    :raises webob.exc.HTTPTooManyRequests: a bound of the server or of its host
        is reached
    :raises webob.exc.HTTPForbidden: the project's bound is reached
    """
    try:
        yield
    except exception.ServerIsFull:
        raise webob.exc.HTTPTooManyRequests(
            explanation='Server %s has %d unfinished commands already, as '
            'many as it may have; wait for one to end, or cancel '
            'one' % (server.instance_uuid, bounds.of_server),
            headers=errors.RETRY,
        ) from None
    except exception.ServerIsAttached:
        raise webob.exc.HTTPTooManyRequests(
            explanation='Server %s has %d unfinished attached commands '
            'already, as many as it may have; end one'
            % (server.instance_uuid, bounds.attached_of_server),
            headers=errors.RETRY,
        ) from None
    except exception.HostIsAttached:
        raise webob.exc.HTTPTooManyRequests(
            explanation='The host of server %s has as many attached commands '
            'as it may have; try again later' % server.instance_uuid,
            headers=errors.RETRY,
        ) from None
    except exception.ProjectIsFull:
        raise webob.exc.HTTPForbidden(
            explanation='Project %s may have %s unfinished commands, and has '
            'them already; wait for one to end, or cancel one'
            % (server.project_id, bounds.of_project)
        ) from None
