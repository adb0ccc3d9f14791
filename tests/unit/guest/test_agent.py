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

"""The agent's protocol, with the agent played."""

from typing import Any

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent


class Caller:
    """Plays one answer, and keeps the request."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.request: Any = None
        self.uuid = ''
        self.timeout = 0

    def agent_command(self, uuid: str, request: Any, timeout: int) -> Any:
        self.uuid, self.request, self.timeout = uuid, request, timeout
        return self._answer


def test_request_goes_to_the_guest_with_the_timeout() -> None:
    caller = Caller({})
    agent.Agent(caller, 'guest', timeout=7).ping()
    assert caller.request['execute'] == 'guest-ping'
    assert (caller.uuid, caller.timeout) == ('guest', 7)


def test_exec_sends_what_it_is_given() -> None:
    caller = Caller({'pid': 98})
    pid = agent.Agent(caller, 'guest').exec(
        '/bin/sh', ['-c', 'id'], env=['A=b=c'], stdin=b'in\xff'
    )
    assert pid == 98
    assert caller.request == {
        'execute': 'guest-exec',
        'arguments': {
            'path': '/bin/sh',
            'arg': ['-c', 'id'],
            'env': ['A=b=c'],
            'input-data': 'aW7/',
            'capture-output': True,
        },
    }


def test_exec_without_stdin_or_environment_leaves_them_out() -> None:
    # An empty env would be an empty environment, empty input-data a pipe.
    caller = Caller({'pid': 98})
    agent.Agent(caller, 'guest').exec('/bin/true', [], capture=False)
    assert caller.request['arguments'] == {
        'path': '/bin/true',
        'arg': [],
        'capture-output': False,
    }


@pytest.mark.parametrize(
    ('answer', 'expected'),
    [
        ({'exited': False}, agent.ExecStatus(False, None, None, b'', b'')),
        (
            {
                'exited': True,
                'exitcode': 3,
                'out-data': 'b3V0',
                'err-data': 'AP8=',
            },
            agent.ExecStatus(True, 3, None, b'out', b'\0\xff'),
        ),
        (
            {'exited': True, 'signal': 9},
            agent.ExecStatus(True, None, 9, b'', b''),
        ),
    ],
)
def test_exec_status(answer: Any, expected: agent.ExecStatus) -> None:
    caller = Caller(answer)
    assert agent.Agent(caller, 'guest').exec_status(98) == expected
    assert caller.request == {
        'execute': 'guest-exec-status',
        'arguments': {'pid': 98},
    }


def test_output_does_not_show_in_logs() -> None:
    status = agent.ExecStatus(True, 0, None, b'hush', b'hush')
    assert 'hush' not in repr(status)


def test_info() -> None:
    caller = Caller(
        {
            'version': '7.2.22',
            'supported_commands': [
                {
                    'name': 'guest-exec',
                    'enabled': False,
                    'success-response': True,
                },
                {
                    'name': 'guest-ping',
                    'enabled': True,
                    'success-response': True,
                },
            ],
        }
    )
    guest = agent.Agent(caller, 'guest')
    assert guest.info() == {'guest-exec': False, 'guest-ping': True}
    assert guest.version() == '7.2.22'


def test_osinfo_and_freeze_status() -> None:
    assert agent.Agent(Caller({'id': 'debian'}), 'guest').osinfo() == {
        'id': 'debian'
    }
    assert agent.Agent(Caller('frozen'), 'guest').fsfreeze_status() == 'frozen'


@pytest.mark.parametrize(
    'answer',
    [
        None,
        'hush',
        ['hush'],
        {},
        {'exited': True, 'out-data': 'hush\xff'},
        {'exited': True, 'out-data': 5},
        {'exited': True, 'exitcode': 'hush'},
    ],
)
def test_improper_answers_are_errors_without_their_text(answer: Any) -> None:
    with pytest.raises(exception.AgentError) as raised:
        agent.Agent(Caller(answer), 'guest').exec_status(98)
    assert raised.value.may_have_run
    assert raised.value.__suppress_context__
    assert 'hush' not in str(raised.value)


@pytest.mark.parametrize(
    ('method', 'args', 'answer', 'request_', 'result'),
    [
        ('file_open', ('/f', 'r+'), 3, {'path': '/f', 'mode': 'r+'}, 3),
        (
            'file_seek',
            (3, 9, 'set'),
            {'position': 9, 'eof': False},
            {'handle': 3, 'offset': 9, 'whence': 'set'},
            9,
        ),
        (
            'file_read',
            (3, 4),
            {'count': 2, 'buf-b64': 'aW4=', 'eof': True},
            {'handle': 3, 'count': 4},
            b'in',
        ),
        (
            'file_write',
            (3, b'in'),
            {'count': 2, 'eof': False},
            {'handle': 3, 'buf-b64': 'aW4='},
            2,
        ),
        ('file_flush', (3,), {}, {'handle': 3}, None),
        ('file_close', (3,), {}, {'handle': 3}, None),
    ],
)
def test_files(
    method: str, args: Any, answer: Any, request_: Any, result: Any
) -> None:
    caller = Caller(answer)
    assert getattr(agent.Agent(caller, 'guest'), method)(*args) == result
    assert caller.request == {
        'execute': method.replace('file_', 'guest-file-'),
        'arguments': request_,
    }


@pytest.mark.parametrize(
    'answer', [{'buf-b64': 'aW5z'}, {'buf-b64': 'a'}, {}, [], None]
)
def test_more_than_was_asked_for_is_no_answer(answer: Any) -> None:
    with pytest.raises(exception.AgentError):
        agent.Agent(Caller(answer), 'guest').file_read(3, 2)


def test_files_that_the_guest_does_not_allow() -> None:
    class Refusing(Caller):
        def agent_command(self, uuid: str, request: Any, timeout: int) -> Any:
            raise exception.AgentCommandDisabled

    with pytest.raises(exception.AgentCommandDisabled, match='guest-file'):
        agent.Agent(Refusing(None), 'guest').file_open('/f', 'r')
