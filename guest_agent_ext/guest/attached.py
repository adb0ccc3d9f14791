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

"""The streams of an attached command.

The guest's part is ``attach.sh``. Beside its record an attached command has
in the guest's directory::

    ID.news             lines that the guest appends, see _News
    ID.out.N, ID.err.N  segment N of a stream, which only grows
    ID.out.credit, ...  FIFO: how many segments have been taken
    ID.bell             FIFO: lines of input, or word of some in the ring
    ID.ring             input; each byte at its offset modulo RING

There are never more than two segments of a stream: the guest begins one only
when the one before the last has been taken. Until then all of it can be read
again, so no method loses or doubles a byte when it is called again after a
lost answer, by this process or another one.

A host drives it thus::

    pid = launcher.launch(order)            # order.attach is set
    streams = launcher.attached(id, terminal=False)
    streams.follow()                        # now and then, see there
    output = streams.read('out', offset)    # one call of the agent, mostly
    streams.acknowledge('out', output.next_offset)
    accepted = streams.write(accepted, data[:MAX_INPUT])
    ...
    streams.is_drained                      # and launcher.poll(pid) has Ended
    streams.close()
    launcher.release([id])
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import TypeVar

from guest_agent_ext import exception
from guest_agent_ext import untrusted
from guest_agent_ext.guest import agent as guest_agent

#: Bytes of a segment of output, and of the ring of input, in the guest.
SEGMENT = RING = 1024 * 1024
#: Bytes that one read() returns, and one write() takes, at most. A larger
#: reply keeps libvirt from other calls for the same guest.
MAX_OUTPUT = 256 * 1024
MAX_INPUT = 256 * 1024

#: Bytes that one call of the agent carries into the ring.
_PIECE = 128 * 1024
#: Characters of input that travel in a line, and lines under way: a FIFO
#: refuses what it has no room for, which is 48,000 bytes at the least.
_LINE, _MAX_LINES = 3000, 6
#: Bytes of news that one call reads, and calls that one follow() makes.
_NEWS, _MAX_READS = 32 * 1024, 32
#: How often one call opens a file whose handle is lost at once.
_MAX_OPENS = 3
#: Bytes of one line of news.
_MAX_NEWS_LINE = 100

REMOVED = (
    'What the guest keeps of the streams of the command was removed in it'
)
CUT = 'What kept the output of the command in the guest was killed'
FULL = 'The file system of the guest has no room for the output of the command'
INPUT_FULL = (
    'The file system of the guest has no room for the input of the command'
)
INPUT_CUT = 'What feeds the command in the guest could not read its input'

_Result = TypeVar('_Result')


@dataclasses.dataclass(frozen=True)
class Output:
    """Some of what a command wrote to a stream.

    :ivar offset: number of bytes of the stream before data
    :ivar is_complete: whether the stream ends with data
    """

    data: bytes = dataclasses.field(repr=False)
    offset: int
    is_complete: bool

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)


class Attached:
    """The streams of one attached command.

    Every method raises exception.GuestError if the guest did not answer; it
    may then be called again with the same arguments. Nothing waits.

    :param agent: the guest's agent
    :param path: path of the command's record in the guest
    :param terminal: the command has a terminal: its one stream is ``out``
    """

    def __init__(
        self, agent: guest_agent.Agent, path: str, *, terminal: bool
    ) -> None:
        self._agent = agent
        self._path = path
        self._news = _File(agent, f'{path}.news', 'r')
        self._news_offset = 0
        self._rest = b''
        names = ('out',) if terminal else ('out', 'err')
        self._streams = {
            name: _Stream(agent, f'{path}.{name}') for name in names
        }
        self._input = _Input(agent, path)
        self._has_begun = False
        self._has_ended = False
        self._is_end_expected = False

    @property
    def names(self) -> Sequence[str]:
        """Names of the streams."""
        return tuple(self._streams)

    @property
    def has_begun(self) -> bool:
        """Whether the guest has said anything.

        Where it has not, launcher.recover() tells whether it is yet to come.
        """
        return self._has_begun

    @property
    def has_ended(self) -> bool:
        """Whether the end of the command can be asked for.

        It may come before the output is drained, or not at all where the
        launcher was killed: launcher.recover() decides.
        """
        return self._has_ended

    @property
    def is_drained(self) -> bool:
        """Whether both streams have ended, and were acknowledged to the end.

        Only then may the command's end be told.
        """
        return all(stream.is_drained for stream in self._streams.values())

    @property
    def is_input_closed(self) -> bool:
        """Whether the command takes no more input, and write() drops all."""
        return self._input.is_closed

    @property
    def input_taken(self) -> int:
        """Number of bytes of input that the command's stdin has taken."""
        return self._input.taken

    def expect_end(self) -> None:
        """Note that the launcher has told the command's end.

        All news are there by then: what the next follow() does not learn,
        nobody will. After that read() raises instead of waiting for it.
        """
        self._is_end_expected = True

    def follow(self) -> bool:
        """Read the guest's news: one call of the agent, mostly.

        To be called when read() returns nothing, when write() accepts
        nothing, and now and then.

        :returns: whether there were any
        :raises exception.StreamLost: the guest has lost some of a stream
        """
        heard = False
        for _ in range(_MAX_READS):
            data = self._read_news()
            self._has_begun = self._has_begun or bool(data)
            heard = heard or bool(data)
            self._news_offset += len(data)
            *lines, self._rest = (self._rest + data).split(b'\n')
            for line in lines:
                self._hear(line.decode(errors='replace').split())
            if len(self._rest) > _MAX_NEWS_LINE:
                raise _improper()
            if len(data) < _NEWS:
                if self._is_end_expected:
                    self._note_end()
                break
        return heard

    def read(
        self, stream: str, offset: int, limit: int = MAX_OUTPUT
    ) -> Output:
        """Return bytes of a stream, none where there are none yet.

        :param stream: one of names
        :param offset: number of bytes of the stream before those
        :param limit: number of bytes to return at most
        :raises exception.OutputGone: bytes behind the offset were
            acknowledged and are not there any more
        :raises exception.StreamLost: the guest has lost them
        """
        reader = self._streams[stream]
        if not self._has_begun:
            self.follow()
        data = self._read_segment(reader, offset, min(limit, MAX_OUTPUT))
        next_offset = offset + len(data)
        if not data and limit > 0:
            if reader.is_known(offset):
                # Somebody has emptied the file.
                raise exception.StreamLost(REMOVED)
            if reader.end is None and (self._has_ended or reader.failure):
                raise exception.StreamLost(reader.failure or CUT)
        return Output(data, offset, next_offset == reader.end)

    def acknowledge(self, stream: str, offset: int) -> None:
        """Let the guest forget the output before an offset.

        Calls the agent only when that ends a segment.

        :param offset: number of bytes that nobody will ask for again
        """
        with _told_as_lost():
            self._streams[stream].acknowledge(offset)

    def write(self, offset: int, data: bytes, *, end: bool = False) -> int:
        """Send input to the command.

        :param offset: number of bytes of input before data
        :param data: input, MAX_INPUT bytes at most
        :param end: whether stdin ends with data, once all of it is accepted; a
            terminal gets an EOT (Ctrl-D)
        :returns: offset behind what is accepted: what is to be written next.
            Less than offset + len(data) where the window is full.
        :raises exception.InputGap: bytes before offset have not come
        :raises exception.StreamLost: the guest cannot take them
        """
        if not self._has_begun or self._input.is_busy(len(data)):
            self.follow()
        if not self._has_begun:
            return offset
        with _told_as_lost():
            return self._input.write(offset, data, end=end)

    def drop_output(self) -> None:
        """Drop the output that nobody has read yet.

        For a command that was killed: its end waits for no reader any more. A
        command that runs on finds its stdout and stderr closed.
        """
        for stream in self._streams.values():
            stream.drop()

    def close(self) -> None:
        """Close the agent's handles, which any method opens again."""
        for file in (
            self._news,
            *self._input.files(),
            *(
                file
                for stream in self._streams.values()
                for file in stream.files()
            ),
        ):
            file.close()

    def _read_news(self) -> bytes:
        try:
            return self._news.read(self._news_offset, _NEWS)
        except exception.AgentRefused as error:
            if not _is_missing(error):
                raise
            if self._has_begun:
                raise exception.StreamLost(REMOVED) from None
            return b''

    def _note_end(self) -> None:
        self._has_ended = True
        self._input.is_closed = True

    def _hear(self, words: Sequence[str]) -> None:
        try:
            match words:
                case ['begin']:
                    pass
                case ['end']:
                    self._note_end()
                case [word, *values]:
                    name, _, what = word.partition('-')
                    topic = (
                        self._input if name == 'in' else self._streams[name]
                    )
                    topic.hear(what, values)
                case _:
                    raise ValueError
        except untrusted.IMPROPER:
            raise _improper() from None

    def _read_segment(
        self, stream: '_Stream', offset: int, limit: int
    ) -> bytes:
        # Twice: the guest may have removed a segment since its last news.
        for _ in range(2):
            try:
                data = stream.read(offset, limit)
            except exception.AgentRefused as error:
                if not _is_missing(error):
                    raise
                if not self._has_begun:
                    return b''
                self.follow()
                continue
            if data or not stream.ends_segment(offset):
                return data
            if not self.follow():
                return b''
        if not stream.has(offset):
            return b''
        raise exception.StreamLost(stream.failure or REMOVED)


