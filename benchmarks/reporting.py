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

"""A compute service that reports and takes no work, in this process."""

from collections.abc import Iterator
import contextlib
import pathlib

from oslo_config import cfg
import oslo_messaging

from benchmarks import measure
from guest_agent_ext.conductor import rpcapi
from tools.testbed import cloud as testbed_cloud

_INTERVAL = 5.0


class Host:
    """The compute host of a cloud, whose own service is stopped."""

    def __init__(self, cloud: testbed_cloud.Cloud) -> None:
        # oslo.messaging registers options of its own with this one only.
        cfg.CONF([])
        # As Nova has it.
        oslo_messaging.set_transport_defaults('nova')
        self.conductor = rpcapi.ConductorAPI(
            oslo_messaging.get_rpc_transport(
                cfg.CONF, cloud.rabbitmq.transport_url()
            ),
            30,
        )
        incarnation = self.conductor.register(
            testbed_cloud.HOST,
            pathlib.Path('/etc/machine-id').read_text().strip(),
            '1',
        )
        assert incarnation is not None
        self.service: rpcapi.Service = {
            'host': testbed_cloud.HOST,
            'incarnation': incarnation,
        }


@contextlib.contextmanager
def host(cloud: testbed_cloud.Cloud) -> Iterator[Host]:
    """Report in the place of the cloud's compute service."""
    cloud.compute.stop()
    reporter = Host(cloud)
    with measure.every(
        _INTERVAL, lambda: reporter.conductor.report(reporter.service, {}, {})
    ):
        yield reporter
