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

"""What guests that hang cost one that does not, and nova-compute.

Run as ``python -m benchmarks.hung [COMMANDS [GUESTS]]``. On one host are a
guest that is well and GUESTS whose agent is stopped in the middle of a command
each, with more commands waiting for it. In turns, with those guests well and
hung, the well one is given COMMANDS one by one, each from POST to its end, and
the statistics of all domains, as ``virsh domstats`` has them, are timed beside
them: what nova-compute's own calls feel. Then the agents go on, and each guest
has to run a command again.

The guests are real; those that are to hang run nothing else, so that they take
nothing of this machine but memory.
"""

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import statistics
import sys
import threading
import time

import libvirt

from benchmarks import files
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import libvirtd
from tools.testbed import nova

COMMANDS = 150
GUESTS = 20
#: Commands that wait for each hung guest.
WAITING = 3
#: Seconds that they may take to start, and that agents are stopped.
START_TIMEOUT = 60
#: Seconds within which a guest must be back, and all commands have ended.
PATIENCE = 240

#: Told to end by nobody but its own clock: the agent cannot be asked to.
STOP = ('a=$(pidof qemu-ga); (sleep 1; kill -STOP $a; sleep %d; kill -CONT $a)'
        ' >/dev/null 2>&1 &')


def main() -> None:
    commands = int(sys.argv[1]) if len(sys.argv) > 1 else COMMANDS
    guests = int(sys.argv[2]) if len(sys.argv) > 2 else GUESTS
    with files.a_cloud() as cloud:
        report(cloud, commands, boot(cloud, guests))


def boot(cloud: testbed_cloud.Cloud, count: int) -> list[http.Client]:
    """Boot the guests that are to hang, a few at a time."""
    guests = [libvirtd.Guest() for _ in range(count)]
    for first in range(0, count, 4):
        cloud.hypervisor.boot(*guests[first:first + 4])
        cloud.hypervisor.wait(*guests[first:first + 4], timeout=120)
    cloud.nova.prepare([nova.Server(guest.uuid, testbed_cloud.HOST)
                        for guest in guests])
    return [cloud.nova.client('member', guest.uuid) for guest in guests]


def report(cloud: testbed_cloud.Cloud, commands: int,
           others: Sequence[http.Client]) -> None:
    for client in (cloud.client(), *others):
        assert client.sh('true')['status'] == 'COMPLETED'
    alone = measure(cloud, commands)
    # As long as the commands of the well guest take, and some more.
    seconds = int(sum(alone['command']) * 2 / 1000) + START_TIMEOUT
    waiting = hang(others, seconds)
    hung = measure(cloud, commands)
    for name in alone:
        for way, times in (('alone', alone[name]), ('hung', hung[name])):
            print(f'{name:9} {way:6} median {statistics.median(times):7.1f} '
                  f'ms, p95 {quantile(times, 95):7.1f}, '
                  f'p99 {quantile(times, 99):7.1f}')
        print(f'{name:9} p99 hung by alone '
              f'{quantile(hung[name], 99) / quantile(alone[name], 99):.2f}')
    ends = collections.Counter(
        client.wait(uuid, timeout=seconds + PATIENCE)['status']
        for client, uuid in waiting)
    print(f'ends of what waited for hung guests: {dict(ends)}')
    print(f'guests that are back: {recovered(others)} of {len(others)}')


def hang(clients: Sequence[http.Client],
         seconds: int) -> list[tuple[http.Client, str]]:
    """Stop the agents, and give each guest commands that it cannot start."""
    for client in clients:
        client.start('/bin/sh', '-c', STOP % seconds)
    time.sleep(5)
    return [(client, client.start('/bin/true', start_timeout=START_TIMEOUT))
            for client in clients for _ in range(WAITING)]


def recovered(clients: Sequence[http.Client]) -> int:
    """Count the guests that run a command within some time."""
    deadline = time.monotonic() + PATIENCE
    pending = list(clients)
    while pending and time.monotonic() < deadline:
        pending = [client for client in pending if not runs(client)]
        time.sleep(1)
    return len(clients) - len(pending)


def runs(client: http.Client) -> bool:
    status, body = client.post('/bin/true', start_timeout=10)
    return status == 200 and client.wait(
        body['command']['uuid'], timeout=60)['status'] == 'COMPLETED'


def measure(cloud: testbed_cloud.Cloud,
            commands: int) -> dict[str, list[float]]:
    """Return how long commands and the statistics took, in ms."""
    client = cloud.client()
    taken = []
    with domstats(cloud.hypervisor.uri) as stats:
        for _ in range(commands):
            began = time.monotonic()
            uuid = client.start('/bin/true')
            answer = client.send('GET', f'{client.commands}/{uuid}',
                                 headers={'Prefer': 'wait=30'})
            assert b'COMPLETED' in answer.body, answer.body
            taken.append((time.monotonic() - began) * 1000)
    return {'command': taken, 'domstats': stats}


@contextlib.contextmanager
def domstats(uri: str) -> Iterator[list[float]]:
    """Time the statistics of all domains every now and then, in ms."""
    taken: list[float] = []
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.5):
            began = time.monotonic()
            with contextlib.closing(libvirt.open(uri)) as connection:
                connection.getAllDomainStats()
            taken.append((time.monotonic() - began) * 1000)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield taken
    finally:
        stopping.set()
        thread.join()


def quantile(times: Sequence[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


if __name__ == '__main__':
    main()
