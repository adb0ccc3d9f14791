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

On one host are a guest that is well and 20 whose agent is stopped in the
middle of a command each, with more commands waiting for it. First with those
guests well, then with them hung, the well one is given commands one by one,
each from POST to its end, and the statistics of all domains, as ``virsh
domstats`` has them, are timed beside them: what nova-compute's own calls feel.
Then the agents go on, and each guest has to run a command again.

The guests are real; those that are to hang run nothing else, so that they take
nothing of this machine but memory.
"""

import collections
from collections.abc import Sequence
import contextlib
import time

import libvirt

from benchmarks import clouds
from benchmarks import command
from benchmarks import measure
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd
from tools.testbed.parts import nova

COMMANDS = 100
GUESTS = 20
#: Commands that wait for each hung guest.
WAITING = 3
#: Seconds that they may take to start, and that agents are stopped.
START_TIMEOUT = 30
#: Seconds within which a guest must be back, and all commands have ended.
PATIENCE = 240

#: Told to end by nobody but its own clock: the agent cannot be asked to.
STOP = (
    'a=$(pidof qemu-ga); (sleep 3; kill -STOP $a; sleep %d; kill -CONT $a)'
    ' >/dev/null 2>&1 &'
)


def run() -> measure.Report:
    report = measure.Report('Guests that hang')
    with clouds.running() as cloud:
        _measure(report, cloud, boot(cloud, GUESTS))
    return report


def boot(cloud: testbed_cloud.Cloud, count: int) -> list[http.Client]:
    """Boot the guests that are to hang, a few at a time."""
    guests = [libvirtd.Guest() for _ in range(count)]
    for first in range(0, count, 4):
        cloud.hypervisor.boot(*guests[first : first + 4])
        cloud.hypervisor.wait(*guests[first : first + 4], timeout=120)
    cloud.nova.prepare(
        [nova.Server(guest.uuid, testbed_cloud.HOST) for guest in guests]
    )
    return [cloud.nova.client('member', guest.uuid) for guest in guests]


def _measure(
    report: measure.Report,
    cloud: testbed_cloud.Cloud,
    others: Sequence[http.Client],
) -> None:
    for client in (cloud.client(), *others):
        assert client.sh('true')['status'] == 'COMPLETED'
    alone = taken(cloud)
    # As long as the commands of the well guest take, and some more.
    seconds = int(sum(alone['a command']) * 1.5 / 1000) + START_TIMEOUT
    waiting = hang(others, seconds)
    hung = taken(cloud)
    for name in alone:
        report.series += [
            measure.Series(f'{name}, all well', 'ms', alone[name]),
            measure.Series(f'{name}, {GUESTS} hung', 'ms', hung[name]),
        ]
        before, beside = report.series[-2:]
        report.goals.append(
            measure.Goal(
                f'p99 of {name}, hung by well',
                beside.quantile(99) / before.quantile(99),
                1.5,
            )
        )
    report.facts['ends of what waited for hung guests'] = dict(
        collections.Counter(
            client.wait(uuid, timeout=seconds + PATIENCE)['status']
            for client, uuid in waiting
        )
    )
    report.goals.append(
        measure.Goal(
            'guests that are back',
            recovered(others) / GUESTS,
            1.0,
            at_most=False,
        )
    )


def hang(
    clients: Sequence[http.Client], seconds: int
) -> list[tuple[http.Client, str]]:
    """Stop the agents, and give each guest commands that cannot start."""
    for client in clients:
        assert client.sh(STOP % seconds)['status'] == 'COMPLETED'
    # The last of them is to have stopped its agent.
    time.sleep(5)
    return [
        (client, client.start('/bin/true', start_timeout=START_TIMEOUT))
        for client in clients
        for _ in range(WAITING)
    ]


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
    return (
        status == 200
        and client.wait(body['command']['uuid'], timeout=60)['status']
        == 'COMPLETED'
    )


def taken(cloud: testbed_cloud.Cloud) -> dict[str, list[float]]:
    """Return how long commands and the statistics took, in ms."""
    client = cloud.client()
    stats: list[float] = []
    with measure.every(
        0.5,
        lambda: stats.append(
            measure.timed(lambda: _domstats(cloud.hypervisor.uri))
        ),
    ):
        return {
            'a command': [
                measure.timed(lambda: command.waited(client))
                for _ in range(COMMANDS)
            ],
            'domstats': stats,
        }


def _domstats(uri: str) -> None:
    with contextlib.closing(libvirt.open(uri)) as connection:
        connection.getAllDomainStats()


if __name__ == '__main__':
    print(run().as_text())
