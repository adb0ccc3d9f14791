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

"""The Windows launcher, with the agent played.

No Windows runs here: what PowerShell makes of the scripts is not tested. What
can be is what is sent, what is made of the answers, and the quoting, whose
expressions mean the same to Python.
"""

import base64
import dataclasses
import json
import re
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import scripted
from guest_agent_ext.guest.launchers import windows

ID = '3f6f5f0e-0000-4000-8000-000000000000'
SCRIPTS = (
    'file',
    'launch',
    'probe',
    'recover',
    'release',
    'signal',
    'stage',
    'unhold',
)
#: Characters of a Windows command line.
MAX_COMMAND_LINE = 32767
#: Bytes of JSON in one request by which an agent jams.
JAMS = 218_000

ORDER = launcher.Launch(
    id='id',
    argv=['cmd.exe', '/c', 'echo "ä"', ''],
    env={'A': 'ü=1'},
    stdin=b'\0\xff',
    cwd='C:\\',
    user=None,
    boot_id='boot',
    ticket=7,
    keep=5,
    keep_end='tail',
)
ENDED = {
    'says': 'ended',
    'pid': 7,
    'start': 100,
    'exitcode': -1073741510,
    'out': 'AP8=',
    'err': '',
    'out_bytes': 3_000_000_000,
    'err_bytes': 0,
}


class Agent:
    """Plays the agent of a Windows guest: what PowerShell prints is given."""

    def __init__(self, *printed: Any) -> None:
        self.printed = list(printed)
        self.sent: list[tuple[str, list[str], dict[str, Any]]] = []

    def exec(
        self, path: str, args: list[str], *, env: Any = (), stdin: bytes = b''
    ) -> int:
        # The whole environment would be replaced.
        assert not env
        self.sent.append((path, args, json.loads(stdin)))
        return 5

    def exec_status(self, pid: int) -> agent.ExecStatus:
        assert pid == 5
        answer = self.printed.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return agent.ExecStatus(False, None, None, b'', b'')
        out = (
            answer
            if isinstance(answer, bytes)
            else json.dumps(answer).encode()
        )
        return agent.ExecStatus(True, 0, None, out, b'#< CLIXML')


def make(*printed: Any) -> tuple[windows.WindowsLauncher, Agent]:
    played = Agent(*printed)
    return windows.WindowsLauncher(played), played


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def test_command_line_is_short_and_always_the_same() -> None:
    text = base64.b64decode(windows.start_command()).decode('utf-16-le')
    assert text == scripted.text('windows/start.ps1')
    assert len(windows.start_command()) < MAX_COMMAND_LINE / 20


@pytest.mark.parametrize('script', SCRIPTS)
def test_script_is_sent_with_what_all_begin_with(script: str) -> None:
    text = windows.script_text(script)
    assert text.startswith('$ErrorActionPreference')
    assert text.endswith(scripted.text(f'windows/{script}.ps1'))
    assert 'Licensed' not in text


class JsonAgent(agent.Agent):
    """Measures requests as libvirt gets them."""

    def __init__(self) -> None:
        super().__init__(mock.Mock(), 'server')
        self.largest = 0

    def _call(
        self, name: str, arguments: Any, read: Any, **options: Any
    ) -> Any:
        request = {'execute': name, 'arguments': arguments}
        self.largest = max(self.largest, len(json.dumps(request)))
        if name == 'guest-exec':
            return 5
        return agent.ExecStatus(True, 0, None, b'{"says": "kept"}', b'')


@pytest.mark.parametrize(
    'argv',
    [['\1' * 65_000], ['a'] * 1024, ['"' * 65_000], ['\U0001f600' * 16_000]],
)
@pytest.mark.parametrize('stdin', [0, 40_000, 1024 * 1024])
def test_no_order_jams_the_agent(argv: list[str], stdin: int) -> None:
    measured = JsonAgent()
    windows.WindowsLauncher(measured).launch(
        dataclasses.replace(
            ORDER,
            argv=argv,
            stdin=b'\xff' * stdin,
            env={f'A{number}': '"' for number in range(8000)},
        )
    )
    assert measured.largest < JAMS


