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

"""Commands in a Windows guest, which is played.

The stand-in answers each script as the script should, from a state of its own:
no Windows and no PowerShell runs here. What is tested is that our side and the
protocol keep a command's promises.
"""

import base64
import json
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import job
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from guest_agent_ext.guest import choose
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import windows

SCRIPTS = {
    windows.encoded_command(name): name
    for name in ('launch', 'probe', 'recover', 'release', 'signal', 'unhold')
}
ENABLED = [
    {'name': name, 'enabled': True}
    for name in ('guest-exec', 'guest-exec-status', 'guest-get-osinfo')
]
END = {
    'says': 'ended',
    'pid': 7,
    'start': 100,
    'exitcode': 3,
    'out': base64.b64encode(b'out').decode(),
    'err': '',
    'out_bytes': 3,
    'err_bytes': 0,
}


class WindowsGuest:
    """Plays libvirt, qemu-ga and the scripts of a Windows guest.

    :ivar lost: scripts whose next answer is lost after they were started
    """

    def __init__(self) -> None:
        self.boot_id, self.uptime = 'boot', 1000
        self.locks: dict[str, str] = {}
        self.results: dict[str, Any] = {}
        self.runs: list[list[str]] = []
        self.lost: list[str] = []
        self.is_long = False
        self._ends: dict[int, Any] = {}

    def agent_command(self, uuid: str, request: Any, timeout: int) -> Any:
        arguments = request['arguments']
        match request['execute']:
            case 'guest-info':
                return {'supported_commands': ENABLED}
            case 'guest-get-osinfo':
                return {'id': 'mswindows'}
            case 'guest-exec':
                return self._exec(arguments)
            case 'guest-exec-status':
                return self._status(arguments['pid'])
        raise AssertionError(request)

    def _exec(self, arguments: Any) -> Any:
        assert arguments['path'] == 'powershell.exe'
        script = SCRIPTS[arguments['arg'][-1]]
        order = json.loads(base64.b64decode(arguments['input-data']))
        pid = len(self._ends) + 1
        self._ends[pid] = getattr(self, script)(order)
        if script in self.lost:
            self.lost.remove(script)
            raise exception.AgentUnresponsive()
        return {'pid': pid}

    def _status(self, pid: int) -> Any:
        answer = self._ends[pid]
        if answer == 'the end':
            answer = self.results.get('id')
        if answer is None:
            return {'exited': False}
        out = json.dumps(answer).encode()
        return {
            'exited': True,
            'exitcode': 0,
            'out-data': base64.b64encode(out).decode(),
        }

    def probe(self, order: Any) -> Any:
        return {
            'says': 'guest',
            'boot_id': self.boot_id,
            'uptime': self.uptime,
            'ids': list(self.locks),
        }

    def launch(self, order: Any) -> Any:
        if order['boot_id'] != self.boot_id:
            return {'says': 'refused', 'reason': 'boot'}
        if self.uptime > order['ticket']:
            return {'says': 'refused', 'reason': 'ticket'}
        if order['id'] in self.locks:
            return {'says': 'taken'}
        self.locks[order['id']] = 'launch'
        self.runs.append(
            [base64.b64decode(word).decode() for word in order['argv']]
        )
        if not self.is_long:
            self.results[order['id']] = END
        return 'the end'

    def recover(self, order: Any) -> Any:
        command_id, how = order['args']
        if how == 'fence' and command_id not in self.locks:
            self.locks[command_id] = 'fence'
        if command_id not in self.locks:
            return {'says': 'none'}
        if self.locks[command_id] == 'fence':
            return {'says': 'fenced'}
        return self.results.get(
            command_id,
            {
                'says': 'running',
                'uptime': self.uptime,
                'pid': 7,
                'start': 100,
                'has_exited': False,
            },
        )

    def signal(self, order: Any) -> Any:
        self.results['id'] = END | {'exitcode': -1, 'killed': order['args'][2]}
        return 1