class _File:
    """A file in the guest, which is opened again when its agent has died.

    :param mode: mode of fopen(3)
    """

    def __init__(self, agent: guest_agent.Agent, path: str, mode: str) -> None:
        self._agent = agent
        self._path = path
        self._mode = mode
        self._handle: int | None = None
        #: Where the agent is in the file; None if that is not known.
        self._position: int | None = None

    def read(self, offset: int, count: int) -> bytes:
        """Return the bytes at an offset, fewer where the file ends."""

        def read(handle: int) -> bytes:
            self._go_to(handle, offset)
            data = self._agent.file_read(handle, count)
            self._position = offset + len(data)
            return data

        return self._with_handle(read)

    def write(self, data: bytes, offset: int | None = None) -> None:
        """Write bytes and flush the file.

        :param offset: None for a FIFO
        """

        def write(handle: int) -> None:
            if offset is not None:
                self._go_to(handle, offset)
            for at in range(0, len(data), _PIECE):
                piece = data[at : at + _PIECE]
                if self._agent.file_write(handle, piece) != len(piece):
                    raise exception.AgentError(
                        'The guest agent did not write what it was to write'
                    )
            self._agent.file_flush(handle)
            if offset is not None:
                self._position = offset + len(data)

        self._with_handle(write)

    def close(self) -> None:
        handle, self._handle, self._position = self._handle, None, None
        if handle is not None:
            # Lost with its agent, or its answer: there is no more to do.
            with contextlib.suppress(exception.GuestError):
                self._agent.file_close(handle)

    def _go_to(self, handle: int, offset: int) -> None:
        position, self._position = self._position, None
        if position != offset:
            self._agent.file_seek(handle, offset, 'set')

    def _with_handle(self, call: Callable[[int], _Result]) -> _Result:
        for _ in range(_MAX_OPENS):
            if self._handle is None:
                self._handle = self._agent.file_open(self._path, self._mode)
                self._position = 0
            try:
                return call(self._handle)
            except exception.AgentCommandDisabled:
                raise
            except exception.AgentRefused as error:
                if 'has not been found' not in str(error):
                    # What the agent still holds of it must not follow later.
                    self.close()
                    raise
                self._handle = self._position = None
        raise exception.AgentError(
            'The guest agent is restarted again and again', may_have_run=True
        )


