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

"""Which hosts of a cell have a nova-compute."""

from nova import context as nova_context
from nova import objects

from guest_agent_ext.conductor import servers
from tests.functional.api import base


def add_service(
    cloud: base.Cloud,
    host: str,
    binary: str = 'nova-compute',
    disabled: bool = False,
) -> objects.Service:
    context = nova_context.get_admin_context()
    with nova_context.target_cell(context, cloud.cell) as cell_context:
        service = objects.Service(
            cell_context,
            host=host,
            binary=binary,
            topic='compute',
            disabled=disabled,
        )
        service.create()
        return service


def test_enabled_nova_computes_of_a_cell(cloud: base.Cloud) -> None:
    add_service(cloud, 'one')
    add_service(cloud, 'two')
    add_service(cloud, 'disabled', disabled=True)
    add_service(cloud, 'controller', binary='nova-conductor')
    add_service(cloud, 'deleted').destroy()
    assert servers.computes(cloud.cell) == {'one', 'two'}