class Lane:
    """A lane of that guest; plays its conductor."""

    service: rpcapi.Service = {'host': 'here', 'incarnation': 1}

    def __init__(self, played: WindowsGuest) -> None:
        self._launcher = choose.launcher_for(agent.Agent(played, 'server'))
        self.conductor = mock.Mock()
        self.conductor.finish.return_value = command.OK
        self.conductor.claim.side_effect = self.conductor.adopt.side_effect = (
            self._claim
        )
        self.acknowledge = self.clear = mock.Mock()
        self.recent_probe = self.probe
        self.forget_probe = self.note_duration = mock.Mock()
        self.first_look = mock.Mock(return_value=0.0)

    def guest(self) -> launcher.Launcher:
        return self._launcher

    def probe(self) -> launcher.Probe:
        return self._launcher.probe()

    def _claim(self, *args: object) -> rpcapi.Claim:
        return {
            'uuid': 'id',
            'type': command.EXEC,
            'exec': {
                'command': ['ver', 'a "b"'],
                'cwd': None,
                'env': {},
                'stdin': '',
                'output_keep': 'head',
            },
            'file': None,
            'timeout': 60,
            'boot_id': 'boot',
            'ticket': 7000,
            'started_uptime': None,
        }

    def run(
        self, *, attempt: str | None = None, cancel_after: int | None = None
    ) -> rpcapi.End:
        """Run a command and return how the conductor was told of its end."""
        item = job.Job(
            self,
            {
                'uuid': 'id',
                'type': command.EXEC,
                'instance_uuid': 'server',
                'attempt': attempt,
                'status': command.PENDING,
                'cancel_requested': False,
                'start_in': 300.0,
            },
        )
        for step in range(50):
            if step == cancel_after:
                item.cancel()
            try:
                item.step()
            except exception.GuestError:
                continue
            if item.is_done:
                end: rpcapi.End = self.conductor.finish.call_args.args[3]
                return end
        raise AssertionError('The job goes round in circles')


@pytest.fixture
def played() -> WindowsGuest:
    return WindowsGuest()


def test_command_completes(played: WindowsGuest) -> None:
    end = Lane(played).run()
    assert (end['status'], end['pid'], end['exitcode']) == (
        command.COMPLETED,
        7,
        3,
    )
    assert base64.b64decode(end['out_data']) == b'out'
    assert played.runs == [['ver', 'a "b"']]


def test_lost_answer_of_the_launch_runs_it_once(played: WindowsGuest) -> None:
    played.lost = ['launch']
    assert Lane(played).run()['status'] == command.COMPLETED
    assert len(played.runs) == 1


def test_restarted_service_finds_the_end(played: WindowsGuest) -> None:
    Lane(played).run()
    end = Lane(played).run(attempt='previous')
    assert (end['status'], end['exitcode']) == (command.COMPLETED, 3)
    assert len(played.runs) == 1


def test_cancel_kills_what_runs(played: WindowsGuest) -> None:
    played.is_long = True
    end = Lane(played).run(cancel_after=3)
    assert end['status'] == command.CANCELLED


def test_cancel_before_the_launch_keeps_it_from_starting(
    played: WindowsGuest,
) -> None:
    end = Lane(played).run(cancel_after=1)
    assert end['status'] == command.CANCELLED
    assert not played.runs


def test_adopted_command_of_another_boot_is_lost(played: WindowsGuest) -> None:
    played.boot_id = 'other'
    end = Lane(played).run(attempt='previous')
    assert (end['status'], end['error']) == (command.LOST, job.REBOOTED)
    assert not played.runs


def test_expired_ticket_is_refused(played: WindowsGuest) -> None:
    played.uptime = 7001
    end = Lane(played).run()
    assert (end['status'], end['error']) == (
        command.FAILED,
        job.REFUSED['ticket'],
    )
    assert not played.runs