def test_launch_sends_the_data_on_stdin_only() -> None:
    posed, played = make()
    assert posed.launch(ORDER) == 5
    ((path, args, order),) = played.sent
    assert path == 'powershell.exe'
    assert args == [
        '-NoProfile',
        '-NonInteractive',
        '-EncodedCommand',
        windows.start_command(),
    ]
    assert order.pop('script') == windows.script_text('launch')
    about = order.pop('about')
    assert [decoded(word) for word in about.pop('argv')] == ORDER.argv
    assert [
        [decoded(name), decoded(value)] for name, value in about.pop('env')
    ] == [['A', 'ü=1']]
    assert decoded(about.pop('cwd')) == 'C:\\'
    assert base64.b64decode(about.pop('stdin')) == ORDER.stdin
    assert not about
    assert order == {
        'id': 'id',
        'boot_id': 'boot',
        'ticket': 7,
        'keep': 5,
        'keep_end': 'tail',
        'pieces': '',
        'count': 0,
    }


def test_order_that_is_too_large_goes_ahead_in_pieces() -> None:
    large = dataclasses.replace(ORDER, stdin=b'\0' * 200_000)
    posed, played = make(*[{'says': 'kept'}] * 3)
    posed.launch(large)
    *pieces, (_, _, order) = played.sent
    assert (order['about'], order['count']) == (None, len(pieces))
    stage = windows.script_text('stage')
    text = ''
    for number, (_, _, piece) in enumerate(pieces, 1):
        assert piece['script'] == stage
        assert piece['args'][:3] == ['id', order['pieces'], str(number)]
        text += decoded(piece['args'][3])
    assert base64.b64decode(json.loads(text)['stdin']) == large.stdin


@pytest.mark.parametrize(
    ('answer', 'error'),
    [
        ({'says': 'refused'}, exception.AgentRefused),
        (b'', exception.AgentError),
        (exception.AgentUnresponsive(), exception.AgentError),
    ],
)
def test_piece_that_did_not_come_starts_nothing(
    answer: Any, error: type[exception.GuestError]
) -> None:
    posed, played = make(answer)
    with pytest.raises(error) as caught:
        posed.launch(dataclasses.replace(ORDER, stdin=b'\0' * 200_000))
    assert not caught.value.may_have_run
    assert len(played.sent) == 1


def test_command_as_another_user_is_refused() -> None:
    played = Agent()
    with pytest.raises(exception.AgentRefused, match='on Windows'):
        windows.WindowsLauncher(played).launch(
            dataclasses.replace(ORDER, user='tenant')
        )


def test_script_reads_every_field_that_is_sent() -> None:
    posed, played = make()
    posed.launch(ORDER)
    script = scripted.text('windows/launch.ps1')
    order = played.sent[0][2]
    assert set(re.findall(r'\$order\.(\w+)', script)) == (
        order.keys() - {'script'}
    )
    assert set(re.findall(r'\$about\.(\w+)', script)) == (
        order['about'].keys()
    )


@pytest.mark.parametrize(
    ('answer', 'outcome'),
    [
        ({'says': 'refused', 'reason': 'boot'}, launcher.Refused('boot')),
        ({'says': 'taken'}, launcher.Taken()),
        ({'says': 'none'}, launcher.NotStarted()),
        ({'says': 'fenced'}, launcher.Fenced()),
        ({'says': 'died'}, launcher.Died()),
        ({'says': 'running', 'uptime': 9}, launcher.Running(None, 9, 9)),
        (
            {'says': 'running', 'uptime': 9, 'start': 2},
            launcher.Running(None, 2, 9),
        ),
        (
            {
                'says': 'running',
                'uptime': 9,
                'pid': 7,
                'start': 3,
                'has_exited': True,
            },
            launcher.Running(7, 3, 9, has_exited=True),
        ),
        (
            ENDED,
            launcher.Ended(
                pid=7,
                start_ticks=100,
                exitcode=-1073741510,
                signal=None,
                never_ran=False,
                error=None,
                out=b'\0\xff',
                err=b'',
                out_bytes=3_000_000_000,
                err_bytes=0,
            ),
        ),
        (
            ENDED | {'exitcode': -1, 'killed': 'CANCELLED'},
            launcher.Ended(
                pid=7,
                start_ticks=100,
                exitcode=None,
                signal=None,
                never_ran=False,
                error=None,
                out=b'\0\xff',
                err=b'',
                out_bytes=3_000_000_000,
                err_bytes=0,
                killed='CANCELLED',
            ),
        ),
        # Its own process had ended before the rest of its tree was killed.
        (
            ENDED | {'exitcode': 3, 'killed': 'TIMED_OUT'},
            launcher.Ended(
                pid=7,
                start_ticks=100,
                exitcode=3,
                signal=None,
                never_ran=False,
                error=None,
                out=b'\0\xff',
                err=b'',
                out_bytes=3_000_000_000,
                err_bytes=0,
                killed='TIMED_OUT',
            ),
        ),
    ],
)
def test_answers(answer: Any, outcome: launcher.Outcome) -> None:
    assert make(answer)[0].poll(5) == outcome
    assert make(None, answer)[0].recover('id') == outcome


