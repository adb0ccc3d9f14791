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


"""What Nova's own calls feel of file transfers in their cell.

os-getConsoleOutput, which goes to the compute host and back over the same
broker, is timed alone, beside a loop over qemuAgentCommand in each guest, and
beside four file-reads of 1 GiB in them. The loops show what the guests and
libvirtd alone take of this machine.

nova-compute is stood in for: its answer is ready at once.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import subprocess
import threading
import time
from typing import Any

from oslo_config import cfg
import oslo_messaging

from benchmarks import clouds
from benchmarks import measure
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import open_file
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd

REQUESTS = 160
TRANSFERS = 4
#: Bytes of a file that takes no room in the guest.
SIZE = 1024**3
PATH = '/root/large'


class Console:
    """The endpoint of nova-compute that answers the one call."""

    target = oslo_messaging.Target(version='6.9')

    def get_console_output(
        self, ctxt: Any, instance: Any, tail_length: Any
    ) -> str:
        return 'line\n' * 10


@contextlib.contextmanager
def nova_compute(url: str) -> Iterator[None]:
    """Answer on the queue of the compute host."""
    # oslo.messaging registers options of its own with this one only.
    cfg.CONF([])
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(
            exchange='nova', topic='compute', server=testbed_cloud.HOST
        ),
        [Console()],
        executor='threading',
    )
    server.start()
    yield
    server.stop()


def console(client: http.Client) -> None:
    """Ask Nova for the console's output, which it asks nova-compute for."""
    status, body = client.request(
        'POST',
        f'/servers/{client.server_id}/action',
        {'os-getConsoleOutput': {'length': 10}},
    )
    assert status == 200, body


def timed(client: http.Client, requests: int) -> list[float]:
    """Return how long each of some requests took, in milliseconds."""
    taken = []
    for _ in range(requests):
        taken.append(measure.timed(lambda: console(client)))
        time.sleep(0.02)
    return taken


@contextlib.contextmanager
def bare_loops(agents: list[guest_agent.Agent]) -> Iterator[None]:
    """Read from guests without the extension."""
    stopping = threading.Event()

    def loop(agent: guest_agent.Agent) -> None:
        opened = open_file.OpenFile(agent, agent.file_open(PATH, 'r'))
        offset = 0
        while not stopping.is_set():
            opened.read(offset % SIZE, rpcapi.READ_CHUNK)
            offset += rpcapi.READ_CHUNK
        opened.close()

    threads = [
        threading.Thread(target=loop, args=(agent,)) for agent in agents
    ]
    for thread in threads:
        thread.start()
    yield
    stopping.set()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def transfers(clients: list[http.Client]) -> Iterator[None]:
    """Read files by the API."""
    curls = [
        subprocess.Popen(
            [
                'curl',
                '-sf',
                '-o',
                '/dev/null',
                '-H',
                f'X-Auth-Token: {client.token}',
                client.file_url('read', path=PATH),
            ]
        )
        for client in clients
    ]
    time.sleep(3)
    yield
    for curl in curls:
        assert curl.poll() is None, 'A transfer has ended early'
        curl.kill()
        curl.wait()


def run() -> measure.Report:
    report = measure.Report("Nova's own calls beside file transfers")
    with clouds.running() as cloud:
        report.series = [
            measure.Series(f'os-getConsoleOutput, {name}', 'ms', values)
            for name, values in taken_by(cloud).items()
        ]
    alone, loops, reads = (item.quantile(95) for item in report.series)
    report.goals = [
        measure.Goal(
            'p95 beside four file-reads by p95 alone', reads / alone, 1.3
        )
    ]
    report.facts = {
        'p95 beside bare loops by p95 alone': round(loops / alone, 2)
    }
    return report


def taken_by(cloud: testbed_cloud.Cloud) -> dict[str, list[float]]:
    """Return what the requests took: alone, beside loops, beside reads."""
    guests = [libvirtd.Guest() for _ in range(TRANSFERS)]
    clients = [cloud.add(guest) for guest in guests]
    for client in clients:
        client.sh(f'truncate -s {SIZE} {PATH}')
    # Connections of their own: theirs is not the extension's bound.
    agents = [
        guest_agent.Agent(
            connection.Connection(cloud.hypervisor.uri), guest.uuid
        )
        for guest in guests
    ]
    ways: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        'alone': contextlib.nullcontext,
        'beside bare loops': lambda: bare_loops(agents),
        'beside file-reads': lambda: transfers(clients),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with nova_compute(cloud.rabbitmq.transport_url()):
        timed(cloud.client(), 20)
        for _ in range(2):
            for name, way in ways.items():
                with way():
                    taken[name] += timed(cloud.client(), REQUESTS // 2)
    return taken


if __name__ == '__main__':
    print(run().as_text())
