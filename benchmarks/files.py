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

"""How fast files go in and out.

In each round the same file goes once each way by the API, by a loop over
qemuAgentCommand with chunks of the same size, and by scp. What nova-api and
guest-agent-compute grew by at most is told too.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import tempfile
from typing import Any

from benchmarks import clouds
from benchmarks import measure
from benchmarks import ssh
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import open_file
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import libvirtd

MIB = 1024 * 1024
SIZE, ROUNDS = 8 * MIB, 3
PATH = '/root/file'


def bare_read(agent: guest_agent.Agent, data: bytes) -> None:
    """guest-file-read until all is there."""
    opened = open_file.OpenFile(agent, agent.file_open(PATH, 'r'))
    found = b''.join(
        opened.read(offset, rpcapi.READ_CHUNK)
        for offset in range(0, len(data), rpcapi.READ_CHUNK)
    )
    opened.close()
    assert found == data


def bare_write(agent: guest_agent.Agent, data: bytes) -> None:
    """guest-file-write until all is there; verified and synced it is not."""
    opened = open_file.OpenFile(agent, agent.file_open(PATH + '.bare', 'w'))
    for offset in range(0, len(data), rpcapi.WRITE_CHUNK):
        opened.write(offset, data[offset : offset + rpcapi.WRITE_CHUNK])
    opened.close()


def api_read(client: http.Client, data: bytes) -> None:
    """GET file-read."""
    assert client.get_file(PATH).body == data


def api_write(client: http.Client, data: bytes) -> None:
    """POST file-write, which answers when the file is in its place."""
    assert client.put_file(PATH, data).status == 204


@contextlib.contextmanager
def watched(
    services: dict[str, processes.Process], facts: dict[str, Any]
) -> Iterator[None]:
    """Note by how much the memory of services grew at most."""
    before = {
        name: process.memory('VmRSS') for name, process in services.items()
    }
    for process in services.values():
        process.forget_peak()
    yield
    for name, process in services.items():
        grown = process.memory('VmHWM') - before[name]
        facts[f'{name} grew by, MiB'] = round(grown / MIB, 1)


def run() -> measure.Report:
    report = measure.Report('Files')
    with clouds.running() as cloud, tempfile.TemporaryDirectory() as directory:
        way_in = ssh.Ssh(pathlib.Path(directory))
        # The guest's files are in its memory: old ones, new ones, and some.
        guest = libvirtd.Guest(memory=12 * SIZE // MIB + 128, ssh=way_in.guest)
        client = cloud.add(guest)
        way_in.wait()
        data = os.urandom(SIZE)
        api_write(client, data)
        with watched(
            {'nova-api': cloud.api, 'guest-agent-compute': cloud.compute},
            report.facts,
        ):
            report.series = [
                measure.Series(
                    item.name,
                    'MiB/s',
                    [SIZE / MIB / (value / 1000) for value in item.values],
                )
                for item in measure.side_by_side(
                    _ways(cloud, guest, client, way_in, data), ROUNDS
                )
            ]
    for way in ('read', 'write'):
        report.goals.append(
            measure.Goal(
                f'file-{way} by bare loop',
                report.ratio(f'file-{way}', f'bare {way}'),
                0.7,
                at_most=False,
            )
        )
    return report


def _ways(
    cloud: testbed_cloud.Cloud,
    guest: libvirtd.Guest,
    client: http.Client,
    way_in: ssh.Ssh,
    data: bytes,
) -> dict[str, Callable[[], object]]:
    agent = guest_agent.Agent(
        connection.Connection(cloud.hypervisor.uri), guest.uuid
    )
    copy = cloud.nova.directory / 'copy'
    copy.write_bytes(data)
    return {
        'file-read': lambda: api_read(client, data),
        'bare read': lambda: bare_read(agent, data),
        'scp from the guest': lambda: way_in.get(PATH, copy),
        'file-write': lambda: api_write(client, data),
        'bare write': lambda: bare_write(agent, data),
        'scp into the guest': lambda: way_in.put(copy, PATH + '.scp'),
    }


if __name__ == '__main__':
    print(run().as_text())
