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
#


from collections.abc import Callable
import itertools
import re

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import attached

PATH = '/run/guest-agent/ID'
FIFOS = ('bell', 'out.credit', 'err.credit')


class Guest:
    """A guest's agent with files in memory, and FIFOs that note lines."""

    def __init__(self) -> None:
        self.files = {
            name: bytearray()
            for name in ('news', 'out.0', 'err.0', 'ring', *FIFOS)
        }
        self.handles: dict[int, list[str | int]] = {}
        self.numbers = itertools.count(1)
        self.calls: list[str] = []
        self.failure: exception.GuestError | None = None
        self.is_full = False

    def say(self, *lines: str) -> None:
        for line in lines:
            self.files['news'] += f'{line}\n'.encode()

    def lines(self, name: str = 'bell') -> list[str]:
        """Return what a FIFO was told since it was asked."""
        said = self.files[name].decode()
        self.files[name].clear()
        assert all(len(line) < 4096 for line in said.splitlines())
        return [line for line in said.splitlines() if line]

    def file_open(self, path: str, mode: str) -> int:
        name = self._called('open', path.removeprefix(f'{PATH}.'))
        if name not in self.files:
            raise exception.AgentRefused(
                f"failed to open file '{path}': No such file or directory"
            )
        number = next(self.numbers)
        self.handles[number] = [name, 0]
        return number

    def file_read(self, handle: int, count: int) -> bytes:
        name, at = self._file('read', handle)
        data = bytes(self.files[name][at : at + count])
        self.handles[handle][1] = at + len(data)
        return data

    def file_write(self, handle: int, data: bytes) -> int:
        name, at = self._file('write', handle)
        if name in FIFOS:
            if self.is_full:
                raise exception.AgentRefused(
                    'failed to write: Resource temporarily unavailable'
                )
            self.files[name] += data
            return len(data)
        file = self.files[name]
        file.extend(bytes(max(0, at - len(file))))
        file[at : at + len(data)] = data
        self.handles[handle][1] = at + len(data)
        return len(data)

    def file_seek(self, handle: int, offset: int, whence: str) -> int:
        assert whence == 'set'
        self._file('seek', handle)
        self.handles[handle][1] = offset
        return offset

    def file_flush(self, handle: int) -> None:
        self._file('flush', handle)

    def file_close(self, handle: int) -> None:
        self._file('close', handle)
        del self.handles[handle]

    def _file(self, call: str, handle: int) -> tuple[str, int]:
        if handle not in self.handles:
            raise exception.AgentRefused(
                f"handle '{handle}' has not been found"
            )
        name, at = self.handles[handle]
        return self._called(call, str(name)), int(at)

    def _called(self, call: str, name: str) -> str:
        self.calls.append(f'{call} {name}')
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return name


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    guest.say('begin')
    return guest


@pytest.fixture
def streams(guest: Guest) -> attached.Attached:
    streams = attached.Attached(guest, PATH, terminal=False)
    streams.follow()
    guest.calls.clear()
    return streams


def test_nothing_is_expected_of_a_command_that_has_yet_to_begin() -> None:
    guest = Guest()
    guest.files.clear()
    streams = attached.Attached(guest, PATH, terminal=False)
    assert not streams.follow() and not streams.has_begun
    assert streams.read('out', 0) == attached.Output(b'', 0, False)
    assert streams.write(0, b'key') == 0


def test_terminal_has_one_stream(guest: Guest) -> None:
    streams = attached.Attached(guest, PATH, terminal=True)
    assert streams.names == ('out',)
    guest.say('out-end 0')
    streams.follow()
    assert streams.is_drained


def test_read_is_one_call(guest: Guest, streams: attached.Attached) -> None:
    guest.files['out.0'] += b'hello'
    streams.read('out', 0)
    guest.calls.clear()
    guest.files['out.0'] += b' world'
    output = streams.read('out', 5)
    assert (output.data, output.next_offset) == (b' world', 11)
    assert guest.calls == ['read out.0']


def test_key_is_two_calls(guest: Guest, streams: attached.Attached) -> None:
    streams.write(0, b'k')
    guest.calls.clear()
    assert streams.write(1, b'\x03') == 2
    assert guest.calls == ['write bell', 'flush bell']
    assert guest.lines() == ['text 0 1 k .', 'text 1 2 \\0003 .']


