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

"""The client's view of a guest's details, with a service that is played."""

from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import details as parts
from guest_agent_ext.osc import details
from tests.unit.osc import fakes

TOLD: dict[str, Any] = {
    'os': {'id': 'debian', 'pretty_name': 'Debian 12'},
    'host_name': 'web-1',
    'users': [{'user': 'root', 'login_time': 1.5}],
    'interfaces': [
        {
            'name': 'eth0',
            'ip_addresses': [
                {
                    'ip_address': '10.0.0.5',
                    'ip_address_type': 'ipv4',
                    'prefix': 24,
                }
            ],
        }
    ],
    'filesystems': [
        {
            'name': 'vda1',
            'mountpoint': '/',
            'used_bytes': 50,
            'total_bytes': 200,
            'disk': [],
        }
    ],
    'unavailable': {'vcpus': 'blocked'},
}


@pytest.fixture
def compute(compute: mock.Mock) -> mock.Mock:
    compute.get.return_value = fakes.Response(
        body={'guest_agent_details': TOLD}
    )
    return compute


def test_every_part_is_asked_for() -> None:
    """The client knows no module of the services."""
    assert (
        tuple(name for name in parts.PARTS if name != parts.SSH_KEYS)
        == details.FIELDS
    )


def test_parts_are_readable_and_whole(compute: mock.Mock) -> None:
    names, values = fakes.run(details.ShowDetails, compute)
    row = dict(zip(names, values, strict=True))
    assert {name: row[name].human_readable() for name in TOLD} == {
        'os': 'id: debian\npretty_name: Debian 12',
        'host_name': 'web-1',
        'users': 'user=root login_time=1.5',
        'interfaces': 'name=eth0 10.0.0.5/24',
        'filesystems': 'name=vda1 mountpoint=/ used_bytes=50 '
        'total_bytes=200 (25 %)',
        'unavailable': 'vcpus: blocked',
    }
    assert row['vcpus'].human_readable() == ''
    # What json and yaml show.
    assert row['filesystems'].machine_readable() == TOLD['filesystems']


def test_only_what_is_wanted_is_asked_for(compute: mock.Mock) -> None:
    names, _ = fakes.run(
        details.ShowDetails, compute, '--field', 'os', '--field', 'users'
    )
    assert names == ('os', 'users', 'unavailable')
    assert compute.get.call_args.args == (
        f'/servers/{fakes.SERVER}/guest-agent/details',
    )
    assert compute.get.call_args.kwargs['params'] == {'fields': 'os,users'}
