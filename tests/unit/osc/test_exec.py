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


"""``openstack server guest exec`` with a service that is played."""

import base64
import copy
import json
import pathlib
from typing import Any
from unittest import mock

from keystoneauth1 import exceptions as auth_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import exec as guest_exec
from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import resources
from guest_agent_ext.sdk import retries
from tests.unit.osc import fakes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_exec.time, 'sleep', mock.Mock())


class Guest:
    """Answers what a command has written, a piece at each look.

    :param pieces: stdout in pieces, one for each read
    :param end: fields of the ended command
    """

    def __init__(
        self, compute: mock.Mock, pieces: list[bytes], end: dict[str, Any]
    ) -> None:
        self._pieces = pieces
        self._end = end
        self._out = b''
        self.refusals: list[fakes.Response] = []
        compute.post.return_value = fakes.Response(body=fakes.shown('RUNNING'))
        compute.get.side_effect = self._get

    def _get(
        self, url: str, params: Any = None, **kwargs: Any
    ) -> fakes.Response:
        assert url.endswith('/commands/command-id/output')
        if self.refusals:
            return self.refusals.pop()
        if params['stream'] == 'err':
            return fakes.output(b'', params['offset'], not self._pieces)
        if self._pieces:
            self._out += self._pieces.pop(0)
        return fakes.output(
            self._out[params['offset'] :], params['offset'], not self._pieces
        )

    def fetch(self, found: resources.Command, session: Any) -> None:
        if not self._pieces:
            found._translate_response(
                fakes.Response(body=copy.deepcopy(self._end))
            )


