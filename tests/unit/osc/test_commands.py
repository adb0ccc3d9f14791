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


"""``openstack server guest ...`` with a server that is played."""

import argparse
import base64
import copy
import hashlib
import io
import json
import pathlib
import sys
from typing import Any
from unittest import mock

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import pytest
import requests
from requests import structures

from guest_agent_ext.osc import exec as guest_exec
from guest_agent_ext.osc import files
from guest_agent_ext.osc import resources

SERVER = 'server-id'


class Response:
    """One answer, as requests has it."""

    def __init__(
        self,
        status: int = 200,
        body: Any = None,
        content: bytes = b'',
        headers: Any = None,
    ) -> None:
        self.status_code = status
        self._body = body
        self.content = content or (json.dumps(body).encode() if body else b'')
        self.headers = structures.CaseInsensitiveDict(
            {'Content-Type': 'application/json', **(headers or {})}
        )
        self.url = 'http://nova'
        self.reason = 'because'
        self.request = mock.Mock(method='GET', url=self.url)
        self.text = str(body)

    def json(self) -> Any:
        return self._body

    def iter_content(self, size: int) -> Any:
        yield from [self.content] if self.content else []


def shown(status: str, **values: Any) -> dict[str, Any]:
    return {
        'command': dict(
            {
                'uuid': 'command-id',
                'status': status,
                'error': None,
                'started_at': '2026-01-01T00:00:00Z',
                'result': None,
            },
            **values,
        )
    }


def output(data: bytes, offset: int, is_complete: bool) -> Response:
    prefix = 'OpenStack-Guest-Agent-'
    return Response(
        content=data,
        headers={
            prefix + 'Next-Offset': str(offset + len(data)),
            prefix + 'Complete': str(is_complete).lower(),
        },
    )


@pytest.fixture
def compute() -> mock.Mock:
    """The SDK's proxy."""
    proxy = mock.Mock()
    proxy.find_server.return_value.id = SERVER
    return proxy


def run(kind: Any, compute: mock.Mock, *argv: str) -> Any:
    app = mock.Mock()
    app.client_manager.sdk_connection.compute = compute
    found = kind(app, argparse.Namespace())
    return found.take_action(
        found.get_parser('test').parse_args(['name', *argv])
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_exec.time, 'sleep', mock.Mock())


class Guest:
    """Answers what a command has written, a piece at each look.

    :param pieces: of stdout
    :param end: what the command is like after them
    """

    def __init__(
        self, compute: mock.Mock, pieces: list[bytes], end: dict[str, Any]
    ) -> None:
        self._pieces = pieces
        self._end = end
        self._out = b''
        self.refusals: list[Response] = []
        compute.post.return_value = Response(body=shown('RUNNING'))
        compute.get.side_effect = self._get

    def _get(self, url: str, params: Any = None, **kwargs: Any) -> Response:
        if url.endswith('/commands/command-id'):
            assert kwargs['headers'] == {'Prefer': 'wait=1'}
            return Response(body=shown('RUNNING'))
        assert url.endswith('/commands/command-id/output')
        if self.refusals:
            return self.refusals.pop()
        if params['stream'] == 'err':
            return output(b'', params['offset'], not self._pieces)
        if self._pieces:
            self._out += self._pieces.pop(0)
        return output(
            self._out[params['offset'] :], params['offset'], not self._pieces
        )

    def fetch(self, found: resources.Command, session: Any) -> None:
        if not self._pieces:
            found._translate_response(Response(body=copy.deepcopy(self._end)))


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
        shown(
            'COMPLETED',
            result={'exitcode': 3, 'out_bytes': 13, 'err_bytes': 0},
        ),
    )
    assert run(guest_exec.Exec, compute, '--', 'make', '-j2') == 3
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
        shown(
            'COMPLETED', result={'exitcode': 0, 'out_bytes': 4, 'err_bytes': 0}
        ),
    )
    played.refusals = [
        Response(
            409,
            {
                'conflictingRequest': {
                    'message': 'The guest agent does not answer'
                }
            },
        )
    ]
    assert run(guest_exec.Exec, compute, 'x') == 0
    assert capfdbinary.readouterr() == (b'out\n', b'')


