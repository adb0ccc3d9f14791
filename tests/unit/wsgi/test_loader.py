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

import pytest

from guest_agent_ext.wsgi import loader


@pytest.mark.parametrize(
    ('environment', 'expected'),
    [
        ({}, ('/etc/nova/guest-agent-api-paste.ini', ['/etc/nova/nova.conf'])),
        (
            {'OS_NOVA_CONFIG_DIR': '', 'OS_NOVA_CONFIG_FILES': ' '},
            ('/etc/nova/guest-agent-api-paste.ini', ['/etc/nova/nova.conf']),
        ),
        (
            {
                'OS_NOVA_CONFIG_DIR': '/srv/nova ',
                'OS_NOVA_CONFIG_FILES': 'paste.ini;nova.conf; /etc/own.conf;',
            },
            ('/srv/nova/paste.ini', ['/srv/nova/nova.conf', '/etc/own.conf']),
        ),
    ],
)
def test_files_are_named_as_for_nova_api(
    environment: dict[str, str], expected: tuple[str, list[str]]
) -> None:
    # A variable that is set and empty, as units and containers have them, or
    # a list that ends with a semicolon: a directory read as a file.
    assert loader.files(environment) == expected
