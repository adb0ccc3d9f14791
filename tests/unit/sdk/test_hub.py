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
import json
from typing import Any
from unittest import mock
import uuid

from keystoneauth1 import exceptions as auth_exceptions
from openstack import exceptions
import pytest

from guest_agent_ext.sdk import files
from guest_agent_ext.sdk import hub as hub_module
from guest_agent_ext.sdk import hub_client
from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import programs
from guest_agent_ext.sdk import whole
from tests.unit.osc import fakes

SERVER = str(uuid.uuid4())
DONE = programs.Completed('id', 3, b'out', b'err')


@pytest.fixture
def connection() -> mock.Mock:
    found = mock.Mock()
    found.config.get_endpoint.return_value = 'http://own'
    found.compute.find_server.return_value.id = SERVER
    return found


@pytest.fixture
def hub(connection: mock.Mock) -> hub_module.Hub:
    return hub_module.Hub(mock.Mock(return_value=connection))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, mock.Mock]:
    """The ways to run a program."""
    ways = {
        'programs': mock.Mock(return_value=DONE),
        'whole': mock.Mock(return_value=DONE),
        'attached': mock.Mock(return_value=DONE),
    }
    monkeypatch.setattr(programs, 'run', ways['programs'])
    monkeypatch.setattr(whole, 'run', ways['whole'])
    monkeypatch.setattr(whole, 'attached', ways['attached'])
    return ways


def run(hub: hub_module.Hub, **values: Any) -> dict[str, Any]:
    return hub.run(
        **{
            'server': SERVER,
            'command': ['cat'],
            'stdin': base64.b64encode(b'in').decode(),
            'is_whole': True,
            'ask': None,
            'is_wanted': bool,
            **values,
        }
    )


@pytest.mark.parametrize(
    ('values', 'way'),
    [
        ({}, 'whole'),
        ({'is_whole': False}, 'programs'),
        ({'ask': mock.Mock()}, 'attached'),
    ],
)
def test_way_that_a_program_is_run(
    hub: hub_module.Hub,
    runs: dict[str, mock.Mock],
    values: dict[str, Any],
    way: str,
) -> None:
    done = run(hub, user='tenant', **values)
    assert done['code'] == 3
    assert base64.b64decode(done['out']) == b'out'
    assert base64.b64decode(done['err']) == b'err'
    (name,) = [name for name, made in runs.items() if made.called]
    assert name == way
    (_, server, command), options = runs[way].call_args
    assert (server, command) == (SERVER, ['cat'])
    assert (options['stdin'], options['user']) == (b'in', 'tenant')
    assert options.get('answer') == values.get('ask')


def test_output_that_was_cut_is_no_output(
    hub: hub_module.Hub, runs: dict[str, mock.Mock]
) -> None:
    runs['programs'].return_value = programs.Completed(
        'id', 0, b'', b'', is_cut=True
    )
    with pytest.raises(whole.OutputCut):
        run(hub, is_whole=False)


def test_errors_that_were_cut_say_so(
    hub: hub_module.Hub, runs: dict[str, mock.Mock]
) -> None:
    runs['whole'].return_value = programs.Completed(
        'id', 0, b'', b'err', is_error_cut=True
    )
    assert b'not kept' in base64.b64decode(run(hub)['err'])


def test_server_is_looked_for_once(
    hub: hub_module.Hub, connection: mock.Mock
) -> None:
    assert hub.server_id(SERVER) == SERVER
    connection.compute.find_server.assert_not_called()
    assert hub.server_id('web') == hub.server_id('web') == SERVER
    connection.compute.find_server.assert_called_once()
    hub.forget('web')
    hub.server_id('web')
    assert connection.compute.find_server.call_count == 2


def test_login_happens_once(hub: hub_module.Hub) -> None:
    assert hub.compute() is hub.compute()
    hub._connect.assert_called_once_with()


