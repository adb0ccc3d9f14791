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

"""Make what a new Nova has to know: tables, cells, servers.

Run as ``python -m tools.testbed.prepare NOVA_CONF JSON``. The tables are made
by the functions behind ``nova-manage api_db sync``, ``nova-manage db sync``
and ``guest-agent-manage db sync``, in one process because each takes seconds
to import Nova. What is there already is left as it is.
"""

import json
import sys
from typing import Any

from nova import config
from nova import context as nova_context
from nova import exception
from nova import objects
from nova.compute import power_state
from nova.compute import vm_states
from nova.db import migration as nova_migration
from nova.network import model as network_model
from oslo_utils import timeutils
from oslo_utils import uuidutils

from guest_agent_ext import conf
from guest_agent_ext.db import migration
from guest_agent_ext.db import session

CONF = conf.CONF

_FLAVOR = {
    'name': 'tiny',
    'flavorid': 'tiny',
    'memory_mb': 128,
    'vcpus': 1,
    'root_gb': 0,
    'ephemeral_gb': 0,
    'swap': 0,
    'rxtx_factor': 1.0,
    'vcpu_weight': 0,
    'disabled': False,
    'is_public': True,
}


def main() -> None:
    nova_conf, argument = sys.argv[1:]
    wanted = json.loads(argument)
    config.parse_args(['prepare', '--config-file', nova_conf])
    objects.register_all()
    nova_migration.db_sync(database='api')
    session.configure(CONF)
    migration.sync()
    context = nova_context.get_admin_context()
    _cell(
        context,
        'cell0',
        objects.CellMapping.CELL0_UUID,
        wanted['cell0'],
        'none:///',
    )
    cell = _cell(
        context,
        'cell1',
        uuidutils.generate_uuid(),
        CONF.database.connection,
        CONF.transport_url,
    )
    flavor = _flavor(context)
    for server in wanted['servers']:
        owned = dict(
            server, project_id=wanted['project_id'], user_id=wanted['user_id']
        )
        _server(context, cell, flavor, owned)


def _cell(
    context: Any, name: str, uuid: str, database: str, transport_url: str
) -> Any:
    for mapping in objects.CellMappingList.get_all(context):
        if mapping.name == name:
            return mapping
    mapping = objects.CellMapping(
        context,
        name=name,
        uuid=uuid,
        database_connection=database,
        transport_url=transport_url,
        disabled=False,
    )
    mapping.create()
    with nova_context.target_cell(context, mapping) as cell_context:
        nova_migration.db_sync(context=cell_context)
    return mapping


def _flavor(context: Any) -> Any:
    try:
        return objects.Flavor.get_by_flavor_id(context, _FLAVOR['flavorid'])
    except exception.FlavorNotFound:
        flavor = objects.Flavor(context, extra_specs={}, **_FLAVOR)
        flavor.create()
        return flavor


def _server(
    context: Any, cell: Any, flavor: Any, server: dict[str, Any]
) -> None:
    _host(context, cell, server['host'])
    with nova_context.target_cell(context, cell) as cell_context:
        _instance(cell_context, flavor, server).create()
    # What it was asked to be like; newer microversions show some of that.
    objects.RequestSpec.from_components(
        context,
        server['uuid'],
        image={},
        flavor=flavor,
        numa_topology=None,
        pci_requests=None,
        filter_properties={},
        instance_group=None,
        availability_zone=None,
        project_id=server['project_id'],
        user_id=server['user_id'],
    ).create()
    objects.InstanceMapping(
        context,
        instance_uuid=server['uuid'],
        cell_mapping=cell,
        project_id=server['project_id'],
        user_id=server['user_id'],
        queued_for_delete=False,
    ).create()


def _host(context: Any, cell: Any, host: str) -> None:
    try:
        objects.HostMapping.get_by_host(context, host)
    except exception.HostMappingNotFound:
        objects.HostMapping(context, host=host, cell_mapping=cell).create()


def _instance(context: Any, flavor: Any, server: dict[str, Any]) -> Any:
    """Return what nova-compute leaves behind when it has booted a server."""
    properties = {'image_hw_qemu_guest_agent': 'yes'}
    return objects.Instance(
        context,
        uuid=server['uuid'],
        info_cache=objects.InstanceInfoCache(
            network_info=network_model.NetworkInfo()
        ),
        display_name=server['name'],
        hostname=server['name'],
        project_id=server['project_id'],
        user_id=server['user_id'],
        host=server['host'],
        launched_on=server['host'],
        launched_at=timeutils.utcnow(),
        vm_state=vm_states.ACTIVE,
        power_state=power_state.RUNNING,
        image_ref=uuidutils.generate_uuid(),
        system_metadata=properties,
        metadata={},
        flavor=flavor,
        old_flavor=None,
        new_flavor=None,
        memory_mb=flavor.memory_mb,
        vcpus=flavor.vcpus,
        root_gb=flavor.root_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        instance_type_id=flavor.id,
        availability_zone='nova',
        reservation_id='r-testbed',
        ephemeral_key_uuid=None,
        locked=False,
    )


if __name__ == '__main__':
    main()
