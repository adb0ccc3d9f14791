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

from pbr import packaging
import setuptools

setuptools.setup(
    # The number of the server side's release, from the same repository.
    version=packaging.get_version('guest-agent-dashboard'),
    packages=setuptools.find_namespace_packages(
        include=['guest_agent_ext.dashboard*']
    ),
    package_data={
        'guest_agent_ext.dashboard': [
            'conf/*',
            'locale/**/*',
            'static/**/*',
            'templates/**/*',
        ]
    },
)
