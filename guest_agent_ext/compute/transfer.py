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


"""One file on its way into a guest or out of it, as nova-api drives it.

The row of its command is claimed as any other. nova-api waits for each of its
requests; their steps take their turn in the guest's lane.

    opened -> claim -> open -> serve -> close -> commit -> finish
                        |        |        |         |         |
             adopted ---+--------+--------+-> discard --------+

A failure and every other end goes by way of ``discard``, where the guest tells
whether a written file had already come to its place.
"""

import base64
import collections
from collections.abc import Callable
from concurrent import futures
import contextlib
import dataclasses
import threading
import time

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import task
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import files
from guest_agent_ext.guest import handle

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds that nova-api waits for a file to be opened, and for an answer to
#: any other request: less than its calls wait, so that it hears why.
OPEN_WAIT = rpcapi.OPEN_TIMEOUT - 5.0
ANSWER_WAIT = rpcapi.TIMEOUT - 5.0
#: Seconds between two looks at whether the guest has put a file in its place:
#: at first, at most, and by what they grow.
MIN_GAP, MAX_GAP, GROWTH = 0.02, 1.0, 1.5
#: How often a guest is asked to put a file in its place when its agent has
#: forgotten of it.
COMMITS = 3

CANCELLED = 'It was cancelled during the transfer'
TIMED_OUT = 'Its timeout of %d seconds passed'
NOT_CONTINUED = 'nova-api did not go on with the transfer'
INTERRUPTED = (
    'The guest agent service of the host was restarted, or the '
    'server was moved, during the transfer'
)
UNKNOWN = (
    'The guest did not answer when the file was put in its place: it '
    'may have been written'
)
SHORTER = 'The file has become shorter while it was read'
NOT_TO_BE_HAD = 'The command was cancelled, or its server was moved'
NOT_IN_TIME = 'The server is busy with other commands; try again later'

#: A large call that a migration cuts in two leaves the agent out of reach
#: until libvirtd is started anew there: none is made meanwhile.
_MIGRATING: rpcapi.Refusal = {
    'kind': 'later',
    'message': 'The server is being migrated; try again later',
}

_ENDED: rpcapi.Refusal = {'kind': 'ended', 'message': 'The transfer has ended'}

#: What cannot become better by asking again.
_FINAL = (
    exception.AgentRefused,
    exception.FileError,
    exception.LauncherUnavailable,
    exception.AgentNotConfigured,
)
_KINDS: tuple[tuple[type[exception.GuestError], rpcapi.RefusalKind], ...] = (
    (exception.FileMissing, 'missing'),
    (exception.FileUnsuitable, 'unsuitable'),
)


def refusal_of(error: exception.GuestError) -> rpcapi.Refusal:
    """Return what nova-api is told of an error."""
    for known, kind in _KINDS:
        if isinstance(error, known):
            return {'kind': kind, 'message': str(error)}
    return {'kind': 'refused', 'message': str(error)}


@dataclasses.dataclass(frozen=True)
class _Request:
    """Something that nova-api waits for.

    :ivar make: makes the answer; takes a call or two of the agent
    """

    make: Callable[[], bytes]
    answer: 'futures.Future[bytes]' = dataclasses.field(
        default_factory=futures.Future
    )


class Refused(Exception):
    """A request is refused.

    :ivar refusal: why
    """

    def __init__(self, refusal: rpcapi.Refusal) -> None:
        super().__init__(refusal['message'])
        self.refusal = refusal


