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

"""Checks that a server is in a state in which commands can run."""

from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext import server_checks
from guest_agent_ext.api import servers
from guest_agent_ext.db import hosts

CONF = conf.CONF


def check(
    context: nova_types.RequestContext,
    mapping: nova_types.InstanceMapping,
    instance: nova_types.Instance,
    *,
    changes: bool = True,
    may_wait: bool = False,
) -> None:
    """Refuse a server in which a command cannot run.

    :param instance: instance, read with system_metadata
    :param changes: whether the command may change the server, which must not
        be locked then
    :param may_wait: whether the command may wait for a server that starts
    :raises webob.exc.HTTPConflict: the server has one of the problems
    """
    cell = mapping.cell_mapping
    problem = server_checks.problem_of(
        instance,
        is_up=lambda host: (
            cell is not None
            and hosts.is_up(
                cell.uuid, host, CONF.guest_agent.service_down_time
            )
        ),
        may_be_locked=context.is_admin or not changes,
        may_wait=may_wait,
    )
    if problem is not None:
        servers.conflict(problem)
