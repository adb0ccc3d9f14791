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

"""The extension's two services, as threads of the process that imports this.

They are what ``guest-agent-conductor`` and ``guest-agent-compute`` make, on
the configuration and the message queue that Nova's API has set up here.
"""

import oslo_messaging

from guest_agent_ext import conf
from guest_agent_ext.cmd import service
from guest_agent_ext.compute import manager
from guest_agent_ext.conductor import cells
from guest_agent_ext.guest import connection

CONF = conf.CONF


def services() -> list[service.Service]:
    """Return the services, not yet started."""
    guests = connection.Connection(
        conf.connection_uri(CONF), work_calls=CONF.guest_agent.agent_calls
    )
    return [
        cells.Conductor(CONF.host),
        manager.ComputeManager(
            CONF.host, oslo_messaging.get_rpc_transport(CONF), guests
        ),
    ]
