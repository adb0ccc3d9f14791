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


"""``openstack server guest file get|put``: files as streams."""

import argparse
import base64
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import hashlib
import ntpath
import os
import shutil
import signal
import stat
import sys
import tempfile
from typing import BinaryIO

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import requests

from guest_agent_ext import progress
from guest_agent_ext.osc import base
from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import trees
from guest_agent_ext.sdk import process

#: Bytes that are read at once.
PIECE = 256 * 1024
#: Options that say whom a file is to belong to, and parameters of the request.
_OWNERS = ('owner', 'group')


class _Copy(base.ServerCommand):
    """What both directions have in common."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '-r',
            '--recursive',
            action='store_true',
            help='Copy a directory and all that is in it; symbolic links stay '
            'links. The server needs tar',
        )
        return parser

    def _copy_tree(
        self,
        parsed_args: argparse.Namespace,
        copy: Callable[[trees.Start], None],
        *excluded: str,
    ) -> int:
        """Copy a directory by a program in the server.

        :param copy: function that is called with what starts the program
        :param excluded: names of options that are for files only
        :returns: exit code
        """
        for name in excluded:
            if getattr(parsed_args, name):
                raise exceptions.CommandError(
                    f'--{name} cannot be used with --recursive'
                )
        compute = process.best_endpoint(self.compute())
        server_id = self.server_id(parsed_args)
        try:
            with interrupts.raised():
                copy(lambda args: process.Process(compute, server_id, args))
        except interrupts.Interrupted as error:
            return 128 + error.number
        return 0


class Get(_Copy):
    """Copy a file or a directory from a server

    A transfer that breaks off leaves a file with the suffix .part, which
    --resume completes. Nothing of a directory is resumed: files that have
    come are replaced when it is copied again.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'path', metavar='<path>', help='Absolute path in the server'
        )
        parser.add_argument(
            'file',
            metavar='<file>',
            nargs='?',
            help='Local file to write, or directory (default: the current '
            'directory) that gets a file of the same name; - for stdout. A '
            'FIFO or device is written to, a symbolic link is followed',
        )
        parser.add_argument(
            '--resume',
            action='store_true',
            help='Continue an earlier copy that broke off',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        if parsed_args.recursive:
            return self._get_tree(parsed_args)
        if parsed_args.file == '-':
            return self._get_to_stdout(parsed_args)
        to = _Destination(parsed_args.file or '.', parsed_args.path)
        if parsed_args.resume and to.is_special:
            raise exceptions.CommandError(
                f'--resume needs a regular file, which {to.path} is not'
            )
        offset = to.size_of_part() if parsed_args.resume else 0
        response = self._request(parsed_args, offset)
        if response.status_code != 416:
            # The server may send the whole file instead of the rest.
            offset = offset if response.status_code == 206 else 0
            with to.opened(offset) as file:
                _copy(response, file, offset, parsed_args.path)
        to.finish()
        return 0

    def _get_tree(self, parsed_args: argparse.Namespace) -> int:
        path, to = parsed_args.path, parsed_args.file or '.'
        if to == '-':
            raise exceptions.CommandError('stdout cannot become a directory')
        if os.path.isdir(to):
            to = os.path.join(to, _base_name(path.rstrip('/')))
        return self._copy_tree(
            parsed_args, lambda start: trees.get(start, path, to), 'resume'
        )

    def _get_to_stdout(self, parsed_args: argparse.Namespace) -> int:
        if sys.stdout is None:
            raise exceptions.CommandError('stdout is closed')
        response = self._request(parsed_args, 0)
        try:
            _copy(response, sys.stdout.buffer, 0, parsed_args.path)
        except BrokenPipeError:
            interrupts.close(sys.stdout.buffer)
            return 128 + signal.SIGPIPE
        return 0

    def _request(
        self, parsed_args: argparse.Namespace, offset: int
    ) -> requests.Response:
        """Return the answer, which is 200, 206, or 416 if nothing is left."""
        response: requests.Response = self.compute().get(
            base.path_of(self.server_id(parsed_args), 'file-read'),
            params={'path': parsed_args.path},
            stream=True,
            log=False,
            headers={'Range': f'bytes={offset}-'} if offset else {},
        )
        if offset and response.status_code == 416:
            # All bytes are here already, if the file still has that size.
            if response.headers['Content-Range'] == f'bytes */{offset}':
                return response
            raise exceptions.CommandError(
                f'{parsed_args.path} has changed since {offset} bytes of it '
                'were copied; copy it again without --resume'
            )
        sdk_exceptions.raise_from_response(response)
        return response


class _Destination:
    """A local file that is to be written.

    :ivar path: name of the file, symbolic links followed
    :ivar is_special: True for a FIFO or a device, which is written to and
        never replaced
    :param name: name that the user gave; a directory gets a file in it
    :param source: path in the server
    """

    def __init__(self, name: str, source: str) -> None:
        if os.path.isdir(name):
            name = os.path.join(name, _base_name(source))
        self.path = os.path.realpath(name)
        self._part = self.path + '.part'
        self._mode: int | None = None
        self.is_special = False
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(self.path).st_mode
            if stat.S_ISDIR(mode):
                raise exceptions.CommandError(f'{self.path} is a directory')
            self.is_special = not stat.S_ISREG(mode)
            self._mode = stat.S_IMODE(mode)

    def size_of_part(self) -> int:
        """Return how many bytes an earlier copy left."""
        try:
            return os.stat(self._part).st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def opened(self, offset: int) -> Iterator[BinaryIO]:
        """Open what is written until the file is whole.

        :param offset: number of bytes that stay
        """
        if self.is_special:
            with open(self.path, 'wb') as file:
                yield file
            return
        with open(
            self._part, 'ab' if offset else 'wb', opener=self._open
        ) as file:
            yield file

    def finish(self) -> None:
        """Replace the file, whose mode stays."""
        if not self.is_special:
            os.replace(self._part, self.path)

    def _open(self, name: str, flags: int) -> int:
        if self._mode is None:
            return os.open(name, flags, 0o666)
        number = os.open(name, flags, 0o600)
        os.fchmod(number, self._mode)
        return number


def _base_name(path: str) -> str:
    """Return the last part of a path in a server, also of a Windows one."""
    found = ntpath.basename(path) if path[1:2] == ':' else ''
    return found or os.path.basename(path)


def _copy(
    response: requests.Response, to: BinaryIO, offset: int, path: str
) -> None:
    """Copy the body of a response to a file.

    :param offset: number of bytes that the file has already
    :param path: path in the server
    :raises osc_lib.exceptions.CommandError: the body ended early
    """
    left = int(response.headers['Content-Length'])
    with (
        progress.of_bytes(offset + left, offset) as bar,
        contextlib.suppress(requests.RequestException),
    ):
        for data in response.iter_content(PIECE):
            to.write(data)
            left -= len(data)
            bar.advance(len(data))
    to.flush()
    if left:
        raise exceptions.CommandError(
            f'{left} bytes of {path} are missing: use --resume to get them'
        )


class Put(_Copy):
    """Copy a file or a directory into a server

    A file in the server is replaced once the whole new file has arrived and
    has been verified. Until then it stays unchanged. Of a directory, files
    are replaced one by one as they arrive.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'file', metavar='<file>', help='Local file to copy; - for stdin'
        )
        parser.add_argument(
            'path',
            metavar='<path>',
            help='Absolute path in the server; a directory, which gets a file '
            'of the same name, if it ends with / (or \\ on Windows)',
        )
        parser.add_argument(
            '--mode',
            metavar='<mode>',
            help='Permissions of the file, as octal digits (default: those of '
            'the local file if it is executable or private; else those of '
            'the file that is replaced, or 0644)',
        )
        parser.add_argument(
            '--append',
            action='store_true',
            help='Append to the file instead of replacing it',
        )
        for name in _OWNERS:
            parser.add_argument(
                f'--{name}',
                metavar=f'<{name}>',
                help=f'Name or number of the {name} of the file in the server '
                '(default: that of the file that is replaced, or of the guest '
                'agent)',
            )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        if parsed_args.recursive:
            return self._put_tree(parsed_args)
        query = {'path': _remote_path(parsed_args.path, parsed_args.file)}
        if parsed_args.append:
            query['append'] = 'true'
        for name in _OWNERS:
            if getattr(parsed_args, name) is not None:
                query[name] = getattr(parsed_args, name)
        with _opened(parsed_args.file) as (source, mode):
            if parsed_args.mode:
                query['mode'] = parsed_args.mode
            elif mode and not parsed_args.append and '\\' not in query['path']:
                query['mode'] = mode
            size, digest = _measured(source)
            with progress.of_bytes(size) as bar:
                response = self.compute().post(
                    base.path_of(self.server_id(parsed_args), 'file-write'),
                    params=query,
                    data=_Body(source, size, bar.advance),
                    log=False,
                    headers={
                        'Content-Type': 'application/octet-stream',
                        'Content-Digest': f'sha-256=:{digest}:',
                    },
                )
        sdk_exceptions.raise_from_response(response)
        return 0

    def _put_tree(self, parsed_args: argparse.Namespace) -> int:
        source = parsed_args.file
        path = _remote_path(
            parsed_args.path, source if source == '-' else _name_of(source)
        )
        return self._copy_tree(
            parsed_args,
            lambda start: trees.put(
                start, source, path, parsed_args.owner, parsed_args.group
            ),
            'mode',
            'append',
        )


def _name_of(directory: str) -> str:
    """Return the name of a directory, also of ``..``."""
    return os.path.basename(os.path.abspath(directory))


class _Body:
    """A file that requests sends as a body of known length.

    :param source: the file
    :param size: size of the file in bytes
    :param advance: callback that takes the number of bytes read
    """

    def __init__(
        self, source: BinaryIO, size: int, advance: Callable[[int], None]
    ) -> None:
        self._source = source
        self._size = size
        self._advance = advance

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(PIECE):
            yield data

    def read(self, size: int = PIECE) -> bytes:
        data = self._source.read(size)
        self._advance(len(data))
        return data


def _remote_path(path: str, name: str) -> str:
    """Return the path in the server of a file that is copied there.

    :param path: path that the user gave, perhaps of a directory
    :param name: name of the local file; ``-`` for stdin
    """
    if not path.endswith(('/', '\\')):
        return path
    if name == '-':
        raise exceptions.CommandError(
            f'stdin has no name: name a file in {path}'
        )
    return path + os.path.basename(name)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, str | None]]:
    """Open a file for reading twice.

    What cannot be read twice, as stdin, a FIFO or a device, is copied to a
    temporary file.

    :param name: name of the file; ``-`` for stdin
    :returns: the file, and its mode as octal digits; None for the server's
        default
    """
    with contextlib.ExitStack() as stack:
        source: BinaryIO = (
            sys.stdin.buffer
            if name == '-'
            else stack.enter_context(open(name, 'rb'))
        )
        mode = 0 if name == '-' else os.fstat(source.fileno()).st_mode
        if stat.S_ISREG(mode):
            yield source, _special_mode(mode)
            return
        copy = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(source, copy, PIECE)
        copy.seek(0)
        yield copy, None


def _special_mode(mode: int) -> str | None:
    """Return the permissions that a copy of a local file must not lose."""
    is_private = not mode & 0o077
    is_executable = mode & 0o111
    return f'{mode & 0o777:04o}' if is_private or is_executable else None


def _measured(source: BinaryIO) -> tuple[int, str]:
    """Return the size of a file in bytes, and the SHA-256 in base64."""
    # Python 3.10 has no hashlib.file_digest.
    digest = hashlib.sha256()
    while data := source.read(PIECE):
        digest.update(data)
    size = source.tell()
    source.seek(0)
    return size, base64.b64encode(digest.digest()).decode()