@pytest.fixture
def guest(compute: mock.Mock, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(pieces: list[bytes], end: dict[str, Any]) -> Guest:
        played = Guest(compute, pieces, end)
        monkeypatch.setattr(
            resources.Command,
            'fetch',
            lambda self, session: played.fetch(self, session),
        )
        return played

    return make


def test_streams_and_exit_code(
    compute: mock.Mock, guest: Any, capfdbinary: Any
) -> None:
    guest(
        [b'first\n', b'sec', b'ond\n'],
        fakes.shown(
            'COMPLETED',
            result={'exitcode': 3, 'out_bytes': 13, 'err_bytes': 0},
        ),
    )
    assert fakes.run(guest_exec.Exec, compute, '--', 'make', '-j2') == 3
    assert capfdbinary.readouterr() == (b'first\nsecond\n', b'')
    body = compute.post.call_args.kwargs['json']
    assert body == {
        'command': {'type': 'exec', 'arguments': {'command': ['make', '-j2']}}
    }
    # It has secrets.
    assert compute.post.call_args.kwargs['log'] is False


def test_guest_that_does_not_tell_for_a_while(
    compute: mock.Mock, guest: Any, capfdbinary: Any
) -> None:
    played = guest(
        [b'out\n'],
        fakes.shown(
            'COMPLETED', result={'exitcode': 0, 'out_bytes': 4, 'err_bytes': 0}
        ),
    )
    played.refusals = [
        fakes.Response(
            409,
            {
                'conflictingRequest': {
                    'message': 'The guest agent does not answer'
                }
            },
        )
    ]
    assert fakes.run(guest_exec.Exec, compute, 'x') == 0
    assert capfdbinary.readouterr() == (b'out\n', b'')


@pytest.mark.parametrize(
    ('options', 'code', 'shown'),
    [
        ([], 0, 120),
        # The program's own failure tells more.
        ([], 3, 3),
        # Whoever names the end to keep knows that there is another one.
        (['--keep=tail'], 0, 0),
        (['-f', 'json'], 0, 120),
    ],
)
def test_what_was_not_kept_is_told(
    compute: mock.Mock,
    guest: Any,
    capfdbinary: Any,
    options: list[str],
    code: int,
    shown: int,
) -> None:
    guest(
        [] if '-f' in options else [b'x'],
        fakes.shown(
            'COMPLETED',
            result={
                'exitcode': code,
                'out_bytes': 10,
                'err_bytes': 5,
                'out_truncated': True,
            },
        ),
    )
    assert fakes.run(guest_exec.Exec, compute, *options, 'yes') == shown
    assert b'bytes of output were not kept' in capfdbinary.readouterr()[1]


@pytest.mark.parametrize(
    ('end', 'code'),
    [
        (
            fakes.shown('COMPLETED', result={'exitcode': None, 'signal': 9}),
            137,
        ),
        (fakes.shown('TIMED_OUT', error='Its timeout passed'), 124),
        (fakes.shown('CANCELLED', error='It was cancelled'), 130),
        (fakes.shown('FAILED', error='No such file'), 255),
        (fakes.shown('LOST', error='Rebooted'), 255),
    ],
)
def test_exit_codes(
    compute: mock.Mock,
    guest: Any,
    capfdbinary: Any,
    end: dict[str, Any],
    code: int,
) -> None:
    guest([], end)
    assert fakes.run(guest_exec.Exec, compute, 'x') == code
    error = end['command']['error'] or ''
    assert error.encode() in capfdbinary.readouterr()[1]


def test_arguments(
    compute: mock.Mock, guest: Any, tmp_path: pathlib.Path
) -> None:
    guest([], fakes.shown('COMPLETED', result={'exitcode': 0}))
    file = tmp_path / 'stdin'
    file.write_bytes(b'in\xff')
    fakes.run(
        guest_exec.Exec,
        compute,
        '--env',
        'A=b=c',
        '--cwd',
        '/tmp',
        '--user',
        'tenant',
        '--timeout',
        '5',
        '--start-timeout',
        '6',
        '--keep',
        'tail',
        '--stdin',
        str(file),
        '--',
        'id',
    )
    assert compute.post.call_args.kwargs['json']['command']['arguments'] == {
        'command': ['id'],
        'env': {'A': 'b=c'},
        'cwd': '/tmp',
        'user': 'tenant',
        'timeout': 5,
        'start_timeout': 6,
        'output_keep': 'tail',
        'input_data': base64.b64encode(b'in\xff').decode(),
        'input_encoding': 'base64',
    }


def test_variable_without_a_value(compute: mock.Mock) -> None:
    with pytest.raises(exceptions.CommandError, match='NAME=VALUE'):
        fakes.run(guest_exec.Exec, compute, '--env', 'A', 'id')
    compute.post.assert_not_called()


def test_request_without_an_answer_is_repeated_with_its_key(
    compute: mock.Mock, guest: Any
) -> None:
    guest([], fakes.shown('COMPLETED', result={'exitcode': 0}))
    compute.post.side_effect = [
        ConnectionResetError(),
        fakes.Response(503, {}),
        fakes.Response(body=fakes.shown('RUNNING')),
    ]
    assert fakes.run(guest_exec.Exec, compute, 'id') == 0
    keys = {
        call.kwargs['headers']['Idempotency-Key']
        for call in compute.post.call_args_list
    }
    assert len(keys) == 1 and compute.post.call_count == 3


def test_server_that_stays_away(compute: mock.Mock) -> None:
    compute.post.side_effect = ConnectionResetError
    with pytest.raises(ConnectionResetError):
        fakes.run(guest_exec.Exec, compute, 'id')
    assert compute.post.call_count == retries.FEW


def test_refusal_is_not_repeated(compute: mock.Mock) -> None:
    compute.post.return_value = fakes.Response(
        409, {'conflictingRequest': {'message': 'is locked'}}
    )
    with pytest.raises(sdk_exceptions.ConflictException, match='is locked'):
        fakes.run(guest_exec.Exec, compute, 'id')
    compute.post.assert_called_once()


@pytest.mark.parametrize('number', [2, 15, 1])
def test_interrupt_cancels(
    compute: mock.Mock,
    guest: Any,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    guest([], fakes.shown('CANCELLED', error='It was cancelled'))
    compute.post.side_effect = [
        fakes.Response(body=fakes.shown('RUNNING')),
        fakes.Response(202),
    ]
    monkeypatch.setattr(
        guest_exec.time,
        'sleep',
        mock.Mock(side_effect=[interrupts.Interrupted(number), None, None]),
    )
    assert fakes.run(guest_exec.Exec, compute, 'id') == 128 + number
    (url,) = compute.post.call_args.args
    assert url.endswith('/command-id/action')
    assert compute.post.call_args.kwargs['json'] == {'cancel': None}


def test_no_wait(compute: mock.Mock) -> None:
    compute.post.return_value = fakes.Response(body=fakes.shown('PENDING'))
    assert fakes.run(guest_exec.Exec, compute, '--no-wait', 'id') == 0
    compute.get.assert_not_called()


def test_command_that_ended_at_once_costs_one_request(
    compute: mock.Mock, capfdbinary: Any
) -> None:
    compute.post.return_value = fakes.Response(
        body=fakes.shown(
            'COMPLETED',
            result={
                'exitcode': 0,
                'out_data': 'ü\n',
                'out_encoding': 'utf-8',
                'out_bytes': 3,
                'out_truncated': False,
                'err_data': '/w==',
                'err_encoding': 'base64',
                'err_bytes': 1,
                'err_truncated': False,
            },
        )
    )
    assert fakes.run(guest_exec.Exec, compute, 'id') == 0
    assert capfdbinary.readouterr() == ('ü\n'.encode(), b'\xff')
    compute.get.assert_not_called()
    compute.post.assert_called_once()
    headers = compute.post.call_args.kwargs['headers']
    assert headers['Prefer'] == f'wait={guest_exec.WAIT}'


def test_nothing_is_shown_twice_after_an_interrupt(
    compute: mock.Mock,
    guest: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: Any,
) -> None:
    guest(
        [b'first\n', b'last\n'],
        fakes.shown('CANCELLED', result={'exitcode': None, 'out_bytes': 11}),
    )
    compute.post.side_effect = [
        fakes.Response(body=fakes.shown('RUNNING')),
        fakes.Response(202),
    ]
    monkeypatch.setattr(
        guest_exec.time,
        'sleep',
        mock.Mock(side_effect=[interrupts.Interrupted(2), None, None]),
    )
    assert fakes.run(guest_exec.Exec, compute, 'id') == 130
    assert capfdbinary.readouterr()[0] == b'first\nlast\n'


def test_interrupt_before_the_answer_cancels_what_was_asked_for(
    compute: mock.Mock, guest: Any
) -> None:
    guest([], fakes.shown('CANCELLED'))
    compute.post.side_effect = [
        interrupts.Interrupted(15),
        fakes.Response(body=fakes.shown('RUNNING')),
        fakes.Response(202),
    ]
    assert fakes.run(guest_exec.Exec, compute, 'id') == 143
    first, again, cancel = compute.post.call_args_list
    assert (
        first.kwargs['headers']['Idempotency-Key']
        == again.kwargs['headers']['Idempotency-Key']
    )
    assert cancel.kwargs['json'] == {'cancel': None}


def test_detached_command_goes_on(
    compute: mock.Mock,
    guest: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: Any,
) -> None:
    guest([], fakes.shown('RUNNING'))
    monkeypatch.setattr(
        guest_exec.time,
        'sleep',
        mock.Mock(side_effect=interrupts.Interrupted(1)),
    )
    assert fakes.run(guest_exec.Exec, compute, '--detach', 'id') == 129
    assert capfdbinary.readouterr()[1] == b'Command command-id goes on\n'
    compute.post.assert_called_once()


def test_lost_connection_is_made_again(compute: mock.Mock, guest: Any) -> None:
    guest([], fakes.shown('COMPLETED', result={'exitcode': 0}))
    compute.post.side_effect = [
        auth_exceptions.ConnectFailure(),
        fakes.Response(body=fakes.shown('RUNNING')),
    ]
    assert fakes.run(guest_exec.Exec, compute, 'id') == 0


def test_json_is_the_ended_command(compute: mock.Mock) -> None:
    result = {'exitcode': 4, 'out_data': 'x', 'out_truncated': False}
    compute.post.return_value = fakes.Response(
        body=fakes.shown('COMPLETED', result=result)
    )
    app = mock.Mock()
    app.client_manager.sdk_connection.compute = compute
    made = guest_exec.Exec(app, mock.Mock())
    parsed = made.get_parser('x').parse_args(['-f', 'json', 's', 'id'])
    assert made.take_action(parsed) == 4
    (text,) = app.stdout.write.call_args.args
    shown = json.loads(text)
    assert (shown['id'], shown['status']) == ('command-id', 'COMPLETED')
    assert shown['result'] == result


def test_script_is_run_by_what_its_first_line_names(
    compute: mock.Mock, guest: Any, tmp_path: pathlib.Path
) -> None:
    guest([], fakes.shown('COMPLETED', result={'exitcode': 0}))
    script = tmp_path / 'deploy.py'
    script.write_text('#!/usr/bin/env python3\nprint(1)\n')
    fakes.run(guest_exec.Exec, compute, '--script', str(script), '--', '-v')
    sent = compute.post.call_args.kwargs['json']['command']['arguments']
    assert base64.b64decode(sent['input_data']) == script.read_bytes()
    assert sent['command'][3:] == [
        'deploy.py',
        '/usr/bin/env',
        'python3',
        '/proc/self/fd/9',
        '-v',
    ]


@pytest.mark.parametrize(
    'options', [['--script', 'x', '--stdin', '-'], ['--']]
)
def test_program_must_be_clear(compute: mock.Mock, options: list[str]) -> None:
    with pytest.raises(exceptions.CommandError, match='--script'):
        fakes.run(guest_exec.Exec, compute, *options)
    compute.post.assert_not_called()


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        (['-i', '--stdin', '-', 's', 'x'], '--stdin cannot be used with -i'),
        (['-t', '--no-wait', 's', 'x'], '--no-wait cannot be used with -i'),
        (['-i', 's'], 'No program'),
    ],
)
def test_what_is_not_attached(
    compute: mock.Mock, options: list[str], error: str
) -> None:
    with pytest.raises(exceptions.CommandError, match=error):
        fakes.run_without_server(guest_exec.Exec, compute, *options)
    compute.post.assert_not_called()


