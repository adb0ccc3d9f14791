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

"""What the cloud's users have: openrc and clouds.yaml."""

import json
from typing import Any

from tools.stack import layout
from tools.stack import sections
from tools.stack import seed


def account(place: layout.Layout, user: str, project: str) -> dict[str, Any]:
    """Return an entry of clouds.yaml."""
    return {
        'auth': {
            'auth_url': place.url('keystone', '/v3'),
            'username': user,
            'password': place.password,
            'project_name': project,
            'user_domain_id': 'default',
            'project_domain_id': 'default',
        },
        'region_name': sections.REGION,
        'interface': 'public',
        'identity_api_version': 3,
    }


def write(place: layout.Layout) -> None:
    """Write both, for every user that there is."""
    users = (('admin', 'admin', 'admin'), *seed.USERS)
    clouds = place.directory / 'clouds.yaml'
    clouds.touch(mode=0o600)
    # JSON is YAML too.
    clouds.write_text(
        json.dumps(
            {
                'clouds': {
                    user: account(place, user, project)
                    for user, project, _ in users
                }
            },
            indent=2,
        )
    )
    (place.directory / 'openrc').write_text(
        f'export PATH={place.client_bin}:$PATH\n'
        f'export OS_CLIENT_CONFIG_FILE={clouds}\n'
        '# Another user: export OS_CLOUD='
        + '|'.join(user for user, _, _ in users)
        + '\n'
        'export OS_CLOUD=demo\n'
    )
