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


"""Attached commands, with their hosts played."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.api import slots
from guest_agent_ext.api import streams
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from tests.functional.api import base
from tests.functional.api import test_output

CAT = {'command': ['cat'], 'attach': True}
TERMINAL = {'columns': 80, 'rows': 24}
PREFIX = test_output.PREFIX


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """Plays the calls of the compute service."""
    host = mock.Mock()
    host.read_stream.return_value = rpcapi.StreamOutput(b'\0live', False)
    host.write_stream.return_value = rpcapi.Accepted(3, False)
    for name in ('read_stream', 'write_stream', 'resize', 'signal'):
        monkeypatch.setattr(
            rpcapi.ComputeAPI,
            name,
            lambda self, *args, _name=name: getattr(host, _name)(*args),
        )
    monkeypatch.setattr(streams, 'INPUT_WAIT', 0.2)
    monkeypatch.setattr(slots, 'threads', lambda environ: 8)
    yield host


def new(cloud: base.Cloud, **arguments: Any) -> str:
    answer = cloud.post({**CAT, **arguments})
    assert answer.status_code == 200, answer.text
    return str(answer.json()['command']['uuid'])


def running(cloud: base.Cloud, **arguments: Any) -> str:
    uuid = new(cloud, **arguments)
    test_output.start(cloud, uuid)
    return uuid


def put(
    cloud: base.Cloud, uuid: str, data: bytes, query: str = '', **caller: Any
) -> Any:
    return cloud.request(
        'POST', f'{cloud.path}/{uuid}/input{query}', raw=data, **caller
    )


def act(cloud: base.Cloud, uuid: str, body: Any, **caller: Any) -> Any:
    return cloud.request('POST', f'{cloud.path}/{uuid}/action', body, **caller)


def test_what_was_asked_for_is_shown(cloud: base.Cloud) -> None:
    answer = cloud.post(
        {'command': ['sh'], 'terminal': TERMINAL, 'detach': True}
    )
    assert answer.json()['command']['arguments'] == {
        'command': ['sh'],
        'attach': True,
        'detach': True,
        'terminal': {'columns': 80, 'rows': 24, 'term': 'xterm'},
    }


@pytest.mark.parametrize(
    'arguments',
    [
        {'attach': 'yes'},
        {'attach': True, 'input_data': 'x'},
        {'attach': False, 'terminal': TERMINAL},
        {'detach': True},
        {'terminal': {'columns': 0, 'rows': 24}},
        {'terminal': {'columns': 80, 'rows': 1001}},
        {'terminal': {'columns': 80}},
        {'terminal': {**TERMINAL, 'term': 'a b'}},
        {'terminal': {**TERMINAL, 'term': 'xterm\n'}},
        {'terminal': {**TERMINAL, 'x': 1}},
    ],
)
def test_malformed(cloud: base.Cloud, arguments: Any) -> None:
    answer = cloud.post({'command': ['sh'], **arguments})
    base.message_of(answer, 400, 'badRequest')


def test_bound_of_a_server(cloud: base.Cloud) -> None:
    bound = base.CONF.guest_agent.max_attached_per_server
    for _ in range(bound):
        new(cloud)
    answer = cloud.post(CAT)
    message = base.message_of(answer, 429, 'overLimit')
    assert str(bound) in message
    assert answer.headers['Retry-After']
    assert cloud.post().status_code == 200


def test_bound_of_a_host(cloud: base.Cloud) -> None:
    host = 'host-of-attached'
    hosts.register(
        cloud.cell.uuid, host, machine_id='m', version='1', down_time=60
    )
    cloud.flags(max_attached_per_host=1, group='guest_agent')
    try:
        for status in (200, 429):
            instance = cloud.make_instance(host=host)
            path = base.commands_of(instance.uuid)
            assert cloud.post(CAT, path=path).status_code == status
    finally:
        cloud.flags(max_attached_per_host=100, group='guest_agent')


def test_key_covers_how_it_is_attached(cloud: base.Cloud) -> None:
    headers = {'Idempotency-Key': cloud.instance.uuid}
    first = cloud.post(CAT, headers=headers)
    assert cloud.post(CAT, headers=headers).json() == first.json()
    other = cloud.post({**CAT, 'detach': True}, headers=headers)
    assert other.status_code == 422


def test_read(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = running(cloud)
    query = '?stream=err&offset=3&client=me&take_over=true'
    answer = test_output.get(cloud, uuid, query)
    assert test_output.piece(answer) == (b'\0live', 3, 8, 'false')
    host.read_stream.assert_called_once_with(
        base.HOST,
        cloud.instance.uuid,
        uuid,
        rpcapi.Client('me', True),
        'err',
        3,
        0,
    )


def test_read_waits_for_output(cloud: base.Cloud, host: mock.Mock) -> None:
    """A host that is started again has nothing for a while."""
    nothing = rpcapi.StreamOutput(b'', False)
    host.read_stream.side_effect = [
        nothing,
        exception.HostUnreachable('away'),
        exception.StreamRefused('later', 'not yet'),
        rpcapi.StreamOutput(b'x', False),
    ]
    answer = test_output.get(cloud, running(cloud), '?wait=20&take_over=true')
    assert test_output.piece(answer) == (b'x', 0, 1, 'false')
    takes_over = [
        call.args[3].takes_over for call in host.read_stream.mock_calls
    ]
    # Whoever has taken it since must not lose it.
    assert takes_over == [True, False, False, False]


def test_wait_ends(cloud: base.Cloud, host: mock.Mock) -> None:
    host.read_stream.return_value = rpcapi.StreamOutput(b'', False)
    answer = test_output.get(cloud, running(cloud), '?wait=1&offset=4')
    assert test_output.piece(answer) == (b'', 4, 4, 'false')
    assert host.read_stream.call_count > 2


def test_complete(cloud: base.Cloud, host: mock.Mock) -> None:
    host.read_stream.return_value = rpcapi.StreamOutput(b'', True)
    answer = test_output.get(cloud, running(cloud), '?wait=20&offset=4')
    assert test_output.piece(answer) == (b'', 4, 4, 'true')


def test_end_comes_while_it_is_waited_for(
    cloud: base.Cloud, host: mock.Mock
) -> None:
    uuid = running(cloud)

    def end(*args: Any) -> None:
        commands.finish(
            uuid,
            attempt='a',
            status='COMPLETED',
            values={'pid': 7, 'exitcode': 0, 'out_bytes': 4},
            age=0.0,
        )
        raise exception.StreamRefused('ended', 'it has')

    host.read_stream.side_effect = end
    answer = test_output.get(cloud, uuid, '?wait=20&offset=4')
    assert test_output.piece(answer) == (b'', 4, 4, 'true')


@pytest.mark.parametrize(
    ('kind', 'status', 'name'),
    [('taken', 409, 'conflictingRequest'), ('gone', 410, 'computeFault')],
)
def test_read_that_is_refused(
    cloud: base.Cloud, host: mock.Mock, kind: Any, status: int, name: str
) -> None:
    host.read_stream.side_effect = exception.StreamRefused(kind, 'Because')
    answer = test_output.get(cloud, running(cloud), '?wait=20')
    assert base.message_of(answer, status, name) == 'Because'


def test_host_that_does_not_answer(cloud: base.Cloud, host: mock.Mock) -> None:
    host.read_stream.side_effect = exception.HostUnreachable('away')
    host.write_stream.side_effect = exception.HostUnreachable('away')
    uuid = running(cloud)
    for answer in (
        test_output.get(cloud, uuid, '?wait=1'),
        put(cloud, uuid, b'x'),
    ):
        assert 'unchanged' in base.message_of(
            answer, 503, 'serviceUnavailable'
        )
        assert answer.headers['Retry-After']


def test_host_of_an_earlier_release(
    cloud: base.Cloud, host: mock.Mock
) -> None:
    """To ask it again is in vain."""
    host.read_stream.side_effect = exception.HostUnreachable(
        'no such method', 'not offered'
    )
    answer = test_output.get(cloud, running(cloud), '?wait=20')
    message = base.message_of(answer, 409, 'conflictingRequest')
    assert 'release' in message


def test_pending_command_has_nothing_yet(
    cloud: base.Cloud, host: mock.Mock
) -> None:
    refusal = exception.StreamRefused('later', 'not yet')
    host.read_stream.side_effect = host.write_stream.side_effect = refusal
    uuid = new(cloud)
    assert test_output.piece(test_output.get(cloud, uuid))[0] == b''
    assert put(cloud, uuid, b'abc', '?offset=4').json() == {
        'input': {'next_offset': 4, 'end': False}
    }


@pytest.mark.parametrize(
    ('offset', 'expected'),
    [
        (0, (b'abc', 0, 3, 'false')),
        (9, (b'', 9, 9, 'true')),
        (10, (b'', 10, 10, 'true')),
    ],
)
def test_what_is_kept_of_an_ended_command(
    cloud: base.Cloud, offset: int, expected: Any
) -> None:
    uuid = new(cloud)
    cloud.end(uuid, out_data=b'abc', out_bytes=9)
    answer = test_output.get(cloud, uuid, f'?offset={offset}')
    assert test_output.piece(answer) == expected
    answer = test_output.get(cloud, uuid, '?offset=3')
    base.message_of(answer, 410, 'computeFault')


def test_input(cloud: base.Cloud, host: mock.Mock) -> None:
    """It travels in pieces, and its end behind the last."""
    size = rpcapi.WRITE_CHUNK
    data = b'x' * size + b'yz'
    host.write_stream.side_effect = [
        rpcapi.Accepted(5 + size, False),
        rpcapi.Accepted(7 + size, True),
    ]
    uuid = running(cloud)
    answer = put(cloud, uuid, data, '?offset=5&end=true')
    assert answer.json() == {'input': {'next_offset': 7 + size, 'end': True}}
    assert [call.args[4:7] for call in host.write_stream.mock_calls] == [
        (5, b'x' * size, False),
        (5 + size, b'yz', True),
    ]


def test_full_window(cloud: base.Cloud, host: mock.Mock) -> None:
    host.write_stream.return_value = rpcapi.Accepted(1, False)
    answer = put(cloud, running(cloud), b'abc', '?offset=1')
    assert answer.json() == {'input': {'next_offset': 1, 'end': False}}
    assert host.write_stream.call_count == 1


def test_gap_of_input(cloud: base.Cloud, host: mock.Mock) -> None:
    host.write_stream.side_effect = exception.StreamRefused('gap', 'From 3')
    answer = put(cloud, running(cloud), b'abc', '?offset=9')
    assert base.message_of(answer, 409, 'conflictingRequest') == 'From 3'


def test_too_much_input_at_once(cloud: base.Cloud, host: mock.Mock) -> None:
    answer = put(cloud, running(cloud), b'x' * (256 * 1024 + 1))
    base.message_of(answer, 413, 'overLimit')
    host.write_stream.assert_not_called()


def test_input_of_a_command_that_takes_none(
    cloud: base.Cloud, host: mock.Mock
) -> None:
    uuid = new(cloud)
    cloud.end(uuid)
    base.message_of(put(cloud, uuid, b'x'), 409, 'conflictingRequest')
    plain = test_output.new(cloud)
    message = base.message_of(
        put(cloud, plain, b'x'), 409, 'conflictingRequest'
    )
    assert 'not attached' in message
    host.write_stream.assert_not_called()


@pytest.mark.parametrize(
    'query', ['?offset=-1', '?end=1', '?client=a%20b', '?client=', '?x=1']
)
def test_malformed_query_of_input(cloud: base.Cloud, query: str) -> None:
    base.message_of(put(cloud, new(cloud), b'x', query), 400, 'badRequest')


def test_resize_and_signal(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = running(cloud, terminal=TERMINAL)
    assert act(cloud, uuid, {'resize': {'columns': 9, 'rows': 8}}).ok
    host.resize.assert_called_once_with(
        base.HOST, cloud.instance.uuid, uuid, 9, 8
    )
    assert act(cloud, uuid, {'signal': 'INT'}).status_code == 202
    host.signal.assert_called_once_with(
        base.HOST, cloud.instance.uuid, uuid, 'INT'
    )


@pytest.mark.parametrize(
    ('kind', 'status', 'name'),
    [
        ('unable', 409, 'conflictingRequest'),
        ('later', 503, 'serviceUnavailable'),
    ],
)
def test_signal_that_is_refused(
    cloud: base.Cloud, host: mock.Mock, kind: Any, status: int, name: str
) -> None:
    host.signal.side_effect = exception.StreamRefused(kind, 'Because')
    answer = act(cloud, running(cloud), {'signal': 'INT'})
    assert base.message_of(answer, status, name) == 'Because'


def test_action_that_cannot_be(cloud: base.Cloud, host: mock.Mock) -> None:
    pending, plain, ended = new(cloud), running(cloud), new(cloud)
    cloud.end(ended)
    size = {'resize': {'columns': 9, 'rows': 8}}
    for uuid, body in (
        (pending, {'signal': 'INT'}),
        (plain, size),
        (ended, {'signal': 'INT'}),
    ):
        base.message_of(act(cloud, uuid, body), 409, 'conflictingRequest')
    host.signal.assert_not_called()
    host.resize.assert_not_called()


@pytest.mark.parametrize(
    'body',
    [
        {},
        {'cancel': None, 'signal': 'INT'},
        {'signal': 'KILL'},
        {'resize': {'columns': 0, 'rows': 8}},
        {'resize': None},
    ],
)
def test_malformed_action(cloud: base.Cloud, body: Any) -> None:
    base.message_of(act(cloud, new(cloud), body), 400, 'badRequest')


def test_who_may(cloud: base.Cloud, host: mock.Mock) -> None:
    uuid = running(cloud)
    assert put(cloud, uuid, b'abc', roles='reader').status_code == 403
    other = {'project_id': base.OTHER_PROJECT}
    assert put(cloud, uuid, b'abc', **other).status_code == 404
    assert act(cloud, uuid, {'signal': 'INT'}, **other).status_code == 404
