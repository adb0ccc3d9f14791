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

"""The APIs beside Nova's: Keystone, Glance, Placement and Neutron.

Neutron has no agents and no networks: Nova cannot do without its API.
"""

from collections.abc import Callable
import dataclasses

from tools.stack import layout
from tools.stack import sections
from tools.testbed import ini
from tools.testbed.parts import mariadb


@dataclasses.dataclass(frozen=True)
class Api:
    """One API: its place in the catalog, its program, how it is prepared.

    :ivar type: service type in Keystone's catalog
    :ivar module: its WSGI entry point
    :ivar path: path of its endpoint
    :ivar configuration: the file below its directory, and what is in it
    :ivar prepare: command lines that make its tables, once
    """

    name: str
    type: str
    module: str
    path: str
    configuration: str
    contents: Callable[[layout.Layout, mariadb.MariaDB], ini.Sections]
    prepare: tuple[str, ...]


def _keystone(place: layout.Layout, database: mariadb.MariaDB) -> ini.Sections:
    return {
        'database': {'connection': database.url('keystone')},
        'fernet_tokens': {'key_repository': place.state('keystone') / 'keys'},
        'credential': {
            'key_repository': place.state('keystone') / 'credential-keys'
        },
        # The passwords are random: slow hashes would protect nothing.
        'identity': {'password_hash_rounds': 4},
        # It is asked about the same tokens and limits all the time. There is
        # one process of it, whose changes its own cache takes note of.
        'cache': {'enabled': True, 'backend': 'dogpile.cache.memory'},
        'token': {'expiration': 86400},
    }


def _placement(
    place: layout.Layout, database: mariadb.MariaDB
) -> ini.Sections:
    return {
        'placement_database': {'connection': database.url('placement')},
        'keystone_authtoken': sections.authtoken(place, 'placement'),
    }


def _glance(place: layout.Layout, database: mariadb.MariaDB) -> ini.Sections:
    state = place.state('glance')
    return {
        'DEFAULT': {'enabled_backends': 'file:file'},
        'database': {'connection': database.url('glance')},
        'glance_store': {'default_backend': 'file'},
        'file': {'filesystem_store_datadir': state / 'images'},
        'os_glance_staging_store': {
            'filesystem_store_datadir': state / 'staging'
        },
        'os_glance_tasks_store': {'filesystem_store_datadir': state / 'tasks'},
        'paste_deploy': {
            'flavor': 'keystone',
            'config_file': place.prefix / 'etc/glance/glance-api-paste.ini',
        },
        'keystone_authtoken': sections.authtoken(place, 'glance'),
    }


def _neutron(place: layout.Layout, database: mariadb.MariaDB) -> ini.Sections:
    return {
        'DEFAULT': {
            'core_plugin': 'ml2',
            # Without it ports are not complete.
            'service_plugins': 'router',
            # With no agents there is nobody to talk to.
            'transport_url': 'fake:///',
            'notify_nova_on_port_status_changes': False,
            'notify_nova_on_port_data_changes': False,
            'api_paste_config': place.prefix / 'etc/neutron/api-paste.ini',
        },
        'ml2': {
            'type_drivers': 'local',
            'tenant_network_types': 'local',
            'mechanism_drivers': '',
        },
        'database': {'connection': database.url('neutron')},
        'keystone_authtoken': sections.authtoken(place, 'neutron'),
    }


KEYSTONE = Api(
    'keystone',
    'identity',
    'keystone.wsgi.api',
    '/v3',
    'keystone.conf',
    _keystone,
    (
        'keystone-manage --config-dir {etc} db_sync',
        'keystone-manage --config-dir {etc} fernet_setup'
        ' --keystone-user=root --keystone-group=root',
        'keystone-manage --config-dir {etc} bootstrap'
        ' --bootstrap-password={password} --bootstrap-region-id={region}'
        ' --bootstrap-public-url={url} --bootstrap-internal-url={url}'
        ' --bootstrap-admin-url={url}',
    ),
)

PLACEMENT = Api(
    'placement',
    'placement',
    'placement.wsgi.api',
    '',
    'placement.conf',
    _placement,
    ('placement-manage --config-dir {etc} db sync',),
)

GLANCE = Api(
    'glance',
    'image',
    'glance.wsgi.api',
    '',
    'glance-api.conf',
    _glance,
    ('glance-manage --config-dir {etc} db_sync',),
)

NEUTRON = Api(
    'neutron',
    'network',
    'neutron.wsgi.api',
    '',
    'neutron.conf',
    _neutron,
    ('neutron-db-manage --config-file {etc}/neutron.conf upgrade heads',),
)

ALL = (KEYSTONE, PLACEMENT, GLANCE, NEUTRON)

#: Service types and paths that Keystone has of Nova and guest-agent-api.
NOVA_TYPE, NOVA_PATH = 'compute', '/v2.1'
GUEST_AGENT_TYPE, GUEST_AGENT_PATH = 'guest-agent', '/v2.1'
