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

"""Directories, with a server that sends what it likes."""

import io
import os
import pathlib
import tarfile
from typing import Any
from unittest import mock

from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import files
from guest_agent_ext.osc import trees
from guest_agent_ext.sdk import process
from tests.unit.osc import fakes


class Stream(io.RawIOBase):
    """A stream of a program.

    :param data: bytes to be read
    """

    def __init__(self, data: bytes = b'') -> None:
        super().__init__()
        self._source = io.BytesIO(data)
        self.taken = b''

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.readinto(buffer)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)
        return len(data)


class Program:
    """A program that has written all of its output already.

    :param code: exit code; None if the command was cancelled
    """

    def __init__(
        self, out: bytes, err: bytes = b'', code: int | None = 0
    ) -> None:
        self.stdin = Stream()
        self.stdout = Stream(out)
        self.stderr = Stream(err)
        self._code = code
        self.args: list[str] = []

    def start(self, args: list[str]) -> Any:
        self.args = args
        return self

    def __enter__(self) -> 'Program':
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def wait(self) -> int:
        if self._code is None:
            raise process.NoExitCode('CANCELLED', 'Cancelled by somebody')
        return self._code


def member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b'', **values: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode='w') as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def get(to: pathlib.Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    trees.get(Program(b'8\n' + archive(*members)).start, '/d', str(to))


def test_tree_comes_as_it_is(tmp_path: pathlib.Path, capsys: Any) -> None:
    get(
        tmp_path / 'to',
        member('./', tarfile.DIRTYPE, mode=0o700),
        member('./closed', tarfile.DIRTYPE, mode=0o555),
        member('./closed/run', data=b'x' * 600_000, mode=0o6755, mtime=99),
        member('./private', data=b'y', mode=0o600, uid=77),
        member('./same', tarfile.LNKTYPE, linkname='./private'),
        member('./link', tarfile.SYMTYPE, linkname='/etc/passwd'),
        member('./pipe', tarfile.FIFOTYPE),
        member('./disk', tarfile.BLKTYPE),
    )
    to = tmp_path / 'to'
    run = to / 'closed' / 'run'
    assert sorted(path.name for path in to.iterdir()) == [
        'closed',
        'link',
        'private',
        'same',
    ]
    assert run.read_bytes() == b'x' * 600_000
    assert (run.stat().st_mode & 0o7777, run.stat().st_mtime) == (0o755, 99)
    assert (to / 'closed').stat().st_mode & 0o777 == 0o555
    assert (to / 'private').stat().st_mode & 0o777 == 0o600
    assert (to / 'private').stat().st_uid == os.getuid()
    assert (to / 'same').samefile(to / 'private')
    assert os.readlink(to / 'link') == '/etc/passwd'
    told = capsys.readouterr().err
    assert 'pipe is neither' in told and 'disk is neither' in told


LEADING_OUT = {
    'dots': [member('../out', data=b'x')],
    'dots inside': [member('./a/../../out', data=b'x')],
    'through a link': [
        member('./a', tarfile.SYMTYPE, linkname='..'),
        member('./a/out', data=b'x'),
    ],
    'link through a link': [
        member('./a', tarfile.SYMTYPE, linkname='..'),
        member('./a/out', tarfile.SYMTYPE, linkname='x'),
    ],
    'link in the place of a directory': [
        member('./a/b', tarfile.SYMTYPE, linkname='x'),
        member('./a', tarfile.SYMTYPE, linkname='..'),
    ],
    'hard link': [member('./out', tarfile.LNKTYPE, linkname='../secret')],
    'hard link to what was there': [
        member('./a', tarfile.LNKTYPE, linkname='./there')
    ],
}


@pytest.mark.parametrize('how', LEADING_OUT)
def test_nothing_leads_out(tmp_path: pathlib.Path, how: str) -> None:
    (tmp_path / 'secret').write_bytes(b'secret')
    (tmp_path / 'to').mkdir()
    (tmp_path / 'to' / 'there').touch()
    with pytest.raises(exceptions.CommandError):
        get(tmp_path / 'to', *LEADING_OUT[how])
    assert {path.name for path in tmp_path.iterdir()} == {'secret', 'to'}
    assert (tmp_path / 'secret').stat().st_nlink == 1


def test_absolute_names_are_those_of_the_tree(tmp_path: pathlib.Path) -> None:
    get(tmp_path, member('/a/b', data=b'x'))
    assert (tmp_path / 'a' / 'b').read_bytes() == b'x'


def test_what_is_there_is_replaced_or_in_the_way(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / 'outside').write_bytes(b'old')
    to = tmp_path / 'to'
    to.mkdir()
    (to / 'file').symlink_to('../outside')
    (to / 'kept').touch()
    get(to, member('./file', data=b'new'))
    assert (tmp_path / 'outside').read_bytes() == b'old'
    assert not (to / 'file').is_symlink()
    assert (to / 'kept').exists()
    os.mkfifo(to / 'fifo')
    with pytest.raises(exceptions.CommandError, match='in the way'):
        get(to, member('./fifo', data=b'new'))
    with pytest.raises(exceptions.CommandError, match='in the way'):
        get(to, member('./fifo', tarfile.DIRTYPE))


@pytest.mark.parametrize(
    ('program', 'told'),
    [
        (Program(b'', b'cannot cd\n', 2), 'ended with 2'),
        (Program(b'8\nno archive' * 600, b'', 0), 'damaged'),
        (Program(b'8\n' + archive(), b'', 1), 'ended with 1'),
        (Program(b'8\n' + archive(), b'', None), 'Cancelled by somebody'),
    ],
)
def test_failure_is_told(
    tmp_path: pathlib.Path, capsys: Any, program: Program, told: str
) -> None:
    with pytest.raises(exceptions.CommandError, match=told):
        trees.get(program.start, '/d', str(tmp_path))
    if program.stderr._source.getvalue():
        assert capsys.readouterr().err == 'cannot cd\n'


def test_archive_that_is_cut_short(tmp_path: pathlib.Path) -> None:
    whole = archive(member('./a', data=b'x' * 5000))
    program = Program(b'8\n' + whole[:2000])
    with pytest.raises(exceptions.CommandError, match='damaged'):
        trees.get(program.start, '/d', str(tmp_path))


def put(source: pathlib.Path, **values: Any) -> tuple[Program, Any]:
    program = Program(b'12 34\n')
    trees.put(
        program.start,
        str(source),
        '/d',
        values.get('owner'),
        values.get('group'),
    )
    sent = io.BytesIO(program.stdin.taken)
    return program, tarfile.open(fileobj=sent) if sent.getvalue() else None


def test_tree_is_packed(tmp_path: pathlib.Path, capsys: Any) -> None:
    (tmp_path / 'sub').mkdir(0o750)
    long_name = 'n' * 180
    (tmp_path / 'sub' / long_name).write_bytes(b'x' * 300_000)
    (tmp_path / 'run').touch()
    (tmp_path / 'run').chmod(0o4755)
    (tmp_path / 'link').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'fifo')
    program, sent = put(tmp_path, owner='www-data', group='adm')
    assert program.args[-2:] == ['/d', 'www-data:adm']
    found = {info.name: info for info in sent}
    assert set(found) == {
        '.',
        './sub',
        f'./sub/{long_name}',
        './run',
        './link',
    }
    assert {(i.uid, i.gid, i.uname) for i in found.values()} == {(12, 34, '')}
    assert found['./run'].mode == 0o755
    assert found['./link'].issym()
    assert sent.extractfile(f'./sub/{long_name}').read() == b'x' * 300_000
    assert 'fifo is neither' in capsys.readouterr().err
    assert program.stdin.closed


