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

"""Horizon and its static files, as one WSGI application."""

import os

# First: Horizon has its own directory go before PYTHONPATH, and an installed
# panel with it.
import guest_agent_ext.dashboard  # noqa: F401

# isort: split

from openstack_dashboard import wsgi
import whitenoise

application = whitenoise.WhiteNoise(
    wsgi.application, root=os.environ['HORIZON_STATIC'], prefix='static/'
)
