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

"""How many unfinished commands a server and its project may have."""

import functools
from typing import Any

from keystoneauth1 import exceptions as ksa_exc
from nova.limit import utils as limit_utils
from openstack import exceptions as sdk_exc
from oslo_limit import exception as limit_exc
from oslo_limit import limit
from oslo_log import log as logging
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext.db import commands

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: The resource of Keystone's unified limits.
RESOURCE = 'guest_agent_commands'
#: Seconds after which it is worth asking again.
_RETRY = {'Retry-After': '5'}

#: What oslo.limit lets through where Keystone cannot be asked; a ValueError
#: where [oslo_limit] names no endpoint that there is.
UNREADABLE = (
    limit_exc.SessionInitError,
    ksa_exc.ClientException,
    sdk_exc.SDKException,
    ValueError,
)


class Bounds:
    """The bounds of a server and its project, for one request.

    :param server: nova.objects.InstanceMapping
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        #: Kept: what Keystone said holds for the second check too.
        self._limit: int | None = None

    def check(self, new: int) -> None:
        """Refuse more commands than there may be.

        :param new: how many are to come beside those recorded
        :raises webob.exc.HTTPTooManyRequests: the server has too many
        :raises webob.exc.HTTPForbidden: its project has too many
        :raises webob.exc.HTTPServiceUnavailable: Keystone, which knows how
            many the project may have, does not say
        """
        of_server, of_project = commands.count_unfinished(
            self._server.project_id, self._server.instance_uuid
        )
        self._check_server(of_server + new)
        if limit_utils.use_unified_limits():
            self._check_unified(of_project, new)
        else:
            self._check_project(of_project + new)

    def _check_server(self, number: int) -> None:
        bound = CONF.guest_agent.max_unfinished_per_server
        if number <= bound:
            return
        raise webob.exc.HTTPTooManyRequests(
            explanation='Server %s has %d unfinished commands already, as '
            'many as it may have; wait for one to end, or cancel '
            'one' % (self._server.instance_uuid, bound),
            headers=_RETRY,
        )

    def _check_project(self, number: int) -> None:
        bound = CONF.guest_agent.max_unfinished_per_project
        if 0 <= bound < number:
            self._refuse_project(bound)

    def _check_unified(self, used: int, new: int) -> None:
        try:
            bound = self._passed_limit(used, new)
        except UNREADABLE as error:
            LOG.error("Keystone's limits cannot be read: %s", error)
            raise webob.exc.HTTPServiceUnavailable(
                explanation='The limits of project %s cannot be read; try '
                'again later' % self._server.project_id,
                headers=_RETRY,
            ) from None
        if bound is not None:
            self._refuse_project(bound)

    def _passed_limit(self, used: int, new: int) -> int | None:
        """Return the limit that the project would pass, None if it would not.

        Nova decides about a limit that is not registered.
        """
        bound = self._unified_limit()
        if bound < 0 or used + new <= bound:
            return None
        passed = limit_exc.ProjectOverLimit(
            self._server.project_id,
            [limit_exc.OverLimitInfo(RESOURCE, bound, used, new)],
        )
        return bound if limit_utils.should_enforce(passed) else None

    def _unified_limit(self) -> int:
        """Return how many the project may have; -1 is any number."""
        if self._limit is None:
            [(_, self._limit)] = _enforcer().get_project_limits(
                self._server.project_id, [RESOURCE]
            )
        return self._limit

    def _refuse_project(self, bound: int) -> None:
        raise webob.exc.HTTPForbidden(
            explanation='Project %s may have %d unfinished commands, and has '
            'them already; wait for one to end, or cancel one'
            % (self._server.project_id, bound)
        )


@functools.cache
def _enforcer() -> Any:
    """Return what asks Keystone for limits.

    Made once: it asks for the model and for Nova's endpoint, which are the
    cloud's. The limits themselves are asked for anew each time.
    """
    return limit.Enforcer(_no_usage, cache=False)


def _no_usage(project_id: str | None, names: Any) -> dict[str, int]:
    """Say nothing of what is used: we compare, after each of two counts."""
    return {}