class Transfer(task.Task):
    """One file on its way.

    Its public methods beside those of a task are for the threads of the RPC
    server, which wait in them; the steps are made by the lane.

    :param lane: of the server
    :param uuid: of the command
    :param pace: of the host's transfers
    """

    def __init__(self, lane: task.Lane, uuid: str, pace: pace.Pace) -> None:
        super().__init__(lane, uuid)
        self._pace = pace
        self._start_by = self.due + OPEN_WAIT
        self._not_before = self.due
        self._claim: conductor_rpcapi.Claim | None = None
        self._previous: str | None = None
        self._began_at: float | None = None
        #: When it ends if nova-api asks for nothing more of it.
        self.lease_until = _grace_from_now()
        self._opened: futures.Future[rpcapi.Opened] = futures.Future()
        self._requests: collections.deque[_Request] = collections.deque()
        self._ended = threading.Event()
        self._cancelled = False
        self._aborted: str | None = None
        #: What the guest has open.
        self._handle: handle.Handle | None = None
        self._target: files.Target | None = None
        #: Where in the file the transfer begins: its end, if it is appended.
        self._base = 0
        self._size = 0
        #: All of a small file.
        self._data: bytes | None = None
        #: Size and SHA-256 that are asked to be committed.
        self._to_commit: tuple[int, str] | None = None
        self._pid: int | None = None
        self._commits = 0
        self._gap = MIN_GAP
        #: When the guest is no longer asked to be rid of it: the next write to
        #: the same directory removes what is left there.
        self._discard_by = float('inf')
        self._end: conductor_rpcapi.End = {}
        self._refusal: rpcapi.Refusal | None = None
        self._next = self._take

    @classmethod
    def adopted(
        cls, lane: task.Lane, work: conductor_rpcapi.Work
    ) -> 'Transfer':
        """Return a transfer that another service began: it is to be ended."""
        item = cls(lane, work['uuid'], pace.Pace(lambda: 0))
        item._previous = work['attempt']
        item._cancelled = work['cancel_requested']
        item._next = item._adopt
        return item

    # What nova-api asks for, each in a thread of its own.

    def open(self) -> rpcapi.Opened:
        """Wait until the file is open.

        :raises Refused: it cannot be, or not in time
        """
        try:
            return self._opened.result(OPEN_WAIT)
        except futures.TimeoutError:
            self.abort(NOT_IN_TIME)
            raise Refused({'kind': 'later', 'message': NOT_IN_TIME}) from None

    def read(self, offset: int, size: int) -> bytes:
        """Return a piece of the file.

        :raises Refused: it cannot be read, or not now
        """
        return self._ask(lambda: self._read(offset, size))

    def write(self, offset: int, data: bytes) -> None:
        """Write a piece of the file.

        :raises Refused: it cannot be written, or not now
        """
        self._ask(lambda: self._write(offset, data))

    def commit(self, size: int, sha256: str) -> bool:
        """Complete the transfer, and wait for that a while.

        :returns: whether it is completed
        :raises Refused: it has ended otherwise
        """
        self._to_commit = (size, sha256)
        self._rouse()
        if not self._ended.wait(ANSWER_WAIT):
            return False
        self._raise_refusal()
        return True

    def abort(self, error: str) -> None:
        """Have it end as FAILED."""
        self._aborted = self._aborted or error
        self._rouse()

    def _ask(self, make: Callable[[], bytes]) -> bytes:
        request = _Request(make)
        self._requests.append(request)
        # Only now: whoever ends the transfer refuses what was queued before.
        if self._end or self._ended.is_set():
            self._refuse_requests(self._refusal or _ENDED)
        self._rouse()
        try:
            return request.answer.result(ANSWER_WAIT)
        except futures.TimeoutError:
            # Its step is not made any more, unless it is under way.
            request.answer.cancel()
            raise Refused(
                {'kind': 'later', 'message': 'The guest agent does not answer'}
            ) from None

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise Refused(self._refusal)

    def _rouse(self) -> None:
        self.lease_until = _grace_from_now()
        self.due = max(time.monotonic(), self._not_before)
        self._lane.wake()

    # What a lane asks of a task.

    @property
    def needs_guest(self) -> bool:
        # To end it, nobody waits for the guest to be well.
        if (
            self._next
            in (self._adopt, self._note_opened, self._discard, self._finish)
            or self._is_to_end()
        ):
            return False
        return self._next != self._serve or self._is_asked()

    @property
    def is_expired(self) -> bool:
        return self._next == self._take and time.monotonic() > self._start_by

    def step(self) -> None:
        if self._is_to_end():
            self._end_early()
        super().step()
        # Not to be overlooked: what was asked for during the step.
        if self._next == self._serve and (
            self._is_asked() or self._to_commit or self._is_to_end()
        ):
            self.due = self._not_before

    def postpone(self, seconds: float) -> None:
        super().postpone(seconds)
        self._not_before = self.due

    def cancel(self) -> None:
        self._cancelled = True
        self.due = time.monotonic()
        self._lane.wake()

    def abandon(self) -> None:
        self.is_held = False
        self.is_abandoned = True
        self._settle({'kind': 'ended', 'message': 'The command has ended'})
        self._discard_by = _grace_from_now()
        self._next = self._discard
        self.due = time.monotonic()

    def drop(self) -> None:
        super().drop()
        self._settle({'kind': 'ended', 'message': INTERRUPTED})

    def refuse(self, error: str) -> None:
        if self.is_done:
            return
        if self._next == self._discard:
            self._end_unsure()
        elif self._next != self._finish:
            self._fail(command.FAILED, {'kind': 'refused', 'message': error})

    def meet_absence(self, state: str) -> None:
        if state == 'paused' or self._next in (self._finish, self._adopt):
            return
        if not self._end:
            self._fail(
                command.FAILED,
                {
                    'kind': 'ended',
                    'message': f'The server is not running ({state})',
                },
            )
            self.due = time.monotonic()
        if state == connection.ABSENT:
            # It may run on another host, which is about to be told, and can
            # still have it rid of this.
            return
        self._end_unsure()
        self.due = time.monotonic()

    def _is_to_end(self) -> bool:
        """Tell whether somebody wants it ended that has not been yet."""
        if self._end or self._claim is None:
            return False
        return (
            self._cancelled
            or self._aborted is not None
            or self._age() > self._claim['timeout']
        )

    def _is_asked(self) -> bool:
        return any(
            not request.answer.cancelled() for request in tuple(self._requests)
        )

    def _age(self) -> float:
        if self._began_at is None:
            return 0.0
        return time.monotonic() - self._began_at

    # The steps, in the order in which a transfer meets them.

    def _take(self) -> float:
        if self._aborted is not None:
            return self._stop()
        try:
            if self._lane.is_migrating():
                self._settle(_MIGRATING)
                return self._stop()
            claim = self._claim_within(self._start_by, self._lane.probe())
        except exception.GuestError as error:
            self._settle(refusal_of(error))
            self.is_done = True
            raise
        if claim is None:
            self._settle({'kind': 'ended', 'message': NOT_TO_BE_HAD})
            return self._stop()
        self._hold(claim)
        return self._go(self._open)

    def _hold(self, claim: conductor_rpcapi.Claim) -> None:
        self._claim = claim
        self.is_held = True
        self._began_at = time.monotonic()

    def _open(self) -> float:
        order = self._file_order()
        try:
            if self._is_read():
                self._open_to_read(order['path'])
            else:
                self._open_to_write(order)
        except exception.GuestError as error:
            # Not again: what became of it is not known.
            delay = self._fail(command.FAILED, refusal_of(error))
            if not isinstance(error, _FINAL):
                self._answer_all(refusal_of(error))
                raise
            return delay
        if self._data is not None:
            return self._go(self._close)
        return self._go(self._note_opened)

    def _open_to_read(self, path: str) -> None:
        self._lane.files().look(path)
        opened = self._handle = handle.Handle(
            self._lane.agent, self._lane.agent.file_open(path, 'r')
        )
        self._size = _size_of(opened)
        if self._size > rpcapi.READ_CHUNK:
            return
        # What the guest makes up as it is read has no size before.
        data = opened.read(0, rpcapi.READ_CHUNK + 1)
        if len(data) <= rpcapi.READ_CHUNK:
            self._data, self._size = data, len(data)
            return
        self._size = _size_of(opened)
        if self._size < len(data):
            raise exception.FileUnsuitable(
                'The file has no size, and more than %d bytes'
                % rpcapi.READ_CHUNK
            )

    def _open_to_write(self, order: conductor_rpcapi.FileOrder) -> None:
        target = self._target = self._lane.files().create(
            order['path'],
            self.uuid,
            mode=order['mode'],
            append=order['append'],
        )
        opened = self._handle = handle.Handle(
            self._lane.agent,
            self._lane.agent.file_open(target.temporary or target.path, 'r+'),
        )
        if order['append']:
            self._base = opened.size()
        self._remove_strays(target)

    def _remove_strays(self, target: files.Target) -> None:
        """Have the guest rid of what failed transfers have left there."""
        if not target.strays:
            return
        try:
            ended = self._lane.conductor.ended(
                self._lane.service, target.strays
            )
        except oslo_messaging.MessagingException as error:
            LOG.info('Files of failed transfers are left for later: %s', error)
            return
        self._lane.files().remove_strays(target, ended)

    def _note_opened(self) -> float:
        """Record what is open: who goes on with it must be able to close it."""
        assert self._handle is not None
        outcome = self._lane.conductor.started(
            self._lane.service,
            self.uuid,
            self.attempt,
            None,
            None,
            0.0,
            {
                'handle': self._handle.number,
                'target': self._target and self._target.to_dict(),
            },
        )
        if outcome != command.OK:
            self.abandon()
            return 0.0
        self._opened.set_result(
            {'refusal': None, 'size': self._size, 'data': None}
        )
        return self._go(self._serve)

    def _serve(self) -> float:
        """Answer a request, or find out that no more will come."""
        request = self._next_request()
        if request is not None:
            return self._answer(request)
        if self._to_commit is not None:
            return self._go(self._close)
        left = self.lease_until - time.monotonic()
        if left <= 0:
            return self._fail(
                command.FAILED, {'kind': 'ended', 'message': NOT_CONTINUED}
            )
        return left

    def _next_request(self) -> _Request | None:
        # Threads of the RPC server take from the queue too, to refuse.
        with contextlib.suppress(IndexError):
            while True:
                request = self._requests.popleft()
                if request.answer.set_running_or_notify_cancel():
                    return request
        return None

    def _answer(self, request: _Request) -> float:
        began = time.monotonic()
        try:
            if self._lane.is_migrating():
                request.answer.set_exception(Refused(_MIGRATING))
                return 0.0
            request.answer.set_result(request.make())
            self._not_before = self._pace.after(time.monotonic() - began)
        except exception.GuestError as error:
            refusal = refusal_of(error)
            if isinstance(error, _FINAL):
                request.answer.set_exception(Refused(refusal))
                return self._fail(command.FAILED, refusal)
            request.answer.set_exception(
                Refused({'kind': 'later', 'message': str(error)})
            )
            raise
        return 0.0

    def _read(self, offset: int, size: int) -> bytes:
        assert self._handle is not None
        data = self._handle.read(offset, size)
        if len(data) < size:
            raise exception.FileRefused(SHORTER)
        return data

    def _write(self, offset: int, data: bytes) -> bytes:
        assert self._handle is not None
        self._handle.write(self._base + offset, data)
        return b''

    def _close(self) -> float:
        assert self._handle is not None
        try:
            self._handle.close()
        except exception.AgentRefused as error:
            return self._fail(command.FAILED, refusal_of(error))
        self._handle = None
        if self._is_read():
            return self._end_as(command.COMPLETED)
        return self._go(self._commit)

    def _commit(self) -> float:
        """Have the guest put the file in its place."""
        assert self._target is not None and self._to_commit is not None
        self._commits += 1
        size, sha256 = self._to_commit
        if self._file_order()['append']:
            size, sha256 = self._base + size, ''
        try:
            self._pid = self._lane.files().start_commit(
                self._target, size, sha256
            )
        except exception.AgentRefused as error:
            return self._fail(command.FAILED, refusal_of(error))
        return self._go(self._look, MIN_GAP)

    def _look(self) -> float:
        """Ask whether it has."""
        assert self._target is not None and self._pid is not None
        try:
            if self._lane.files().poll_commit(self._target, self._pid):
                return self._end_as(command.COMPLETED)
        except exception.FileError as error:
            return self._fail(command.FAILED, refusal_of(error))
        except exception.AgentRefused as error:
            # The agent was restarted, or an answer was lost. To be asked
            # twice does the guest no harm.
            if self._commits >= COMMITS:
                return self._fail(command.FAILED, refusal_of(error))
            return self._go(self._commit)
        self._gap = min(self._gap * GROWTH, MAX_GAP)
        return self._gap

    def _adopt(self) -> float:
        """Take over what another service began, to end it."""
        assert self._previous is not None
        claim = self._lane.conductor.adopt(
            self._lane.service, self.uuid, self.attempt, self._previous
        )
        if claim is None:
            return self._stop()
        self._hold(claim)
        opened = self._file_order()['opened'] or {}
        if 'handle' in opened:
            self._handle = handle.Handle(self._lane.agent, opened['handle'])
        if opened.get('target'):
            self._target = files.Target.from_dict(opened['target'])
            # It may have been about to be put in its place.
            self._commits = 1
        return self._fail(
            command.CANCELLED if self._cancelled else command.FAILED,
            {'kind': 'ended', 'message': INTERRUPTED},
        )

    def _discard(self) -> float:
        """Have the guest rid of it, unless the file is in its place."""
        try:
            is_written = self._clear()
        except _FINAL:
            return self._end_unsure()
        except exception.GuestError:
            if time.monotonic() < self._discard_by:
                raise
            return self._end_unsure()
        if is_written:
            return self._end_as(command.COMPLETED)
        return self._go(self._finish)

    def _clear(self) -> bool:
        """Close and remove what is open, and tell whether it is written."""
        if self._handle is not None:
            # Handles are numbered anew after a reboot.
            if (
                self._previous is None
                or self._lane.probe().boot_id == self._boot_id()
            ):
                self._handle.discard()
            self._handle = None
        return self._target is not None and self._lane.files().discard(
            self._target
        )

    def _finish(self) -> float:
        if self.is_abandoned:
            return self._stop()
        outcome = self._lane.conductor.finish(
            self._lane.service, self.uuid, self.attempt, self._end
        )
        if outcome == command.OK and self._end['status'] == command.COMPLETED:
            self._settle(None)
        else:
            self._settle(
                self._refusal
                or {
                    'kind': 'ended',
                    'message': 'The command has ended otherwise',
                }
            )
        return self._stop()

    # What the steps share.

    def _end_early(self) -> None:
        assert self._claim is not None
        if self._cancelled:
            status, error = command.CANCELLED, CANCELLED
        elif self._aborted is not None:
            status, error = command.FAILED, self._aborted
        else:
            status = command.TIMED_OUT
            error = TIMED_OUT % self._claim['timeout']
        self._fail(status, {'kind': 'ended', 'message': error})

    def _fail(self, status: str, refusal: rpcapi.Refusal) -> float:
        """End it, by way of the guest, which has something of it.

        Who waits for it to be opened, or completed, is answered when its end
        is recorded.
        """
        self._refusal = refusal
        self._end = {'status': status, 'error': refusal['message']}
        self._refuse_requests(refusal)
        self._discard_by = _grace_from_now()
        return self._go(self._discard)

    def _end_as(self, status: str) -> float:
        self._refusal = None
        self._end = {'status': status, 'age': self._age()}
        return self._go(self._finish)

    def _end_unsure(self) -> float:
        """End it without the guest, which has not told what became of it."""
        if self._commits:
            self._end = {'status': command.LOST, 'error': UNKNOWN}
        return self._go(self._finish)

    def _settle(self, refusal: rpcapi.Refusal | None) -> None:
        """Tell whoever waits that it has ended."""
        self._refusal = self._refusal or refusal
        if refusal is not None:
            self._answer_all(refusal)
        elif self._data is not None:
            self._opened.set_result(
                {
                    'refusal': None,
                    'size': self._size,
                    'data': base64.b64encode(self._data).decode(),
                }
            )
        self._ended.set()

    def _answer_all(self, refusal: rpcapi.Refusal) -> None:
        # The lane and who drops it may both want to tell.
        with contextlib.suppress(futures.InvalidStateError):
            self._opened.set_exception(Refused(refusal))
        self._refuse_requests(refusal)

    def _refuse_requests(self, refusal: rpcapi.Refusal) -> None:
        while (request := self._next_request()) is not None:
            request.answer.set_exception(Refused(refusal))

    def _is_read(self) -> bool:
        return self._held_claim()['type'] == command.FILE_READ

    def _file_order(self) -> conductor_rpcapi.FileOrder:
        order = self._held_claim()['file']
        assert order is not None
        return order

    def _boot_id(self) -> str:
        return self._held_claim()['boot_id']

    def _held_claim(self) -> conductor_rpcapi.Claim:
        assert self._claim is not None
        return self._claim


def _grace_from_now() -> float:
    """Return when the grace of a transfer is over, on the monotonic clock."""
    return time.monotonic() + float(CONF.guest_agent.transfer_grace)


def _size_of(opened: handle.Handle) -> int:
    try:
        return opened.size()
    except exception.AgentRefused:
        # What the guest makes up as it is read may not be sought in.
        return 0