class _Stream:
    """A stream that the guest writes, in segments.

    :ivar end: bytes of the whole stream, None while that is not known
    :ivar failure: why the guest lost some of it
    :param path: common beginning of its files' paths
    """

    def __init__(self, agent: guest_agent.Agent, path: str) -> None:
        self._agent = agent
        self._path = path
        self._credit = _File(agent, f'{path}.credit', 'r+')
        self._file: _File | None = None
        self._file_number = -1
        #: Number and offset of the last two segments.
        self._segments: list[tuple[int, int]] = [(0, 0)]
        self._acknowledged = 0
        #: Number of segments that the guest was told to be taken.
        self._credited = 0
        self._is_dropped = False
        self.end: int | None = None
        self.failure: str | None = None

    @property
    def is_drained(self) -> bool:
        return self.end is not None and self._acknowledged >= self.end

    def files(self) -> Sequence[_File]:
        return (self._credit, *([self._file] if self._file else []))

    def hear(self, what: str, values: Sequence[str]) -> None:
        """Note what the guest said of the stream."""
        match what, *map(untrusted.natural, values):
            case ['', int(number), int(offset)]:
                self._note_segment(number, offset)
            case ['end', int(offset)]:
                self._note_end(offset)
            case ['failed']:
                self.failure = FULL
            case _:
                raise ValueError

    def _note_segment(self, number: int, offset: int) -> None:
        last, base = self._segments[-1]
        if number != last + 1 or not base < offset <= base + SEGMENT:
            raise ValueError
        self._segments = [(last, base), (number, offset)]

    def _note_end(self, offset: int) -> None:
        _, base = self._segments[-1]
        if not base <= offset <= base + SEGMENT:
            raise ValueError
        self.end = offset

    def has(self, offset: int) -> bool:
        """Tell whether there may be bytes behind an offset."""
        return self.end is None or offset < self.end

    def is_known(self, offset: int) -> bool:
        """Tell whether the guest said that bytes follow an offset."""
        return offset < max(self.end or 0, self._segments[-1][1])

    def ends_segment(self, offset: int) -> bool:
        """Tell whether the last segment cannot have bytes at an offset."""
        return self.end is None and offset >= self._segments[-1][1] + SEGMENT

    def read(self, offset: int, limit: int) -> bytes:
        if self.end is not None and offset >= self.end:
            return b''
        if offset < self._segments[0][1]:
            raise exception.OutputGone()
        number, base, until = self._segment_at(offset)
        limit = min(limit, until - offset)
        if limit <= 0:
            return b''
        return self._segment_file(number).read(offset - base, limit)

    def acknowledge(self, offset: int) -> None:
        taken = max(
            (number for number, base in self._segments if base <= offset),
            default=0,
        )
        if taken > self._credited and self.end is None:
            self._credit.write(b'\ntaken %d .\n' % taken)
            self._credited = taken
        self._acknowledged = max(self._acknowledged, offset)

    def drop(self) -> None:
        if not self._is_dropped and self.end is None:
            try:
                self._credit.write(b'\ndrop - .\n')
            except exception.AgentRefused as error:
                if not _is_missing(error):
                    raise
        self._is_dropped = True

    def _segment_at(self, offset: int) -> tuple[int, int, int]:
        """Return number, beginning and end of a segment."""
        number, base = next(
            segment
            for segment in reversed(self._segments)
            if segment[1] <= offset
        )
        ends = [base for _, base in self._segments[1:] if base > offset]
        return number, base, ends[0] if ends else base + SEGMENT

    def _segment_file(self, number: int) -> _File:
        if self._file is None or self._file_number != number:
            if self._file is not None:
                self._file.close()
            self._file = _File(self._agent, f'{self._path}.{number}', 'r')
            self._file_number = number
        return self._file


