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

"""What faults are done to: a whole small cloud of real parts.

Two of nova-api, two of guest-agent-conductor, two compute hosts with a
libvirtd and two guests each, RabbitMQ and MariaDB. What ends is started again
after a moment, as an operator's supervisor would.
"""

import base64
import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import struct
import subprocess
import threading
import time
from typing import Any

import libvirt
import libvirt_qemu
import pymysql

from tools.faults.traps import traps
from tools.testbed import client as http
from tools.testbed import identity
from tools.testbed import ini
from tools.testbed import processes
from tools.testbed.parts import libvirtd
from tools.testbed.parts import mariadb
from tools.testbed.parts import nova
from tools.testbed.parts import rabbitmq

#: Seconds; part of the bound within which each command ends.
KILL_GRACE = 2
OUTAGE_GRACE = 45
SWEEP_INTERVAL = 2
TRANSFER_TIMEOUT = 25
TRANSFER_GRACE = 30

OPTIONS: ini.Sections = {
    'DEFAULT': {'default_log_levels': 'guest_agent_ext=DEBUG,nova=WARN'},
    'guest_agent': {
        'report_interval': 1,
        'service_down_time': 10,
        'sweep_interval': SWEEP_INTERVAL,
        'cells_interval': 5,
        'conductor_timeout': 3,
        'kill_grace': KILL_GRACE,
        'outage_grace': OUTAGE_GRACE,
        'drain_timeout': 5,
        'background_grace': 1.0,
        'transfer_timeout': TRANSFER_TIMEOUT,
        'transfer_grace': TRANSFER_GRACE,
    },
}

CONTROLLERS = ('controller-1', 'controller-2')
HOSTS = ('compute-1', 'compute-2')
GUESTS_OF_HOST = 2

#: Seconds until what ended is started again.
RESTART_AFTER = 0.5

_TRAPS = pathlib.Path(traps.__file__).parent
_ROOT = _TRAPS.parents[2]
_CLOCK = pathlib.Path(__file__).with_name('clock.c')
_RAN = re.compile(r'ran ([0-9a-f-]{36})')


class Program:
    """One program, started again when it has ended.

    :param start: starts it
    """

    def __init__(
        self, name: str, start: Callable[[], processes.Process]
    ) -> None:
        self.name = name
        self.process = start()
        self.deaths = 0
        self._start = start
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._nurse = threading.Thread(
            name=f'nurse-{name}', target=self._keep_alive
        )
        self._nurse.start()

    def is_alive(self) -> bool:
        return self.process.alive

    def start_beside(self) -> None:
        """Start a second one, which fences the first."""
        with self._lock:
            self.process = self._start()

    def stop(self) -> None:
        self._stopping.set()
        self._nurse.join()
        self.process.stop()

    def _keep_alive(self) -> None:
        while not self._stopping.wait(RESTART_AFTER):
            with self._lock, contextlib.suppress(processes.StartError):
                if not self.process.alive:
                    self.deaths += 1
                    self.process = self._start()