def test_read_that_is_repeated_seeks(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += b'hello'
    assert streams.read('out', 0) == streams.read('out', 0)
    guest.failure = exception.AgentUnresponsive()
    with pytest.raises(exception.AgentUnresponsive):
        streams.read('out', 5)
    assert streams.read('out', 3).data == b'lo'


def test_segments_are_read_in_turn(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += bytes(10)
    guest.files['out.1'] = bytearray(b'abc')
    guest.say('out 1 10', 'out-end 13')
    streams.follow()
    assert streams.read('out', 4, 100).next_offset == 10
    last = streams.read('out', 10)
    assert (last.data, last.is_complete) == (b'abc', True)
    assert streams.read('out', 13) == attached.Output(b'', 13, True)


def test_full_segment_has_the_news_read(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += bytes(attached.SEGMENT)
    guest.files['out.1'] = bytearray(b'abc')
    guest.say(f'out 1 {attached.SEGMENT}')
    assert streams.read('out', attached.SEGMENT).data == b'abc'


def test_guest_is_told_of_segments_that_were_taken(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say('out 1 10')
    streams.follow()
    streams.acknowledge('out', 9)
    assert guest.lines('out.credit') == []
    streams.acknowledge('out', 10)
    streams.acknowledge('out', 11)
    assert guest.lines('out.credit') == ['taken 1 .']


def test_acknowledgement_that_was_not_answered_is_repeated(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say('out 1 10')
    streams.follow()
    guest.failure = exception.AgentUnresponsive()
    with pytest.raises(exception.AgentUnresponsive):
        streams.acknowledge('out', 10)
    streams.acknowledge('out', 10)
    assert guest.lines('out.credit') == ['taken 1 .']


def test_new_process_learns_all_from_the_news(guest: Guest) -> None:
    for number in range(1, 200):
        guest.say(f'out {number} {number * 7}', f'in {number}')
    guest.say('err-end 0', 'out-end 1400')
    guest.files |= {'out.198': bytearray(7), 'out.199': bytearray(7)}
    streams = attached.Attached(guest, PATH, terminal=False)
    assert streams.read('out', 199 * 7).is_complete
    assert streams.input_taken == 199
    with pytest.raises(exception.OutputGone):
        streams.read('out', 198 * 7 - 1)
    assert not streams.is_drained
    streams.acknowledge('out', 1400)
    assert streams.is_drained


def test_news_are_read_in_bounded_pieces(guest: Guest) -> None:
    for number in range(1, 100001):
        guest.say(f'in {number}')
    streams = attached.Attached(guest, PATH, terminal=False)
    follows = 0
    while streams.follow():
        follows += 1
    assert streams.input_taken == 100000
    assert follows == 1


@pytest.mark.parametrize(
    'line',
    [
        'nonsense',
        'out',
        'out x 1',
        'out 2 5',
        'out 1 0',
        'out -1 -5',
        'out 1 99999999',
        'what 1 5',
        'what-end 5',
        'in x',
        'in 9' * 30,
        'out-end -1',
        'out-end 99999999',
        'out 1 ' + '9' * 30,
        'x' * 200,
        '',
    ],
)
def test_news_that_make_no_sense(
    guest: Guest, streams: attached.Attached, line: str
) -> None:
    guest.say(line)
    with pytest.raises(exception.AgentError, match='makes no sense'):
        streams.follow()


def test_line_that_does_not_end_is_bounded(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['news'] += b'9' * 1000
    with pytest.raises(exception.AgentError, match='makes no sense'):
        streams.follow()


def test_input_that_goes_back_makes_no_sense(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say('in 5', 'in 4')
    with pytest.raises(exception.AgentError, match='makes no sense'):
        streams.follow()


def test_lost_handle_is_opened_again(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += b'hello'
    streams.read('out', 0, 2)
    guest.handles.clear()
    assert streams.read('out', 2).data == b'llo'
    streams.write(0, b'k')
    guest.handles.clear()
    streams.write(1, b'l')
    assert guest.lines() == ['text 0 1 k .', 'text 1 2 l .']


def test_agent_that_loses_every_handle_is_not_asked_for_ever(
    guest: Guest, streams: attached.Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: object) -> bytes:
        raise exception.AgentRefused("handle '1' has not been found")

    monkeypatch.setattr(guest, 'file_read', lost)
    with pytest.raises(exception.AgentError, match='again and again'):
        streams.read('out', 0)


def test_handles_are_closed(guest: Guest, streams: attached.Attached) -> None:
    guest.files['out.0'] += bytes(10)
    guest.files['out.1'] = bytearray(b'abc')
    guest.say('out 1 10')
    streams.follow()
    streams.read('out', 0)
    streams.read('out', 10)
    streams.read('err', 0)
    streams.write(0, b'k')
    streams.write(1, bytes(5000))
    streams.acknowledge('out', 10)
    assert len(guest.handles) == 6
    streams.close()
    assert not guest.handles
    assert streams.read('out', 10).data == b'abc'


def test_input_that_was_accepted_is_skipped(
    guest: Guest, streams: attached.Attached
) -> None:
    assert streams.write(0, b'abcd') == 4
    assert streams.write(2, b'cdef') == 6
    assert streams.write(1, b'bcd') == 4
    assert guest.lines() == ['text 0 4 abcd .', 'text 4 6 ef .']


def test_gap_is_refused(guest: Guest, streams: attached.Attached) -> None:
    streams.write(0, b'abcd')
    with pytest.raises(exception.InputGap) as caught:
        streams.write(5, b'x')
    assert caught.value.expected == 4


def test_gap_that_the_guest_found(guest: Guest) -> None:
    guest.say('in 3')
    streams = attached.Attached(guest, PATH, terminal=False)
    assert streams.write(7, b'x') == 8
    guest.say('in-gap 3')
    with pytest.raises(exception.InputGap) as caught:
        streams.follow()
        streams.write(8, b'y')
    assert caught.value.expected == 3
    assert streams.write(3, b'abc') == 6


def test_gap_beyond_the_window_is_refused_at_once(
    guest: Guest, streams: attached.Attached
) -> None:
    with pytest.raises(exception.InputGap):
        streams.write(attached.RING + 1, b'x')


def test_every_byte_is_one_word_of_a_line(
    guest: Guest, streams: attached.Attached
) -> None:
    data = bytes(range(256))
    streams.write(0, data)
    [line] = guest.lines()
    word, start, until, text, stop = line.split(' ')
    assert (word, start, until, stop) == ('text', '0', '256', '.')
    decoded = re.sub(r'\\0(\d{3})', lambda match: chr(int(match[1], 8)), text)
    assert decoded.encode('latin-1') == data


def test_large_input_goes_through_the_ring(
    guest: Guest, streams: attached.Attached
) -> None:
    data = bytes(range(256)) * 400
    assert streams.write(0, data) == len(data)
    assert guest.files['ring'] == data
    assert guest.lines() == [f'ring 0 {len(data)} - .']


def test_ring_is_never_overrun(
    guest: Guest, streams: attached.Attached
) -> None:
    data = bytes(attached.MAX_INPUT)
    sent = 0
    for _ in range(9):
        sent = streams.write(sent, data)
    assert sent == attached.RING
    guest.say('in 1000')
    assert streams.write(sent, b'\x01' * len(data)) == sent + 1000
    assert guest.files['ring'].startswith(b'\x01' * 1000 + b'\0')
    assert len(guest.files['ring']) == attached.RING


def test_piece_that_wraps_is_two_lines(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say(f'in {attached.RING - 3000}')
    streams.follow()
    begin = attached.RING - 3000
    assert streams.write(begin, bytes(8000)) == begin + 8000
    assert guest.lines() == [
        f'ring {begin} {attached.RING} - .',
        f'ring {attached.RING} {begin + 8000} - .',
    ]


def test_few_lines_are_under_way(
    guest: Guest, streams: attached.Attached
) -> None:
    at = 0
    for _ in range(20):
        at = streams.write(at, b'k')
    assert at == len(guest.lines()) == 6
    guest.say('in 4')
    for _ in range(20):
        at = streams.write(at, b'k')
    assert at == 10


def test_fifo_that_is_full_accepts_nothing(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.is_full = True
    assert streams.write(0, b'k') == 0
    with pytest.raises(exception.AgentBusy):
        streams.write(0, b'', end=True)
    guest.is_full = False
    assert streams.write(0, b'k', end=True) == 1
    assert guest.lines() == ['text 0 1 k .', 'end 1 1 - .']


def test_end_is_told_once_and_after_all(
    guest: Guest, streams: attached.Attached
) -> None:
    data = bytes(attached.MAX_INPUT)
    sent = 0
    for _ in range(4):
        sent = streams.write(sent, data)
    assert streams.write(sent, b'x' * 5000, end=True) == sent
    guest.say(f'in {sent}')
    for _ in range(2):
        assert streams.write(sent, b'xyz', end=True) == sent + 3
    assert guest.lines()[-2:] == [
        f'text {sent} {sent + 3} xyz .',
        f'end {sent + 3} {sent + 3} - .',
    ]


def test_closed_stdin_accepts_and_drops(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say('in 5', 'in-closed')
    streams.follow()
    assert streams.is_input_closed
    assert streams.write(5, bytes(100), end=True) == 105
    assert not guest.lines()


REFUSALS: list[tuple[str, Callable[[attached.Attached], object], str]] = [
    ('bell', lambda streams: streams.write(0, b'k'), attached.REMOVED),
    ('ring', lambda streams: streams.write(0, bytes(9000)), attached.REMOVED),
    ('out.0', lambda streams: streams.read('out', 0), attached.REMOVED),
    (
        'out.credit',
        lambda streams: streams.acknowledge('out', 10),
        attached.REMOVED,
    ),
]


@pytest.mark.parametrize(('name', 'call', 'words'), REFUSALS)
def test_removed_file_is_told(
    guest: Guest,
    streams: attached.Attached,
    name: str,
    call: Callable[[attached.Attached], object],
    words: str,
) -> None:
    guest.say('out 1 10')
    streams.follow()
    del guest.files[name]
    with pytest.raises(exception.StreamLost, match=words):
        call(streams)


def test_removed_news_are_told(
    guest: Guest, streams: attached.Attached
) -> None:
    del guest.files['news']
    guest.handles.clear()
    with pytest.raises(exception.StreamLost):
        streams.follow()


def test_emptied_segment_is_told(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += b'abc'
    guest.say('out-end 10')
    streams.follow()
    assert streams.read('out', 0).data == b'abc'
    with pytest.raises(exception.StreamLost):
        streams.read('out', 3)


def test_output_that_the_guest_could_not_keep(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += b'abc'
    guest.say('out-failed')
    streams.follow()
    assert streams.read('out', 0).data == b'abc'
    with pytest.raises(exception.StreamLost, match='no room'):
        streams.read('out', 3)


def test_full_file_system_takes_no_input(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.failure = exception.AgentRefused(
        'failed to flush file: No space left on device'
    )
    with pytest.raises(exception.StreamLost, match='no room'):
        streams.write(0, bytes(9000))


def test_input_that_could_not_be_read(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say('in-failed')
    streams.follow()
    with pytest.raises(exception.StreamLost):
        streams.write(0, b'k')


def test_end_without_those_of_the_streams_is_told(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.files['out.0'] += b'abc'
    guest.say('err-end 0', 'end')
    streams.follow()
    assert streams.has_ended
    assert streams.read('out', 0).data == b'abc'
    with pytest.raises(exception.StreamLost, match='was killed'):
        streams.read('out', 3)


def test_expected_end_waits_for_the_news(
    guest: Guest, streams: attached.Attached
) -> None:
    streams.expect_end()
    assert streams.read('out', 0).data == b''
    guest.say('out-end 0')
    streams.follow()
    assert streams.read('out', 0).is_complete
    with pytest.raises(exception.StreamLost):
        streams.read('err', 0)


def test_frozen_guest_is_no_loss(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.failure = exception.AgentCommandDisabled()
    with pytest.raises(exception.AgentCommandDisabled):
        streams.read('out', 0)
    guest.files['out.0'] += b'abc'
    assert streams.read('out', 0).data == b'abc'


def test_output_is_dropped_once(
    guest: Guest, streams: attached.Attached
) -> None:
    guest.say('err-end 0')
    streams.follow()
    streams.drop_output()
    streams.drop_output()
    assert guest.lines('out.credit') == ['drop - .']
    assert guest.lines('err.credit') == []


def test_what_a_command_wrote_is_not_shown() -> None:
    assert 'secret' not in repr(attached.Output(b'secret', 0, False))
