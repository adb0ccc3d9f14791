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

import base64
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from typing import Any
from typing import BinaryIO

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import requests

from guest_agent_ext.osc import base

PIECE = 256 * 1024
_WIDTH = 40


class Get(base.ServerCommand):
    """Copy a file from a server

    A transfer that breaks leaves what there is of the file; with --resume it
    goes on from there.
    """

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'path', metavar='<path>', help='Absolute path in the server'
        )
        parser.add_argument(
            'file',
            metavar='<file>',
            nargs='?',
            help='Where to (default: its name, here); - for stdout',
        )
        parser.add_argument(
            '--resume',
            action='store_true',
            help='Go on where an earlier copy broke off',
        )
        return parser

    def take_action(self, parsed_args: Any) -> None:
        name = parsed_args.file or os.path.basename(parsed_args.path)
        if name == '-':
            self._get(parsed_args, sys.stdout.buffer, 0)
            return
        part = name + '.part'
        with open(part, 'ab' if parsed_args.resume else 'wb') as to:
            self._get(parsed_args, to, to.tell())
        os.replace(part, name)

    def _get(self, parsed_args: Any, to: BinaryIO, offset: int) -> None:
        response = self.compute().get(
            base.path_of(self.server_id(parsed_args), 'file-read'),
            params={'path': parsed_args.path},
            stream=True,
            log=False,
            headers={'Range': f'bytes={offset}-'} if offset else {},
        )
        if offset and response.status_code == 416:
            # There was nothing left to get, if it still has that size.
            if response.headers['Content-Range'] == f'bytes */{offset}':
                return
            raise exceptions.CommandError(
                f'{parsed_args.path} is not the file of which {offset} bytes '
                'are here; get it again without --resume'
            )
        sdk_exceptions.raise_from_response(response)
        if offset and response.status_code == 200:
            # All of it, whatever was asked for.
            to.truncate(0)
            offset = 0
        left = _copy(response, to, offset)
        if left:
            raise exceptions.CommandError(
                f'{left} bytes of {parsed_args.path} are missing: use '
                '--resume to get them'
            )


def _copy(response: Any, to: BinaryIO, offset: int) -> int:
    """Write what comes.

    :param offset: bytes that are there already
    :returns: how many bytes did not come
    """
    left = int(response.headers['Content-Length'])
    with (
        progress(offset + left, offset) as advance,
        contextlib.suppress(requests.RequestException),
    ):
        for data in response.iter_content(PIECE):
            to.write(data)
            left -= len(data)
            advance(len(data))
    to.flush()
    return left


class Put(base.ServerCommand):
    """Copy a file into a server

    The file there is replaced when all of the new one has arrived and been
    verified, or stays as it was.
    """

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'file', metavar='<file>', help='What to copy; - for stdin'
        )
        parser.add_argument(
            'path', metavar='<path>', help='Absolute path in the server'
        )
        parser.add_argument(
            '--mode', metavar='<mode>', help='Permissions, as octal digits'
        )
        parser.add_argument(
            '--append',
            action='store_true',
            help='Write behind what the file has',
        )
        return parser

    def take_action(self, parsed_args: Any) -> None:
        query = {'path': parsed_args.path}
        if parsed_args.mode:
            query['mode'] = parsed_args.mode
        if parsed_args.append:
            query['append'] = 'true'
        with _opened(parsed_args.file) as source:
            size, digest = _measured(source)
            with progress(size) as advance:
                response = self.compute().post(
                    base.path_of(self.server_id(parsed_args), 'file-write'),
                    params=query,
                    data=_Body(source, size, advance),
                    log=False,
                    headers={
                        'Content-Type': 'application/octet-stream',
                        'Content-Digest': f'sha-256=:{digest}:',
                    },
                )
        sdk_exceptions.raise_from_response(response)


class _Body:
    """A file as requests sends it: with a length, and read once.

    :param advance: told how many bytes were read
    """

    def __init__(self, source: BinaryIO, size: int, advance: Any) -> None:
        self._source = source
        self._size = size
        self._advance = advance

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterable[bytes]:
        while data := self.read(PIECE):
            yield data

    def read(self, size: int = PIECE) -> bytes:
        data = self._source.read(size)
        self._advance(len(data))
        return data


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Open a file that can be read twice."""
    if name != '-':
        with open(name, 'rb') as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, PIECE)
        copy.seek(0)
        yield copy


def _measured(source: BinaryIO) -> tuple[int, str]:
    """Return the size of a file and its SHA-256 in base64."""
    digest = (
        hashlib.file_digest(source, 'sha256')
        if hasattr(hashlib, 'file_digest')
        else _digest(source)
    )
    size = source.tell()
    source.seek(0)
    return size, base64.b64encode(digest.digest()).decode()


def _digest(source: BinaryIO) -> Any:
    # Python 3.10 has no file_digest.
    digest = hashlib.sha256()
    while data := source.read(PIECE):
        digest.update(data)
    return digest


@contextlib.contextmanager
def progress(size: int, done: int = 0) -> Iterator[Any]:
    """Show on a terminal how far it is.

    :param size: bytes in all
    :param done: bytes that are there already
    :returns: to be called with the bytes of each piece
    """
    state = {'done': done}

    def advance(count: int) -> None:
        state['done'] += count
        share = state['done'] / size if size else 1
        bar = '=' * int(share * _WIDTH)
        sys.stderr.write(f'\r[{bar:{_WIDTH}}] {share:4.0%}')
        sys.stderr.flush()

    if not sys.stderr.isatty():
        yield lambda count: None
        return
    try:
        yield advance
    finally:
        sys.stderr.write('\n')
