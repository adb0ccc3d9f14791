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

"""A whole OpenStack on one machine, with the extension installed into it.

``make stack-up`` starts it, ``make stack-down`` stops it. Everything is as its
project publishes it; what is written here is what an operator would write.

The services are under ``.stack/openstack``, a virtual environment with
OpenStack and the extension; those who use the cloud have ``.stack/client``,
which knows nothing of Nova. State is kept between runs, under ``.stack`` too;
remove that to begin anew. ``STACK_DIRECTORY`` names another place for it, and
so another stack on the same environments.
"""
