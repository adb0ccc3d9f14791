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

"""Bodies of bytes: what is read, and what is left when a client goes."""

import io
from unittest import mock

from guest_agent_ext.api import raw


class Slow(io.BytesIO):
    """An input that gives a byte at a time, as a slow client does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1)


def test_piece_is_filled_from_small_reads() -> None:
    body = raw.Body(Slow(b'abcdef'), 6)
    assert body.read(4) == b'abcd'
    assert body.left == 2
    assert body.read(4) == b'ef'


def test_no_byte_beyond_the_announced_ones_is_read() -> None:
    """It would be of the next request, or block for ever."""
    stream = io.BytesIO(b'abcdef')
    assert raw.Body(stream, 4).read(100) == b'abcd'
    assert stream.tell() == 4


def test_body_that_ends_early_leaves_nothing_to_wait_for() -> None:
    body = raw.Body(io.BytesIO(b'ab'), 4)
    assert body.read(4) == b'ab'
    assert body.left == 0


def test_refused_body_is_read_up_to_a_bound() -> None:
    stream = mock.Mock(read=mock.Mock(side_effect=lambda size: b'x' * size))
    body = raw.Body(stream, 10 * raw.MAX_DRAINED)
    body.drain()
    assert body.left == 9 * raw.MAX_DRAINED


def test_client_that_has_gone_ends_draining() -> None:
    body = raw.Body(mock.Mock(read=mock.Mock(side_effect=OSError)), 10)
    body.drain()
    assert body.left == 0


def test_stream_that_was_never_read_is_closed_once() -> None:
    """A slot would stay taken, or be given back twice."""
    on_close = mock.Mock()
    stream = raw.Stream(iter([b'a']), on_close)
    stream.close()
    stream.close()
    on_close.assert_called_once_with()


def test_streamed_answer_says_its_size_before_it_is_read() -> None:
    chunks = raw.Stream(iter([b'ab', b'c']), mock.Mock())
    answer = raw.streamed(chunks, 3, {'ETag': '"x"'}, 206)
    assert (answer.status_int, answer.content_length) == (206, 3)
    assert answer.headers['ETag'] == '"x"'
    assert answer.body == b'abc'
