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

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import exec_task
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent
from guest_agent_ext.guest.launchers import factory
from guest_agent_ext.guest.launchers import windows
from tests.unit import sessions

SCRIPTS = {
    windows.script_text(name): name
    for name in (
        'launch',
        'probe',
        'recover',
        'release',
        'signal',
        'stage',
        'unhold',
    )
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
    :ivar is_full: no file can be written
    :ivar has_pid: a launcher has told which process the command is
    :ivar has_died: the launcher was killed before it could sign or end
    :ivar pieces: of large orders, by their file names
    """

    def __init__(self) -> None:
        self.boot_id, self.uptime = 'boot', 1000
        self.is_full, self.has_pid, self.has_died = False, True, False
        self.pieces: dict[str, str] = {}
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
        order = json.loads(base64.b64decode(arguments['input-data']))
        script = SCRIPTS[order['script']]
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
        about = order['about'] or json.loads(
            b''.join(
                base64.b64decode(
                    self.pieces.pop(
                        f'{order["id"]}.in.{order["pieces"]}.{number}'
                    )
                )
                for number in range(1, order['count'] + 1)
            )
        )
        self.locks[order['id']] = 'launch'
        self.runs.append(
            [base64.b64decode(word).decode() for word in about['argv']]
        )
        self.stdin = base64.b64decode(about['stdin'])
        if not self.is_long:
            self.results[order['id']] = END
        return 'the end'

    def stage(self, order: Any) -> Any:
        uuid, name, number, piece = order['args']
        if self.is_full:
            return {'says': 'refused', 'reason': 'directory'}
        self.pieces[f'{uuid}.in.{name}.{number}'] = piece
        return {'says': 'kept'}

    def recover(self, order: Any) -> Any:
        command_id, how = order['args']
        if how == 'fence' and command_id not in self.locks:
            self.locks[command_id] = 'fence'
        if command_id not in self.locks:
            return {'says': 'none'}
        if self.locks[command_id] == 'fence':
            return {'says': 'fenced'}
        if command_id in self.results:
            return self.results[command_id]
        if self.has_died:
            return {'says': 'died'}
        told = {'pid': 7, 'has_exited': False} if self.has_pid else {}
        return {'says': 'running', 'uptime': self.uptime, 'start': 100, **told}

    def signal(self, order: Any) -> Any:
        if 'id' in self.results or self.has_died:
            return 0
        self.results['id'] = END | {'exitcode': -1, 'killed': order['args'][2]}
        return 1


class Session(sessions.FakeSession):
    """A session of that guest; plays its conductor.

    :ivar stdin: input of the command
    """

    stdin = b''

    def __init__(self, played: WindowsGuest) -> None:
        super().__init__(
            self._order(), factory.launcher_for(agent.Agent(played, 'server'))
        )
        self.conductor.claim.side_effect = self.conductor.adopt.side_effect = (
            self._order
        )

    def _order(self, *args: object) -> rpcapi.Claim:
        return {
            'uuid': 'id',
            'type': command.EXEC,
            'exec': {
                'command': ['ver', 'a "b"'],
                'cwd': None,
                'user': None,
                'env': {},
                'stdin': base64.b64encode(self.stdin).decode(),
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
        item = exec_task.ExecTask(
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
        raise AssertionError('The task goes round in circles')


@pytest.fixture
def played() -> WindowsGuest:
    return WindowsGuest()


def test_command_completes(played: WindowsGuest) -> None:
    end = Session(played).run()
    assert (end['status'], end['pid'], end['exitcode']) == (
        command.COMPLETED,
        7,
        3,
    )
    assert base64.b64decode(end['out_data']) == b'out'
    assert played.runs == [['ver', 'a "b"']]


def test_lost_answer_of_the_launch_runs_it_once(played: WindowsGuest) -> None:
    played.lost = ['launch']
    assert Session(played).run()['status'] == command.COMPLETED
    assert len(played.runs) == 1


def test_restarted_service_finds_the_end(played: WindowsGuest) -> None:
    Session(played).run()
    end = Session(played).run(attempt='previous')
    assert (end['status'], end['exitcode']) == (command.COMPLETED, 3)
    assert len(played.runs) == 1


def test_cancel_kills_what_runs(played: WindowsGuest) -> None:
    played.is_long = True
    end = Session(played).run(cancel_after=3)
    assert end['status'] == command.CANCELLED


def test_exit_code_of_what_was_killed_is_its_killers(
    played: WindowsGuest,
) -> None:
    played.is_long = True
    assert Session(played).run(cancel_after=3).get('exitcode') is None


def test_large_stdin_comes_in_pieces(played: WindowsGuest) -> None:
    session = Session(played)
    session.stdin = bytes(range(256)) * 4096
    assert session.run()['status'] == command.COMPLETED
    assert played.stdin == session.stdin
    assert not played.pieces


def test_lost_piece_is_sent_again_and_runs_nothing_twice(
    played: WindowsGuest,
) -> None:
    played.lost = ['stage', 'stage']
    session = Session(played)
    session.stdin = b'x' * 300_000
    assert session.run()['status'] == command.COMPLETED
    assert (played.stdin, len(played.runs)) == (session.stdin, 1)


def test_full_disk_fails_what_has_not_started(played: WindowsGuest) -> None:
    played.is_full = True
    session = Session(played)
    session.stdin = b'x' * 300_000
    end = session.run()
    assert (end['status'], end['error']) == (
        command.FAILED,
        'The guest has no room for the command',
    )
    assert not played.runs


def test_command_without_a_pid_is_not_left_to_run(
    played: WindowsGuest,
) -> None:
    """Its launcher could not write it down, or was killed before."""
    played.is_long, played.has_pid = True, False
    played.locks['id'] = 'launch'
    played.uptime = int(100 + 100 * (compute_session.LAUNCH_WINDOW + 1))
    assert Session(played).run(attempt='previous')['status'] == command.LOST
    assert played.results['id']['killed'] == command.LOST


def test_launcher_that_died_unsigned_is_no_running_command(
    played: WindowsGuest,
) -> None:
    played.locks['id'] = ''
    played.has_died = True
    assert Session(played).run(attempt='previous')['status'] == command.LOST


def test_cancel_before_the_launch_keeps_it_from_starting(
    played: WindowsGuest,
) -> None:
    end = Session(played).run(cancel_after=1)
    assert end['status'] == command.CANCELLED
    assert not played.runs


def test_adopted_command_of_another_boot_is_lost(played: WindowsGuest) -> None:
    played.boot_id = 'other'
    end = Session(played).run(attempt='previous')
    assert (end['status'], end['error']) == (command.LOST, exec_task.REBOOTED)
    assert not played.runs


def test_expired_ticket_is_refused(played: WindowsGuest) -> None:
    played.uptime = 7001
    end = Session(played).run()
    assert (end['status'], end['error']) == (
        command.FAILED,
        exec_task.REFUSED['ticket'],
    )
    assert not played.runs