def test_scripts_say_what_is_understood() -> None:
    said = {
        word
        for script in SCRIPTS
        for word in re.findall(
            r"says = '(\w+)'", scripted.text(f'windows/{script}.ps1')
        )
    }
    assert said == {
        'guest',
        'unusable',
        'kept',
        'refused',
        'taken',
        'none',
        'fenced',
        'died',
        'running',
        'ended',
        'failed',
    }


def test_what_was_never_executed_says_why() -> None:
    why = base64.b64encode('kein Zugriff für x'.encode()).decode()
    outcome = make({'says': 'failed', 'error': why, 'uptime': 3})[0].poll(5)
    assert isinstance(outcome, launcher.Ended) and outcome.never_ran
    assert outcome.error == (
        'The command could not be executed: kein Zugriff für x'
    )


@pytest.mark.parametrize(
    'printed',
    [
        b'',
        b'#< CLIXML',
        b'[]',
        b'{}',
        b'{"says": "?"}',
        b'{"says": "ended"}',
        b'\xff',
    ],
)
def test_improper_answer_ends_nothing(printed: bytes) -> None:
    for ask in (
        lambda posed: posed.poll(5),
        lambda posed: posed.recover('id'),
    ):
        with pytest.raises(exception.AgentError):
            ask(make(printed)[0])


def test_running_script_is_no_answer() -> None:
    assert make(None)[0].poll(5) is None


def test_short_scripts_get_their_arguments() -> None:
    posed, played = make({'says': 'none'}, {'says': 'fenced'}, 3, b'', b'')
    posed.recover('id')
    posed.fence('id')
    assert posed.signal_tree('id', 'KILL', 'CANCELLED') == 3
    posed.unhold('id')
    posed.release(['a', 'b'])
    assert [
        (order['script'], order['args']) for _, _, order in played.sent
    ] == [
        (windows.script_text(script), args)
        for script, args in [
            ('recover', ['id', 'look']),
            ('recover', ['id', 'fence']),
            ('signal', ['id', 'KILL', 'CANCELLED']),
            ('unhold', ['id']),
            ('release', ['a', 'b']),
        ]
    ]


def test_probe() -> None:
    posed, _ = make(
        {'says': 'guest', 'boot_id': 'b', 'uptime': 12, 'ids': [ID, '../x', 7]}
    )
    assert posed.probe() == launcher.Probe('b', 12, (ID,))


@pytest.mark.parametrize(
    'printed', [b'', exception.AgentRefused('No such file')]
)
def test_guest_without_powershell_is_told(printed: Any) -> None:
    with pytest.raises(exception.LauncherUnavailable, match='PowerShell'):
        make(printed)[0].probe()


def test_directory_that_cannot_be_made_is_told() -> None:
    why = base64.b64encode(b'C:\\x: kein Zugriff').decode()
    with pytest.raises(
        exception.LauncherUnavailable,
        match=r'cannot write to C:\\x: kein Zugriff',
    ):
        make({'says': 'unusable', 'error': why})[0].probe()


def test_cold_guest_has_time_for_its_first_powershell() -> None:
    assert windows.WindowsLauncher.timeout >= 60


def test_disabled_guest_exec_is_not_missing_powershell() -> None:
    with pytest.raises(exception.AgentCommandDisabled):
        make(exception.AgentCommandDisabled())[0].probe()
