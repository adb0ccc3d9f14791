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

"""A server that moves between two hosts, and what becomes of its commands.

Two libvirtds, each with a guest-agent-compute, in one cloud. libvirt does what
it does for Nova; what Nova itself would write, where the server is and what is
being done to it, is written into its cell's database.

Each command says on its guest's console that it ran: a host keeps that, also
when the guest is gone.
"""

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import http.client
import os
import pathlib
import urllib.parse

import libvirt
import pytest

from tests.integration import attaching
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import libvirtd

HERE = testbed_cloud.HOST
THERE = 'compute-2'

# As long as a service needs to come up on a small machine.
PATIENCE = 90
MIB = 1024 * 1024
#: Of a file that is read.
SIZE = 24 * MIB


class Server:
    """A server, which is on the first host at first.

    :ivar there: the host that it goes to
    """

    def __init__(
        self, cloud: testbed_cloud.Cloud, there: testbed_cloud.Host
    ) -> None:
        self.cloud = cloud
        self.there = there
        self.guest = libvirtd.Guest()
        self.client = cloud.add(self.guest)

    def start(self, script: str, **arguments: object) -> str:
        """POST a command that does ``script``; return its uuid."""
        return self.client.start(
            '/bin/sh',
            '-c',
            f'echo "ran $GUEST_AGENT_COMMAND" >/dev/ttyS0; {script}',
            **arguments,
        )

    def run_on(self, script: str, **arguments: object) -> str:
        """Do as start, and wait until it runs."""
        command = self.start(script, **arguments)
        self.client.wait(command, 'RUNNING')
        return command

    def run_until_told(self, script: str, **arguments: object) -> str:
        """Do as run_on; what comes after ``tell`` is ``script``."""
        return self.run_on(
            'until [ -e /tmp/$GUEST_AGENT_COMMAND ]; do sleep 1; done; '
            + script,
            **arguments,
        )

    def tell(self, command: str, hypervisor: libvirtd.Libvirtd) -> None:
        """Let a command go on, past all of ours.

        :param hypervisor: which has its guest
        """
        hypervisor.touch(self.guest, f'/tmp/{command}')

    def looks_here(self) -> int:
        """Tell how often the first host looked for the guest in vain."""
        log = pathlib.Path(str(self.cloud.compute.log))
        return log.read_text(errors='replace').count(
            f'Guest {self.guest.uuid}: '
        )

    def ran(self, command: str) -> int:
        """Tell how often a command ran, on both hosts together."""
        consoles = (
            host.console(self.guest)
            for host in (self.cloud.hypervisor, self.there.hypervisor)
        )
        return sum(
            console.read_text(errors='replace').count(f'ran {command}')
            for console in consoles
            if console.exists()
        )

    def migrate(self, *, bandwidth: int = 0) -> None:
        """Move the guest while it runs; Nova notes that later."""
        self.note(task_state='migrating')
        self.cloud.hypervisor.migrate(
            self.guest, self.there.hypervisor, bandwidth=bandwidth
        )

    def note(self, **columns: object) -> None:
        """Have Nova's cell say something of the server."""
        self.cloud.update(self.guest.uuid, **columns)

    def arrive(self, host: str = THERE, **columns: object) -> None:
        """Have Nova's cell say that the move to a host is done."""
        self.note(host=host, task_state=None, **columns)

    def host_of(self, command: str) -> str:
        admin = self.cloud.nova.client('admin', self.guest.uuid)
        return str(admin.show(command)['host'])

    def wait_for_host_of(self, command: str, host: str) -> None:
        processes.wait_for(
            lambda: self.host_of(command) == host,
            PATIENCE,
            f'{command} on {host}',
        )

    def assert_completed(self, command: str, exitcode: int, out: str) -> None:
        ended = self.client.wait(command, timeout=PATIENCE)
        assert ended['status'] == 'COMPLETED', ended
        assert ended['result']['exitcode'] == exitcode
        assert ended['result']['out_data'] == out
        assert self.ran(command) == 1

    def assert_lost(self, command: str) -> None:
        ended = self.client.wait(command, timeout=PATIENCE)
        assert ended['status'] == 'LOST', ended
        assert 'rebooted' in ended['error']
        assert self.ran(command) == 1


@pytest.fixture(scope='module')
def there(
    running_cloud: testbed_cloud.Cloud,
    tmp_path_factory: pytest.TempPathFactory,
    cache: pathlib.Path,
) -> Iterator[testbed_cloud.Host]:
    running_cloud.mend()
    with running_cloud.another_host(
        THERE, tmp_path_factory.mktemp('there'), cache
    ) as host:
        yield host


