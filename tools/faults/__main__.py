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

"""python -m tools.faults --seed N --runs M [--first K]

Replays M schedules of faults and prints what came of them. Its exit code is 1
if anything that must hold did not.
"""

import argparse
import pathlib
import signal
import sys
import tempfile

from tools.faults import runner
from tools.faults import world as fault_world
from tools.testbed import processes

_ROOT = pathlib.Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog='make faults')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--runs', type=int, default=1)
    parser.add_argument(
        '--first', type=int, default=0, help='the number of the first run'
    )
    arguments = parser.parse_args()
    processes.take_ignored_signals()
    # Ended like this too it leaves nothing running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Short: libvirtd's sockets are in it.
    directory = pathlib.Path(tempfile.mkdtemp(prefix='faults-'))
    print(f'Logs are in {directory}', flush=True)
    total = runner.Total()
    with fault_world.running(directory, _ROOT / '.cache') as world:
        for run in range(arguments.first, arguments.first + arguments.runs):
            total.add(runner.run(world, arguments.seed, run))
        total.broken += runner.check_rest(world, total)
    print(total.report())
    return 1 if total.broken else 0


sys.exit(main())
