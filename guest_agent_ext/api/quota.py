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
import functools
from typing import Protocol

from keystoneauth1 import exceptions as ksa_exc
from nova.limit import utils as limit_utils
from openstack import exceptions as sdk_exc
from oslo_limit import exception as limit_exc
from oslo_limit import limit
from oslo_log import log as logging
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import nova_types
from guest_agent_ext.api import errors
from guest_agent_ext.db import commands

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: The resource of Keystone's unified limits.
RESOURCE = 'guest_agent_commands'
#: Errors that oslo.limit lets through when Keystone cannot be asked; a
#: ValueError when [oslo_limit] names an endpoint that does not exist.
UNREADABLE = (
    limit_exc.SessionInitError,
    ksa_exc.ClientException,
    sdk_exc.SDKException,
    ValueError,
)


class _Enforcer(Protocol):
    def get_project_limits(
        self, project_id: str, resources: list[str]
    ) -> list[tuple[str, int]]:
        """Return each resource with its limit."""


def bounds_of(server: nova_types.InstanceMapping) -> commands.Bounds:
    """Return the bounds of a server and of its project.

    :raises webob.exc.HTTPServiceUnavailable: Keystone, which knows the
        project's, does not answer
    """
    if not limit_utils.use_unified_limits():
        of_project = CONF.guest_agent.max_unfinished_per_project
    else:
        of_project = _unified_limit(server.project_id)
    return commands.Bounds(
        CONF.guest_agent.max_unfinished_per_server,
        None if of_project < 0 else of_project,
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


def _unified_limit(project_id: str) -> int:
    """Return the limit that Keystone has for a project, -1 for none.

    This comes before anything is locked or recorded.
    """
    try:
        [(_, bound)] = _enforcer().get_project_limits(project_id, [RESOURCE])
        return bound if bound or _is_enforced(project_id) else -1
    except UNREADABLE as error:
        LOG.error("Keystone's limits cannot be read: %s", error)
        raise webob.exc.HTTPServiceUnavailable(
            explanation='The limits of project %s cannot be read; try again '
            'later' % project_id,
            headers=errors.RETRY,
        ) from None


def _is_enforced(project_id: str) -> bool:
    """Return whether a limit of 0 holds.

    oslo.limit returns 0 also for a limit that is not registered; Nova has an
    option for what that means.
    """
    passed = limit_exc.ProjectOverLimit(
        project_id, [limit_exc.OverLimitInfo(RESOURCE, 0, 0, 1)]
    )
    return bool(limit_utils.should_enforce(passed))


@functools.cache
def _enforcer() -> _Enforcer:
    """Return oslo.limit's client of Keystone.

    There is one: the limit model and Nova's endpoint, which are the same for
    all of the cloud, are read once. The limits are read at each call.
    """
    # It counts nothing: the database compares usage and limit.
    enforcer: _Enforcer = limit.Enforcer(
        lambda project_id, names: {}, cache=False
    )
    return enforcer
