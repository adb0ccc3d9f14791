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


"""The mailbox of an attached command, with its streams played."""

from collections.abc import Iterator
import contextlib
import threading
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.compute import attachment
from guest_agent_ext.guest import attached
from tests.unit import clock as unit_clock


class Lane:
    """Plays the lane: serves as soon as it is roused.

    :ivar streams: streams in the guest
    """

    def __init__(self) -> None:
        self.clock = unit_clock.FakeClock()
        self.streams = mock.Mock(
            names=('out', 'err'),
            has_begun=True,
            is_input_closed=False,
            is_drained=False,
        )
        self.streams.follow.return_value = False
        self.streams.read.side_effect = self.output
        self.has = {'out': b'', 'err': b''}
        self.end: int | None = None
        self.roused = 0
        self.item = attachment.Attachment(
            self.clock, self.streams, self._rouse
        )

    def output(self, stream: str, offset: int, limit: int) -> Any:
        data = self.has[stream][offset : offset + limit]
        return attached.Output(data, offset, offset + len(data) == self.end)

    def _rouse(self) -> None:
        self.roused += 1
        self.item.serve()


@pytest.fixture
def lane() -> Lane:
    return Lane()


@contextlib.contextmanager
def refused(kind: str) -> Iterator[None]:
    with pytest.raises(exception.StreamRefused) as caught:
        yield
    assert caught.value.kind == kind


def test_read_acknowledges_what_is_before(lane: Lane) -> None:
    lane.has['out'] = b'abcdef'
    assert lane.item.read('out', 2, 3, 0).data == b'cde'
    lane.streams.acknowledge.assert_called_once_with('out', 2)


def test_complete_is_only_what_was_acknowledged_to_the_end(lane: Lane) -> None:
    """Who reads the last bytes may not get them: they are asked for again."""
    lane.has['out'], lane.end = b'abc', 3
    assert not lane.item.read('out', 0, 9, 0).is_complete
    last = lane.item.read('out', 3, 9, 0)
    assert (last.data, last.is_complete) == (b'', True)


def test_nothing_yet_is_an_answer(lane: Lane) -> None:
    answer = lane.item.read('err', 0, 9, 0)
    assert (answer.data, answer.offset, answer.is_complete) == (b'', 0, False)


def test_reader_of_an_idle_stream_costs_the_guest_no_call(lane: Lane) -> None:
    lane.clock.advance(20)
    lane.item.read('out', 0, 9, 0)
    lane.item.read('out', 0, 9, 0)
    assert (lane.roused, lane.streams.read.call_count) == (1, 1)
    lane.clock.advance(attachment.GAPS.longest)
    lane.item.read('out', 0, 9, 0)
    assert lane.roused == 2


def test_news_of_an_idle_command_are_read_now_and_then(lane: Lane) -> None:
    lane.clock.advance(30)
    lane.item.read('out', 0, 9, 0)
    before = lane.streams.follow.call_count
    told = []
    for _ in range(4):
        lane.clock.advance(attachment.GAPS.longest)
        lane.item.read('out', 0, 9, 0)
        told.append(lane.streams.follow.call_count - before)
    assert lane.streams.read.call_count == 5
    assert told == [0, 1, 1, 2]
    # Whoever types waits for them.
    lane.streams.write.return_value = 1
    lane.item.write(0, b'x', end=False, wait=0)
    lane.clock.advance(attachment.GAPS.shortest)
    lane.item.read('out', 0, 9, 0)
    assert lane.streams.follow.call_count > before + 2


def test_waiting_reader_gets_what_comes(lane: Lane) -> None:
    answers: list[attached.Output] = []
    thread = threading.Thread(
        target=lambda: answers.append(lane.item.read('out', 0, 9, 5.0))
    )
    thread.start()
    lane.has['out'] = b'late'
    for _ in range(1000):
        lane.item.serve()
        thread.join(0.01)
        if answers:
            break
    assert [answer.data for answer in answers] == [b'late']


def test_terminal_has_no_second_stream(lane: Lane) -> None:
    lane.streams.names = ('out',)
    assert lane.item.read('err', 0, 9, 0).is_complete


