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

"""The plugin that tempest loads."""

import os
from typing import Any

from tempest import config
from tempest.test_discover import plugins

from guest_agent_ext.tempest_plugin import config as our_config

_PACKAGE = 'guest_agent_ext/tempest_plugin'


class GuestAgentPlugin(plugins.TempestPlugin):
    """Names the tests, the options and the client for tempest."""

    def load_tests(self) -> tuple[str, str]:
        here = os.path.dirname(os.path.abspath(__file__))
        return os.path.join(here, 'tests'), here.removesuffix(_PACKAGE)

    def register_opts(self, conf: Any) -> None:
        conf.register_opt(our_config.service_option, group='service_available')
        conf.register_group(our_config.guest_agent_group)
        conf.register_opts(
            our_config.GuestAgentGroup, group=our_config.guest_agent_group
        )

    def get_opt_lists(self) -> list[tuple[str, list[Any]]]:
        return [
            (our_config.guest_agent_group.name, our_config.GuestAgentGroup),
            ('service_available', [our_config.service_option]),
        ]

    def get_service_clients(self) -> list[dict[str, Any]]:
        # The routes are below those of compute, so the endpoint is the same.
        return [
            {
                'name': 'guest_agent',
                'service_version': 'guest_agent.v2',
                'module_path': 'guest_agent_ext.tempest_plugin.services',
                'client_names': ['GuestAgentClient'],
                **config.service_client_config('compute'),
            }
        ]
