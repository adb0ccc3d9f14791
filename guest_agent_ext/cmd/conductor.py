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

"""guest-agent-conductor: answers the compute services of all cells."""

import threading

from nova import objects
from oslo_log import log as logging

from guest_agent_ext import conf
from guest_agent_ext import metrics
from guest_agent_ext.cmd import exposition
from guest_agent_ext.cmd import options
from guest_agent_ext.cmd import service
from guest_agent_ext.conductor import cells
from guest_agent_ext.db import session

CONF = conf.CONF

#: Default for the number of connections that are kept to the database of each
#: cell: as many as Nova's engine opens (max_overflow). See db/session.py.
POOL_SIZE = 50


def main() -> int:
    """Run the service, and return its exit status."""
    CONF.set_default('max_pool_size', POOL_SIZE, group='database')
    options.parse()
    logging.setup(CONF, 'guest_agent_ext')
    objects.register_all()
    session.configure(CONF)
    exposition.start(metrics.CONDUCTOR, CONF.guest_agent.metrics_bind)
    service.serve(cells.Conductor(CONF.host), threading.Event())
    return 0