@pytest.mark.parametrize(
    ('error', 'kind'),
    [
        (exception.OutputGone(), 'gone'),
        (exception.StreamLost('removed'), 'gone'),
    ],
)
def test_what_cannot_be_read_is_refused(
    lane: Lane, error: Exception, kind: str
) -> None:
    lane.streams.read.side_effect = error
    with refused(kind):
        lane.item.read('out', 0, 9, 0)
    assert lane.item.is_lost is isinstance(error, exception.StreamLost)


def test_silent_guest_is_told_to_who_waits(lane: Lane) -> None:
    """And the lane hears of it, too."""
    lane.streams.read.side_effect = exception.AgentUnresponsive()
    errors: list[Exception] = []

    def rouse() -> None:
        with pytest.raises(exception.AgentUnresponsive) as caught:
            lane.item.serve()
        errors.append(caught.value)

    lane.item._rouse = rouse
    with refused('later'):
        lane.item.read('out', 0, 9, 0)
    assert errors


def test_input_that_is_accepted(lane: Lane) -> None:
    lane.streams.write.return_value = 5
    accepted = lane.item.write(2, b'abc', end=False, wait=0)
    assert accepted == (5, False)
    lane.streams.write.assert_called_once_with(2, b'abc', end=False)


def test_full_window_takes_a_part(lane: Lane) -> None:
    lane.streams.write.side_effect = [3, 3, 3]
    assert lane.item.write(2, b'abc', end=False, wait=0) == (3, False)


def test_end_is_true_when_stdin_is_closed(lane: Lane) -> None:
    """The guest may have had no room for the word of the end."""
    lane.streams.write.return_value = 3
    assert lane.item.write(0, b'abc', end=True, wait=0) == (3, False)
    lane.streams.is_input_closed = True
    assert lane.item.write(3, b'', end=True, wait=0) == (3, True)


def test_end_is_not_told_at_each_look(lane: Lane) -> None:
    """Each word of it takes room in the guest."""
    lane.streams.write.return_value = 0
    for _ in range(5):
        lane.item.write(0, b'', end=True, wait=0)
    assert lane.streams.write.call_count == 1
    lane.clock.advance(attachment.END_GAP)
    lane.item.write(0, b'', end=True, wait=0)
    assert lane.streams.write.call_count == 2


def test_gap_of_input_is_refused(lane: Lane) -> None:
    lane.streams.write.side_effect = exception.InputGap(3)
    with refused('gap'):
        lane.item.write(7, b'x', end=False, wait=0)


def test_one_client_at_a_time(lane: Lane) -> None:
    lane.item.admit('one', take_over=False)
    with refused('taken'):
        lane.item.admit('two', take_over=False)
    lane.item.admit('two', take_over=True)
    with refused('taken'):
        lane.item.admit('one', take_over=False)


def test_lease_of_a_silent_client_expires(lane: Lane) -> None:
    lane.item.admit('one', take_over=False)
    lane.clock.advance(attachment.LEASE)
    lane.item.admit('two', take_over=False)


def test_refused_client_is_nobody_who_is_there(lane: Lane) -> None:
    lane.item.admit('one', take_over=False)
    lane.clock.advance(5)
    with refused('taken'):
        lane.item.admit('two', take_over=False)
    assert lane.item.silence == 5


def test_waiting_calls_are_bounded(lane: Lane) -> None:
    lane.item._calls.extend(
        attachment.Read('out', 0, 1, 0.0) for _ in range(attachment.MAX_CALLS)
    )
    with refused('later'):
        lane.item.read('out', 0, 1, 0)


def test_ended_command_refuses(lane: Lane) -> None:
    lane.item.close()
    with refused('ended'):
        lane.item.read('out', 0, 1, 0)


def test_dropped_output_is_missed_by_nobody(lane: Lane) -> None:
    lane.item.drop_output()
    assert lane.item.is_drained
    lane.streams.read.side_effect = exception.StreamLost('cut')
    with refused('later'):
        lane.item.read('out', 0, 1, 0)


def test_gap_grows_while_nothing_comes(lane: Lane) -> None:
    assert lane.item.gap == attachment.GAPS.shortest
    lane.clock.advance(100)
    assert lane.item.gap == attachment.GAPS.longest
    lane.has['out'] = b'x'
    lane.item.read('out', 0, 1, 0)
    assert lane.item.gap == attachment.GAPS.shortest
