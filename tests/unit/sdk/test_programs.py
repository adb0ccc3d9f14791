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


import base64
from typing import Any
from unittest import mock

from openstack import exceptions
import pytest

from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import programs
from tests.unit.osc import fakes

_RESULT = {
    'exitcode': 7,
    'signal': None,
    'out_data': 'out',
    'out_encoding': 'utf-8',
    'out_truncated': False,
    'err_data': base64.b64encode(b'\xff').decode(),
    'err_encoding': 'base64',
    'err_truncated': True,
}
_WAITED = {'Preference-Applied': 'wait=10'}


@pytest.fixture(autouse=True)
def sleep(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    sleep = mock.Mock()
    monkeypatch.setattr(programs.time, 'sleep', sleep)
    return sleep


def answer(status: str, headers: Any = None, **values: Any) -> fakes.Response:
    return fakes.Response(body=fakes.shown(status, **values), headers=headers)


def refusal(code: int, headers: Any = None) -> fakes.Response:
    return fakes.Response(code, {'fault': {'message': 'no'}}, headers=headers)


def compute_with(*answers: Any) -> mock.Mock:
    return mock.Mock(**{'request.side_effect': answers})


def calls(compute: mock.Mock) -> list[str]:
    return [
        ' '.join(reversed(call.args))
        for call in compute.request.call_args_list
    ]


def test_short_program_is_one_request() -> None:
    compute = compute_with(answer('COMPLETED', result=_RESULT))
    done = programs.run(
        compute, 'server', ['cat'], stdin=b'\xff', user='tenant', timeout=60
    )
    assert done == programs.Completed(
        'command-id', 7, b'out', b'\xff', False, True
    )
    (call,) = compute.request.call_args_list
    assert call.args == ('/servers/server/guest-agent/commands', 'POST')
    assert call.kwargs['json']['command']['arguments'] == {
        'command': ['cat'],
        'input_data': '/w==',
        'input_encoding': 'base64',
        'user': 'tenant',
        'timeout': 60,
    }
    assert call.kwargs['headers']['Prefer'] == 'wait=10'
    assert call.kwargs['headers']['Idempotency-Key']
    # A log would show stdin.
    assert call.kwargs['log'] is False


def test_end_is_waited_for(sleep: mock.Mock) -> None:
    """Without a gap where the server waits."""
    compute = compute_with(
        answer('RUNNING', _WAITED),
        answer('RUNNING', _WAITED),
        answer('COMPLETED', result=_RESULT),
    )
    programs.run(compute, 'server', ['true'])
    assert (
        calls(compute)[1:]
        == ['GET /servers/server/guest-agent/commands/command-id'] * 2
    )
    sleep.assert_not_called()
    compute = compute_with(
        answer('PENDING'), answer('COMPLETED', result=_RESULT)
    )
    programs.run(compute, 'server', ['true'])
    sleep.assert_called_once()


def test_lost_answer_is_asked_for_with_the_same_key() -> None:
    compute = compute_with(
        ConnectionResetError(), answer('COMPLETED', result=_RESULT)
    )
    programs.run(compute, 'server', ['true'])
    keys = {
        call.kwargs['headers']['Idempotency-Key']
        for call in compute.request.call_args_list
    }
    assert len(keys) == 1 and compute.request.call_count == 2


def test_service_with_too_much_to_do_is_asked_later(sleep: mock.Mock) -> None:
    compute = compute_with(
        refusal(429, {'Retry-After': '3'}),
        refusal(429, {'Retry-After': '3000'}),
        answer('COMPLETED', result=_RESULT),
    )
    programs.run(compute, 'server', ['true'])
    assert [call.args for call in sleep.call_args_list] == [(3,), (30,)]
    compute = mock.Mock(**{'request.return_value': refusal(429)})
    with pytest.raises(exceptions.HttpException):
        programs.run(compute, 'server', ['true'])
    assert compute.request.call_count < 20


def test_what_nobody_wants_is_cancelled() -> None:
    compute = compute_with(answer('RUNNING'), fakes.Response(202))
    with pytest.raises(programs.Unwanted):
        programs.run(compute, 'server', ['true'], is_wanted=lambda: False)
    assert calls(compute)[1].endswith('command-id/action')
    # It has ended meanwhile.
    compute = compute_with(answer('RUNNING'), refusal(409))
    with pytest.raises(programs.Unwanted):
        programs.run(compute, 'server', ['true'], is_wanted=lambda: False)


@pytest.mark.parametrize('status', ['FAILED', 'TIMED_OUT', 'LOST'])
def test_end_without_an_exit_code(status: str) -> None:
    compute = compute_with(answer(status, error='why'))
    with pytest.raises(process.NoExitCode) as caught:
        programs.run(compute, 'server', ['true'])
    assert (caught.value.status, caught.value.error) == (status, 'why')


def test_signal() -> None:
    result = dict(_RESULT, exitcode=None, signal=9)
    compute = compute_with(answer('COMPLETED', result=result))
    assert programs.run(compute, 'server', ['true']).returncode == -9
