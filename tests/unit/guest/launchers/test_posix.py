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

import dataclasses
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest.launchers import base
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import scripted

ID = '3f6f5f0e-0000-4000-8000-000000000000'
TOKEN = 'aaaa'
LAUNCH = base.Launch(
    id=ID,
    argv=['secret'],
    env={},
    stdin=b'',
    cwd=None,
    user=None,
    boot_id='boot',
    ticket=7,
    keep=5,
    keep_end='head',
)


@pytest.fixture
def agent() -> mock.Mock:
    agent = mock.create_autospec(guest_agent.Agent, instance=True)
    agent.exec.return_value = 5
    return agent


@pytest.fixture
def launcher(
    agent: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> posix.PosixLauncher:
    monkeypatch.setattr(scripted, 'GAP', 0)
    return posix.PosixLauncher(agent)


def prints(
    agent: mock.Mock, out: bytes, err: bytes = b'', code: int = 0
) -> None:
    agent.exec_status.return_value = guest_agent.ExecStatus(
        True, code, None, out, err
    )


def order(
    launcher: posix.PosixLauncher, agent: mock.Mock, **values: Any
) -> list[str]:
    """Return the fields that order.sh reads of a launch."""
    launcher.launch(dataclasses.replace(LAUNCH, **values))
    fields, field = [], ''
    for line in agent.exec.call_args.kwargs['stdin'].decode().split('\n')[:-1]:
        field += line[1:]
        if line[0] == '+':
            field += '\n'
            continue
        fields.append(field)
        field = ''
    return fields


def test_tenants_data_is_on_no_command_line(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    launcher.launch(LAUNCH)
    path, args = agent.exec.call_args.args
    assert path == '/bin/sh' and ID not in ' '.join(args)
    environment = '\n'.join(agent.exec.call_args.kwargs['env'])
    assert ID in environment and 'secret' not in environment


def test_script_takes_all_arguments_and_leaves_none_behind(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    launcher.launch(LAUNCH)
    script, *words = agent.exec.call_args.kwargs['env']
    names = [word.partition('=')[0] for word in words]
    first, second, *_ = script.partition('=')[2].splitlines()
    assert first.split()[2:] == [f'"${name}"' for name in names]
    assert second.split()[2:] == names


@pytest.mark.parametrize(
    'argv', [['a\nb', ''], ['\n'], ['+x', '.y'], ['-n'], ['ends\n\n', 'ä']]
)
def test_arguments_with_newlines_stay_what_they_are(
    launcher: posix.PosixLauncher, agent: mock.Mock, argv: list[str]
) -> None:
    fields = order(launcher, agent, argv=argv)
    assert fields[fields.index('') + 1 :] == [str(len(argv)), *argv]


@pytest.mark.parametrize(
    ('cwd', 'directory'),
    [(None, '/'), ('/tmp', '/tmp'), ('-', './-'), ('-P', './-P')],
)
def test_directory_is_no_option_of_cd(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    cwd: str | None,
    directory: str,
) -> None:
    assert order(launcher, agent, cwd=cwd)[0] == directory


def test_variables_of_the_shell_are_set_by_env(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    fields = order(launcher, agent, env={'IFS': 'x', 'MINE': 'y'})
    end = fields.index('')
    assert 'MINE=y' in fields[:end] and 'IFS=x' not in fields[:end]
    assert fields[end + 1 :] == ['3', '/usr/bin/env', 'IFS=x', 'secret']


@pytest.mark.parametrize(
    ('values', 'home'),
    [
        ({}, ['HOME=/root']),
        ({'user': 'u'}, []),
        ({'user': 'u', 'env': {'HOME': '/h'}}, ['HOME=/h']),
    ],
)
def test_home_of_a_user_is_what_the_guest_says(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    values: dict[str, Any],
    home: list[str],
) -> None:
    fields = order(launcher, agent, **values)
    assert [field for field in fields if field.startswith('HOME=')] == home


def test_tenant_cannot_replace_the_mark(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    fields = order(launcher, agent, env={posix.MARK: 'another'})
    assert f'{posix.MARK}={ID}' in fields
    assert f'{posix.MARK}=another' not in fields


def test_large_order_goes_ahead_in_pieces_that_sort(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    prints(agent, b'')
    data = bytes(range(256)) * 5000
    launcher.launch(dataclasses.replace(LAUNCH, stdin=data))
    *pieces, last = agent.exec.call_args_list
    assert b''.join(call.kwargs['stdin'] for call in pieces).endswith(data)
    assert max(len(call.kwargs['stdin']) for call in pieces) <= posix.PIECE
    numbers = [call.kwargs['env'][-1].partition('=')[2] for call in pieces]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    assert last.kwargs['stdin'] == b''


@pytest.mark.parametrize(
    ('values', 'error'),
    [
        (
            {
                'exec_status.return_value': guest_agent.ExecStatus(
                    True, 1, None, b'', b''
                )
            },
            exception.AgentRefused,
        ),
        (
            {
                'exec.side_effect': exception.AgentUnresponsive(
                    may_have_run=True
                )
            },
            exception.AgentError,
        ),
    ],
)
def test_piece_that_did_not_come_starts_nothing(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    values: dict[str, Any],
    error: type[exception.GuestError],
) -> None:
    agent.configure_mock(**values)
    with pytest.raises(error) as caught:
        launcher.launch(dataclasses.replace(LAUNCH, stdin=b'x' * 200_000))
    assert not caught.value.may_have_run
    assert agent.exec.call_count == 1


@pytest.mark.parametrize(
    ('line', 'outcome'),
    [
        (b'refused ticket', base.Refused('ticket')),
        (b'taken', base.Taken()),
        (b'none', base.NotStarted()),
        (b'fenced', base.Fenced()),
        (b'died', base.Died()),
        (b'', base.Died()),
        (b'ended 1', base.Died()),
        (b'running - 5 9 Z', base.Running(None, 5, 9)),
        (b'running 7 - 9 S', base.Running(7, 9, 9)),
        # A clock that is ahead of itself makes no negative age.
        (b'running 7 12 9 S', base.Running(7, 9, 9)),
        (b'running 7 5 9 Z', base.Running(7, 5, 9, has_exited=True)),
    ],
)
def test_answers(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    line: bytes,
    outcome: base.Outcome,
) -> None:
    prints(agent, line + b'\n')
    assert launcher.poll(5) == outcome


def end(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    words: str,
    out: bytes = b'',
    err: bytes = b'',
) -> base.Ended:
    prints(agent, f'ended {words} {TOKEN}\n'.encode() + out, err)
    outcome = launcher.poll(5)
    assert isinstance(outcome, base.Ended)
    return outcome


@pytest.mark.parametrize(
    ('status', 'code', 'signal'),
    [('768', 3, None), ('9', None, 9), ('137', None, 9), ('-', None, None)],
)
def test_wait_status(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    status: str,
    code: int | None,
    signal: int | None,
) -> None:
    ended = end(launcher, agent, f'7 5 {status} tail 0 0 -')
    assert (ended.exitcode, ended.signal) == (code, signal)


def test_head_is_counted_once_though_it_is_written_twice(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    # 3 bytes were kept of 10: tee wrote 10 to one file and 3 to the other.
    ended = end(launcher, agent, '7 5 0 head 13 4 -', b'abc', b'ef')
    assert (ended.out_bytes, ended.err_bytes) == (10, 2)
    assert (
        end(launcher, agent, '7 5 0 tail 10 2 -', b'abc', b'ef').out_bytes
        == 10
    )


def test_bytes_written_after_the_count_are_left_out(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    assert end(launcher, agent, '7 5 0 head 4 0 -', b'abcdef').out == b'ab'


@pytest.mark.parametrize(
    ('written', 'is_torn'),
    [(6, False), (7, True), (command.MAX_OUTPUT_BYTES * 3, True)],
)
def test_output_that_is_missing_is_torn(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    written: int,
    is_torn: bool,
) -> None:
    ended = end(launcher, agent, f'7 5 0 tail {written} 0 -', b'abcdef')
    assert ended.is_torn is is_torn


@pytest.mark.parametrize(
    ('status', 'err', 'never_ran'),
    [
        (127 << 8, b'guest-agent: line 3: x: not found\naaaa\n', True),
        # A command may print what it likes, but one that ran well did run.
        (0, b'aaaa\n', False),
        (127 << 8, b'x: not found\n', False),
        (9, b'aaaa\n', False),
    ],
)
def test_only_the_token_and_a_shells_code_prove_that_nothing_ran(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    status: int,
    err: bytes,
    never_ran: bool,
) -> None:
    ended = end(launcher, agent, f'7 5 {status} tail 0 {len(err)} -', b'', err)
    assert ended.never_ran is never_ran
    if never_ran:
        assert ended.error == posix.NOT_EXECUTED % 'x: not found'


@pytest.mark.parametrize(
    ('printed', 'message'),
    [
        (b'unusable', '/run/guest-agent'),
        (b'', '/bin/sh'),
        (b'guest boot', '/bin/sh'),
        (b'hello boot 5', '/bin/sh'),
        (b'guest boot -5', '/bin/sh'),
    ],
)
def test_guest_where_nothing_can_run(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    printed: bytes,
    message: str,
) -> None:
    prints(agent, printed)
    with pytest.raises(exception.LauncherUnavailable, match=message):
        launcher.probe()


def stat(
    pid: int, state: str, threads: int = 1, name: str = 'a) Z b'
) -> bytes:
    return f'{pid} ({name}) {state} {"0 " * 16}{threads} 0 0\n'.encode()


@pytest.mark.parametrize(
    ('read', 'has_exited'),
    [
        (stat(7, 'S'), False),
        (stat(7, 'Z'), True),
        # Its first thread has ended before the others.
        (stat(7, 'Z', threads=2), False),
        (stat(8, 'S'), True),
        (b'', True),
    ],
)
def test_watch(
    launcher: posix.PosixLauncher,
    agent: mock.Mock,
    read: bytes,
    has_exited: bool,
) -> None:
    agent.file_read.return_value = read
    watch = launcher.watch(7)
    assert watch is not None and watch.has_exited() is has_exited


def test_watch_of_a_frozen_guest_ends_nothing(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    watch = launcher.watch(7)
    agent.file_seek.side_effect = exception.AgentCommandDisabled()
    assert watch is not None
    with pytest.raises(exception.AgentBusy):
        watch.has_exited()
    agent.file_seek.side_effect = exception.AgentRefused('unknown handle')
    assert watch.has_exited()


def test_no_watch_where_files_are_not_allowed(
    launcher: posix.PosixLauncher, agent: mock.Mock
) -> None:
    agent.file_open.side_effect = exception.AgentRefused()
    assert launcher.watch(7) is None
