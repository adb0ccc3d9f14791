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
from oslo_db.sqlalchemy import enginefacade

from guest_agent_ext.conf import database


def registered() -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    database.register_opts(conf)
    conf([], default_config_files=[])
    return conf


def test_database_of_nova_is_the_default() -> None:
    """Any connection, even an empty one, would take the tables from it."""
    assert not registered().guest_agent_database.connection


def test_each_option_is_one_that_the_engine_takes() -> None:
    group = registered().guest_agent_database
    assert group.keys() == {option.dest for option in options.database_opts}
    enginefacade.transaction_context().configure(**dict(group.items()))
