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

"""Horizon's own settings for tests, with the plug-in."""

from openstack_dashboard import enabled as horizon_enabled

from guest_agent_ext.dashboard import enabled

# Read by the settings, which may be read only once.
horizon_enabled.__path__.extend(enabled.__path__)

# E402: for the line above. F401, F403: settings are names of a module.
from openstack_dashboard.test.settings import *  # noqa: E402, F401, F403