def test_file_of_another_user_is_written_by_that_user(
    hub: hub_module.Hub,
    runs: dict[str, mock.Mock],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = mock.Mock()
    monkeypatch.setattr(files, 'put', put)
    hub.put(SERVER, __file__, '/to', user=None, is_wanted=bool)
    put.assert_called_once()
    runs['whole'].assert_not_called()
    with pytest.raises(OSError, match='/to was not written: err'):
        hub.put(SERVER, __file__, '/to', user='tenant', is_wanted=bool)
    assert runs['whole'].call_args.kwargs['user'] == 'tenant'
    put.assert_called_once()


def http(status: int, call: str = 'commands') -> Exception:
    """Return what is raised for an answer."""
    response = fakes.Response(status, {'fault': {'message': 'why.'}})
    response.request.url = f'http://nova/guest-agent/{call}'
    with pytest.raises(exceptions.HttpException) as caught:
        exceptions.raise_from_response(response)
    return caught.value


@pytest.mark.parametrize(
    ('error', 'kind', 'words'),
    [
        (http(409), 'unreachable', 'why. "openstack server guest show"'),
        (http(403), 'unreachable', 'quota'),
        (http(404), 'unreachable', 'Check the id or name'),
        (http(429), 'unreachable', 'fewer forks'),
        (http(400), 'failed', 'why'),
        (http(404, 'file-read'), 'failed', 'why'),
        (exceptions.NotFoundException('none'), 'unreachable', 'id or name'),
        (process.NoExitCode('FAILED', 'no user'), 'unreachable', 'no user'),
        (process.NoExitCode('LOST', ''), 'unreachable', 'may have run'),
        (process.NoExitCode('TIMED_OUT', ''), 'failed', 'too long'),
        (process.NoExitCode('CANCELLED', ''), 'failed', 'cancelled'),
        (exceptions.ConfigException('x'), 'unreachable', 'OS_CLOUD'),
        (auth_exceptions.ConnectFailure('x'), 'unreachable', 'OS_CLOUD'),
        (exceptions.DuplicateResource('two'), 'unreachable', 'Use the id'),
        (whole.OutputCut('cut'), 'failed', 'cut'),
        (FileNotFoundError('here'), 'failed', 'here'),
        (KeyError('x'), 'failed', 'KeyError'),
    ],
)
def test_errors_say_what_to_do(
    error: Exception, kind: str, words: str
) -> None:
    found, text = hub_module.explained(error)
    assert found == kind
    assert words in text


class Channel:
    """Plays the socket of a hub.

    :param told: lines that the hub writes
    """

    def __init__(self, *told: Any) -> None:
        self._told = [json.dumps(line).encode() + b'\n' for line in told]
        self.written: list[Any] = []

    def readline(self) -> bytes:
        return self._told.pop(0) if self._told else b''

    def write(self, line: bytes) -> None:
        self.written.append(json.loads(line))

    def flush(self) -> None:
        pass


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_client_answers_questions() -> None:
    channel: Any = Channel(
        {'said': {'out': '', 'err': encoded(b'password:')}},
        {'result': {'code': 0}},
    )
    answer = mock.Mock(return_value=(b'secret', True))
    found = hub_client.HubClient('/nowhere')._read(channel, answer)
    assert found == {'code': 0}
    answer.assert_called_once_with(b'', b'password:')
    assert channel.written == [{'reply': encoded(b'secret'), 'over': True}]


def test_client_raises_what_the_hub_tells() -> None:
    channel: Any = Channel({'error': {'kind': 'failed', 'text': 'why'}})
    with pytest.raises(hub_client.HubError) as caught:
        hub_client.HubClient('/nowhere')._read(channel, None)
    assert (caught.value.kind, caught.value.text) == ('failed', 'why')
    with pytest.raises(ConnectionResetError):
        hub_client.HubClient('/nowhere')._read(Channel(), None)


def test_each_login_has_a_hub_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('OS_PASSWORD', 'one')
    first = hub_client.HubClient('/d')
    paths = {first.path, hub_client.HubClient('/d', cloud='other').path}
    assert first.path == hub_client.HubClient('/d').path
    assert 'one' not in first.path
    monkeypatch.setenv('OS_PASSWORD', 'two')
    paths.add(first.path)
    assert len(paths) == 3


def test_path_that_is_too_long_for_a_socket() -> None:
    with pytest.raises(hub_client.HubError, match='shorter'):
        hub_client.HubClient('/' + 'x' * 100).call('forget', server='web')
