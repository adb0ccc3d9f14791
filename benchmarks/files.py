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


"""How fast files go in and out, beside a bare loop over the agent.

Run as ``python -m benchmarks.files [MIB] [ROUNDS]``. Every part is a process
of its own, on RabbitMQ and MariaDB. In each round the same file goes once each
way by the API, and once by a loop over qemuAgentCommand with chunks of the
same size; the ratios of the medians are what counts, the rates are this
machine's. The most that nova-api and guest-agent-compute grew by is told too.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import sys
import tempfile

from benchmarks import latency
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import handle
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import libvirtd
from tools.testbed import mariadb
from tools.testbed import processes
from tools.testbed import rabbitmq

ROOT = pathlib.Path(__file__).parents[1]
MIB = 1024 * 1024
PATH = '/root/file'


def bare_read(agent: guest_agent.Agent, data: bytes) -> None:
    """guest-file-read until all is there."""
    opened = handle.Handle(agent, agent.file_open(PATH, 'r'))
    found = b''.join(opened.read(offset, rpcapi.READ_CHUNK)
                     for offset in range(0, len(data), rpcapi.READ_CHUNK))
    opened.close()
    assert found == data


def bare_write(agent: guest_agent.Agent, data: bytes) -> None:
    """guest-file-write until all is there; verified and synced it is not."""
    opened = handle.Handle(agent, agent.file_open(PATH + '.bare', 'w'))
    for offset in range(0, len(data), rpcapi.WRITE_CHUNK):
        opened.write(offset, data[offset:offset + rpcapi.WRITE_CHUNK])
    opened.close()


def api_read(client: http.Client, data: bytes) -> None:
    """GET file-read."""
    assert client.get_file(PATH).body == data


def api_write(client: http.Client, data: bytes) -> None:
    """POST file-write, which answers when the file is in its place."""
    assert client.put_file(PATH, data).status == 204


@contextlib.contextmanager
def watched(services: dict[str, processes.Process]) -> Iterator[None]:
    """Print by how much the memory of services grew at most."""
    before = {name: process.memory('VmRSS')
              for name, process in services.items()}
    for process in services.values():
        process.forget_peak()
    yield
    for name, process in services.items():
        grown = process.memory('VmHWM') - before[name]
        print(f'{name:20} grew by {grown / MIB:.1f} MiB')


@contextlib.contextmanager
def a_cloud() -> Iterator[testbed_cloud.Cloud]:
    """Run a cloud of separate processes."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        broker = rabbitmq.RabbitMQ(directory / 'rabbitmq')
        database = mariadb.MariaDB(directory / 'mariadb')
        try:
            broker.start()
            database.start()
            with testbed_cloud.running(directory / 'cloud', ROOT / '.cache',
                                       broker, database) as cloud:
                yield cloud
        finally:
            broker.close()
            database.stop()


def main() -> None:
    size = int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 32 * MIB
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with a_cloud() as cloud:
        report(cloud, os.urandom(size), rounds)


def report(cloud: testbed_cloud.Cloud, data: bytes, rounds: int) -> None:
    # The guest's files are in its memory: the old one, the new one, and some.
    guest = libvirtd.Guest(memory=8 * len(data) // MIB + 128)
    client = cloud.add(guest)
    agent = guest_agent.Agent(
        connection.Connection(cloud.hypervisor.uri), guest.uuid)
    api_write(client, data)
    with watched({'nova-api': cloud.api,
                  'guest-agent-compute': cloud.compute}):
        medians = latency.measure({
            'bare read': lambda: bare_read(agent, data),
            'file-read': lambda: api_read(client, data),
            'bare write': lambda: bare_write(agent, data),
            'file-write': lambda: api_write(client, data),
        }, rounds)
    for name, median in medians.items():
        base = medians['bare ' + name[-5:].lstrip('-e ')]
        print(f'{name:12} {len(data) / MIB / median * 1000:7.2f} MiB/s '
              f'{base / median:6.2f}')


if __name__ == '__main__':
    main()
