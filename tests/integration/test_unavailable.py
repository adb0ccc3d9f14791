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

"""What tenants are told of guests in which no command can run."""

from typing import Any

import pytest

from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd

NO_CHANNEL = libvirtd.Guest(agent=False)
BLOCKED = libvirtd.Guest(blocked=('guest-exec',))


@pytest.fixture(scope='module')
def clients(
    running_cloud: testbed_cloud.Cloud,
) -> dict[libvirtd.Guest, http.Client]:
    running_cloud.mend()
    return {guest: running_cloud.add(guest) for guest in (NO_CHANNEL, BLOCKED)}


def told(client: http.Client) -> dict[str, Any]:
    status, body = client.request(
        'GET', f'/servers/{client.server_id}/guest-agent'
    )
    assert status == 200, body
    return dict(body['guest_agent'])


def assert_unavailable(client: http.Client, *words: str) -> None:
    agent = told(client)
    assert agent['status'] == 'unavailable', agent
    for word in words:
        assert word in agent['reason']


def test_no_channel(clients: dict[libvirtd.Guest, http.Client]) -> None:
    client = clients[NO_CHANNEL]
    assert_unavailable(client, 'hw_qemu_guest_agent')
    status, body = client.post('/bin/true')
    assert status == 409
    assert 'hw_qemu_guest_agent' in body['conflictingRequest']['message']


def test_blocked_by_the_guest(
    clients: dict[libvirtd.Guest, http.Client],
) -> None:
    client = clients[BLOCKED]
    assert_unavailable(client, 'guest-exec', 'allow-rpcs')
    ended = client.run('/bin/true')
    assert ended['status'] == 'FAILED'
    assert 'guest-exec' in ended['error']
    assert ended['result'] is None


def test_server_is_paused(cloud: testbed_cloud.Cloud) -> None:
    domain = cloud.hypervisor.domain(cloud.guest)
    domain.suspend()
    try:
        assert_unavailable(cloud.client(), 'paused')
    finally:
        domain.resume()
    assert told(cloud.client())['status'] == 'available'


def test_server_is_stopped(cloud: testbed_cloud.Cloud) -> None:
    with cloud.server(vm_state='stopped', power_state=4):
        assert_unavailable(cloud.client(), 'stopped')


def test_agent_does_not_answer(cloud: testbed_cloud.Cloud) -> None:
    client = cloud.client()
    cloud.hypervisor.qemu(cloud.guest).pause()
    try:
        assert_unavailable(client, 'does not answer')
    finally:
        cloud.hypervisor.qemu(cloud.guest).resume()
    cloud.hypervisor.wait(cloud.guest)


def test_host_is_down(cloud: testbed_cloud.Cloud) -> None:
    cloud.compute.stop()
    cloud.wait_for_host('down')
    assert_unavailable(cloud.client(), 'host', 'down')