@pytest.fixture
def server(
    cloud: testbed_cloud.Cloud, there: testbed_cloud.Host
) -> Iterator[Server]:
    if not there.hypervisor.process.alive:
        there.hypervisor.start()
    made = Server(cloud, there)
    yield made
    made.note(task_state=None, vm_state='deleted', deleted=1)
    for hypervisor in (cloud.hypervisor, there.hypervisor):
        # Where it is not, there is nothing to end.
        with contextlib.suppress(libvirt.libvirtError):
            hypervisor.domain(made.guest).destroy()


# Live migration: the guest keeps its memory, and with it its commands.


def test_live_migration_takes_what_runs_along(server: Server) -> None:
    ends_there = server.run_until_told('echo there; exit 6')
    ends_between = server.run_until_told('echo between; exit 7')
    server.migrate()
    # The domain runs there, and Nova's cell still says that it is here.
    hypervisor = server.there.hypervisor
    server.tell(ends_between, hypervisor)
    waits = server.start('echo out; exit 8', start_timeout=120)
    server.cloud.wait_for_reports()
    assert [
        server.client.show(command)['status']
        for command in (ends_there, ends_between, waits)
    ] == ['RUNNING', 'RUNNING', 'PENDING']
    server.arrive()
    server.assert_completed(ends_between, 7, 'between\n')
    server.assert_completed(waits, 8, 'out\n')
    server.tell(ends_there, hypervisor)
    server.assert_completed(ends_there, 6, 'there\n')
    assert {
        server.host_of(command)
        for command in (ends_there, ends_between, waits)
    } == {THERE}
    # The host before has forgotten them all, also what it never had.
    server.cloud.wait_for_reports()
    looks = server.looks_here()
    assert looks > 0
    server.cloud.wait_for_reports()
    assert server.looks_here() == looks


def test_live_migration_and_then_the_end_of_process_trees(
    server: Server,
) -> None:
    cancelled = server.run_on('sleep 600 & sleep 600')
    timed_out = server.run_on('sleep 600 & sleep 600', timeout=15)
    server.migrate()
    server.arrive()
    server.wait_for_host_of(cancelled, THERE)
    assert server.client.cancel(cancelled) == 202
    for command, status in (
        (cancelled, 'CANCELLED'),
        (timed_out, 'TIMED_OUT'),
    ):
        ended = server.client.wait(command, timeout=PATIENCE)
        assert ended['status'] == status
        assert 'process tree was killed' in ended['error']
        assert server.ran(command) == 1
    assert server.client.sh('pidof sleep')['result']['exitcode'] == 1


def test_live_migration_there_and_back(server: Server) -> None:
    """What is left here of the first stay is of no use any more."""
    command = server.run_until_told('echo out; exit 6')
    server.migrate()
    server.arrive()
    server.wait_for_host_of(command, THERE)
    server.cloud.wait_for_reports()
    server.note(task_state='migrating')
    server.there.hypervisor.migrate(server.guest, server.cloud.hypervisor)
    server.arrive(HERE)
    server.wait_for_host_of(command, HERE)
    server.tell(command, server.cloud.hypervisor)
    server.assert_completed(command, 6, 'out\n')
    assert server.host_of(command) == HERE


def test_live_migration_takes_the_streams_of_a_command_along(
    server: Server,
) -> None:
    source = os.urandom(6 * MIB)
    session = attaching.Attached(server.client, '/bin/cat')
    with session.writing(source):
        while len(session.got['out']) < MIB:
            assert not session.read()
        server.migrate()
        # The host before is asked for more, and finds no guest.
        server.cloud.wait_for_reports()
        server.arrive()
        session.drain()
    assert attaching.sha256(session.got['out']) == attaching.sha256(source)
    ended = session.end()
    assert (ended['status'], ended['result']['exitcode']) == ('COMPLETED', 0)
    assert ended['result']['out_bytes'] == len(source)
    assert server.host_of(session.uuid) == THERE


def begin_read(server: Server) -> http.client.HTTPResponse:
    """Begin to read a file that is too large to be under way at once."""
    server.client.sh(f'head -c {SIZE} /dev/zero >/tmp/file')
    connection = server.client.connect()
    connection.request(
        'GET',
        '%s/servers/%s/guest-agent/file-read?%s'
        % (
            server.client.base_path,
            server.guest.uuid,
            urllib.parse.urlencode({'path': '/tmp/file'}),
        ),
        headers={'X-Auth-Token': server.client.token},
    )
    response = connection.getresponse()
    assert response.status == 200
    return response


def test_live_migration_ends_a_transfer(server: Server) -> None:
    response = begin_read(server)
    response.read(MIB)
    server.migrate()
    # The host before asks for more, and finds no guest.
    server.cloud.wait_for_reports()
    server.arrive()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    ended = server.client.wait(response.headers['X-Guest-Agent-Command-UUID'])
    assert ended['status'] == 'FAILED', ended
    assert 'moved' in ended['error']
    # What the host before had open is closed.
    left = server.client.sh(
        'ls -l /proc/$(pidof qemu-ga)/fd | grep -c /tmp/file'
    )
    assert left['result']['out_data'] == '0\n'


