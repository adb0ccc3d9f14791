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

"""How long a command takes, by layer, measured side by side.

Run as ``python -m benchmarks.latency [ROUNDS]``. In each round ``/bin/true``
runs once through each layer on the same guest; the ratios of the medians are
what counts, the milliseconds are this machine's.
"""

from collections.abc import Callable
import pathlib
import statistics
import sys
import tempfile
import time
import uuid

from guest_agent_ext import command
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import posix
from tools.testbed import client as http
from tools.testbed import demo

GAP = 0.01
ROOT = pathlib.Path(__file__).parents[1]


def raw(agent: guest_agent.Agent) -> None:
    """guest-exec and guest-exec-status, without a launcher."""
    pid = agent.exec('/bin/true', [])
    while not agent.exec_status(pid).exited:
        time.sleep(GAP)


def launched(guest: posix.PosixLauncher) -> None:
    """The launcher, without a service around it."""
    probe = guest.probe()
    order = launcher.Launch(
        id=str(uuid.uuid4()), argv=['/bin/true'], env={}, stdin=b'',
        cwd=None, boot_id=probe.boot_id, ticket=probe.uptime + 6000,
        keep=command.MAX_OUTPUT_BYTES, keep_end='head')
    pid = guest.launch(order)
    while guest.poll(pid) is None:
        time.sleep(GAP)
    guest.release([order.id])


def posted(client: http.Client) -> None:
    """POST, then GET until it has ended."""
    uuid = client.start('/bin/true')
    while client.show(uuid)['status'] not in http.ENDED:
        time.sleep(GAP)


def measure(layers: dict[str, Callable[[], None]],
            rounds: int) -> dict[str, float]:
    """Return the median of each layer in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds):
        for name, run in layers.items():
            began = time.monotonic()
            run()
            times[name].append((time.monotonic() - began) * 1000)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as directory:
        cloud = demo.Demo(pathlib.Path(directory), ROOT / '.cache')
        cloud.up()
        try:
            report(cloud, rounds)
        finally:
            cloud.down()


def report(cloud: demo.Demo, rounds: int) -> None:
    settings = cloud.settings()
    server_id = settings['SERVER_ID']
    agent = guest_agent.Agent(
        connection.Connection(cloud.libvirt_uri), server_id)
    guest = posix.PosixLauncher(agent)
    client = http.Client(settings['COMPUTE_URL'], settings['TOKEN'],
                         server_id)
    medians = measure({
        'raw guest-exec': lambda: raw(agent),
        'launcher': lambda: launched(guest),
        'POST to the end': lambda: posted(client),
    }, rounds)
    base = medians['raw guest-exec']
    for name, median in medians.items():
        print(f'{name:16} {median:7.1f} ms {median / base:6.1f}')


if __name__ == '__main__':
    main()