def test_what_was_not_kept_is_told(
    compute: mock.Mock, guest: Any, capfdbinary: Any
) -> None:
    guest(
        [b'x'],
        shown(
            'COMPLETED',
            result={'exitcode': 0, 'out_bytes': 10, 'err_bytes': 5},
        ),
    )
    assert run(guest_exec.Exec, compute, 'yes') == 0
    assert b'14 bytes of output were not kept' in capfdbinary.readouterr()[1]


@pytest.mark.parametrize(
    ('end', 'code'),
    [
        (shown('COMPLETED', result={'exitcode': None, 'signal': 9}), 137),
        (shown('TIMED_OUT', error='Its timeout passed'), 124),
        (shown('CANCELLED', error='It was cancelled'), 130),
        (shown('FAILED', error='No such file'), 255),
        (shown('LOST', error='Rebooted'), 255),
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
    assert run(guest_exec.Exec, compute, 'x') == code
    error = end['command']['error'] or ''
    assert error.encode() in capfdbinary.readouterr()[1]


def test_arguments(
    compute: mock.Mock, guest: Any, tmp_path: pathlib.Path
) -> None:
    guest([], shown('COMPLETED', result={'exitcode': 0}))
    file = tmp_path / 'stdin'
    file.write_bytes(b'in\xff')
    run(
        guest_exec.Exec,
        compute,
        '--env',
        'A=b=c',
        '--cwd',
        '/tmp',
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
        'timeout': 5,
        'start_timeout': 6,
        'output_keep': 'tail',
        'input_data': base64.b64encode(b'in\xff').decode(),
        'input_encoding': 'base64',
    }


def test_variable_without_a_value(compute: mock.Mock) -> None:
    with pytest.raises(exceptions.CommandError, match='NAME=VALUE'):
        run(guest_exec.Exec, compute, '--env', 'A', 'id')
    compute.post.assert_not_called()


def test_request_without_an_answer_is_repeated_with_its_key(
    compute: mock.Mock, guest: Any
) -> None:
    guest([], shown('COMPLETED', result={'exitcode': 0}))
    compute.post.side_effect = [
        ConnectionResetError(),
        Response(503, {}),
        Response(body=shown('RUNNING')),
    ]
    assert run(guest_exec.Exec, compute, 'id') == 0
    keys = {
        call.kwargs['headers']['Idempotency-Key']
        for call in compute.post.call_args_list
    }
    assert len(keys) == 1 and compute.post.call_count == 3


def test_server_that_stays_away(compute: mock.Mock) -> None:
    compute.post.side_effect = ConnectionResetError
    with pytest.raises(ConnectionResetError):
        run(guest_exec.Exec, compute, 'id')
    assert compute.post.call_count == guest_exec.TRIES


def test_refusal_is_not_repeated(compute: mock.Mock) -> None:
    compute.post.return_value = Response(
        409, {'conflictingRequest': {'message': 'is locked'}}
    )
    with pytest.raises(sdk_exceptions.ConflictException, match='is locked'):
        run(guest_exec.Exec, compute, 'id')
    compute.post.assert_called_once()


def test_interrupt_cancels(
    compute: mock.Mock, guest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest([], shown('CANCELLED', error='It was cancelled'))
    compute.post.side_effect = [Response(body=shown('RUNNING')), Response(202)]
    monkeypatch.setattr(
        guest_exec.time,
        'sleep',
        mock.Mock(side_effect=[KeyboardInterrupt, None, None]),
    )
    assert run(guest_exec.Exec, compute, 'id') == 130
    (url,) = compute.post.call_args.args
    assert url.endswith('/command-id/action')
    assert compute.post.call_args.kwargs['json'] == {'cancel': None}


def test_no_wait(compute: mock.Mock) -> None:
    compute.post.return_value = Response(body=shown('PENDING'))
    assert run(guest_exec.Exec, compute, '--no-wait', 'id') == 0
    compute.get.assert_not_called()


# Files.


def download(data: bytes, status: int = 200, **headers: str) -> Response:
    return Response(
        status,
        content=data,
        headers={'Content-Length': str(len(data)), **headers},
    )


def test_get(compute: mock.Mock, tmp_path: pathlib.Path) -> None:
    compute.get.return_value = download(b'data')
    to = tmp_path / 'to'
    run(files.Get, compute, '/etc/a b', str(to))
    assert to.read_bytes() == b'data'
    assert list(tmp_path.iterdir()) == [to]
    call = compute.get.call_args
    assert call.args == (f'/servers/{SERVER}/guest-agent/file-read',)
    assert call.kwargs['params'] == {'path': '/etc/a b'}
    assert call.kwargs['headers'] == {}


def test_get_to_stdout(compute: mock.Mock, capfdbinary: Any) -> None:
    compute.get.return_value = download(b'\0data')
    run(files.Get, compute, '/f', '-')
    sys.stdout.flush()
    assert capfdbinary.readouterr()[0] == b'\0data'


def test_copy_that_breaks_off_is_resumed(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    to = tmp_path / 'to'
    compute.get.return_value = Response(
        content=b'da', headers={'Content-Length': '4'}
    )
    with pytest.raises(exceptions.CommandError, match='--resume'):
        run(files.Get, compute, '/f', str(to))
    assert not to.exists()
    compute.get.return_value = download(b'ta', 206)
    run(files.Get, compute, '/f', str(to), '--resume')
    assert compute.get.call_args.kwargs['headers'] == {'Range': 'bytes=2-'}
    assert to.read_bytes() == b'data'


def test_connection_that_breaks(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    answer = download(b'data')
    answer.iter_content = mock.Mock(side_effect=requests.ConnectionError)
    compute.get.return_value = answer
    with pytest.raises(exceptions.CommandError, match='4 bytes .* missing'):
        run(files.Get, compute, '/f', str(tmp_path / 'to'))


def test_whole_file_where_a_part_was_asked_for(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    to = tmp_path / 'to'
    (tmp_path / 'to.part').write_bytes(b'da')
    compute.get.return_value = download(b'data')
    run(files.Get, compute, '/f', str(to), '--resume')
    assert to.read_bytes() == b'data'


@pytest.mark.parametrize('size', [4, 2])
def test_resume_where_nothing_is_left(
    compute: mock.Mock, size: int, tmp_path: pathlib.Path
) -> None:
    to = tmp_path / 'to'
    (tmp_path / 'to.part').write_bytes(b'data')
    compute.get.return_value = Response(
        416, headers={'Content-Range': f'bytes */{size}'}
    )
    if size == 4:
        run(files.Get, compute, '/f', str(to), '--resume')
        assert to.read_bytes() == b'data'
        return
    with pytest.raises(exceptions.CommandError, match='not the file'):
        run(files.Get, compute, '/f', str(to), '--resume')
    assert not to.exists()


@pytest.mark.parametrize('name', ['file', '-'])
def test_put(
    compute: mock.Mock,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    data = b'x' * (files.PIECE + 1)
    file = tmp_path / 'file'
    file.write_bytes(data)
    monkeypatch.setattr(sys, 'stdin', mock.Mock(buffer=io.BytesIO(data)))
    sent = []

    def post(url: str, **kwargs: Any) -> Response:
        assert len(kwargs['data']) == len(data)
        sent.extend(kwargs['data'])
        return Response(204)

    compute.post.side_effect = post
    run(
        files.Put,
        compute,
        '-' if name == '-' else str(file),
        '/f',
        '--mode',
        '0600',
        '--append',
    )
    assert b''.join(sent) == data
    call = compute.post.call_args
    assert call.kwargs['params'] == {
        'path': '/f',
        'mode': '0600',
        'append': 'true',
    }
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert call.kwargs['headers']['Content-Digest'] == f'sha-256=:{digest}:'


def test_put_that_is_refused(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / 'file'
    file.touch()
    compute.post.return_value = Response(
        409, {'conflictingRequest': {'message': 'No space left on device'}}
    )
    with pytest.raises(sdk_exceptions.ConflictException, match='No space'):
        run(files.Put, compute, str(file), '/f')