@pytest.mark.parametrize(
    ('kind', 'argv', 'program', 'has_terminal'),
    [
        (guest_exec.Exec, ['-i', 's', '--', 'a', '-b'], ['a', '-b'], False),
        (guest_exec.Exec, ['-t', 's', 'a'], ['a'], True),
        (guest_exec.Shell, ['s'], guest_exec._LOGIN_SHELL, True),
    ],
)
def test_attached_program(
    compute: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    argv: list[str],
    program: list[str],
    has_terminal: bool,
) -> None:
    run, start = mock.Mock(return_value=5), mock.Mock()
    monkeypatch.setattr(guest_exec.attached, 'run', run)
    monkeypatch.setattr(guest_exec.process, 'Process', start)
    monkeypatch.setattr(guest_exec.process, 'best_endpoint', lambda c: c)
    argv = ['--user', 'tenant', *argv]
    assert fakes.run_without_server(kind, compute, *argv) == 5
    start_with, is_terminal, _ = run.call_args.args
    assert is_terminal == has_terminal
    start_with(None)
    assert start.call_args.args == (compute, fakes.SERVER, program)
    assert start.call_args.kwargs['user'] == 'tenant'


def test_end_with_all_output_adds_what_is_new(
    compute: mock.Mock, guest: Any, capfdbinary: Any
) -> None:
    guest(
        [b'first\n'],
        fakes.shown(
            'COMPLETED',
            result={
                'exitcode': 0,
                'out_data': 'first\nlast\n',
                'out_bytes': 11,
                'out_truncated': False,
            },
        ),
    )
    assert fakes.run(guest_exec.Exec, compute, 'x') == 0
    assert capfdbinary.readouterr()[0] == b'first\nlast\n'
