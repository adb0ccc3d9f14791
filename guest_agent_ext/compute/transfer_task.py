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

"""The task that moves a file into a guest or out of it.

The row of the command is claimed as any other. nova-api asks for each chunk,
and the answers are steps of the guest's lane like those of other tasks.

    opened -> claim -> open -> serve -> close -> commit -> finish
                        |        |        |         |         |
             adopted ---+--------+--------+-> discard --------+

A failure and every other end goes by way of ``discard``, where the guest tells
whether a written file is at its destination already.
"""

from collections.abc import Sequence

from oslo_log import log as logging

from guest_agent_ext import backoff
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer_calls
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import files
from guest_agent_ext.guest import open_file

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds until a guest is asked again whether the file is at its destination.
COMMIT_GAPS = backoff.Exponential(first=0.02, longest=1.0, factor=1.5)
#: Maximum number of times that a guest is asked to commit a file, where its
#: agent has forgotten the time before.
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

_ABANDONED: rpcapi.Refusal = {
    'kind': 'ended',
    'message': 'The command has ended',
}

#: Errors that do not go away by asking again.
_FINAL = (
    exception.AgentRefused,
    exception.FileError,
    exception.LauncherUnavailable,
    exception.AgentNotConfigured,
)
_KINDS: Sequence[tuple[type[exception.GuestError], exception.RefusalKind]] = (
    (exception.FileMissing, 'missing'),
    (exception.FileUnsuitable, 'unsuitable'),
    # A large call that a migration cuts in two leaves the agent out of reach
    # until libvirtd is started anew there: none is made meanwhile.
    (exception.DomainMigrating, 'later'),
)


def _refusal_of(error: exception.GuestError) -> rpcapi.Refusal:
    """Return what nova-api is told of a guest's error.

    :param error: error of the guest
    """
    for known, kind in _KINDS:
        if isinstance(error, known):
            return {'kind': kind, 'message': str(error)}
    return {'kind': 'refused', 'message': str(error)}


