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

"""What the conductor reads of Nova's servers, in Nova's own database."""

from typing import Any

from nova import context as nova_context
from nova import objects
import pytest

from guest_agent_ext.conductor import servers
from tests.functional.api import base


@pytest.fixture
def instance(cloud: base.Cloud) -> Any:
    return cloud.make_instance()


def read(instance: Any) -> servers.Server | None:
    mapping = objects.InstanceMapping.get_by_instance_uuid(
        nova_context.get_admin_context(), instance.uuid
    )
    return servers.read(mapping.cell_mapping, [instance.uuid, 'no such']).get(
        instance.uuid
    )


def test_where_it_is_and_in_which_state(instance: Any) -> None:
    instance.task_state = 'migrating'
    instance.save()
    assert read(instance) == servers.Server(
        host=instance.host,
        vm_state='active',
        task_state='migrating',
        launched=False,
        deleted=False,
    )


def test_deleted_server_is_told_as_such(instance: Any) -> None:
    instance.destroy()
    server = read(instance)
    assert server and server.deleted


def test_one_that_a_move_between_cells_has_hidden_is_none(
    instance: Any,
) -> None:
    instance.hidden = True
    instance.save()
    assert read(instance) is None
