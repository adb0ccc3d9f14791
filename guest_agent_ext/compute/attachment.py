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

"""The mailbox between nova-api's calls for one attached command and its task.

A call waits in a thread of the RPC server while the lane makes the step that
answers it. What is known here may be lost at any moment: the guest keeps what
was not acknowledged, and the client knows what it has.
"""

from collections.abc import Callable
from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
import threading
from typing import Any
from typing import TypeVar

from guest_agent_ext import backoff
from guest_agent_ext import clock as system_clock
from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import attached

_Answer = TypeVar('_Answer')
_Refusal = tuple[exception.StreamRefusalKind, str]

#: Seconds for which a client that is silent stays the one that is attached.
LEASE = 30.0
#: Seconds that a call waits for the lane beyond what it asks for.
ANSWER_WAIT = 5.0
#: Maximum number of calls that wait for one command at once.
MAX_CALLS = 16
#: Seconds until the streams are looked at again, by the time since something
#: went through them.
GAPS = backoff.Proportional(shortest=0.02, longest=2.0, share=0.1)
#: Seconds until the guest's news are read again beside output that does not
#: come, by the same: they take a call of their own.
NEWS_GAPS = backoff.Proportional(shortest=0.0, longest=4.0, share=0.2)
#: Seconds until the guest is told the end of the input again.
END_GAP = 1.0

_TAKEN: _Refusal = (
    'taken',
    'Another client is attached to the command; say take_over=true to take '
    'its place',
)
#: For whoever waits where the command is no longer this host's.
LATER: _Refusal = ('later', 'The guest does not answer now; try again')
_MANY: _Refusal = ('later', 'Too many requests for the command wait')
_ENDED: _Refusal = ('ended', 'The command has ended')

_NOTHING = attached.Output(b'', 0, is_complete=False)


@dataclasses.dataclass(eq=False)
class Read:
    """A client's wish for output.

    :ivar until: time at which nothing is an answer as well
    :ivar is_tried: whether the guest was asked, and had none
    """

    stream: str
    offset: int
    limit: int
    until: float
    is_tried: bool = False
    answer: 'futures.Future[attached.Output]' = dataclasses.field(
        default_factory=futures.Future
    )

    def give_up(self) -> None:
        """Answer that there is nothing yet."""
        _set(self.answer, dataclasses.replace(_NOTHING, offset=self.offset))


@dataclasses.dataclass(eq=False)
class Write:
    """A client's input.

    :ivar until: time at which a full window is an answer as well
    :ivar accepted: offset of what is to be sent next
    :ivar is_tried: whether the guest was asked, and did not take all
    """

    offset: int
    data: bytes = dataclasses.field(repr=False)
    end: bool
    until: float
    is_tried: bool = False
    accepted: int = 0
    answer: 'futures.Future[rpcapi.Accepted]' = dataclasses.field(
        default_factory=futures.Future
    )

    def __post_init__(self) -> None:
        self.accepted = self.offset

    def give_up(self) -> None:
        """Answer what was accepted."""
        _set(self.answer, rpcapi.Accepted(self.accepted, is_closed=False))