def test_transfers_wait_for_a_live_migration(server: Server) -> None:
    """A call cut in two by it would leave the agent out of reach."""
    response = begin_read(server)
    domain = server.cloud.hypervisor.domain(server.guest)
    with futures.ThreadPoolExecutor(1) as pool:
        migration = pool.submit(server.migrate, bandwidth=1)
        processes.wait_for(
            lambda: is_under_way(domain), PATIENCE, 'the migration'
        )
        refused = server.client.get_file('/tmp/file')
        abort(server)
        with pytest.raises(libvirt.libvirtError):
            migration.result(PATIENCE)
    server.arrive(HERE)
    assert refused.status == 409
    assert b'being migrated' in refused.body
    assert len(response.read()) == SIZE
    ended = server.client.wait(response.headers['X-Guest-Agent-Command-UUID'])
    assert ended['status'] == 'COMPLETED'


def abort(server: Server) -> None:
    server.cloud.hypervisor.domain(server.guest).abortJob()


def lose_destination(server: Server) -> None:
    server.there.hypervisor.process.kill()
    server.there.hypervisor.end_guests()


@pytest.mark.parametrize('fail', [abort, lose_destination])
def test_live_migration_that_fails(
    server: Server, fail: Callable[[Server], None]
) -> None:
    runs = server.run_until_told('echo out; exit 6')
    here = server.cloud.hypervisor
    domain = here.domain(server.guest)
    with futures.ThreadPoolExecutor(1) as pool:
        # Slow enough to be met in the middle.
        migration = pool.submit(server.migrate, bandwidth=1)
        processes.wait_for(
            lambda: is_under_way(domain), PATIENCE, 'the migration'
        )
        during = server.start('echo out; exit 8')
        # Nothing is asked of its agent: that could cut it off for good.
        _, told = server.client.request(
            'GET', f'/servers/{server.guest.uuid}/guest-agent'
        )
        assert 'being migrated' in told['guest_agent']['reason']
        server.cloud.wait_for_reports()
        assert server.client.show(during)['status'] == 'PENDING'
        fail(server)
        with pytest.raises(libvirt.libvirtError):
            migration.result(PATIENCE)
    server.arrive(HERE)
    server.assert_completed(during, 8, 'out\n')
    server.tell(runs, here)
    server.assert_completed(runs, 6, 'out\n')
    assert {server.host_of(runs), server.host_of(during)} == {HERE}


def is_under_way(domain: libvirt.virDomain) -> bool:
    return int(domain.jobStats().get('memory_processed', 0)) > 0


# All others: the guest boots anew on the other host.


def test_cold_migration(server: Server) -> None:
    sent = server.run_on('sleep 600')
    server.note(task_state='resize_migrating')
    server.cloud.hypervisor.domain(server.guest).destroy()
    waits = server.start('echo out; exit 8', start_timeout=120)
    server.cloud.wait_for_reports()
    server.note(host=THERE, task_state='resize_finish')
    server.cloud.wait_for_reports()
    # Not before it is known: Nova may as well go back.
    assert server.client.show(sent)['status'] == 'RUNNING'
    assert server.client.show(waits)['status'] == 'PENDING'
    server.there.hypervisor.boot(server.guest)
    server.arrive(vm_state='resized')
    server.assert_lost(sent)
    server.assert_completed(waits, 8, 'out\n')
    assert {server.host_of(sent), server.host_of(waits)} == {THERE}


def crash(server: Server) -> None:
    server.cloud.compute.kill()


def cut_off(server: Server) -> None:
    """Have the service come back as it was: with the command in hand."""
    server.cloud.compute.pause()


@pytest.mark.parametrize('lose', [crash, cut_off])
def test_evacuation(server: Server, lose: Callable[[Server], None]) -> None:
    sent = server.run_on('sleep 600')
    lose(server)
    waits = server.start('echo out; exit 8', start_timeout=120)
    server.cloud.hypervisor.qemu(server.guest).kill()
    server.cloud.wait_for_host('down')
    server.note(host=THERE, task_state='rebuild_spawning')
    server.there.hypervisor.boot(server.guest)
    server.arrive()
    server.assert_lost(sent)
    server.assert_completed(waits, 8, 'out\n')
    runs = server.run_until_told('echo out; exit 6')
    server.cloud.mend()
    server.cloud.wait_for_reports()
    assert server.client.show(runs)['status'] == 'RUNNING'
    server.tell(runs, server.there.hypervisor)
    server.assert_completed(runs, 6, 'out\n')
    assert server.ran(sent) == server.ran(waits) == 1
    assert server.host_of(runs) == THERE
