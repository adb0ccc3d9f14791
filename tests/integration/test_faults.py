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

"""What is promised when a part is lost: each a process, killed by its pid.

Every command appends to a file of its own in the guest, so that running twice
would show.
"""

import signal
import time
import uuid

import pytest

from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

# As long as a service needs to come up on a small machine.
PATIENCE = 90


#: What guest-agent-compute logs when it cannot record an end.
UNRECORDED = r'compute\.lane .*waits for the conductor'


class Witness:
    """A file in the guest to which a command appends when it runs."""

    def __init__(self) -> None:
        self._path = f'/tmp/ran-{uuid.uuid4()}'

    def then(self, script: str) -> str:
        """Return a script that leaves its mark, then does ``script``."""
        return f'echo x >>{self._path}; {script}'

    def count(self, client: http.Client) -> int:
        ended = client.sh(f'cat {self._path} 2>/dev/null | wc -l')
        assert ended['status'] == 'COMPLETED', ended
        return int(ended['result']['out_data'])


@pytest.fixture
def client(cloud: testbed_cloud.Cloud) -> http.Client:
    return cloud.client()


@pytest.fixture
def witness() -> Witness:
    return Witness()


class Signal:
    """What a script waits for; it is given past all of ours."""

    def __init__(self, cloud: testbed_cloud.Cloud) -> None:
        self._cloud = cloud
        self._path = f'/tmp/go-{uuid.uuid4()}'
        #: What the script does until then.
        self.wait = f'until [ -e {self._path} ]; do sleep 0.1; done'

    def give(self) -> None:
        self._cloud.hypervisor.touch(self._cloud.guest, self._path)


@pytest.fixture
def go(cloud: testbed_cloud.Cloud) -> Signal:
    return Signal(cloud)


def start(client: http.Client, script: str, **arguments: object) -> str:
    return client.start('/bin/sh', '-c', script, **arguments)


def assert_completed(
    client: http.Client, command: str, exitcode: int, out: str
) -> None:
    ended = client.wait(command, timeout=PATIENCE)
    assert ended['status'] == 'COMPLETED', ended
    assert ended['result']['exitcode'] == exitcode
    assert ended['result']['out_data'] == out


def test_compute_killed_while_a_command_runs(
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    witness: Witness,
    go: Signal,
) -> None:
    command = start(
        client, witness.then(f'echo before; {go.wait}; echo after; exit 6')
    )
    client.wait(command, 'RUNNING')
    cloud.compute.kill()
    cloud.start_compute()
    cloud.wait_for_reports(2)
    assert client.show(command)['status'] == 'RUNNING'
    go.give()
    assert_completed(client, command, 6, 'before\nafter\n')
    assert witness.count(client) == 1


def test_compute_killed_between_the_end_and_its_record(
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    witness: Witness,
    go: Signal,
) -> None:
    command = start(client, witness.then(f'{go.wait}; echo out; exit 4'))
    client.wait(command, 'RUNNING')
    # Without a conductor the end cannot be recorded.
    cloud.conductor.kill()
    log = processes.Log(cloud.compute)
    go.give()
    log.wait_for(UNRECORDED)
    cloud.compute.kill()
    cloud.start_conductor()
    cloud.start_compute()
    assert_completed(client, command, 4, 'out\n')
    assert witness.count(client) == 1


def test_conductor_killed_while_a_command_runs(
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    witness: Witness,
    go: Signal,
) -> None:
    command = start(client, witness.then(f'{go.wait}; echo out'))
    client.wait(command, 'RUNNING')
    cloud.conductor.kill()
    log = processes.Log(cloud.compute)
    go.give()
    log.wait_for(UNRECORDED)
    cloud.start_conductor()
    assert_completed(client, command, 0, 'out\n')
    cloud.wait_for_host('up', PATIENCE)
    assert witness.count(client) == 1


