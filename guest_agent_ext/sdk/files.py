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


"""Copies files into servers and out of them."""

import base64
from collections.abc import Iterator
import contextlib
import hashlib
import os
from typing import BinaryIO

from keystoneauth1 import adapter

from guest_agent_ext.sdk import programs
from guest_agent_ext.sdk import retries

#: Bytes that are read at once.
PIECE = 256 * 1024
#: Seconds within which the next bytes, or the answer, must come.
_ANSWER = 300


def put(
    compute: adapter.Adapter, server_id: str, source: str, path: str
) -> None:
    """Copy a file into a server, whole or not at all.

    :param compute: adapter of the compute service or of guest-agent-api
    :param server_id: UUID of the server
    :param source: path of the file here
    :param path: absolute path in the server
    :raises openstack.exceptions.HttpException: the request was refused
    :raises OSError: the file cannot be read
    """
    with open(source, 'rb') as file:
        digest = _digest(file)
        size = file.tell()

        def send() -> None:
            file.seek(0)
            programs.send(
                compute,
                'POST',
                f'/servers/{server_id}/guest-agent/file-write',
                params={'path': path},
                timeout=_ANSWER,
                # requests has no length for an empty file.
                data=file if size else b'',
                headers={
                    'Content-Type': 'application/octet-stream',
                    'Content-Length': str(size),
                    'Content-Digest': f'sha-256=:{digest}:',
                },
            )

        programs.patiently(lambda: retries.repeated(send, retries.FEW))


def get(compute: adapter.Adapter, server_id: str, path: str, to: str) -> None:
    """Copy a file out of a server.

    :param compute: adapter of the compute service or of guest-agent-api
    :param server_id: UUID of the server
    :param path: absolute path in the server
    :param to: path of the file here, which is replaced when all is there
    :raises openstack.exceptions.HttpException: the request was refused
    :raises OSError: the file cannot be written, or the transfer broke off
    """

    def receive() -> None:
        response = programs.send(
            compute,
            'GET',
            f'/servers/{server_id}/guest-agent/file-read',
            params={'path': path},
            stream=True,
            timeout=_ANSWER,
        )
        with written(to) as file:
            for data in response.iter_content(PIECE):
                file.write(data)

    programs.patiently(lambda: retries.repeated(receive, retries.FEW))


@contextlib.contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """Open a file that replaces another when the block is left well.

    :param path: path of the file
    """
    part = path + '.part'
    try:
        with open(part, 'wb') as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _digest(file: BinaryIO) -> str:
    """Return the SHA-256 of a file in base64."""
    # Python 3.10 has no hashlib.file_digest.
    digest = hashlib.sha256()
    while data := file.read(PIECE):
        digest.update(data)
    return base64.b64encode(digest.digest()).decode()
