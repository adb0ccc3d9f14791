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

"""Sections that the configuration of several services has in common."""

from tools.stack import layout
from tools.testbed import ini

REGION = 'RegionOne'


def common(place: layout.Layout, service: str) -> ini.Sections:
    """Return what every service is told: where to log, to lock, and whom."""
    return {
        'DEFAULT': {
            # Without it oslo.log writes to stdout.
            'use_stderr': True,
            'state_path': place.state(service),
        },
        'oslo_concurrency': {'lock_path': place.state(service) / 'locks'},
        # Every service is root already, and there need be no sudo.
        'privsep': {'helper_command': place.bin / 'privsep-helper'},
    }


def account(place: layout.Layout, user: str) -> dict[str, object]:
    """Return with what a service authenticates to Keystone."""
    return {
        'auth_type': 'password',
        'auth_url': place.url('keystone', '/v3'),
        'region_name': REGION,
        'username': user,
        'password': place.password,
        'user_domain_id': 'default',
        'project_name': 'service',
        'project_domain_id': 'default',
    }


def authtoken(place: layout.Layout, user: str) -> dict[str, object]:
    """Return the section of keystonemiddleware."""
    return {
        **account(place, user),
        'service_token_roles_required': True,
        'www_authenticate_uri': place.url('keystone', '/v3'),
    }