def test_compute_stopped_is_told_once_its_heartbeat_is_stale(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    cloud.compute.stop()
    cloud.wait_for_host('down')
    status, body = client.post('/bin/true')
    assert status == 409
    assert 'service is down' in body['conflictingRequest']['message']
    cloud.start_compute()
    cloud.wait_for_host('up', PATIENCE)
    assert client.run('/bin/true')['status'] == 'COMPLETED'


def test_accepted_before_the_stop_runs_when_the_host_is_back_in_time(
    cloud: testbed_cloud.Cloud, client: http.Client, witness: Witness
) -> None:
    cloud.compute.kill()
    command = start(client, witness.then('echo out'), start_timeout=80)
    assert client.show(command)['status'] == 'PENDING'
    cloud.start_compute()
    assert_completed(client, command, 0, 'out\n')
    assert witness.count(client) == 1


def test_accepted_before_the_stop_never_runs_when_it_is_back_too_late(
    cloud: testbed_cloud.Cloud, client: http.Client, witness: Witness
) -> None:
    cloud.compute.kill()
    command = start(client, witness.then('echo out'), start_timeout=2)
    ended = client.wait(command)
    assert ended['status'] == 'FAILED'
    assert 'start_timeout' in ended['error']
    cloud.start_compute()
    cloud.wait_for_host('up', PATIENCE)
    assert witness.count(client) == 0
    assert client.show(command) == ended


def test_cancelled_while_its_host_was_down_never_runs(
    cloud: testbed_cloud.Cloud, client: http.Client, witness: Witness
) -> None:
    cloud.compute.kill()
    command = start(client, witness.then('echo out'))
    assert client.cancel(command) == 202
    ended = client.show(command)
    assert ended['status'] == 'CANCELLED'
    cloud.start_compute()
    cloud.wait_for_host('up', PATIENCE)
    assert witness.count(client) == 0
    assert client.show(command) == ended


def test_broker_that_refuses_delays_no_post(
    cloud: testbed_cloud.Cloud, client: http.Client, witness: Witness
) -> None:
    def start_some() -> tuple[list[str], float]:
        began = time.monotonic()
        commands = [
            start(client, witness.then('echo out'), start_timeout=120)
            for _ in range(3)
        ]
        return commands, time.monotonic() - began

    commands, usual = start_some()
    cloud.rabbitmq.stop()
    more, without_broker = start_some()
    # What a POST takes is the machine's; that it waits for no broker is ours.
    assert without_broker < 3 + 3 * usual
    cloud.rabbitmq.start()
    commands += more
    for command in commands:
        assert_completed(client, command, 0, 'out\n')
    assert witness.count(client) == 6


def test_libvirtd_killed_while_a_command_runs(
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    witness: Witness,
    go: Signal,
) -> None:
    command = start(client, witness.then(f'{go.wait}; echo out; exit 2'))
    client.wait(command, 'RUNNING')
    cloud.hypervisor.process.kill()
    cloud.hypervisor.start()
    go.give()
    assert_completed(client, command, 2, 'out\n')
    assert witness.count(client) == 1


def test_agent_killed_by_its_own_command(client: http.Client) -> None:
    ended = client.sh('kill -9 $(pidof qemu-ga); sleep 1; echo out; exit 5')
    assert ended['status'] == 'COMPLETED', ended
    assert ended['result']['exitcode'] == 5
    assert ended['result']['out_data'] == 'out\n'


def test_reboot_of_the_guest_loses_the_command_and_says_so(
    cloud: testbed_cloud.Cloud, client: http.Client, witness: Witness
) -> None:
    command = start(client, witness.then('sleep 600'))
    client.wait(command, 'RUNNING')
    cloud.hypervisor.domain(cloud.guest).reset()
    ended = client.wait(command, timeout=PATIENCE)
    assert ended['status'] == 'LOST'
    assert 'reboot' in ended['error']
    cloud.hypervisor.wait(cloud.guest)
    assert client.run('/bin/true')['status'] == 'COMPLETED'


def test_hung_agent_gets_the_command_once_when_it_wakes(
    cloud: testbed_cloud.Cloud, client: http.Client, witness: Witness
) -> None:
    stopped = f'stopped {uuid.uuid4()}'
    asleep = start(
        client,
        'agent=$(pidof qemu-ga); '
        '(sleep 1; kill -STOP $agent; '
        f'echo {stopped} >/dev/ttyS0; sleep 12; '
        'kill -CONT $agent) >/dev/null 2>&1 &',
    )
    client.wait(asleep)
    console = cloud.hypervisor.console(cloud.guest)
    processes.wait_for(
        lambda: stopped in console.read_text(errors='replace'),
        PATIENCE,
        'the agent to stop',
    )
    command = start(client, witness.then('echo out'), start_timeout=120)
    assert_completed(client, command, 0, 'out\n')
    assert witness.count(client) == 1


def test_sigterm_drains_and_the_next_service_resumes(
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    witness: Witness,
    go: Signal,
) -> None:
    command = start(client, witness.then(f'{go.wait}; echo out'))
    client.wait(command, 'RUNNING')
    cloud.compute.signal(signal.SIGTERM)
    processes.wait_for(
        lambda: not cloud.compute.alive, PATIENCE, 'the end of the service'
    )
    cloud.start_compute()
    go.give()
    assert_completed(client, command, 0, 'out\n')
    assert witness.count(client) == 1


def test_newer_start_of_a_service_fences_the_older(
    cloud: testbed_cloud.Cloud, client: http.Client
) -> None:
    older = cloud.compute
    cloud.start_compute()
    processes.wait_for(lambda: not older.alive, PATIENCE, 'the fenced end')
    cloud.wait_for_host('up', PATIENCE)
    assert client.run('/bin/true')['status'] == 'COMPLETED'


def test_moved_server_is_no_longer_this_hosts(
    cloud: testbed_cloud.Cloud,
    client: http.Client,
    witness: Witness,
    go: Signal,
) -> None:
    command = start(client, witness.then(f'{go.wait}; echo out'))
    client.wait(command, 'RUNNING')
    with cloud.server(host='elsewhere'):
        go.give()
        cloud.wait_for_reports(5)
        assert client.show(command)['status'] == 'RUNNING'
    assert_completed(client, command, 0, 'out\n')
    assert witness.count(client) == 1
