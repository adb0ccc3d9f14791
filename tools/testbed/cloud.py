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

"""A cloud in earnest: every service a process of its own, and killable.

nova-api, guest-agent-conductor and guest-agent-compute on RabbitMQ and
MariaDB, one compute host, one guest on it.
"""

import collections
from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib

import pymysql

from tools.testbed import client as http
from tools.testbed import ini
from tools.testbed import processes
from tools.testbed.parts import keystone
from tools.testbed.parts import libvirtd
from tools.testbed.parts import mariadb
from tools.testbed.parts import nova
from tools.testbed.parts import rabbitmq

HOST = 'compute-1'

#: Seconds are short, so that tests need not wait long. Logs tell everything,
#: notifications too, so that tests can look for what must not be told.
OPTIONS: ini.Sections = {
    'DEFAULT': {'debug': True, 'default_log_levels': 'sqlalchemy=WARN'},
    'notifications': {'notification_format': 'both'},
    'oslo_messaging_notifications': {'driver': 'log'},
    'guest_agent': {
        'report_interval': 1,
        'service_down_time': 6,
        'sweep_interval': 1,
        'cells_interval': 5,
        'conductor_timeout': 3,
        'transfer_grace': 25,
        'attach_timeout': 10,
    },
}


#: What Nova has of a server. Copied, for that takes a moment: to make it by
#: Nova's own code takes a process that imports it.
_ROWS_OF_SERVER = (
    (nova.CELL, 'instances', 'uuid'),
    (nova.CELL, 'instance_extra', 'instance_uuid'),
    (nova.CELL, 'instance_info_caches', 'instance_uuid'),
    (nova.CELL, 'instance_system_metadata', 'instance_uuid'),
    ('nova_api', 'instance_mappings', 'instance_uuid'),
)


@dataclasses.dataclass
class Host:
    """One more compute host.

    :ivar compute: its guest-agent-compute
    """

    name: str
    hypervisor: libvirtd.Libvirtd
    compute: processes.Process


