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

"""Nova and the extension: configured as the admin guide tells an operator."""

import dataclasses
import shutil

from tools.stack import layout
from tools.stack import sections
from tools.testbed import ini
from tools.testbed import network
from tools.testbed.parts import libvirtd
from tools.testbed.parts import mariadb
from tools.testbed.parts import rabbitmq

API_DATABASE, CELL0_DATABASE = 'nova_api', 'nova_cell0'


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell with one compute host: its own database, broker and libvirtd.

    :ivar number: number of the cell, beginning with 1
    :ivar namespace: the network that the broker is in, if that is to be cut
        off from the rest
    """

    number: int
    broker: rabbitmq.RabbitMQ
    hypervisor: libvirtd.Libvirtd
    namespace: network.Namespace | None = None

    @property
    def name(self) -> str:
        return f'cell{self.number}'

    @property
    def database(self) -> str:
        return f'nova_{self.name}'

    @property
    def host(self) -> str:
        return f'compute-{self.number}'

    @property
    def conductor(self) -> str:
        """The name of its nova-conductor's configuration.

        The first cell shares its conductor with the API, as where there is
        only one cell.
        """
        return 'nova' if self.number == 1 else f'nova-{self.name}'


def configure(
    place: layout.Layout, database: mariadb.MariaDB, cell: Cell
) -> None:
    """Write the configuration of a cell, and with the first that of Nova."""
    etc = place.etc('nova')
    if cell.number == 1:
        ini.write(etc / 'nova.conf', _controller(place, database, cell))
        ini.write(etc / 'api-paste.ini', ini.paste(place.prefix))
        # As the package has installed it.
        installed = place.prefix / 'etc/guest_agent_ext'
        shutil.copy(installed / ini.GUEST_AGENT_API_PASTE.name, etc)
    else:
        ini.write(
            etc / f'{cell.conductor}.conf', _conductor(place, database, cell)
        )
    ini.write(etc / f'{cell.host}.conf', _compute(place, cell))
    (place.state(cell.host) / 'instances').mkdir(exist_ok=True)


def _common(place: layout.Layout, cell: Cell, service: str) -> ini.Sections:
    return ini.merge(
        sections.common(place, service),
        {
            'DEFAULT': {
                'transport_url': cell.broker.transport_url(),
                'my_ip': '127.0.0.1',
                'host': service,
                'graceful_shutdown_timeout': 6,
                'manager_shutdown_timeout': 3,
            },
            'keystone_authtoken': sections.authtoken(place, 'nova'),
            'service_user': {
                **sections.account(place, 'nova'),
                'send_service_user_token': True,
            },
            'placement': sections.account(place, 'nova'),
            'neutron': sections.account(place, 'nova'),
            'glance': sections.account(place, 'nova'),
        },
    )


def _controller(
    place: layout.Layout, database: mariadb.MariaDB, cell: Cell
) -> ini.Sections:
    return ini.merge(
        _common(place, cell, 'controller'),
        {
            'api_database': {'connection': database.url(API_DATABASE)},
            'database': {'connection': database.url(cell.database)},
            'conductor': {'workers': 1},
            'scheduler': {'workers': 1, 'discover_hosts_in_cells_interval': 3},
            'quota': {'driver': 'nova.quota.UnifiedLimitsDriver'},
            'oslo_limit': {
                **{
                    name: value
                    for name, value in sections.account(place, 'nova').items()
                    if not name.startswith('project')
                },
                'system_scope': 'all',
                'endpoint_service_type': 'compute',
                'endpoint_region_name': sections.REGION,
                'endpoint_interface': 'public',
            },
        },
    )


def _conductor(
    place: layout.Layout, database: mariadb.MariaDB, cell: Cell
) -> ini.Sections:
    return ini.merge(
        _common(place, cell, f'conductor-{cell.name}'),
        {
            'api_database': {'connection': database.url(API_DATABASE)},
            'database': {'connection': database.url(cell.database)},
            'conductor': {'workers': 1},
        },
    )


def _compute(place: layout.Layout, cell: Cell) -> ini.Sections:
    helper = {'helper_command': place.bin / 'privsep-helper'}
    return ini.merge(
        _common(place, cell, cell.host),
        {
            'DEFAULT': {
                'compute_driver': 'libvirt.LibvirtDriver',
                # The guest does not listen for a shutdown.
                'shutdown_timeout': 3,
            },
            'libvirt': {
                'virt_type': 'qemu',
                'cpu_mode': 'none',
                'connection_uri': cell.hypervisor.uri,
            },
            'vnc': {'enabled': False},
            # Every service is root already, and there need be no sudo.
            'nova_sys_admin': helper,
            'privsep_osbrick': helper,
            'guest_agent': {'connection_uri': cell.hypervisor.uri},
        },
    )
