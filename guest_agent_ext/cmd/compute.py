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

"""guest-agent-compute: runs commands in the guests of this host."""

import functools

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import conf
from guest_agent_ext import logs
from guest_agent_ext import metrics
from guest_agent_ext.cmd import exposition
from guest_agent_ext.cmd import options
from guest_agent_ext.cmd import service
from guest_agent_ext.compute import manager
from guest_agent_ext.guest import connection

CONF = conf.CONF


def main() -> int:
    # Only Nova's options are needed: no database, no objects.
    options.parse(configure_db=False, init_rpc=False)
    logging.setup(CONF, 'guest_agent_ext')
    logs.hide_answers()
    service.return_memory()
    guests = connection.Connection(
        conf.connection_uri(CONF), work_calls=CONF.guest_agent.agent_calls
    )
    compute = manager.ComputeManager(
        CONF.host, oslo_messaging.get_rpc_transport(CONF), guests
    )
    _show_metrics(compute)
    service.serve(compute, compute.stopping)
    return 1 if compute.is_fenced else 0


def _show_metrics(compute: manager.ComputeManager) -> None:
    for state in ('well', 'suspect'):
        metrics.LANES.labels(state).set_function(
            functools.partial(compute.count_lanes, suspect=state == 'suspect')
        )
    exposition.start(metrics.COMPUTE, CONF.guest_agent.metrics_bind)