class Attachment:
    """The calls for one attached command.

    Threads of the RPC server call read(), write() and admit(); the others are
    the task's, in the lane's thread. What both sides write is guarded by a
    lock.

    :param clock: clock that waits are measured with
    :param rouse: function that makes the task's next step due
    :ivar streams: command's streams in the guest
    :ivar is_lost: whether the guest has lost some of the streams
    """

    def __init__(
        self,
        clock: system_clock.Clock,
        streams: attached.Attached,
        rouse: Callable[[], None],
    ) -> None:
        self.streams = streams
        self._clock = clock
        self._rouse = rouse
        self._lock = threading.Lock()
        self._client: str | None = None
        self._lease_until = float('-inf')
        self._heard_at = clock.now()
        self._calls: list[Read | Write] = []
        self._has_new_calls = False
        self._is_closed = False
        # The rest is the lane's thread's.
        self._is_known = False
        #: Offset at which each stream had no more when last read, and when
        #: that was.
        self._dry: dict[str, tuple[int, float]] = {}
        self.is_lost = False
        self._is_dropped = False
        self._is_end_expected = False
        self._end_told_at = float('-inf')
        self._active_at = clock.now()
        self._followed_at = float('-inf')

    # Threads of the RPC server.

    def admit(self, client: str, *, take_over: bool) -> None:
        """Note that a client is there.

        :param client: name that the client has given itself
        :param take_over: whether to take the place of another
        :raises exception.StreamRefused: another client is attached
        """
        with self._lock:
            now = self._clock.now()
            if client != self._client:
                if now < self._lease_until and not take_over:
                    raise exception.StreamRefused(*_TAKEN)
                self._refuse(_TAKEN)
                self._client = client
            self._lease_until = now + LEASE
            self._heard_at = now

    def read(
        self, stream: str, offset: int, limit: int, wait: float
    ) -> attached.Output:
        """Return output, and let the guest forget what is before it.

        :param stream: ``out`` or ``err``
        :param offset: number of bytes of the stream before those
        :param limit: maximum number of bytes
        :param wait: seconds to wait if there is none yet
        :returns: output; complete only if the offset is the stream's end
        :raises exception.StreamRefused: there is none, or not now
        """
        call = Read(
            stream,
            offset,
            limit,
            self._clock.now() + wait,
            is_tried=self._is_just_tried(stream, offset),
        )
        return self._asked(call, call.answer, wait)

    def _is_just_tried(self, stream: str, offset: int) -> bool:
        """Tell whether there was nothing a moment ago.

        Then it is looked for when the time comes, not at once.
        """
        known = self._dry.get(stream)
        return (
            known is not None
            and known[0] == offset
            and self._clock.now() < known[1] + self.gap
        )

    def write(
        self, offset: int, data: bytes, *, end: bool, wait: float
    ) -> rpcapi.Accepted:
        """Hand input to the command.

        :param offset: number of bytes of input before data
        :param end: whether the input ends behind data
        :param wait: seconds to wait if the window is full
        :raises exception.StreamRefused: input before the offset is missing,
            or it cannot be taken, or not now
        """
        call = Write(offset, data, end, self._clock.now() + wait)
        return self._asked(call, call.answer, wait)

    def _asked(
        self, call: Read | Write, answer: futures.Future[_Answer], wait: float
    ) -> _Answer:
        with self._lock:
            if self._is_closed:
                raise exception.StreamRefused(*_ENDED)
            if len(self._calls) >= MAX_CALLS:
                raise exception.StreamRefused(*_MANY)
            self._calls.append(call)
            is_urgent = not call.is_tried
            self._has_new_calls = self._has_new_calls or is_urgent
        if is_urgent:
            self._rouse()
        try:
            with contextlib.suppress(futures.TimeoutError):
                return answer.result(wait)
            if call.is_tried:
                call.give_up()
            return answer.result(ANSWER_WAIT)
        except futures.TimeoutError:
            raise exception.StreamRefused(*LATER) from None
        finally:
            with self._lock:
                if call in self._calls:
                    self._calls.remove(call)

    # The task.

    @property
    def is_asked(self) -> bool:
        """Whether calls have come since the last serve()."""
        return self._has_new_calls

    @property
    def silence(self) -> float:
        """Seconds since a client was there last, or since the beginning."""
        return self._clock.now() - self._heard_at

    @property
    def gap(self) -> float:
        """Seconds until the streams are to be looked at again.

        A call of nova-api's may come between.
        """
        return GAPS.gap(self.quiet)

    @property
    def quiet(self) -> float:
        """Seconds since something went through the streams."""
        return self._clock.now() - self._active_at

    @property
    def is_dry(self) -> bool:
        """Whether all was read that the command has written so far."""
        return self._is_dropped or self._dry.keys() == set(self.streams.names)

    @property
    def is_drained(self) -> bool:
        """Whether no reader is to be waited for any more."""
        return self._is_dropped or self.is_lost or self.streams.is_drained

    def drop_output(self) -> None:
        """Have the guest drop what nobody reads."""
        self.streams.drop_output()
        self._is_dropped = True

    def expect_end(self) -> None:
        """Note that the command has ended.

        :raises exception.GuestError: the guest did not answer
        """
        if not self._is_end_expected:
            self.streams.expect_end()
            # Whoever reads before the last news is told that some is lost.
            self._follow()
            self._is_end_expected = True

    def serve(self) -> None:
        """Do for the waiting calls what can be done now.

        :raises exception.GuestError: the guest did not answer; whoever waits
            is told so
        """
        with self._lock:
            calls = [call for call in self._calls if not call.answer.done()]
            self._has_new_calls = False
        try:
            if not self._is_known:
                self._follow()
                self._is_known = self.streams.has_begun
            progress = [self._serve_one(call) for call in calls]
            # Only the news tell of a new segment, and of a window that is
            # open again.
            if not progress or (
                not all(progress) and self._are_news_due(calls)
            ):
                self._follow()
        except exception.GuestError:
            self.refuse(LATER)
            raise

    def _are_news_due(self, calls: Sequence[Read | Write]) -> bool:
        return any(
            isinstance(call, Write) for call in calls
        ) or self._clock.now() >= self._followed_at + NEWS_GAPS.gap(self.quiet)

    def _follow(self) -> None:
        self._followed_at = self._clock.now()
        try:
            if self.streams.follow():
                self._active_at = self._clock.now()
        except exception.StreamLost as error:
            self._lose(error)

    def _serve_one(self, call: Read | Write) -> bool:
        """Serve a call, and tell whether it is answered by something."""
        try:
            has_progress = (
                self._serve_read(call)
                if isinstance(call, Read)
                else self._serve_write(call)
            )
        except exception.OutputGone as error:
            _fail(call, 'gone', str(error))
            return True
        except exception.InputGap as error:
            _fail(call, 'gap', str(error))
            return True
        except exception.StreamLost as error:
            self._lose(error)
            return True
        if has_progress:
            self._active_at = self._clock.now()
        if not call.answer.done():
            call.is_tried = True
            if self._clock.now() >= call.until:
                call.give_up()
        return has_progress

    def _serve_read(self, call: Read) -> bool:
        if call.stream not in self.streams.names:
            # A terminal has one stream.
            return _set(call.answer, attached.Output(b'', call.offset, True))
        if not self.streams.has_begun:
            return False
        output = self.streams.read(call.stream, call.offset, call.limit)
        self.streams.acknowledge(call.stream, call.offset)
        if output.data:
            self._dry.pop(call.stream, None)
            # That it has come, only the next request tells.
            output = dataclasses.replace(output, is_complete=False)
        else:
            self._dry[call.stream] = call.offset, self._clock.now()
        if not output.data and not output.is_complete:
            return False
        return _set(call.answer, output)

    def _serve_write(self, call: Write) -> bool:
        until = call.offset + len(call.data)
        before = call.accepted
        now = self._clock.now()
        tells_end = call.end and now >= self._end_told_at + END_GAP
        if call.accepted < until or tells_end:
            call.accepted = self.streams.write(
                call.accepted,
                call.data[call.accepted - call.offset :],
                end=tells_end,
            )
            if tells_end and call.accepted >= until:
                self._end_told_at = now
        is_closed = self.streams.is_input_closed
        is_taken = call.accepted >= until
        if is_closed or (is_taken and not call.end):
            return _set(call.answer, rpcapi.Accepted(call.accepted, is_closed))
        return call.accepted > before

    def refuse(self, refusal: _Refusal) -> None:
        """Refuse what is waited for.

        :param refusal: kind and reason
        """
        with self._lock:
            self._refuse(refusal)

    def close(self) -> None:
        """Refuse what comes from now on: the command has ended here."""
        with self._lock:
            self._is_closed = True
            self._refuse(_ENDED)

    def _lose(self, error: exception.StreamLost) -> None:
        self.is_lost = True
        # What was dropped is missed by nobody: the command is being killed.
        self.refuse(LATER if self._is_dropped else ('gone', str(error)))

    def _refuse(self, refusal: _Refusal) -> None:
        for call in self._calls:
            _fail(call, *refusal)


def _set(answer: futures.Future[_Answer], value: _Answer) -> bool:
    # Who waits for it may be refused at this moment, by another thread.
    with contextlib.suppress(futures.InvalidStateError):
        answer.set_result(value)
    return True


def _fail(
    call: Read | Write, kind: exception.StreamRefusalKind, message: str
) -> None:
    answer: futures.Future[Any] = call.answer
    with contextlib.suppress(futures.InvalidStateError):
        answer.set_exception(exception.StreamRefused(kind, message))
