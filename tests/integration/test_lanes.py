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

"""Lanes against real guests, with the conductor played.

What goes lost between libvirt and the agent is played too: it cannot be made
to go lost between two given calls. All else is the real thing.
"""

import base64
from collections.abc import Iterator
from collections.abc import Mapping
import pathlib
import statistics
import time
from typing import Any
from unittest import mock
import uuid

import pytest

from guest_agent_ext import clock
from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import lane as compute_lane
from guest_agent_ext.compute import manager
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import connection
from guest_agent_ext.guest.launchers import direct
from guest_agent_ext.guest.launchers import factory
from tools.testbed import processes
from tools.testbed.parts import libvirtd as testbed_libvirtd

GUESTS = {
    shell: testbed_libvirtd.Guest(shell=f'/bin/{shell}')
    for shell in ('busybox', 'dash', 'bash')
}


class Lossy:
    """A connection that loses answers: the call is made all the same.

    :ivar lose: whether to lose the answer of a request
    """

    def __init__(self, real: connection.Connection) -> None:
        self._real = real
        self.lose = lambda request: False
        self.launches = 0

    def agent_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        answer = self._real.agent_command(uuid, request, timeout)
        self.launches += is_launch(request)
        if self.lose(request):
            raise exception.AgentUnresponsive()
        return answer

    def ping(self, uuid: str, *, is_suspect: bool) -> None:
        self._real.ping(uuid, is_suspect=is_suspect)


class Conductor:
    """Plays the conductor: hands out one command each, and notes its end."""

    def __init__(self) -> None:
        self.ends: dict[str, rpcapi.End] = {}
        self.arguments: dict[str, Any] = {}
        self.started = mock.Mock(return_value=command.OK)
        self.ended = mock.Mock(return_value=[])
        self.refuse = mock.Mock()

    def claim(
        self,
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        boot_id: str,
        ticket: int,
        window: float,
    ) -> rpcapi.Claim:
        order: rpcapi.ExecOrder = {
            'command': self.arguments[uuid],
            'cwd': None,
            'user': None,
            'env': {},
            'stdin': '',
            'output_keep': 'head',
        }
        return {
            'uuid': uuid,
            'type': command.EXEC,
            'exec': order,
            'file': None,
            'timeout': 60,
            'boot_id': boot_id,
            'ticket': ticket,
            'started_uptime': None,
        }

    def finish(
        self, service: rpcapi.Service, uuid: str, attempt: str, end: rpcapi.End
    ) -> str:
        self.ends[uuid] = end
        return command.OK


class Host:
    """The lanes of a host, without a service around them."""

    def __init__(self, guests: Lossy) -> None:
        self.guests = guests
        self.conductor = Conductor()
        self.lanes: dict[str, compute_lane.Lane] = {}

    def start(self, guest: testbed_libvirtd.Guest, *argv: str) -> str:
        command_id = str(uuid.uuid4())
        self.conductor.arguments[command_id] = list(argv)
        if guest.uuid not in self.lanes:
            session = compute_session.Session(
                guest.uuid,
                self.guests,
                self.conductor,
                {'host': 'here', 'incarnation': 'f00d'},
                clock.SystemClock(),
            )
            self.lanes[guest.uuid] = compute_lane.Lane(
                session, manager.make_task, lambda lane: False
            )
            self.lanes[guest.uuid].start()
        self.lanes[guest.uuid].offer(
            {
                'uuid': command_id,
                'type': command.EXEC,
                'instance_uuid': guest.uuid,
                'status': command.PENDING,
                'attempt': None,
                'cancel_requested': False,
                'start_in': 120.0,
            }
        )
        return command_id

    def wait(self, command_id: str, timeout: float = 60) -> rpcapi.End:
        processes.wait_for(
            lambda: command_id in self.conductor.ends,
            timeout,
            'the end of the command',
        )
        return self.conductor.ends[command_id]

    def run(self, guest: testbed_libvirtd.Guest, *argv: str) -> rpcapi.End:
        return self.wait(self.start(guest, *argv))


@pytest.fixture(scope='module')
def hypervisor(
    tmp_path_factory: pytest.TempPathFactory, cache: pathlib.Path
) -> Iterator[testbed_libvirtd.Libvirtd]:
    libvirtd = testbed_libvirtd.Libvirtd(
        tmp_path_factory.mktemp('lanes'), cache
    )
    libvirtd.start()
    libvirtd.boot(*GUESTS.values())
    libvirtd.wait(*GUESTS.values())
    yield libvirtd
    libvirtd.stop()


@pytest.fixture
def host(hypervisor: testbed_libvirtd.Libvirtd) -> Iterator[Host]:
    real = connection.Connection(hypervisor.uri)
    host = Host(Lossy(real))
    yield host
    for item in host.lanes.values():
        item.stop()
        item.join(10)
    real.close()


