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

"""Many compute services in one process, with guests that answer at once.

Run as ``python -m benchmarks.simulated CONFIGURATION FIRST COUNT``, with
standin/ in PYTHONPATH. The services are the real ones, each with its queue;
they share what a process has, above all its interpreter.
"""

import signal
import sys
import threading

from nova import config
from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import conf
from guest_agent_ext.compute import manager
from guest_agent_ext.guest import connection

CONF = conf.CONF


def name(number: int) -> str:
    """Return the name of a simulated host."""
    return f'simulated-{number}'


def main() -> None:
    configuration, first, count = sys.argv[1:]
    config.parse_args(
        ['simulated', '--config-file', configuration],
        configure_db=False,
        init_rpc=False,
    )
    logging.setup(CONF, 'guest_agent_ext')
    transport = oslo_messaging.get_rpc_transport(CONF)
    guests = connection.Connection('', 8)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    for number in range(int(first), int(first) + int(count)):
        manager.ComputeManager(name(number), transport, guests).start()
        # As hosts do not start in one moment.
        stopping.wait(0.02)
    stopping.wait()


if __name__ == '__main__':
    main()
