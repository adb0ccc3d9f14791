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

"""One command, end to end: ``/bin/true`` in a guest.

In each round it runs once by each way into the same guest. Nova's own
os-getConsoleOutput goes with them, the shortest way of a request to a compute
host and back; nova-compute is stood in for, its answer is ready at once.
"""

from collections.abc import Callable
import json
import pathlib
import tempfile

from benchmarks import bare
from benchmarks import clouds
from benchmarks import measure
from benchmarks import neighbours
from benchmarks import ssh
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest.launchers import posix
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd

ROUNDS = 30


def run() -> measure.Report:
    report = measure.Report('One command, end to end')
    with clouds.running() as cloud, tempfile.TemporaryDirectory() as directory:
        way_in = ssh.Ssh(pathlib.Path(directory))
        guest = libvirtd.Guest(ssh=way_in.guest)
        client = cloud.add(guest)
        way_in.wait()
        with neighbours.nova_compute(cloud.rabbitmq.transport_url()):
            report.series = measure.side_by_side(
                _ways(cloud, guest, client, way_in), ROUNDS, warm_up=5
            )
    ours = report['POST with Prefer: wait'].median
    allowed = (
        report['os-getConsoleOutput'].median
        + 1.3 * report['bare loop, launcher'].median
    )
    report.goals = [
        measure.Goal(
            'POST with Prefer: wait by os-getConsoleOutput + 1.3 x '
            'bare loop with the launcher',
            ours / allowed,
            1.0,
        ),
        measure.Goal(
            'POST with Prefer: wait by ssh', ours / report['ssh'].median, 0.5
        ),
    ]
    return report


def _ways(
    cloud: testbed_cloud.Cloud,
    guest: libvirtd.Guest,
    client: http.Client,
    way_in: ssh.Ssh,
) -> dict[str, Callable[[], object]]:
    agent = guest_agent.Agent(
        connection.Connection(cloud.hypervisor.uri), guest.uuid
    )
    launcher = posix.PosixLauncher(agent)
    return {
        'POST with Prefer: wait': lambda: waited(client),
        'bare loop': lambda: bare.raw(agent),
        'bare loop, launcher': lambda: bare.launched(launcher),
        'ssh': lambda: way_in.run('/bin/true'),
        'os-getConsoleOutput': lambda: neighbours.console(client),
    }


def waited(client: http.Client) -> None:
    """POST a command, and have its end with the answer."""
    answer = client.send(
        'POST',
        client.commands,
        {'command': {'type': 'exec', 'arguments': {'command': ['/bin/true']}}},
        {'Prefer': 'wait=30'},
    )
    shown = json.loads(answer.body)['command']
    assert shown['status'] == 'COMPLETED', shown


if __name__ == '__main__':
    print(run().as_text())