@dataclasses.dataclass
class Cloud:
    """The parts, each to be paused, killed and started again.

    :ivar guest: the guest behind the one server
    """

    nova: nova.Nova
    hypervisor: libvirtd.Libvirtd
    rabbitmq: rabbitmq.RabbitMQ
    mariadb: mariadb.MariaDB
    guest: libvirtd.Guest
    api: processes.Process
    conductor: processes.Process
    compute: processes.Process

    @property
    def server_id(self) -> str:
        return self.guest.uuid

    def client(self, name: str = 'member') -> http.Client:
        """Return a client.

        :param name: ``member``, ``reader``, ``other`` or ``admin``
        """
        return self.nova.client(name, self.server_id)

    def add(self, guest: libvirtd.BaseGuest) -> http.Client:
        """Boot one more guest on the compute host, as a server.

        :returns: a client of a member of its project
        """
        self.hypervisor.boot(guest)
        for database, table, column in _ROWS_OF_SERVER:
            self.mariadb.copy(
                database, table, column, self.server_id, guest.uuid
            )
        if guest.agent:
            self.hypervisor.wait(guest)
        else:
            self._take_agent_from(guest)
        return self.nova.client('member', guest.uuid)

    def _take_agent_from(self, guest: libvirtd.BaseGuest) -> None:
        with contextlib.closing(self.mariadb.connect(nova.CELL)) as connection:
            connection.cursor().execute(
                "UPDATE instance_system_metadata SET value = 'no' WHERE "
                "`key` = 'image_hw_qemu_guest_agent' AND instance_uuid = %s",
                [guest.uuid],
            )
            connection.commit()

    @contextlib.contextmanager
    def another_host(
        self, name: str, directory: pathlib.Path, cache: pathlib.Path
    ) -> Iterator[Host]:
        """Run one more compute host, without guests, for a while.

        :param directory: directory of its libvirtd's files
        :param cache: directory of the guests' images
        """
        with contextlib.ExitStack() as stack:
            hypervisor = libvirtd.Libvirtd(directory, cache, name)
            hypervisor.start()
            stack.callback(hypervisor.stop)
            self.nova.configure_compute(name, hypervisor.uri)
            compute = self.nova.start_compute(name)
            stack.callback(compute.stop)
            self.nova.wait_for_host(name, 'up')
            yield Host(name, hypervisor, compute)

    def start_compute(self) -> None:
        """Start guest-agent-compute without waiting until it is up."""
        self.compute = self.nova.start_compute(HOST)

    def start_conductor(self) -> None:
        """Start guest-agent-conductor without waiting until it is up."""
        self.conductor = self.nova.start_conductor()

    def wait_for_host(self, state: str, timeout: float = 60) -> None:
        """Wait until the compute host is ``up`` or ``down``."""
        self.nova.wait_for_host(HOST, state, timeout)

    def wait_for_reports(self, count: int = 3) -> None:
        """Wait until each host that is up has reported some more times.

        :param count: a report is asked for in each of so many seconds
        """
        seen: dict[str, set[str]] = collections.defaultdict(set)

        def have_reported() -> bool:
            reports = self.nova.reports()
            for host, at in reports.items():
                seen[host].add(at)
            return bool(reports) and all(
                len(seen[host]) > count for host in reports
            )

        processes.wait_for(have_reported, 60, 'reports of the hosts', gap=0.2)

    def mend(self) -> None:
        """Start again what was stopped or killed, and wait for the host."""
        for daemon in (self.rabbitmq, self.mariadb, self.hypervisor):
            daemon.process.resume()
            if not daemon.process.alive:
                daemon.start()
        for process in (self.api, self.conductor, self.compute):
            process.resume()
        if not self.api.alive:
            self.api = self.nova.start_api()
        if not self.conductor.alive:
            self.start_conductor()
        if not self.compute.alive:
            self.start_compute()
        self.wait_for_host('up')

    def stop_services(self) -> None:
        """Stop the three services of Nova and ours."""
        for process in (self.compute, self.conductor, self.api):
            process.stop()

    @contextlib.contextmanager
    def server(self, **columns: object) -> Iterator[None]:
        """Make Nova believe something else of the server, for a while.

        :param columns: columns of Nova's ``instances``: ``vm_state='stopped'``
        """
        before = self.update(self.server_id, **columns)
        try:
            yield
        finally:
            self.update(self.server_id, **before)

    def update(self, server_id: str, **columns: object) -> dict[str, object]:
        """Make Nova believe something else of a server.

        :returns: what it believed before
        """
        names = ', '.join(columns)
        assignments = ', '.join(f'{name} = %s' for name in columns)
        with contextlib.closing(self.mariadb.connect(nova.CELL)) as connection:
            cursor = connection.cursor(pymysql.cursors.DictCursor)
            cursor.execute(
                f'SELECT {names} FROM instances WHERE uuid = %s', [server_id]
            )
            before = dict(cursor.fetchone() or {})
            cursor.execute(
                f'UPDATE instances SET {assignments} WHERE uuid = %s',
                [*columns.values(), server_id],
            )
            connection.commit()
        return before


@contextlib.contextmanager
def running(
    directory: pathlib.Path,
    cache: pathlib.Path,
    broker: rabbitmq.RabbitMQ,
    database: mariadb.MariaDB,
    options: ini.Sections = OPTIONS,
) -> Iterator[Cloud]:
    """Run a cloud until the block is left.

    :param directory: directory of its files
    :param cache: directory of the guest's image
    :param options: options of all services, by section
    """
    with contextlib.ExitStack() as stack:
        authority = keystone.Keystone(directory / 'keystone')
        stack.callback(authority.stop)
        identities = authority.start()
        hypervisor = libvirtd.Libvirtd(directory / 'libvirt', cache)
        hypervisor.start()
        stack.callback(hypervisor.stop)
        guest = libvirtd.Guest()
        hypervisor.boot(guest)
        compute_api = nova.Nova(
            directory / 'nova',
            nova.Databases.on_mariadb(database),
            broker.transport_url(),
            processes.free_port(),
            identities,
            {**options, 'keystone_authtoken': authority.authtoken()},
        )
        compute_api.configure()
        compute_api.configure_compute(HOST, hypervisor.uri)
        compute_api.prepare([nova.Server(guest.uuid, HOST)])
        cloud = Cloud(
            compute_api,
            hypervisor,
            broker,
            database,
            guest,
            compute_api.start_api(),
            compute_api.start_conductor(),
            compute_api.start_compute(HOST),
        )
        stack.callback(cloud.stop_services)
        hypervisor.wait(guest)
        cloud.wait_for_host('up')
        yield cloud
