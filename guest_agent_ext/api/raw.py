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


"""Sends and receives bodies that are bytes, not JSON, in pieces."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Protocol

import webob

from guest_agent_ext import nova_types

#: Bytes of a refused body that are read all the same: a client that is still
#: sending does not see the answer otherwise.
MAX_DRAINED = 1024 * 1024
_PIECE = 64 * 1024
_KEY = 'guest_agent.body'


def response(
    body: bytes, headers: Mapping[str, str], status: int = 200
) -> webob.Response:
    """Answer bytes.

    Nova's Resource passes a finished response on, and treats the request as
    any other: project id in the URL, microversion, version headers.
    """
    answer = webob.Response(
        body=body, status=status, content_type='application/octet-stream'
    )
    answer.headers.update(headers)
    return answer


def streamed(
    chunks: 'Stream', size: int, headers: Mapping[str, str], status: int = 200
) -> webob.Response:
    """Answer bytes that are not read yet.

    :param size: number of bytes
    """
    answer = response(b'', headers, status)
    answer.app_iter = chunks
    answer.content_length = size
    return answer


class Stream:
    """The iterator of an answer that is sent in pieces.

    Unlike a generator that was never begun, a stream notices that it is
    closed.

    :param chunks: pieces; an exception breaks the connection
    :param on_close: function to call once, when all is sent or the client has
        gone
    """

    def __init__(
        self, chunks: Iterator[bytes], on_close: Callable[[], None]
    ) -> None:
        self._chunks = chunks
        self._on_close = on_close
        self._is_closed = False

    def __iter__(self) -> 'Stream':
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """End the stream; WSGI servers call this whatever the end is."""
        if not self._is_closed:
            self._is_closed = True
            self._on_close()


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """Return bytes, no more than ``size``."""


class Body:
    """The body of a request, up to the size that the client announced.

    :param stream: input of WSGI, which may block when no bytes are left
    :param size: announced number of bytes
    :ivar left: number of announced bytes that are not read yet
    """

    def __init__(self, stream: _Readable, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer than ``size`` only at the end.

        :raises OSError: the client has gone; not every server raises this
        """
        data = bytearray()
        while len(data) < size and self.left:
            piece = self._stream.read(min(size - len(data), self.left))
            self.left -= len(piece)
            if not piece:
                self.left = 0
            data += piece
        return bytes(data)

    def drain(self) -> None:
        """Read and drop the rest of the body, up to MAX_DRAINED bytes."""
        budget = MAX_DRAINED
        try:
            while self.left and budget > 0:
                budget -= len(self.read(_PIECE))
        except OSError:
            self.left = 0


def body_of(req: nova_types.Request) -> Body:
    """Return the body of a request; each call returns the same object."""
    if _KEY not in req.environ:
        req.environ[_KEY] = Body(
            req.environ['wsgi.input'], req.content_length or 0
        )
    body: Body = req.environ[_KEY]
    return body
