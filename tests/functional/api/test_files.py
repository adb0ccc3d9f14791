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


"""What the API makes of files, with a host that keeps one in memory."""

import base64
from collections.abc import Iterator
import functools
import hashlib
import io
import json
import logging
from typing import Any
from typing import cast
from unittest import mock
import urllib.parse

from oslo_context import context as oslo_context
import pytest
import webob

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.api import transfer_client
from guest_agent_ext.api.controllers import files
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import commands
from tests.functional.api import base

CHUNK = rpcapi.READ_CHUNK
LARGE = bytes(range(256)) * (CHUNK * 3 // 256) + b'end'
UUID = files.UUID_HEADER


class Host:
    """Answers in the place of the compute service.

    :ivar content: of the file
    :ivar fail: what the next calls of a name answer or raise instead
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self.written = bytearray()
        self.fail: dict[str, list[Any]] = {}
        self.calls: list[str] = []
        self.aborted: list[str] = []
        self.committed: tuple[int, str] | None = None

    def open_file(
        self, host: str, instance_uuid: str, uuid: str
    ) -> rpcapi.OpenedFile:
        self._meet('open')
        row = commands.get(uuid)
        assert row is not None and row.host == host == base.HOST
        is_small = row.type == command.FILE_READ and len(self.content) <= CHUNK
        return rpcapi.OpenedFile(
            len(self.content), bytes(self.content) if is_small else None
        )

    def read_chunk(
        self, host: str, uuid: str, offset: int, size: int
    ) -> bytes:
        self._meet('read')
        assert size <= CHUNK
        return bytes(self.content[offset : offset + size])

    def write_chunk(
        self, host: str, uuid: str, offset: int, data: bytes
    ) -> None:
        self._meet('write')
        assert len(data) <= rpcapi.WRITE_CHUNK
        self.written.extend(bytes(max(0, offset - len(self.written))))
        self.written[offset : offset + len(data)] = data

    def commit(self, host: str, uuid: str, size: int, sha256: str) -> bool:
        done = self._meet('commit')
        self.committed = (size, sha256)
        return done is not False

    def abort(self, host: str, uuid: str, error: str) -> None:
        self._meet('abort')
        self.aborted.append(error)

    def _meet(self, name: str) -> Any:
        self.calls.append(name)
        outcome = self.fail[name].pop(0) if self.fail.get(name) else None
        if isinstance(outcome, str):
            raise exception.TransferRefused(
                cast(exception.RefusalKind, outcome),
                'The host says ' + outcome,
            )
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _answer(host: Host, name: str, *args: Any) -> Any:
    return getattr(host, name)(*args)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    for name in ('open_file', 'read_chunk', 'write_chunk', 'commit', 'abort'):
        monkeypatch.setattr(
            rpcapi.ComputeAPI, name, functools.partial(_answer, host, name)
        )
    monkeypatch.setattr(transfer_client, 'RETRY_GAP', 0.01)
    monkeypatch.setattr(transfer_client, 'PATIENCE', 0.5)
    return host


def path_of(cloud: base.Cloud, call: str, **query: str) -> str:
    return '/servers/%s/guest-agent/file-%s?%s' % (
        cloud.instance.uuid,
        call,
        urllib.parse.urlencode({'path': '/f', **query}),
    )


def read(
    cloud: base.Cloud, headers: dict[str, str] | None = None, **kwargs: Any
) -> Any:
    return cloud.get(path_of(cloud, 'read'), headers=headers, **kwargs)


def write(
    cloud: base.Cloud,
    data: bytes = b'data',
    headers: dict[str, str] | None = None,
    query: Any = None,
    **kwargs: Any,
) -> Any:
    return cloud.request(
        'POST',
        path_of(cloud, 'write', **query or {}),
        raw=data,
        headers={'Content-Length': str(len(data)), **(headers or {})},
        **kwargs,
    )


def row_of(answer: Any) -> Any:
    return commands.get(answer.headers[UUID])


def digest(data: bytes) -> str:
    return (
        'sha-256=:%s:'
        % base64.b64encode(hashlib.sha256(data).digest()).decode()
    )


# Reading.


def test_small_file_is_read_with_one_call(
    cloud: base.Cloud, host: Host
) -> None:
    host.content[:] = b'\0content'
    answer = read(cloud)
    assert (answer.status_code, answer.content) == (200, b'\0content')
    assert answer.headers['Content-Length'] == '8'
    assert answer.headers['Content-Type'] == 'application/octet-stream'
    assert answer.headers['Content-Digest'] == digest(b'\0content')
    assert answer.headers['Accept-Ranges'] == 'bytes'
    assert host.calls == ['open']
    row = row_of(answer)
    assert (row.type, row.arguments) == (command.FILE_READ, {'path': '/f'})


def test_large_file_is_streamed(cloud: base.Cloud, host: Host) -> None:
    host.content[:] = LARGE
    answer = read(cloud)
    assert (answer.status_code, answer.content) == (200, LARGE)
    assert answer.headers['Content-Length'] == str(len(LARGE))
    assert 'Content-Digest' not in answer.headers
    assert host.committed == (len(LARGE), '')
    assert not host.aborted


@pytest.mark.parametrize('size', [10, len(LARGE)])
@pytest.mark.parametrize(
    ('asked', 'start', 'stop'),
    [
        ('0-0', 0, 1),
        ('3-5', 3, 6),
        ('4-', 4, None),
        ('-2', -2, None),
        ('5-999999999', 5, None),
        ('-999999999', 0, None),
    ],
)
def test_range(
    cloud: base.Cloud,
    host: Host,
    size: int,
    asked: str,
    start: int,
    stop: int | None,
) -> None:
    host.content[:] = LARGE[:size]
    expected = bytes(host.content[start:stop])
    answer = read(cloud, {'Range': 'bytes=' + asked})
    assert (answer.status_code, answer.content) == (206, expected)
    first = start if start >= 0 else size + start
    assert answer.headers['Content-Range'] == 'bytes %d-%d/%d' % (
        first,
        first + len(expected) - 1,
        size,
    )
    if size == 10:
        assert answer.headers['Content-Digest'] == digest(expected)


@pytest.mark.parametrize(
    'headers',
    [
        {'Range': 'bytes=0-1,3-4'},
        {'Range': 'lines=1-2'},
        {'Range': 'bytes=5-2'},
        {'Range': 'bytes=0-1', 'If-Range': '"tag"'},
    ],
)
def test_range_that_is_not_honoured_gives_all(
    cloud: base.Cloud, host: Host, headers: dict[str, str]
) -> None:
    host.content[:] = b'0123456789'
    answer = read(cloud, headers)
    assert (answer.status_code, answer.content) == (200, b'0123456789')


@pytest.mark.parametrize('size', [0, 10, len(LARGE)])
def test_range_outside_the_file(
    cloud: base.Cloud, host: Host, size: int
) -> None:
    host.content[:] = LARGE[:size]
    answer = read(cloud, {'Range': 'bytes=%d-' % size})
    base.message_of(answer, 416, 'computeFault')
    assert answer.headers['Content-Range'] == 'bytes */%d' % size
    assert UUID in answer.headers
    assert len(host.aborted) == (size > CHUNK)


@pytest.mark.parametrize(
    ('kind', 'code', 'name'),
    [
        ('missing', 404, 'itemNotFound'),
        ('unsuitable', 400, 'badRequest'),
        ('refused', 409, 'conflictingRequest'),
        ('later', 409, 'conflictingRequest'),
        ('ended', 409, 'conflictingRequest'),
    ],
)
@pytest.mark.parametrize('call', [read, write])
def test_what_the_host_refuses(
    cloud: base.Cloud, host: Host, call: Any, kind: str, code: int, name: str
) -> None:
    host.fail['open'] = [kind]
    answer = call(cloud)
    assert kind in base.message_of(answer, code, name)
    # Nobody has claimed it: it must not wait for its start_timeout.
    row = row_of(answer)
    assert (row.status, row.error) == (command.FAILED, 'The host says ' + kind)


@pytest.mark.parametrize('call', [read, write])
def test_busy_host(cloud: base.Cloud, host: Host, call: Any) -> None:
    host.fail['open'] = ['busy']
    answer = call(cloud)
    assert answer.status_code == 429
    assert answer.headers['Retry-After'] == '5'
    # As if it had never been.
    assert UUID not in answer.headers
    assert cloud.get(cloud.path).json()['commands'] == []


@pytest.mark.parametrize('call', [read, write])
def test_busy_process(cloud: base.Cloud, host: Host, call: Any) -> None:
    cloud.flags(max_transfers=1, group='guest_agent')
    with files._slots.one(1):
        answer = call(cloud)
        assert answer.status_code == 429
        assert answer.headers['Retry-After'] == '5'
    assert call(cloud).status_code in (200, 204)
    # And its place is free again.
    assert call(cloud).status_code in (200, 204)
    cloud.flags(max_transfers=None, group='guest_agent')


@pytest.mark.parametrize('call', [read, write])
def test_host_does_not_answer(
    cloud: base.Cloud, host: Host, call: Any
) -> None:
    host.fail['open'] = [exception.HostUnreachable('away')]
    answer = call(cloud)
    assert cloud.instance.uuid in base.message_of(
        answer, 409, 'conflictingRequest'
    )
    assert host.aborted
    assert row_of(answer).status == command.FAILED


@pytest.mark.parametrize(
    'problem', ['later', exception.HostUnreachable('away')], ids=str
)
def test_what_may_be_better_soon_is_asked_again(
    cloud: base.Cloud, host: Host, problem: Any
) -> None:
    host.content[:] = LARGE
    host.fail = {
        'read': [problem, None, problem],
        'commit': [problem, False, None],
    }
    assert read(cloud).content == LARGE
    host.fail = {'write': [problem], 'commit': [False, problem]}
    assert write(cloud, LARGE).status_code == 204
    assert host.written == LARGE
    assert not host.aborted


# A stream, without what requests makes of it.


def call(
    cloud: base.Cloud,
    method: str,
    path: str,
    body: Any = b'',
    size: int | None = None,
) -> Any:
    req = webob.Request.blank(
        '/v2.1' + path,
        method=method,
        headers={
            'X-Auth-User': 'fake',
            'X-Auth-Project-Id': base.PROJECT,
            'X-Roles': 'reader,member',
        },
    )
    if size is not None:
        req.environ['wsgi.input'] = body
        req.environ['CONTENT_LENGTH'] = str(size)
    return req.get_response(cloud.app())


@pytest.mark.parametrize(
    'problem', ['refused', exception.HostUnreachable('away')], ids=str
)
def test_failure_in_mid_stream_breaks_the_connection(
    cloud: base.Cloud, host: Host, problem: Any
) -> None:
    host.content[:] = LARGE
    host.fail['read'] = [None] + [problem] * 1000
    answer = call(cloud, 'GET', path_of(cloud, 'read'))
    received = b''
    with pytest.raises(exception.AnswerBroken):
        for data in answer.app_iter:
            received += data
    answer.app_iter.close()
    assert received == LARGE[:CHUNK]
    assert len(host.aborted) == 1
    assert host.committed is None


@pytest.mark.parametrize('chunks', [0, 1])
def test_client_goes_away(cloud: base.Cloud, host: Host, chunks: int) -> None:
    cloud.flags(max_transfers=1, group='guest_agent')
    host.content[:] = LARGE
    answer = call(cloud, 'GET', path_of(cloud, 'read'))
    for _ in range(chunks):
        next(answer.app_iter)
    assert read(cloud).status_code == 429
    answer.app_iter.close()
    (error,) = host.aborted
    assert 'closed the connection after %d of' % 0 in error or chunks
    # Its place is free again.
    assert read(cloud).status_code == 200
    cloud.flags(max_transfers=None, group='guest_agent')


class Source(io.RawIOBase):
    """A body that is made as it is read, and notes how far that is."""

    def __init__(self, host: Host, size: int) -> None:
        self._host = host
        self._left = size
        self.read_bytes = 0
        self.ahead = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, 'All of it is read at once'
        count = min(size, self._left)
        self._left -= count
        self.read_bytes += count
        self.ahead = max(self.ahead, self.read_bytes - len(self._host.written))
        return bytes(count)


def test_body_is_streamed(cloud: base.Cloud, host: Host) -> None:
    size = 16 * 1024 * 1024
    source = Source(host, size)
    answer = call(cloud, 'POST', path_of(cloud, 'write'), source, size)
    assert answer.status_int == 204
    assert len(host.written) == size
    # What is read ahead of what is written is a few chunks.
    assert source.ahead <= 4 * rpcapi.WRITE_CHUNK


def test_no_more_is_read_than_was_said(cloud: base.Cloud, host: Host) -> None:
    """Some servers block where nothing is left."""
    source = Source(host, 1000)
    answer = call(cloud, 'POST', path_of(cloud, 'write'), source, 10)
    assert answer.status_int == 204
    assert source.read_bytes == 10


def test_body_that_ends_early(cloud: base.Cloud, host: Host) -> None:
    source = Source(host, rpcapi.WRITE_CHUNK + 5)
    answer = call(cloud, 'POST', path_of(cloud, 'write'), source, len(LARGE))
    assert answer.status_int == 400
    message = 'ended after %d of %d bytes' % (
        rpcapi.WRITE_CHUNK + 5,
        len(LARGE),
    )
    assert message in json.loads(answer.body)['badRequest']['message']
    assert message in host.aborted[0]
    assert host.committed is None
    assert UUID in answer.headers


def test_client_that_breaks_off(cloud: base.Cloud, host: Host) -> None:
    source = mock.Mock()
    source.read.side_effect = ConnectionResetError
    answer = call(cloud, 'POST', path_of(cloud, 'write'), source, 10)
    assert answer.status_int == 400
    assert host.aborted and host.committed is None


def test_refused_body_is_read_a_little(cloud: base.Cloud, host: Host) -> None:
    """A client that is still sending would not see the answer."""
    host.fail['open'] = ['refused'] * 2
    for size in (1000, 100 * 1024 * 1024):
        source = Source(host, size)
        answer = call(cloud, 'POST', path_of(cloud, 'write'), source, size)
        assert answer.status_int == 409
        assert source.read_bytes == min(size, 1024 * 1024)


# Writing.


@pytest.mark.parametrize(
    'size',
    [
        0,
        1,
        rpcapi.WRITE_CHUNK - 1,
        rpcapi.WRITE_CHUNK,
        rpcapi.WRITE_CHUNK + 1,
        len(LARGE),
    ],
)
def test_file_is_written(cloud: base.Cloud, host: Host, size: int) -> None:
    data = LARGE[:size]
    answer = write(cloud, data)
    assert (answer.status_code, answer.content) == (204, b'')
    assert host.written == data
    assert host.committed == (size, hashlib.sha256(data).hexdigest())
    row = row_of(answer)
    assert row.type == command.FILE_WRITE
    assert row.arguments == {'path': '/f', 'size': size}


def test_arguments(cloud: base.Cloud, host: Host) -> None:
    asked = {'mode': '0640', 'owner': 'www-data', 'group': '4'}
    answer = write(cloud, query={**asked, 'append': 'true'})
    shown = cloud.get(f'{cloud.path}/{answer.headers[UUID]}').json()
    assert shown['command']['arguments'] == {
        'path': '/f',
        'size': 4,
        **asked,
        'append': True,
    }
    assert shown['command']['result'] is None
    listed = cloud.get(f'{cloud.path}?type=file-write').json()['commands']
    assert [item['uuid'] for item in listed] == [answer.headers[UUID]]


def test_body_of_any_type(cloud: base.Cloud, host: Host) -> None:
    for content_type in ('application/x-tar', 'text/plain', 'nonsense'):
        assert (
            write(cloud, headers={'Content-Type': content_type}).status_code
            == 204
        )


def test_digest_is_checked(cloud: base.Cloud, host: Host) -> None:
    assert (
        write(
            cloud, headers={'Content-Digest': 'md5=:x:, ' + digest(b'data')}
        ).status_code
        == 204
    )
    answer = write(cloud, headers={'Content-Digest': digest(b'other')})
    message = base.message_of(answer, 400, 'badRequest')
    assert hashlib.sha256(b'other').hexdigest() in message
    assert host.aborted == [message]


@pytest.mark.parametrize(
    'value',
    [
        'sha-256=abc',
        'sha-256=:abc:',
        'sha-256=',
        'sha-256=:====:',
        'md5=:x:, sha-256=:AAAA:',
    ],
)
def test_malformed_digest(cloud: base.Cloud, host: Host, value: str) -> None:
    answer = write(cloud, headers={'Content-Digest': value})
    assert 'Content-Digest' in base.message_of(answer, 400, 'badRequest')
    assert host.calls == []


def test_length_is_required(cloud: base.Cloud, host: Host) -> None:
    # requests sends in chunks what it cannot measure.
    chunks: Any = iter([b'data'])
    answer = cloud.request('POST', path_of(cloud, 'write'), raw=chunks)
    assert 'Content-Length' in base.message_of(answer, 411, 'computeFault')
    assert host.calls == []


def test_too_large(cloud: base.Cloud, host: Host) -> None:
    cloud.flags(max_file_size=200000, group='guest_agent')
    assert write(cloud, bytes(200000)).status_code == 204
    answer = write(cloud, bytes(200001))
    assert answer.status_code == 413
    assert '200000' in answer.text
    cloud.flags(max_file_size=1024**3, group='guest_agent')


@pytest.mark.parametrize(
    ('where', 'kind', 'code', 'name'),
    [
        ('write', 'refused', 409, 'conflictingRequest'),
        ('write', 'ended', 409, 'conflictingRequest'),
        ('commit', 'refused', 409, 'conflictingRequest'),
        ('commit', 'unsuitable', 400, 'badRequest'),
    ],
)
def test_write_is_refused_on_the_way(
    cloud: base.Cloud, host: Host, where: str, kind: str, code: int, name: str
) -> None:
    host.fail[where] = [kind]
    answer = write(cloud, LARGE)
    assert kind in base.message_of(answer, code, name)
    assert UUID in answer.headers
    assert host.aborted


def test_commit_without_an_answer(cloud: base.Cloud, host: Host) -> None:
    host.fail['commit'] = [exception.HostUnreachable('away')] * 1000
    answer = write(cloud)
    message = base.message_of(answer, 503, 'serviceUnavailable')
    assert answer.headers[UUID] in message
    # It may have been put in its place.
    assert not host.aborted


# What comes before.


@pytest.mark.parametrize(
    'path',
    [
        '',
        'f',
        './f',
        '~/f',
        'C:f',
        'C:',
        '/tmp/',
        'C:\\tmp\\',
        '\\f',
        '/a\0b',
        '/' + 'é' * 2048,
        'file:///f',
    ],
)
@pytest.mark.parametrize('name', ['read', 'write'])
def test_paths_that_are_refused(
    cloud: base.Cloud, host: Host, name: str, path: str
) -> None:
    answer = cloud.request(
        'GET' if name == 'read' else 'POST', path_of(cloud, name, path=path)
    )
    message = base.message_of(answer, 400, 'badRequest')
    assert message.startswith('path must be the absolute path')
    assert host.calls == []


@pytest.mark.parametrize(
    'path',
    [
        '/',
        '/f',
        '/a b/ü/100%/%41',
        '/new\nline',
        '/back\\',
        'C:\\a b.txt',
        'c:/x',
        '\\\\server\\share\\f',
        '/' + 'x' * 4095,
    ],
)
def test_paths_that_are_accepted(
    cloud: base.Cloud, host: Host, path: str
) -> None:
    answer = cloud.get(path_of(cloud, 'read', path=path))
    assert answer.status_code == 200
    assert row_of(answer).arguments == {'path': path}


@pytest.mark.parametrize(
    'query',
    [
        'path=/f&path=/g',
        'path=/f&mode=0888',
        'path=/f&mode=rw',
        'path=/f&append=yes',
        'path=/f&owner=-R',
        'path=/f&owner=a:b',
        'path=/f&owner=',
        'path=/f&group=a%20b',
        'path=/f&group=a%0A',
        'path=/f&other=1',
        '',
        'path=%ff',
    ],
)
def test_malformed_query(cloud: base.Cloud, host: Host, query: str) -> None:
    path = path_of(cloud, 'write').partition('?')[0]
    answer = cloud.request('POST', f'{path}?{query}', raw=b'x')
    base.message_of(answer, 400, 'badRequest')
    assert host.calls == []


def test_who_may(cloud: base.Cloud, host: Host) -> None:
    for call_ in (read, write):
        assert call_(cloud, roles='reader').status_code == 403
        assert call_(cloud, project_id=base.OTHER_PROJECT).status_code == 404
    assert host.calls == []


def test_locked_server_may_be_read(cloud: base.Cloud, host: Host) -> None:
    cloud.instance = cloud.make_instance(locked=True)
    assert 'locked' in base.message_of(write(cloud), 409, 'conflictingRequest')
    assert read(cloud).status_code == 200


@pytest.mark.parametrize('call_', [read, write])
def test_server_must_be_running(
    cloud: base.Cloud, host: Host, call_: Any
) -> None:
    cloud.instance = cloud.make_instance(vm_state='stopped')
    base.message_of(call_(cloud), 409, 'conflictingRequest')
    assert host.calls == []


def test_bound_of_the_server(cloud: base.Cloud, host: Host) -> None:
    cloud.flags(max_unfinished_per_server=1, group='guest_agent')
    cloud.post()
    assert read(cloud).status_code == 429
    assert write(cloud).status_code == 429
    cloud.flags(max_unfinished_per_server=100, group='guest_agent')


def test_idempotency_key_is_refused(cloud: base.Cloud, host: Host) -> None:
    base.message_of(
        write(cloud, headers={'Idempotency-Key': 'k'}), 400, 'badRequest'
    )


@pytest.mark.parametrize('name', ['read', 'write'])
def test_answers_as_nova_s_own(
    cloud: base.Cloud, host: Host, name: str
) -> None:
    """A raw route has what Nova does for every other."""
    path = path_of(cloud, name)
    method, code = ('GET', 200) if name == 'read' else ('POST', 204)

    def send(path: str, **kwargs: Any) -> Any:
        return cloud.request(method, path, raw=b'', **kwargs)

    version = {'OpenStack-API-Version': 'compute 2.90'}
    answer = send(path, headers=version)
    assert answer.status_code == code
    assert answer.headers['OpenStack-API-Version'] == 'compute 2.90'
    assert 'OpenStack-API-Version' in answer.headers['Vary']
    assert send(f'/{base.PROJECT}{path}').status_code == code
    assert send(path, version='/v2').status_code == code
    base.message_of(send(f'/{base.OTHER_PROJECT}{path}'), 400, 'badRequest')
    version = {'OpenStack-API-Version': 'compute 2.9999'}
    assert send(path, headers=version).status_code == 406


class Noted(logging.Handler):
    """Notes which request the lines of a log would name."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def emit(self, record: Any) -> None:
        self.requests.append(oslo_context.get_current())


@pytest.fixture
def noted() -> Iterator[Noted]:
    """Has Nova's line of each request noted."""
    noted = Noted()
    logger = logging.getLogger('nova.api.openstack.requestlog')
    logger.addHandler(noted)
    yield noted
    logger.removeHandler(noted)


def check_noted(noted: Noted, count: int) -> None:
    assert len(noted.requests) >= count
    (_,) = {request.request_id for request in noted.requests}
    assert {
        (request.user_id, request.project_id) for request in noted.requests
    } == {('fake', base.PROJECT)}


@pytest.mark.parametrize('call', [read, lambda cloud: write(cloud, LARGE)])
def test_logs_of_a_transfer_name_its_request(
    cloud: base.Cloud,
    host: Host,
    noted: Noted,
    call: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nova's line of the request, and those of the transfer's threads."""
    host.content[:] = LARGE
    meet = host._meet

    def note(name: str) -> Any:
        noted.emit(name)
        return meet(name)

    monkeypatch.setattr(host, '_meet', note)
    assert call(cloud).status_code < 300
    check_noted(noted, 2 + len(LARGE) // CHUNK)


def test_logs_of_questions_name_their_request(
    cloud: base.Cloud, noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rpcapi.ComputeAPI,
        'agent_status',
        lambda *args: rpcapi.unavailable('reason'),
    )
    cloud.get(cloud.path.removesuffix('/commands'))
    check_noted(noted, 1)
