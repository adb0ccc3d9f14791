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

import argparse
import types
from typing import Any
from unittest import mock

from keystoneauth1 import access
from keystoneauth1 import adapter
from keystoneauth1 import fixture
from keystoneauth1 import session
from keystoneauth1.identity import access as identity_access
from openstack import exceptions
from openstack.config import cloud_region
import pytest

from guest_agent_ext.osc import commands
from tests.unit.osc import fakes


def test_server_may_be_given_by_name(compute: mock.Mock) -> None:
    compute.post.return_value = fakes.Response(202)
    fakes.run(commands.Cancel, compute, 'uuid')
    compute.find_server.assert_called_once_with(
        'name', ignore_missing=False, details=False
    )
    (url,) = compute.post.call_args.args
    assert url.startswith(f'/servers/{fakes.SERVER}/')


def test_nothing_is_asked_about_a_server_that_is_not_there(
    compute: mock.Mock,
) -> None:
    compute.find_server.side_effect = exceptions.NotFoundException
    with pytest.raises(exceptions.NotFoundException):
        fakes.run(commands.Cancel, compute, 'uuid')
    compute.post.assert_not_called()


def connection(*, in_catalog: bool, **config: str) -> Any:
    """Return a connection to a cloud of two regions.

    :param in_catalog: whether the catalog has guest-agent-api
    :param config: further lines of clouds.yaml
    """
    token = fixture.V3Token()
    services = ['compute', 'guest-agent'] if in_catalog else ['compute']
    for name in services:
        service = token.add_service(name)
        for region in ('one', 'two'):
            service.add_standard_endpoints(
                region=region,
                public=f'http://{name}.{region}/v2.1',
                internal=f'http://{name}.{region}.internal/v2.1',
            )
    plugin = identity_access.AccessInfoPlugin(access.create(body=token))
    return types.SimpleNamespace(
        compute=adapter.Adapter(
            session.Session(auth=plugin),
            service_type='compute',
            interface='internal',
            region_name='two',
        ),
        config=cloud_region.CloudRegion('cloud', 'two', config=config),
    )


def requests_of(connection: Any) -> adapter.Adapter:
    """Return the adapter that a command sends our calls with."""
    app = mock.Mock()
    app.client_manager.sdk_connection = connection
    return commands.ListHosts(app, argparse.Namespace()).compute()


def test_guest_agent_api_of_the_catalog_is_used() -> None:
    # The endpoint of another region or network, or all requests, also those
    # about servers, sent there.
    cloud = connection(in_catalog=True)
    url = requests_of(cloud).get_endpoint()
    assert url == 'http://guest-agent.two.internal/v2.1'
    assert cloud.compute.get_endpoint() == 'http://compute.two.internal/v2.1'


def test_nova_is_asked_where_the_catalog_has_nothing_else() -> None:
    cloud = connection(in_catalog=False)
    assert requests_of(cloud) is cloud.compute


@pytest.mark.parametrize('in_catalog', [False, True])
def test_endpoint_may_be_overridden(in_catalog: bool) -> None:
    cloud = connection(
        in_catalog=in_catalog,
        guest_agent_endpoint_override='http://tunnel:1/v2.1',
        compute_endpoint_override='http://tunnel:2/v2.1',
    )
    assert requests_of(cloud).get_endpoint() == 'http://tunnel:1/v2.1'


def test_override_of_nova_s_endpoint_holds_for_both() -> None:
    # A user behind a tunnel to Nova, to whom the catalog's URL is unreachable.
    cloud = connection(
        in_catalog=True, compute_endpoint_override='http://tunnel:2/v2.1'
    )
    assert requests_of(cloud) is cloud.compute
