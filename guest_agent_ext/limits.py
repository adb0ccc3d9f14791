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

"""The number of unfinished commands that a project may have.

Keystone knows the number, or an option.
"""

import functools
from typing import Protocol

from keystoneauth1 import exceptions as ksa_exc
from nova.limit import utils as limit_utils
from openstack import exceptions as sdk_exc
from oslo_limit import exception as limit_exc
from oslo_limit import limit

from guest_agent_ext import conf

CONF = conf.CONF

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


def of_project(project_id: str) -> int | None:
    """Return the maximum number of a project, None for no limit.

    This comes before anything is locked or recorded.

    :raises Exception: one of UNREADABLE: Keystone, which knows the limit, does
        not answer
    """
    bound: int = CONF.guest_agent.max_unfinished_per_project
    if limit_utils.use_unified_limits():
        bound = _unified_limit(project_id)
    return None if bound < 0 else bound


def _unified_limit(project_id: str) -> int:
    """Return the limit that Keystone has for a project, -1 for none."""
    [(_, bound)] = _enforcer().get_project_limits(project_id, [RESOURCE])
    return bound if bound or _is_enforced(project_id) else -1


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
