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


"""Where the calls below ``guest-agent`` are sent."""

import contextlib
import copy
from typing import Any

from keystoneauth1 import adapter
from keystoneauth1 import exceptions

#: Service type of guest-agent-api in Keystone's catalog.
SERVICE_TYPE = 'guest-agent'


def compute(connection: Any) -> adapter.Adapter:
    """Return the adapter for the calls below ``guest-agent``.

    It is the SDK's proxy of the compute service, and sends to guest-agent-api
    where the cloud has that.

    :param connection: connection of openstacksdk
    """
    proxy: adapter.Adapter = connection.compute
    url = _endpoint(connection)
    if url is None:
        return proxy
    # The connection's own goes on to ask Nova for servers.
    proxy = copy.copy(proxy)
    proxy.endpoint_override = url
    return proxy


def _endpoint(connection: Any) -> str | None:
    """Return the URL of guest-agent-api; None if Nova's API is to be asked.

    An override in clouds.yaml or the environment comes before the catalog.
    Where Nova's endpoint alone is overridden, that is the endpoint of both.
    """
    config, nova = connection.config, connection.compute
    override: str | None = config.get_endpoint(SERVICE_TYPE)
    if override or config.get_endpoint('compute'):
        return override
    url: str | None = None
    with contextlib.suppress(exceptions.EndpointNotFound):
        url = nova.session.get_endpoint(
            nova.auth,
            service_type=SERVICE_TYPE,
            interface=nova.interface,
            region_name=nova.region_name,
        )
    return url
