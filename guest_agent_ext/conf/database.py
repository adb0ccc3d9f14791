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

from oslo_config import cfg
from oslo_db import options

GROUP = cfg.OptGroup(
    'guest_agent_database',
    title='Database of the guest agent extension',
    help="""
The database with the tables of the guest agent extension.

Unless ``connection`` is set, the tables are in Nova's API database and the
options of ``[api_database]`` apply. To use another database, set
``connection`` and run ``guest-agent-manage db sync``.
""",
)

# oslo.db's own declarations, so that help and defaults are theirs.
OPTS = list(options.database_opts)


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]