class TransferTask(task.Task):
    """One command that reads or writes a file.

    :param session: guest of the command's server
    :param uuid: command's uuid
    :param pace: pace of the host's transfers
    :param previous: attempt of a service before this one, whose transfer is to
        be ended; None for a transfer that begins
    :ivar calls: mailbox of nova-api's calls
    """

    def __init__(
        self,
        session: compute_session.Session,
        uuid: str,
        pace: pace.Pace,
        previous: str | None = None,
    ) -> None:
        super().__init__(session, uuid, transfer_calls.OPEN_WAIT, previous)
        self.calls = transfer_calls.TransferCalls(self._clock, self._rouse)
        self._pace = pace
        #: Time of the next step at the earliest, whoever asks for it.
        self._not_before = self.due
        #: Whether who began it may have opened more than it recorded.
        self._is_unrecorded = False
        self._began_at: float | None = None
        #: File that the guest has open.
        self._handle: open_file.OpenFile | None = None
        self._target: files.Target | None = None
        #: Bytes of the file before the transfer's: its size, if something is
        #: appended.
        self._base = 0
        self._size = 0
        #: Content of a small file.
        self._data: bytes | None = None
        self._pid: int | None = None
        self._commits = 0
        self._polls = 0
        #: Time from which on the guest is no longer asked to discard: the next
        #: write to the same directory removes what is left there.
        self._discard_by = float('inf')
        self._end: conductor_rpcapi.End = {}
        self._next = self._take if previous is None else self._adopt

    @classmethod
    def adopted(
        cls, session: compute_session.Session, work: conductor_rpcapi.Work
    ) -> 'TransferTask':
        """Return the task that ends a transfer of another service.

        :param session: guest of the command's server
        :param work: command, as the conductor handed it out
        """
        item = cls(
            session,
            work['uuid'],
            pace.Pace(lambda: 0, session.clock),
            work['attempt'],
        )
        item._cancelled = work['cancel_requested']
        return item

    @property
    def needs_guest(self) -> bool:
        # An end is not kept waiting until the guest is well.
        if self._is_to_end():
            return False
        if self._next.stage is task.Stage.SERVING:
            return self.calls.is_asked
        return self._next.needs_guest

    def step(self) -> None:
        if self._is_to_end():
            self._end_early()
        super().step()
        # What was asked for during the step is not to be overlooked.
        if self._next.stage is task.Stage.SERVING and (
            self.calls.is_asked or self.calls.to_commit or self._is_to_end()
        ):
            self.due = self._not_before

    def postpone(self, seconds: float) -> None:
        super().postpone(seconds)
        self._not_before = self.due

    def cancel(self) -> None:
        self._cancelled = True
        self.due = self._clock.now()

    def abandon(self) -> None:
        self._discard_by = self._grace_from_now()
        super().abandon()
        # While the end is being recorded, the answer to that decides.
        if self._next.stage is not task.Stage.ENDED:
            self._settle(_ABANDONED)

    def _abandoned_step(self) -> task.Step:
        return self._discard

    def drop(self) -> None:
        super().drop()
        self._settle({'kind': 'ended', 'message': INTERRUPTED})

    def expire(self) -> None:
        # Its slot is free only when the task is done.
        super().expire()
        self._settle({'kind': 'later', 'message': transfer_calls.NOT_IN_TIME})

    def refuse(self, error: str) -> None:
        if self.is_done or self._next.stage is task.Stage.ENDED:
            return
        if self._next.stage is task.Stage.DISCARDING:
            self._end_unsure()
        else:
            self._fail(command.FAILED, {'kind': 'refused', 'message': error})

    def meet_failure(self, error: exception.GuestError) -> None:
        # Who wants to begin is not kept waiting for a guest that is not well.
        if self._next.stage is task.Stage.UNCLAIMED:
            self._settle(_refusal_of(error))
            self.is_done = True

    def meet_absence(self, state: str) -> None:
        if state == 'paused' or self._next.stage in (
            task.Stage.INHERITED,
            task.Stage.ENDED,
        ):
            return
        if not self._end:
            self._fail(
                command.FAILED,
                {
                    'kind': 'ended',
                    'message': f'The server is not running ({state})',
                },
            )
            self.due = self._clock.now()
        if state == connection.ABSENT:
            # The server may run on another host, which is about to be told of
            # the command and can still discard.
            return
        self._end_unsure()
        self.due = self._clock.now()

    def _rouse(self) -> None:
        """Make the next step due; called by threads of the RPC server."""
        self.due = max(self._clock.now(), self._not_before)
        self._session.wake()

    def _is_to_end(self) -> bool:
        """Tell whether the transfer is to be ended before its time."""
        if self._end or self._claim is None:
            return False
        return (
            self._cancelled
            or self.calls.aborted is not None
            or self._age() > self._claim['timeout']
        )

    def _age(self) -> float:
        if self._began_at is None:
            return 0.0
        return self._clock.now() - self._began_at

    # The steps, in the order in which a transfer meets them.

    @task.step(task.Stage.UNCLAIMED)
    def _take(self) -> float:
        if self.calls.aborted is not None:
            return self._stop()
        try:
            claim = self._claim_now(self._session.probe())
        except exception.GuestError as error:
            self.meet_failure(error)
            raise
        if claim is None:
            self._settle({'kind': 'ended', 'message': NOT_TO_BE_HAD})
            return self._stop()
        self._hold(claim)
        return self._go(self._open)

    def _hold(self, claim: conductor_rpcapi.Claim) -> None:
        self._claim = claim
        self._began_at = self._clock.now()

    @task.step()
    def _open(self) -> float:
        order = self._file_order()
        try:
            if self._is_read():
                self._open_to_read(order['path'])
            else:
                self._open_to_write(order)
        except exception.GuestError as error:
            # Not again: what became of it is not known.
            delay = self._fail(command.FAILED, _refusal_of(error))
            if not isinstance(error, _FINAL):
                self.calls.refuse(_refusal_of(error))
                raise
            return delay
        if self._data is not None:
            return self._go(self._close)
        return self._go(self._note_opened)

    def _open_to_read(self, path: str) -> None:
        self._session.files().check_readable(path)
        opened = self._handle = open_file.OpenFile(
            self._session.agent, self._session.agent.file_open(path, 'r')
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
        target = self._target = self._session.files().create(
            order['path'],
            self.uuid,
            mode=order['mode'],
            append=order['append'],
            owner=order['owner'],
            group=order['group'],
        )
        opened = self._handle = open_file.OpenFile(
            self._session.agent,
            self._session.agent.file_open(
                target.temporary or target.path, 'r+'
            ),
        )
        if order['append']:
            self._base = opened.size()
        self._remove_strays(target)

    def _remove_strays(self, target: files.Target) -> None:
        """Remove the files of failed transfers that stand beside this one."""
        if not target.strays:
            return
        try:
            ended = self._session.conductor.ended(
                self._session.service, target.strays
            )
        except exception.ConductorUnreachable as error:
            LOG.info('Files of failed transfers are left for later: %s', error)
            return
        self._session.files().remove_strays(target, ended)

    @task.step(needs_guest=False)
    def _note_opened(self) -> float:
        """Record the open file, so that another service can close the file."""
        assert self._handle is not None
        outcome = self._session.conductor.started(
            self._session.service,
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
        self.calls.answer_open(rpcapi.OpenedFile(self._size, None))
        return self._go(self._serve)

    @task.step(task.Stage.SERVING)
    def _serve(self) -> float:
        """Answer a request, or notice that no more will come."""
        request = self.calls.next_request()
        if request is not None:
            return self._answer(request)
        if self.calls.to_commit is not None:
            return self._go(self._close)
        left = self.calls.lease_until - self._clock.now()
        if left <= 0:
            return self._fail(
                command.FAILED, {'kind': 'ended', 'message': NOT_CONTINUED}
            )
        return left

    def _answer(self, request: transfer_calls.Request) -> float:
        began = self._clock.now()
        try:
            request.answer.set_result(self._moved(request))
            self._not_before = self._pace.after(self._clock.now() - began)
        except exception.GuestError as error:
            refusal = _refusal_of(error)
            if isinstance(error, _FINAL):
                request.answer.set_exception(
                    exception.TransferRefused(**refusal)
                )
                return self._fail(command.FAILED, refusal)
            request.answer.set_exception(
                exception.TransferRefused('later', str(error))
            )
            raise
        return 0.0

    def _moved(self, request: transfer_calls.Request) -> bytes:
        """Write or read a chunk.

        :returns: bytes that were read
        """
        assert self._handle is not None
        if request.data is not None:
            self._handle.write(self._base + request.offset, request.data)
            return b''
        data = self._handle.read(request.offset, request.size)
        if len(data) < request.size:
            raise exception.FileRefused(SHORTER)
        return data

    @task.step()
    def _close(self) -> float:
        assert self._handle is not None
        try:
            self._handle.close()
        except exception.AgentRefused as error:
            return self._fail(command.FAILED, _refusal_of(error))
        self._handle = None
        if self._is_read():
            return self._end_as(command.COMPLETED)
        return self._go(self._commit)

    @task.step()
    def _commit(self) -> float:
        """Start the guest's verification and renaming of the file."""
        to_commit = self.calls.to_commit
        assert self._target is not None and to_commit is not None
        self._commits += 1
        size, sha256 = to_commit
        if self._file_order()['append']:
            size, sha256 = self._base + size, ''
        try:
            self._pid = self._session.files().start_commit(
                self._target, size, sha256
            )
        except exception.AgentRefused as error:
            return self._fail(command.FAILED, _refusal_of(error))
        return self._go(self._poll, COMMIT_GAPS.first)

    @task.step()
    def _poll(self) -> float:
        """Ask the guest whether the file is at its destination."""
        assert self._target is not None and self._pid is not None
        try:
            if self._session.files().poll_commit(self._target, self._pid):
                return self._end_as(command.COMPLETED)
        except exception.FileError as error:
            return self._fail(command.FAILED, _refusal_of(error))
        except exception.AgentRefused as error:
            # The agent was restarted, or an answer was lost. To be asked
            # twice does the guest no harm.
            if self._commits >= COMMITS:
                return self._fail(command.FAILED, _refusal_of(error))
            return self._go(self._commit)
        self._polls += 1
        return COMMIT_GAPS.gap(self._polls)

    @task.step(task.Stage.INHERITED, needs_guest=False)
    def _adopt(self) -> float:
        """Adopt and fail the transfer of another service."""
        claim = self._adopt_now()
        if claim is None:
            return self._stop()
        self._hold(claim)
        opened = self._file_order()['opened'] or {}
        self._is_unrecorded = not opened and not self._is_read()
        if 'handle' in opened:
            self._handle = open_file.OpenFile(
                self._session.agent, opened['handle']
            )
        if opened.get('target'):
            self._target = files.Target.from_dict(opened['target'])
            # The commit may have been under way.
            self._commits = 1
        return self._fail(
            command.CANCELLED if self._cancelled else command.FAILED,
            {'kind': 'ended', 'message': INTERRUPTED},
        )

    @task.step(task.Stage.DISCARDING, needs_guest=False)
    def _discard(self) -> float:
        """Remove what the guest has of a transfer that is not completed."""
        if self.is_abandoned:
            self._settle(_ABANDONED)
        try:
            is_written = self._clear()
        except _FINAL:
            return self._end_unsure()
        except exception.GuestError:
            if self._clock.now() < self._discard_by:
                raise
            return self._end_unsure()
        if is_written and not self.is_abandoned:
            return self._end_as(command.COMPLETED)
        return self._go(self._finish)

    def _clear(self) -> bool:
        """Close and remove what is open.

        :returns: whether the file is at its destination
        """
        if self._handle is not None:
            # Handles are numbered anew after a reboot.
            if (
                self._previous is None
                or self._session.probe().boot_id
                == self._held_claim()['boot_id']
            ):
                self._handle.discard()
            self._handle = None
        if self._is_unrecorded:
            self._session.files().forget(self._file_order()['path'], self.uuid)
        return self._target is not None and self._session.files().discard(
            self._target
        )

    @task.step(task.Stage.ENDED, needs_guest=False)
    def _finish(self) -> float:
        if self.is_abandoned:
            return self._stop()
        outcome = self._session.conductor.finish(
            self._session.service, self.uuid, self.attempt, self._end
        )
        if outcome == command.OK and self._end['status'] == command.COMPLETED:
            self._settle(None)
        else:
            self._settle(
                self.calls.refusal
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
        elif self.calls.aborted is not None:
            status, error = command.FAILED, self.calls.aborted
        else:
            status = command.TIMED_OUT
            error = TIMED_OUT % self._claim['timeout']
        self._fail(status, {'kind': 'ended', 'message': error})

    def _fail(self, status: str, refusal: rpcapi.Refusal) -> float:
        """End the transfer after the guest has discarded its part of the file.

        :param status: status of the command, unless the guest turns out to
            have completed it
        :param refusal: reason, as nova-api is told of it
        """
        self._end = {'status': status, 'error': refusal['message']}
        self.calls.close(refusal)
        self._discard_by = self._grace_from_now()
        return self._go(self._discard)

    def _end_as(self, status: str) -> float:
        self._end = {'status': status, 'age': self._age()}
        self.calls.close(None)
        return self._go(self._finish)

    def _end_unsure(self) -> float:
        """End the transfer without an answer from the guest."""
        if self._commits:
            self._end = {'status': command.LOST, 'error': UNKNOWN}
        return self._go(self._finish)

    def _settle(self, refusal: rpcapi.Refusal | None) -> None:
        """Tell nova-api of the end.

        :param refusal: reason, None for a transfer that is completed
        """
        if refusal is None and self._data is not None:
            self.calls.answer_open(rpcapi.OpenedFile(self._size, self._data))
        self.calls.end(refusal)

    def _grace_from_now(self) -> float:
        return self._clock.now() + float(CONF.guest_agent.transfer_grace)

    def _is_read(self) -> bool:
        return self._held_claim()['type'] == command.FILE_READ

    def _file_order(self) -> conductor_rpcapi.FileOrder:
        order = self._held_claim()['file']
        assert order is not None
        return order


def _size_of(opened: open_file.OpenFile) -> int:
    try:
        return opened.size()
    except exception.AgentRefused:
        # What the guest makes up as it is read may not be sought in.
        return 0
