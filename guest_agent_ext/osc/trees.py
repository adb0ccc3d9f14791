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

"""Directories in and out of servers, as tar archives by attached commands.

The server's tar packs or unpacks there, Python's here. What comes from a
server is not trusted: nothing is written outside of the directory that is to
get it, and no file gets an owner, a device number or a set-user-ID bit.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import shutil
import stat
import tarfile
import threading
from typing import BinaryIO
from typing import cast

from osc_lib import exceptions

from guest_agent_ext import progress
from guest_agent_ext.osc import interrupts
from guest_agent_ext.sdk import process

#: Bytes that are read or written at once.
PIECE = 256 * 1024
#: Bytes of what the server's tar says that are shown.
_MAX_ERRORS = 64 * 1024
#: Bytes of a block of an archive, and of the longest first line.
_BLOCK, _MAX_LINE = 512, 100

#: Arguments: directory. Writes a line with its size in KiB, then the archive.
PACK = """\
cd "$1" || exit
size=$(du -sk . 2>/dev/null)
echo "${size%%[!0-9]*}"
exec tar -cf - ."""
#: Arguments: directory; owner and group in the words of chown, or nothing.
#: Writes a line with the numbers of both, then reads the archive.
UNPACK = """\
mkdir -p "$1" && cd "$1" && probe=$(mktemp) || exit
[ -z "$2" ] || chown "$2" "$probe" || { rm "$probe"; exit 1; }
set -- $(ls -ln "$probe")
rm "$probe"
echo "$3 $4"
exec tar -xpf -"""

Start = Callable[[list[str]], process.Process]


def get(start: Start, path: str, to: str) -> None:
    """Copy a directory from a server.

    :param start: function that starts a program in the server
    :param path: directory in the server
    :param to: local directory that becomes the copy; what is in it stays
        where the other has nothing of that name
    :raises osc_lib.exceptions.CommandError: not all was copied
    """
    tree = Unpacker(pathlib.Path(to))
    with _running(start, PACK, path) as program:
        source = io.BufferedReader(program.stdout, PIECE)
        line = source.readline(_MAX_LINE)
        if line:
            size = int(line) * 1024 if line.strip().isdigit() else 0
            with progress.of_bytes(size) as bar:
                tree.unpack(_Counted(source, bar.advance))
        # What pads the archive: the end is told when all was read.
        while source.read(PIECE):
            pass
    _tell_skipped(tree.skipped)


def put(
    start: Start, source: str, path: str, owner: str | None, group: str | None
) -> None:
    """Copy a directory into a server.

    :param start: function that starts a program in the server
    :param source: local directory
    :param path: directory in the server that becomes the copy; what is in it
        stays where the other has nothing of that name
    :param owner: name or number of a user of the server
    :param group: name or number of a group of the server
    :raises osc_lib.exceptions.CommandError: not all was copied
    """
    if not os.path.isdir(source):
        raise exceptions.CommandError(f'{source} is not a directory')
    ownership = (owner or '') + (f':{group}' if group else '')
    skipped: list[str] = []
    with _running(start, UNPACK, path, ownership) as program:
        said = io.BufferedReader(program.stdout)
        # Owner and group; a program that has failed says nothing.
        numbers = said.readline(_MAX_LINE).split()
        with contextlib.suppress(BrokenPipeError):
            if len(numbers) == 2 and all(map(bytes.isdigit, numbers)):
                uid, gid = map(int, numbers)
                with progress.of_bytes(_size_of(source)) as bar:
                    to = _Counted(program.stdin, bar.advance)
                    skipped = pack(source, to, uid, gid)
            program.stdin.close()
        said.read()
    _tell_skipped(skipped)


@contextlib.contextmanager
def _running(
    start: Start, script: str, *args: str
) -> Iterator[process.Process]:
    """Run a script in a server around the block, and check its end.

    :raises osc_lib.exceptions.CommandError: the script failed
    """
    with start(['/bin/sh', '-c', script, 'sh', *args]) as program:
        assert program.stderr is not None
        errors = bytearray()
        reader = threading.Thread(
            target=_collect, args=(program.stderr, errors), daemon=True
        )
        reader.start()
        try:
            yield program
        except tarfile.TarError as error:
            failure: str | None = f'The archive is damaged: {error}'
        else:
            failure = None
        if failure is None:
            failure = _failure_of(program, reader)
    if errors:
        interrupts.tell(errors.decode(errors='replace').rstrip('\n'))
    if failure is not None:
        raise exceptions.CommandError(f'Not all was copied. {failure}')


def _failure_of(
    program: process.Process, reader: threading.Thread
) -> str | None:
    """Wait for the end; return why it is none that was hoped for."""
    reader.join()
    try:
        code = program.wait()
    except process.NoExitCode as error:
        return error.error
    return f'The program in the server ended with {code}' if code else None


def _collect(stream: io.RawIOBase, found: bytearray) -> None:
    while data := stream.read(PIECE):
        found += data[: _MAX_ERRORS - len(found)]


def _tell_skipped(names: list[str]) -> None:
    for name in names:
        interrupts.tell(
            f'{name} is neither file, directory nor link, and was not copied'
        )


class _Counted:
    """A stream whose bytes are counted.

    :param stream: the stream
    :param advance: callback that takes the number of bytes read or written
    """

    def __init__(
        self,
        stream: io.RawIOBase | io.BufferedIOBase,
        advance: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._advance = advance

    def read(self, size: int) -> bytes:
        data = self._stream.read(size) or b''
        self._advance(len(data))
        return data

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self._advance(len(data))
        return len(data)


def pack(source: str, to: _Counted, uid: int, gid: int) -> list[str]:
    """Write a directory as an archive.

    :param source: directory
    :param to: stream that takes the archive
    :param uid: number of the user that all is to belong to
    :param gid: number of the group
    :returns: names of what is neither file, directory nor link
    """
    skipped: list[str] = []

    def prepared(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
            skipped.append(info.name)
            return None
        info.uid, info.gid, info.uname, info.gname = uid, gid, '', ''
        info.mode &= 0o777
        return info

    with tarfile.open(
        fileobj=cast(BinaryIO, to),
        mode='w|',
        bufsize=PIECE,
        # The one for long names that busybox reads, too.
        format=tarfile.GNU_FORMAT,
        encoding='utf-8',
        errors='surrogateescape',
    ) as archive:
        archive.add(source, '.', filter=prepared)
    return skipped


def _size_of(directory: str) -> int:
    """Return about how many bytes the archive of a directory has."""
    size = 0
    for path, _, files in os.walk(directory):
        size += _BLOCK * (1 + len(files))
        for name in files:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(path, name))
                if stat.S_ISREG(found.st_mode):
                    size += -(-found.st_size // _BLOCK) * _BLOCK
    return size


class Unpacker:
    """Unpacks an archive that may have been made by an enemy.

    Links are made when all else is there, so that nothing is written through
    one that came with the archive.

    :ivar skipped: names of what is neither file, directory nor link
    :param to: directory that becomes the copy
    """

    def __init__(self, to: pathlib.Path) -> None:
        self.skipped: list[str] = []
        self._to = to
        self._files: set[pathlib.Path] = set()
        self._links: dict[pathlib.Path, str] = {}
        #: Directories whose owner may not write to them, with their modes.
        self._closed: list[tuple[pathlib.Path, int]] = []

    def unpack(self, source: _Counted) -> None:
        """Unpack an archive.

        :param source: stream of the archive
        :raises osc_lib.exceptions.CommandError: something is in the way, or
            the archive leads out of the directory
        :raises tarfile.TarError: it is no archive
        """
        self._to.mkdir(parents=True, exist_ok=True)
        with tarfile.open(
            fileobj=cast(BinaryIO, source),
            mode='r|',
            encoding='utf-8',
            errors='surrogateescape',
        ) as archive:
            for member in archive:
                self._take(archive, member)
        for path, target in self._links.items():
            _make_room(path)
            path.symlink_to(target)
        for path, mode in reversed(self._closed):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & (mode | 0o077))

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path_of(member.name)
        if member.isdir():
            self._make_directory(path, member.mode)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            self._links[path] = member.linkname
        elif member.islnk():
            self._link(path, self._path_of(member.linkname))
        elif member.isfile():
            content = archive.extractfile(member)
            assert content is not None
            self._write(path, member, cast(BinaryIO, content))
        else:
            self.skipped.append(member.name)

    def _path_of(self, name: str) -> pathlib.Path:
        parts = [part for part in name.split('/') if part not in ('', '.')]
        path = self._to.joinpath(*parts)
        if '..' in parts or any(
            parent in self._links for parent in path.parents
        ):
            raise exceptions.CommandError(
                f'The archive has a file that leads out of it: {name}'
            )
        return path

    def _make_directory(self, path: pathlib.Path, mode: int) -> None:
        if not path.is_dir():
            _make_room(path)
            path.mkdir(mode & 0o777 | 0o700, parents=True)
            if mode & 0o700 != 0o700:
                self._closed.append((path, mode))

    def _link(self, path: pathlib.Path, target: pathlib.Path) -> None:
        if target not in self._files:
            raise exceptions.CommandError(
                f'The archive has a link to a file that is not in it: {path}'
            )
        if path != target:
            _make_room(path)
            os.link(target, path)
            self._files.add(path)

    def _write(
        self, path: pathlib.Path, member: tarfile.TarInfo, content: BinaryIO
    ) -> None:
        _make_room(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(path, flags, member.mode & 0o777), 'wb') as file:
            shutil.copyfileobj(content, file, PIECE)
            file.flush()
            # Of a time that there is not.
            with contextlib.suppress(OSError, OverflowError):
                os.utime(file.fileno(), (member.mtime, member.mtime))
        self._files.add(path)


def _make_room(path: pathlib.Path) -> None:
    """Remove the file or link that is to be replaced.

    :raises osc_lib.exceptions.CommandError: it is none
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise exceptions.CommandError(
            f'{path} is in the way: it is neither file nor link'
        )
    path.unlink()
