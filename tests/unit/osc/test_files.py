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


"""``openstack server guest file`` with a service that is played."""

import base64
import hashlib
import io
import os
import pathlib
import sys
import threading
from typing import Any
from unittest import mock

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import pytest
import requests

from guest_agent_ext.osc import files
from tests.unit.osc import fakes


def download(data: bytes, status: int = 200, **headers: str) -> fakes.Response:
    return fakes.Response(
        status,
        content=data,
        headers={'Content-Length': str(len(data)), **headers},
    )


def test_get(compute: mock.Mock, tmp_path: pathlib.Path) -> None:
    compute.get.return_value = download(b'data')
    to = tmp_path / 'to'
    fakes.run(files.Get, compute, '/etc/a b', str(to))
    assert to.read_bytes() == b'data'
    assert list(tmp_path.iterdir()) == [to]
    call = compute.get.call_args
    assert call.args == (f'/servers/{fakes.SERVER}/guest-agent/file-read',)
    assert call.kwargs['params'] == {'path': '/etc/a b'}
    assert call.kwargs['headers'] == {}


def test_get_to_stdout(compute: mock.Mock, capfdbinary: Any) -> None:
    compute.get.return_value = download(b'\0data')
    fakes.run(files.Get, compute, '/f', '-')
    sys.stdout.flush()
    assert capfdbinary.readouterr()[0] == b'\0data'


