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


"""Bodies that are bytes and no JSON, sent and received by and by."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import webob

#: Bytes of a refused body that are read all the same: a client that is still
#: sending does not see the answer otherwise.
MAX_DRAINED = 1024 * 1024
_PIECE = 64 * 1024
_KEY = 'guest_agent.body'


def response(
    body: bytes, headers: Mapping[str, str], status: int = 200
) -> webob.Response:
    """Answer bytes.

    A finished response passes through Nova's Resource with all that it does
    for the others: the project's id in the URL, the microversion, its headers.
    """
    answer = webob.Response(
        body=body, status=status, content_type='application/octet-stream'
    )
    answer.headers.update(headers)
    return answer


def streamed(
    chunks: 'Stream', size: int, headers: Mapping[str, str], status: int = 200
) -> webob.Response:
    """Answer bytes that are yet to come.

    :param size: how many there will be
    """
    answer = response(b'', headers, status)
    answer.app_iter = chunks
    answer.content_length = size
    return answer


class Stream:
    """What a server sends by and by.

    Unlike a generator that was never begun, it knows when it is closed.

    :param chunks: an exception of theirs has the server break the connection
    :param on_close: called once, when all was sent or the client has gone
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
        """Tell that nothing more is sent; WSGI servers do so at any end."""
        if not self._is_closed:
            self._is_closed = True
            self._on_close()


class Body:
    """What a client sends: never more of it than it said.

    :param stream: WSGI's, which may block where nothing is left
    :param size: bytes of it
    """

    def __init__(self, stream: Any, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer only where the body ends.

        :raises OSError: the client has gone, in the words of some servers
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
        """Read what is left, if it is not much."""
        budget = MAX_DRAINED
        try:
            while self.left and budget > 0:
                budget -= len(self.read(_PIECE))
        except OSError:
            self.left = 0


def body_of(req: Any) -> Body:
    """Return the body of a request, the same whenever it is asked for."""
    if _KEY not in req.environ:
        req.environ[_KEY] = Body(
            req.environ['wsgi.input'], req.content_length or 0
        )
    body: Body = req.environ[_KEY]
    return body