class _Input:
    """What the command is to read.

    :ivar taken: bytes that the command's stdin has taken
    :ivar is_closed: whether it takes no more
    :ivar failure: why the guest could not feed it
    """

    def __init__(self, agent: guest_agent.Agent, path: str) -> None:
        self._bell = _File(agent, f'{path}.bell', 'r+')
        self._ring = _File(agent, f'{path}.ring', 'r+')
        self.taken = 0
        self.is_closed = False
        self.failure: str | None = None
        self._sent = 0
        #: Ends of the lines that were sent and not taken yet.
        self._lines: list[int] = []
        #: Whether what comes next may be behind what another process sent.
        self._is_new = True
        self._is_end_sent = False
        self._gap: int | None = None

    def files(self) -> Sequence[_File]:
        return self._bell, self._ring

    def hear(self, what: str, values: Sequence[str]) -> None:
        """Note what the guest said of the input."""
        match what, *map(untrusted.natural, values):
            case ['', int(offset)]:
                self._note_taken(offset)
            case ['gap', int(offset)]:
                self._note_gap(offset)
            case ['closed']:
                self.is_closed = True
            case ['failed']:
                self.failure = INPUT_CUT
            case _:
                raise ValueError

    def _note_taken(self, offset: int) -> None:
        if offset < self.taken:
            raise ValueError
        self.taken = offset
        self._sent = max(self._sent, offset)
        self._lines = [end for end in self._lines if end > offset]

    def _note_gap(self, offset: int) -> None:
        # The line that came too early may have been another process's.
        if offset == self.taken and self._sent > offset:
            self._gap = self._sent = offset
            self._lines = []

    def is_busy(self, size: int) -> bool:
        """Tell whether only the news tell what the window has room for."""
        return (
            len(self._lines) >= _MAX_LINES
            or self._gap is not None
            or self._sent + size > self.taken + RING
        )

    def write(self, offset: int, data: bytes, *, end: bool) -> int:
        if self.failure is not None:
            raise exception.StreamLost(self.failure)
        until = offset + len(data)
        if self.is_closed:
            return until
        gap, self._gap = self._gap, None
        # What another process sent is in the guest, though not taken yet.
        may_follow = self._is_new and offset <= self.taken + RING
        if (
            gap is not None
            and offset > gap
            or (offset > self._sent and not may_follow)
        ):
            raise exception.InputGap(self._sent)
        start = max(offset, self._sent)
        with self._unless_full():
            self._send(start, data[start - offset :])
        if end and max(start, self._sent) >= until and not self._is_end_sent:
            with self._unless_full():
                self._say('end', until, until, '-')
                self._is_end_sent = True
            if not self._is_end_sent:
                raise exception.AgentBusy(
                    'The command does not read its input at present'
                )
        return min(max(self._sent, offset), until)

    @contextlib.contextmanager
    def _unless_full(self) -> Iterator[None]:
        """Leave unsent what the FIFO has no room for.

        Earlier processes may have filled it with what was not taken yet.
        """
        try:
            yield
        except exception.AgentRefused as error:
            if 'temporarily unavailable' not in str(error):
                raise

    def _has_room(self) -> bool:
        return len(self._lines) < _MAX_LINES

    def _send(self, start: int, data: bytes) -> None:
        text = _encoded(data) if len(data) <= _LINE else ''
        if data and self._has_room() and 0 < len(text) <= _LINE:
            self._say('text', start, start + len(data), text)
            return
        until = min(start + len(data), self.taken + RING)
        while start < until and self._has_room():
            place = start % RING
            piece = data[: min(until - start, RING - place, MAX_INPUT)]
            self._ring.write(piece, place)
            self._say('ring', start, start + len(piece), '-')
            start += len(piece)
            data = data[len(piece) :]

    def _say(self, word: str, start: int, end: int, text: str) -> None:
        self._bell.write(f'\n{word} {start} {end} {text} .\n'.encode())
        self._sent, self._is_new = end, False
        self._lines.append(end)


def _encoded(data: bytes) -> str:
    """Return bytes in one word, in the format of ``printf %b``."""
    return ''.join(
        chr(byte)
        if chr(byte).isascii() and chr(byte).isalnum()
        else f'\\0{byte:03o}'
        for byte in data
    )


@contextlib.contextmanager
def _told_as_lost() -> Iterator[None]:
    """Tell what is wrong with a file that is opened or written."""
    try:
        yield
    except exception.AgentRefused as error:
        if _is_missing(error):
            raise exception.StreamLost(REMOVED) from None
        if 'No space left' in str(error):
            raise exception.StreamLost(INPUT_FULL) from None
        raise


def _is_missing(error: exception.AgentRefused) -> bool:
    return 'No such file' in str(error)


def _improper() -> exception.AgentError:
    return exception.AgentError(
        'The guest said of the streams of the command what makes no sense'
    )
