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
import json
import re
from typing import Any

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import scripts
from guest_agent_ext.guest import windows

ID = '3f6f5f0e-0000-4000-8000-000000000000'
SCRIPTS = ('launch', 'probe', 'recover', 'release', 'signal', 'unhold')
#: Characters of a Windows command line.
MAX_COMMAND_LINE = 32767

ORDER = launcher.Launch(
    id='id',
    argv=['cmd.exe', '/c', 'echo "ä"', ''],
    env={'A': 'ü=1'},
    stdin=b'\0\xff',
    cwd='C:\\',
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


@pytest.mark.parametrize('script', SCRIPTS)
def test_script_fits_a_windows_command_line(script: str) -> None:
    encoded = windows.encoded_command(script)
    text = base64.b64decode(encoded).decode('utf-16-le')
    assert scripts.text(f'windows/{script}.ps1') in text
    assert text.startswith('$ErrorActionPreference')
    assert 'Licensed' not in text
    # Half of it, to leave room to grow.
    assert len(encoded) < MAX_COMMAND_LINE / 2


def test_launch_sends_the_data_on_stdin_only() -> None:
    posed, played = make()
    assert posed.launch(ORDER) == 5
    ((path, args, order),) = played.sent
    assert path == 'powershell.exe'
    assert args == [
        '-NoProfile',
        '-NonInteractive',
        '-EncodedCommand',
        windows.encoded_command('launch'),
    ]
    assert [decoded(word) for word in order.pop('argv')] == ORDER.argv
    assert [
        [decoded(name), decoded(value)] for name, value in order.pop('env')
    ] == [['A', 'ü=1']]
    assert decoded(order.pop('cwd')) == 'C:\\'
    assert base64.b64decode(order.pop('stdin')) == ORDER.stdin
    assert order == {
        'id': 'id',
        'boot_id': 'boot',
        'ticket': 7,
        'keep': 5,
        'keep_end': 'tail',
    }


def test_script_reads_every_field_that_is_sent() -> None:
    posed, played = make()
    posed.launch(ORDER)
    read = set(
        re.findall(r'\$order\.(\w+)', scripts.text('windows/launch.ps1'))
    )
    assert read == played.sent[0][2].keys()


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
            r"says = '(\w+)'", scripts.text(f'windows/{script}.ps1')
        )
    }
    assert said == {
        'guest',
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
    assert [(args[3], order['args']) for _, args, order in played.sent] == [
        (windows.encoded_command(script), args)
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


def test_disabled_guest_exec_is_not_missing_powershell() -> None:
    with pytest.raises(exception.AgentCommandDisabled):
        make(exception.AgentCommandDisabled())[0].probe()


def quoted(word: str) -> str:
    """Quote as Join-Arguments does, by its own expressions."""
    script = scripts.text('windows/launch.ps1')
    (plain,) = re.findall(r"if \(\$_ -match '(.*)'\)", script)
    replaced = re.findall(r"-replace '(.*)', '(.*)'", script)
    assert len(replaced) == 2
    if re.search(_python(plain), word):
        return word
    for pattern, by in replaced:
        word = re.sub(
            _python(pattern),
            by.replace('\\', r'\\').replace('$1', r'\1'),
            word,
        )
    return f'"{word}"'


def _python(pattern: str) -> str:
    return pattern.replace(r'\z', r'\Z')


def split(line: str) -> list[str]:
    """Split a command line by the rules of CommandLineToArgvW."""
    words: list[str] = []
    word, is_quoted, has_word = '', False, False
    for slashes, char in re.findall(r'(\\*)(.?)', line, re.DOTALL):
        if char == '"':
            word += '\\' * (len(slashes) // 2)
            if len(slashes) % 2:
                word += '"'
            else:
                is_quoted = not is_quoted
            has_word = True
            continue
        word += slashes
        has_word = has_word or bool(slashes)
        if char in (' ', '\t', '') and not is_quoted:
            if has_word:
                words.append(word)
            word, has_word = '', False
        else:
            word += char
            has_word = True
    return words


@pytest.mark.parametrize(
    ('word', 'expected'),
    [
        ('plain', 'plain'),
        ('', '""'),
        ('two words', '"two words"'),
        ('C:\\dir\\', 'C:\\dir\\'),
        ('C:\\a dir\\', '"C:\\a dir\\\\"'),
        ('say "hi"', '"say \\"hi\\""'),
        ('a\\"b', '"a\\\\\\"b"'),
        ('"', '"\\""'),
        ('\\\\" \\', '"\\\\\\\\\\" \\\\"'),
        ('line\n', '"line\n"'),
        ('x\\\n', '"x\\\n"'),
        ('tab\there', '"tab\there"'),
        ("%PATH% $x `y` 'z'", '"%PATH% $x `y` \'z\'"'),
    ],
)
def test_word_is_quoted_and_split_again(word: str, expected: str) -> None:
    assert quoted(word) == expected
    assert split(f'first {quoted(word)} {quoted(word)} last') == [
        'first',
        word,
        word,
        'last',
    ]