@dataclasses.dataclass
class Host:
    """A compute host.

    :ivar guests: those on it, by name
    """

    name: str
    hypervisor: libvirtd.Libvirtd
    guests: Mapping[str, libvirtd.Guest]

    def run(self, guest: libvirtd.Guest, *script: str) -> str:
        """Run a script in a guest, past the extension.

        :param script: and its arguments
        :returns: its stdout
        :raises LIBVIRT_ERROR: the agent does not answer
        """
        started = self._ask(
            guest,
            'guest-exec',
            {
                'path': '/bin/sh',
                'arg': ['-c', *script],
                'capture-output': True,
            },
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            status = self._ask(
                guest, 'guest-exec-status', {'pid': started['pid']}
            )
            if status['exited']:
                return base64.b64decode(status.get('out-data', '')).decode()
            time.sleep(0.05)
        raise processes.StartError(f'A script in {guest.name} does not end')

    def _ask(
        self, guest: libvirtd.Guest, name: str, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        answer = libvirt_qemu.qemuAgentCommand(
            self.hypervisor.domain(guest),
            json.dumps({'execute': name, 'arguments': arguments}),
            5,
            0,
        )
        return dict(json.loads(answer)['return'])


class World:
    """The small cloud that faults happen to.

    :ivar programs: programs by name
    :ivar hosts: compute hosts by name
    """

    def __init__(
        self,
        directory: pathlib.Path,
        broker: rabbitmq.RabbitMQ,
        database: mariadb.MariaDB,
        hosts: Mapping[str, Host],
    ) -> None:
        self.broker = broker
        self.database = database
        self.hosts = hosts
        self._traps = directory / 'traps'
        self._traps.mkdir()
        self._machines = self._configure(directory)
        self.programs = {
            name: Program(name, start)
            for name, start in self._starts().items()
        }

    @property
    def guests(self) -> dict[str, tuple[Host, libvirtd.Guest]]:
        """Each guest and its host, by the guest's name."""
        return {
            name: (host, guest)
            for host in self.hosts.values()
            for name, guest in host.guests.items()
        }

    def clients(self, name: str) -> list[http.Client]:
        """Return a client of each API for the server of a guest."""
        _, guest = self.guests[name]
        return [
            self._machines[controller].client('member', guest.uuid)
            for controller in CONTROLLERS
        ]

    def wait_until_well(self, timeout: float = 90) -> None:
        """Wait until every part works again."""
        for program in self.programs.values():
            processes.wait_for(program.is_alive, timeout, program.name)
        for name in self.hosts:
            processes.wait_for(
                functools.partial(self._is_up, name), timeout, f'host {name}'
            )
        for host in self.hosts.values():
            host.hypervisor.wait(*host.guests.values(), timeout=timeout)

    def _is_up(self, host: str) -> bool:
        # Each API is asked, and may be starting again.
        try:
            for name in CONTROLLERS:
                self._machines[name].wait_for_host(host, 'up', 0)
        except (OSError, processes.StartError):
            return False
        return True

    def stop(self) -> None:
        for program in reversed(self.programs.values()):
            program.stop()

    @property
    def machines(self) -> list[str]:
        return list(self._machines)

    def usage(self) -> dict[str, int]:
        """Return how many threads, files and sockets each program has."""
        return {
            f'{what} of {name}': len(
                list(
                    pathlib.Path(
                        f'/proc/{program.process.pid}', path
                    ).iterdir()
                )
            )
            for name, program in self.programs.items()
            for what, path in (('threads', 'task'), ('files', 'fd'))
        }

    def set_clock(self, machine: str, offset: int) -> None:
        """Set the clock of a machine's programs, see clock.c.

        :param offset: seconds to what is the right time
        """
        # Never empty: they have it mapped.
        path = self._machines[machine].directory / 'clock'
        with path.open('r+b') as clock:
            clock.write(_seconds(offset))

    # Traps, see traps.py.

    def arm(self, trap: str) -> None:
        (self._traps / trap).touch()

    def disarm(self) -> list[str]:
        """Disarm all traps; return those that had not sprung."""
        armed = list(self._traps.iterdir())
        for trap in armed:
            trap.unlink(missing_ok=True)
        return [trap.name for trap in armed]

    # What there is to compare.

    def ran(self) -> dict[str, int]:
        """Return how often each command ran, by what its guest's console says.

        A command writes its tag there when it runs; the host keeps it, over
        resets and the loss of the guest.
        """
        return dict(
            collections.Counter(
                tag for name in self.guests for tag in self._tags(name)
            )
        )

    def ran_in(self, name: str) -> dict[str, int]:
        """Return how often each command ran in a guest, see ran()."""
        return dict(collections.Counter(self._tags(name)))

    def _tags(self, name: str) -> list[str]:
        host, guest = self.guests[name]
        console = host.hypervisor.console(guest)
        return _RAN.findall(console.read_text(errors='replace'))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Read the database that has the commands."""
        with contextlib.closing(self.database.connect('nova_api')) as opened:
            cursor = opened.cursor(pymysql.cursors.DictCursor)
            cursor.execute(query)
            return [dict(row) for row in cursor.fetchall()]

    def _configure(self, directory: pathlib.Path) -> dict[str, nova.Nova]:
        databases = nova.Databases.on_mariadb(self.database)
        identities = identity.make()
        clocks = directory / 'clock.so'
        subprocess.run(
            ['gcc', '-shared', '-fPIC', '-o', clocks, _CLOCK], check=True
        )
        machines = {}
        for name in (*CONTROLLERS, *self.hosts):
            clock = directory / 'machines' / name / 'clock'
            machines[name] = nova.Nova(
                clock.parent,
                databases,
                self.broker.transport_url(),
                processes.free_port(),
                identities,
                ini.merge(OPTIONS, {'DEFAULT': {'host': name}}),
                {
                    'PYTHONPATH': f'{_TRAPS}:{_ROOT}',
                    'FAULT_TRAPS': str(self._traps),
                    'LD_PRELOAD': str(clocks),
                    'FAULT_CLOCK': str(clock),
                },
            )
            clock.parent.mkdir(parents=True)
            clock.write_bytes(_seconds(0))
        for name in CONTROLLERS:
            machines[name].configure()
        for host in self.hosts.values():
            machines[host.name].configure_compute(
                host.name, host.hypervisor.uri
            )
        machines[CONTROLLERS[0]].prepare(
            [
                nova.Server(guest.uuid, host.name)
                for host, guest in self.guests.values()
            ]
        )
        return machines

    def _starts(self) -> dict[str, Callable[[], processes.Process]]:
        starts: dict[str, Callable[[], processes.Process]] = {}
        for number, name in enumerate(CONTROLLERS, 1):
            starts[f'api-{number}'] = self._machines[name].start_api
            starts[f'conductor-{number}'] = self._machines[
                name
            ].start_conductor
        for host in self.hosts:
            starts[host] = functools.partial(
                self._machines[host].start_compute, host
            )
        return starts


def _seconds(count: int) -> bytes:
    return struct.pack('@l', count)


@contextlib.contextmanager
def running(directory: pathlib.Path, cache: pathlib.Path) -> Iterator[World]:
    """Run a world until the block is left.

    :param directory: directory of its files
    :param cache: directory of the guests' images
    """
    with contextlib.ExitStack() as stack:
        broker = rabbitmq.RabbitMQ(directory / 'rabbitmq')
        broker.start()
        stack.callback(broker.close)
        database = mariadb.MariaDB(directory / 'mariadb')
        database.start()
        stack.callback(database.stop)
        hosts = {}
        for name in HOSTS:
            hypervisor = libvirtd.Libvirtd(directory / name, cache, name)
            hypervisor.start()
            stack.callback(hypervisor.stop)
            guests = {
                f'{name}/{number}': libvirtd.Guest()
                for number in range(GUESTS_OF_HOST)
            }
            hypervisor.boot(*guests.values())
            hosts[name] = Host(name, hypervisor, guests)
        world = World(directory, broker, database, hosts)
        stack.callback(world.stop)
        world.wait_until_well()
        yield world


#: What libvirt raises in place of an answer.
LIBVIRT_ERROR = libvirt.libvirtError