def test_copy_that_breaks_off_is_resumed(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    to = tmp_path / 'to'
    compute.get.return_value = fakes.Response(
        content=b'da', headers={'Content-Length': '4'}
    )
    with pytest.raises(exceptions.CommandError, match='--resume'):
        fakes.run(files.Get, compute, '/f', str(to))
    assert not to.exists()
    compute.get.return_value = download(b'ta', 206)
    fakes.run(files.Get, compute, '/f', str(to), '--resume')
    assert compute.get.call_args.kwargs['headers'] == {'Range': 'bytes=2-'}
    assert to.read_bytes() == b'data'


def test_connection_that_breaks(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    answer = download(b'data')
    answer.iter_content = mock.Mock(side_effect=requests.ConnectionError)
    compute.get.return_value = answer
    with pytest.raises(exceptions.CommandError, match='4 bytes .* missing'):
        fakes.run(files.Get, compute, '/f', str(tmp_path / 'to'))


def test_whole_file_where_a_part_was_asked_for(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    to = tmp_path / 'to'
    (tmp_path / 'to.part').write_bytes(b'da')
    compute.get.return_value = download(b'data')
    fakes.run(files.Get, compute, '/f', str(to), '--resume')
    assert to.read_bytes() == b'data'


@pytest.mark.parametrize('size', [4, 2])
def test_resume_where_nothing_is_left(
    compute: mock.Mock, size: int, tmp_path: pathlib.Path
) -> None:
    to = tmp_path / 'to'
    (tmp_path / 'to.part').write_bytes(b'data')
    compute.get.return_value = fakes.Response(
        416, headers={'Content-Range': f'bytes */{size}'}
    )
    if size == 4:
        fakes.run(files.Get, compute, '/f', str(to), '--resume')
        assert to.read_bytes() == b'data'
        return
    with pytest.raises(exceptions.CommandError, match='has changed'):
        fakes.run(files.Get, compute, '/f', str(to), '--resume')
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

    def post(url: str, **kwargs: Any) -> fakes.Response:
        assert len(kwargs['data']) == len(data)
        sent.extend(kwargs['data'])
        return fakes.Response(204)

    compute.post.side_effect = post
    fakes.run(
        files.Put,
        compute,
        '-' if name == '-' else str(file),
        '/f',
        '--mode',
        '0600',
        '--append',
        '--owner',
        'www-data',
        '--group',
        '4',
    )
    assert b''.join(sent) == data
    call = compute.post.call_args
    assert call.kwargs['params'] == {
        'path': '/f',
        'mode': '0600',
        'append': 'true',
        'owner': 'www-data',
        'group': '4',
    }
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert call.kwargs['headers']['Content-Digest'] == f'sha-256=:{digest}:'


def test_put_that_is_refused(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / 'file'
    file.touch()
    compute.post.return_value = fakes.Response(
        409, {'conflictingRequest': {'message': 'No space left on device'}}
    )
    with pytest.raises(sdk_exceptions.ConflictException, match='No space'):
        fakes.run(files.Put, compute, str(file), '/f')


def test_get_into_a_directory(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    compute.get.return_value = download(b'data')
    fakes.run(files.Get, compute, '/etc/hosts', str(tmp_path))
    assert (tmp_path / 'hosts').read_bytes() == b'data'
    fakes.run(files.Get, compute, 'C:\\a\\b.txt', str(tmp_path))
    assert (tmp_path / 'b.txt').read_bytes() == b'data'


def test_get_follows_links_and_keeps_modes(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    compute.get.return_value = download(b'new')
    target, link = tmp_path / 'target', tmp_path / 'link'
    target.write_bytes(b'old')
    target.chmod(0o600)
    link.symlink_to('target')
    fakes.run(files.Get, compute, '/f', str(link))
    assert link.is_symlink()
    assert target.read_bytes() == b'new'
    assert target.stat().st_mode & 0o777 == 0o600


def test_get_never_replaces_a_fifo(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    compute.get.return_value = download(b'data')
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fakes.run(files.Get, compute, '/f', str(fifo))
        assert os.read(reader, 99) == b'data'
    finally:
        os.close(reader)
    assert fifo.is_fifo()
    assert list(tmp_path.iterdir()) == [fifo]
    with pytest.raises(exceptions.CommandError, match='regular file'):
        fakes.run(files.Get, compute, '/f', str(fifo), '--resume')


def test_refusal_leaves_the_part_of_an_earlier_copy(
    compute: mock.Mock, tmp_path: pathlib.Path
) -> None:
    part = tmp_path / 'to.part'
    part.write_bytes(b'da')
    compute.get.return_value = fakes.Response(
        409, {'conflictingRequest': {'message': 'is stopped'}}
    )
    with pytest.raises(sdk_exceptions.ConflictException):
        fakes.run(files.Get, compute, '/f', str(tmp_path / 'to'))
    assert part.read_bytes() == b'da'
    part.unlink()
    with pytest.raises(sdk_exceptions.ConflictException):
        fakes.run(files.Get, compute, '/f', str(tmp_path / 'to'))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('mode', 'sent'),
    [(0o600, '0600'), (0o755, '0755'), (0o644, None), (0o664, None)],
)
def test_put_sends_modes_that_matter(
    compute: mock.Mock, tmp_path: pathlib.Path, mode: int, sent: str | None
) -> None:
    file = tmp_path / 'file'
    file.touch()
    file.chmod(mode)
    compute.post.return_value = fakes.Response(204)
    fakes.run(files.Put, compute, str(file), '/dir/')
    params = compute.post.call_args.kwargs['params']
    assert params['path'] == '/dir/file'
    assert params.get('mode') == sent


def test_put_reads_a_fifo(compute: mock.Mock, tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    sent = []

    def post(url: str, **kwargs: Any) -> fakes.Response:
        sent.extend(kwargs['data'])
        return fakes.Response(204)

    compute.post.side_effect = post
    writer = threading.Thread(target=fifo.write_bytes, args=(b'data',))
    writer.start()
    fakes.run(files.Put, compute, str(fifo), '/f')
    writer.join(10)
    assert b''.join(sent) == b'data'
    assert 'mode' not in compute.post.call_args.kwargs['params']


def test_stdin_has_no_name_in_a_directory(compute: mock.Mock) -> None:
    with pytest.raises(exceptions.CommandError, match='no name'):
        fakes.run(files.Put, compute, '-', '/dir/')
