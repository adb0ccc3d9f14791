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

"""A guest whose root has put an agent of his own in the place of qemu-ga."""

from collections.abc import Iterator

import pytest

from tests.integration import test_faults
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import libvirtd

MIB = 1024 * 1024
#: Seconds that it speaks, and that a command of that guest may take to start.
HOSTILE, START_TIMEOUT = 45, 15

#: It answers that it listens, as libvirt asks before each request. To those it
#: answers in turn what is of another type, nested deeply, large, and endless.
AGENT = r"""
kill -9 $(pidof qemu-ga)
until { command exec 3<>/dev/virtio-ports/org.qemu.guest_agent.0; }; do :; done
turn=0
while :; do
    # Nobody is there when libvirt has had enough.
    read -r line <&3 || { sleep 0.2; continue; }
    case $line in *guest-sync*)
        id=${line##*:}
        echo "{\"return\": ${id%%\}*}}" >&3
        continue
    esac
    turn=$((turn + 1))
    echo "$turn $line" | cut -c1-60 >>/tmp/asked
    case $((turn % 4)) in
        1) echo '{"return": {"pid": "x", "exited": 7, "version": [],
            "supported_commands": {"guest-exec": null}}}' | tr -d '\n'
            echo ;;
        2) printf '{"return": '
            head -c 100000 /dev/zero | tr '\0' '['
            head -c 100000 /dev/zero | tr '\0' ']'
            echo '}' ;;
        3) printf '{"return": {"version": "'
            head -c 3000000 /dev/zero | tr '\0' x
            echo '", "supported_commands": []}}' ;;
        0) timeout 3 cat /dev/zero ;;
    esac >&3
done
"""


@pytest.fixture
def guest(cloud: testbed_cloud.Cloud) -> Iterator[libvirtd.Guest]:
    guest = libvirtd.Guest()
    yield guest
    cloud.hypervisor.domain(guest).destroy()


@pytest.fixture
def hostile(cloud: testbed_cloud.Cloud, guest: libvirtd.Guest) -> http.Client:
    """A client of its server."""
    return cloud.add(guest)


def is_available(client: http.Client) -> bool:
    status, body = client.request(
        'GET', f'/servers/{client.server_id}/guest-agent'
    )
    assert status == 200, body
    return bool(body['guest_agent']['status'] == 'available')


def test_nobody_else_feels_a_hostile_guest(
    cloud: testbed_cloud.Cloud, guest: libvirtd.Guest, hostile: http.Client
) -> None:
    well = cloud.client()
    well.run('/bin/true')
    cloud.compute.forget_peak()
    before = cloud.compute.memory('VmRSS')
    assert hostile.put_file('/tmp/agent', AGENT.encode()).status == 204
    hostile.sh(
        'setsid sh -c "until [ -e /tmp/go ]; do sleep 0.1; done; '
        f'timeout {HOSTILE} sh /tmp/agent" >/dev/null 2>&1 &'
    )
    # Not before the end of that was told, which needs the agent.
    cloud.hypervisor.touch(guest, '/tmp/go')
    processes.wait_for(
        lambda: not is_available(hostile), HOSTILE, 'the agent of the guest'
    )
    commands = [
        hostile.start('/bin/true', start_timeout=START_TIMEOUT)
        for _ in range(3)
    ]
    for _ in range(5):
        assert well.run('/bin/true')['status'] == 'COMPLETED'
    for command in commands:
        ended = hostile.wait(command, timeout=test_faults.PATIENCE)
        assert ended['status'] == 'FAILED'
        assert len(ended['error']) < 1000
    assert cloud.compute.memory('VmHWM') - before < 64 * MIB
    # Its own agent is back.
    hostile.wait(
        hostile.start('/bin/true', start_timeout=120),
        'COMPLETED',
        timeout=test_faults.PATIENCE,
    )
    asked = hostile.sh('cat /tmp/asked')['result']['out_data'].splitlines()
    assert len(asked) >= 4, asked