def test_server_that_refuses_the_owner(tmp_path: pathlib.Path) -> None:
    program = Program(b'', b'chown: invalid user\n', 1)
    with pytest.raises(exceptions.CommandError, match='ended with 1'):
        trees.put(program.start, str(tmp_path), '/d', 'nobody-here', None)
    assert program.stdin.taken == b''


@pytest.mark.parametrize(
    ('kind', 'argv', 'told'),
    [
        (files.Get, ['/d', '-'], 'stdout'),
        (files.Get, ['/d', '--resume'], '--resume'),
        (files.Put, ['-', '/d'], 'not a directory'),
        (files.Put, ['-', '/d/'], 'no name'),
        (files.Put, ['.', '/d', '--mode', '0600'], '--mode'),
        (files.Put, ['.', '/d', '--append'], '--append'),
    ],
)
def test_what_is_for_files_only(
    compute: mock.Mock, kind: Any, argv: list[str], told: str
) -> None:
    with pytest.raises(exceptions.CommandError, match=told):
        fakes.run(kind, compute, *argv, '-r')


def test_where_trees_go(
    compute: mock.Mock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(trees, 'get', lambda start, *to: told.append(to))
    monkeypatch.setattr(trees, 'put', lambda start, *to: told.append(to))
    monkeypatch.chdir(tmp_path)
    fakes.run(files.Get, compute, '/var/log/', '-r')
    fakes.run(files.Get, compute, '/var/log', 'new', '-r')
    fakes.run(files.Put, compute, '.', '/srv/', '-r')
    fakes.run(files.Put, compute, 'site/', '/srv/', '-r', '--owner', '5')
    fakes.run(files.Put, compute, 'site', '/srv/www', '-r', '--group', 'a')
    assert told == [
        ('/var/log/', './log'),
        ('/var/log', 'new'),
        ('.', f'/srv/{tmp_path.name}', None, None),
        ('site/', '/srv/site', '5', None),
        ('site', '/srv/www', None, 'a'),
    ]
