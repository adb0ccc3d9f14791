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

"""The metrics of what the database holds.

The database is read periodically, not for each scrape: so scrapes cost it
nothing, and a database that hangs delays none.
"""

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import metrics
from guest_agent_ext.db import totals

CONF = conf.CONF


def show() -> None:
    """Read the totals from the database and set their gauges."""
    found = totals.read(CONF.guest_agent.service_down_time)
    metrics.UNFINISHED.labels(command.PENDING).set(found.pending)
    metrics.UNFINISHED.labels(command.RUNNING).set(found.running)
    metrics.OLDEST_PENDING.set(found.oldest_pending)
    metrics.KEPT.set(found.kept)
    metrics.HOSTS.labels('up').set(found.hosts_up)
    metrics.HOSTS.labels('down').set(found.hosts_down)
    metrics.DATABASE_READ_AT.set_to_current_time()