def is_launch(request: Mapping[str, Any]) -> bool:
    # Of all scripts the launch alone makes pipes.
    return request['execute'] == 'guest-exec' and any(
        'mkfifo' in item for item in request['arguments'].get('env', ())
    )


@pytest.mark.parametrize('shell', GUESTS)
def test_launcher_in_guests_of_each_shell(host: Host, shell: str) -> None:
    end = host.run(
        GUESTS[shell],
        '/bin/sh',
        '-c',
        'yes | head -c 300000; echo err >&2; exit 3',
    )
    assert end['status'] == command.COMPLETED
    assert (end['exitcode'], end['out_bytes'], end['err_bytes']) == (
        3,
        300000,
        4,
    )


@pytest.fixture
def direct_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no launcher work, and direct capture permitted."""
    monkeypatch.setattr(factory, '_works', lambda guarded: False)
    monkeypatch.setattr(
        compute_lane.CONF.guest_agent,
        'allow_unbounded_capture',
        True,
        raising=False,
    )


@pytest.mark.usefixtures('direct_capture')
def test_direct_capture_of_what_the_agent_can_carry(host: Host) -> None:
    end = host.run(
        GUESTS['busybox'],
        '/bin/sh',
        '-c',
        'yes | head -c 300000; echo err >&2; exit 3',
    )
    assert (end['status'], end['exitcode'], end['out_bytes']) == (
        command.COMPLETED,
        3,
        300000,
    )
    assert len(base64.b64decode(end['out_data'])) == command.MAX_OUTPUT_BYTES
    # No script of ours was sent.
    assert host.guests.launches == 0


@pytest.mark.usefixtures('direct_capture')
def test_direct_capture_of_too_much_is_lost_and_harms_no_other(
    host: Host,
) -> None:
    end = host.run(GUESTS['busybox'], '/bin/sh', '-c', 'yes | head -c 4500000')
    assert (end['status'], end['error']) == (command.LOST, direct.TOO_LARGE)
    after = host.run(GUESTS['busybox'], '/bin/sh', '-c', 'exit 5')
    assert after['exitcode'] == 5


def test_lost_answer_of_the_launch_runs_it_once(host: Host) -> None:
    guest, marks = GUESTS['busybox'], f'/tmp/ran-{uuid.uuid4()}'
    lost: list[Any] = []
    host.guests.lose = lambda request: (
        is_launch(request) and not lost and not lost.append(request)
    )
    end = host.run(guest, '/bin/sh', '-c', f'echo x >>{marks}; exit 4')
    assert (end['status'], end['exitcode']) == (command.COMPLETED, 4)
    # It was found in the guest, and not sent again.
    assert host.guests.launches == 1
    counted = host.run(guest, '/bin/sh', '-c', f'exit $(wc -l <{marks})')
    assert counted['exitcode'] == 1


def test_lost_answer_of_the_last_poll_loses_no_result(host: Host) -> None:
    lost: list[Any] = []

    def lose(request: Mapping[str, Any]) -> bool:
        if (
            request['execute'] != 'guest-exec-status'
            or not host.guests.launches
            or lost
        ):
            return False
        time.sleep(0.3)
        lost.append(request)
        return True

    host.guests.lose = lose
    end = host.run(GUESTS['busybox'], '/bin/sh', '-c', 'echo out; exit 5')
    assert (end['status'], end['exitcode']) == (command.COMPLETED, 5)
    assert end['out_bytes'] == 4
    assert lost


def test_hung_guest_costs_others_nothing(
    host: Host, hypervisor: testbed_libvirtd.Libvirtd
) -> None:
    hung, healthy = GUESTS['dash'], GUESTS['busybox']
    for guest in (hung, healthy):
        host.run(guest, '/bin/true')
    hypervisor.qemu(hung).pause()
    try:
        waiting = [host.start(hung, '/bin/true') for _ in range(4)]
        seconds = []
        for _ in range(5):
            began = time.monotonic()
            assert host.run(healthy, '/bin/true')['status'] == (
                command.COMPLETED
            )
            seconds.append(time.monotonic() - began)
        # An agent call of the hung guest alone takes 5 seconds.
        assert statistics.median(seconds) < 4
    finally:
        hypervisor.qemu(hung).resume()
    for item in waiting:
        assert host.wait(item, 90)['status'] == command.COMPLETED


def test_guest_without_guest_exec_is_refused_in_words(
    host: Host, hypervisor: testbed_libvirtd.Libvirtd
) -> None:
    blocked = testbed_libvirtd.Guest(blocked=('guest-exec',))
    hypervisor.boot(blocked)
    hypervisor.wait(blocked)
    refused = host.start(blocked, '/bin/true')
    processes.wait_for(lambda: host.conductor.refuse.called, 30, 'refusal')
    uuid_refused, error = host.conductor.refuse.call_args.args[1:]
    assert uuid_refused == refused
    assert 'guest-exec' in error
