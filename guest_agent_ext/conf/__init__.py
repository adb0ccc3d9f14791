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

"""The options of guest_agent_ext, which every process adds to Nova's."""

from oslo_config import cfg

from guest_agent_ext.conf import database
from guest_agent_ext.conf import guest_agent

CONF = cfg.CONF

_MODULES = (guest_agent, database)

for _module in _MODULES:
    _module.register_opts(CONF)


def connection_uri(conf: cfg.ConfigOpts) -> str:
    """Return the URI of the libvirt connection, by default nova-compute's."""
    return str(
        conf.guest_agent.connection_uri
        or conf.libvirt.connection_uri
        or 'qemu:///system'
    )


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """Return all options by group, for oslo-config-generator."""
    return [entry for module in _MODULES for entry in module.list_opts()]
