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

"""A command beside 100,000 that wait for another server of its host.

The other guest's agent is stopped, so that none of them ends meanwhile.
"""

import time

from benchmarks import clouds
from benchmarks import command
from benchmarks import hung
from benchmarks import measure
from benchmarks import rows
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd

COMMANDS = 60
WAITING = 100_000
#: Seconds that the commands may wait, and that the agent is stopped.
START_TIMEOUT = 86_400
STOPPED = 3_600


def run() -> measure.Report:
    report = measure.Report(f'A command beside {WAITING:,} that wait')
    with clouds.running() as cloud:
        other = cloud.add(libvirtd.Guest())
        command.waited(cloud.client())
        report.series = [
            measure.Series('a command, host idle', 'ms', taken(cloud))
        ]
        assert other.sh(hung.STOP % STOPPED)['status'] == 'COMPLETED'
        # The agent is stopped some seconds later.
        time.sleep(5)
        uuid = other.start('/bin/true', start_timeout=START_TIMEOUT)
        # They fill the quota of another project.
        rows.copy(
            cloud.mariadb,
            uuid,
            WAITING,
            {'uuid': 'UUID()', 'instance_project_id': "'another'"},
        )
        report.series.append(
            measure.Series(f'a command, {WAITING:,} wait', 'ms', taken(cloud))
        )
    idle, beside = report.series
    report.goals = [
        measure.Goal(
            'seconds that p95 grew',
            (beside.quantile(95) - idle.quantile(95)) / 1000,
            1.0,
        )
    ]
    return report


def taken(cloud: testbed_cloud.Cloud) -> list[float]:
    """Return how long commands took, from POST to end, in milliseconds."""
    client = cloud.client()
    return [
        measure.timed(lambda: command.waited(client)) for _ in range(COMMANDS)
    ]


if __name__ == '__main__':
    print(run().as_text())
