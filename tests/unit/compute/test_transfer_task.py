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


from collections.abc import Callable
from concurrent import futures
import contextlib
import hashlib
import time
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import lane as compute_lane
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import transfer_calls
from guest_agent_ext.compute import transfer_task
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.guest import files
from guest_agent_ext.guest.launchers import base as launcher
from tests.unit import clock as unit_clock
from tests.unit import sessions

CHUNK = rpcapi.READ_CHUNK
PROBE = launcher.Probe(boot_id='boot', uptime=1000, ids=())
TARGET = files.Target(
    path='/f', temporary='/.ga-command', inode='7', mode=None
)
#: Of a host that has no other transfer_task.
PACE = pace.Pace(lambda: 1, unit_clock.FakeClock())
HUNG = exception.AgentUnresponsive()
GONE = exception.DomainNotRunning('shutoff')


def claim(kind: str, **order: Any) -> conductor_rpcapi.Claim:
    file: Any = {
        'path': '/f',
        'mode': None,
        'append': False,
        'owner': None,
        'group': None,
        'opened': None,
    }
    return {
        'uuid': 'command',
        'type': kind,
        'exec': None,
        'file': dict(file, **order),
        'timeout': 60,
        'boot_id': 'boot',
        'ticket': 7000,
        'started_uptime': None,
    }


class Agent:
    """Plays an agent that has one file open, and its errors."""

    def __init__(self, content: bytes = b'') -> None:
        self.content = bytearray(content)
        self.position = 0
        self.is_open = False
        self.calls: list[str] = []
        #: What the next calls fail with, by name.
        self.errors: dict[str, exception.GuestError] = {}

    def file_open(self, path: str, mode: str) -> int:
        self._meet('open')
        self.is_open = True
        return 3

    def file_seek(self, handle: int, offset: int, whence: str) -> int:
        self._meet('seek')
        self.position = offset + (len(self.content) if whence == 'end' else 0)
        return self.position

    def file_read(self, handle: int, count: int) -> bytes:
        self._meet('read')
        data = bytes(self.content[self.position : self.position + count])
        self.position += len(data)
        return data

    def file_write(self, handle: int, data: bytes) -> int:
        self._meet('write')
        self.content.extend(bytes(max(0, self.position - len(self.content))))
        self.content[self.position : self.position + len(data)] = data
        self.position += len(data)
        return len(data)

    def file_flush(self, handle: int) -> None:
        self._meet('flush')

    def file_close(self, handle: int) -> None:
        self._meet('close')
        if not self.is_open:
            raise exception.AgentRefused()
        self.is_open = False

    def _meet(self, name: str) -> None:
        self.calls.append(name)
        if name in self.errors:
            raise self.errors.pop(name)


class Session(sessions.FakeSession):
    """Plays guest and conductor.

    :ivar guest_files: files of the guest
    """

    def __init__(self, order: conductor_rpcapi.Claim, agent: Agent) -> None:
        super().__init__(order)
        self.agent: Any = agent
        self.guest_files = mock.Mock()
        self.guest_files.create.return_value = TARGET
        self.guest_files.start_commit.return_value = 9
        self.guest_files.poll_commit.return_value = True
        self.guest_files.discard.return_value = False
        self.probe = self.recent_probe = mock.Mock(return_value=PROBE)

    def files(self) -> Any:
        return self.guest_files


def reading(content: bytes) -> tuple[transfer_task.TransferTask, Session]:
    session = Session(claim(command.FILE_READ), Agent(content))
    return transfer_task.TransferTask(session, 'command', PACE), session


def writing(
    content: bytes = b'', **order: Any
) -> tuple[transfer_task.TransferTask, Session]:
    session = Session(claim(command.FILE_WRITE, **order), Agent(content))
    return transfer_task.TransferTask(session, 'command', PACE), session


def step(item: transfer_task.TransferTask) -> None:
    """Make a step when it is due."""
    clock = item._clock
    clock.time = max(item.due, clock.time + 0.001)
    with contextlib.suppress(exception.GuestError):
        item.step()


def served(item: transfer_task.TransferTask, call: Callable[[], Any]) -> Any:
    """Wait for something in a thread, and make the steps meanwhile."""
    with futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call)
        while not answer.done():
            # What waits for nova-api is not made before its lease ends.
            if item.is_done or item.due > item._clock.now() + 10:
                time.sleep(0.001)
            else:
                step(item)
        return answer.result()


def run(item: transfer_task.TransferTask) -> None:
    """Make steps until it is done."""
    for _ in range(100):
        if item.is_done:
            return
        step(item)
        item._clock.advance(1)
    raise AssertionError('It does not end')


def refusal(
    item: transfer_task.TransferTask, call: Callable[[], Any]
) -> rpcapi.Refusal:
    with pytest.raises(exception.TransferRefused) as caught:
        served(item, call)
    return rpcapi.refusal_of(caught.value)


def open_(item: transfer_task.TransferTask) -> rpcapi.OpenedFile:
    opened: rpcapi.OpenedFile = served(item, item.calls.open)
    return opened


def test_large_file_is_read_by_chunks_in_any_order() -> None:
    content = bytes(range(256)) * (CHUNK // 128)
    item, session = reading(content)
    assert open_(item).size == len(content)
    session.guest_files.check_readable.assert_called_once_with('/f')
    second = served(item, lambda: item.calls.read(CHUNK, CHUNK))
    assert served(item, lambda: item.calls.read(0, CHUNK)) + second == content
    assert served(item, lambda: item.calls.commit(len(content), ''))
    assert session.end['status'] == command.COMPLETED
    assert not session.agent.is_open


@pytest.mark.parametrize('size', [0, 1, CHUNK])
def test_small_file_comes_with_its_opening(size: int) -> None:
    item, session = reading(b'x' * size)
    opened = open_(item)
    assert opened.size == size
    assert opened.data is not None
    assert session.end['status'] == command.COMPLETED
    assert not session.agent.is_open


def test_what_cannot_be_sought_in_is_read_to_its_end() -> None:
    """As in /proc."""
    item, session = reading(b'made up')
    session.agent.errors['seek'] = exception.AgentRefused()
    assert open_(item).size == 7


def test_what_has_no_size_and_is_large_is_refused() -> None:
    item, session = reading(b'x' * (CHUNK + 1))
    with mock.patch.object(
        transfer_task, '_size_of', autospec=True, return_value=0
    ):
        assert refusal(item, item.calls.open)['kind'] == 'unsuitable'
    run(item)
    assert session.end['status'] == command.FAILED
    assert not session.agent.is_open


def test_file_that_becomes_shorter_is_refused() -> None:
    item, session = reading(b'x' * (2 * CHUNK))
    open_(item)
    del session.agent.content[CHUNK + 1 :]
    assert (
        refusal(item, lambda: item.calls.read(CHUNK, CHUNK))['kind']
        == 'refused'
    )
    run(item)
    assert session.end['status'] == command.FAILED
    assert not session.agent.is_open


def test_file_is_written_verified_and_put_in_its_place() -> None:
    item, session = writing(mode='0640', owner='www-data')
    open_(item)
    session.guest_files.create.assert_called_once_with(
        '/f',
        'command',
        mode='0640',
        append=False,
        owner='www-data',
        group=None,
    )
    served(item, lambda: item.calls.write(3, b'def'))
    served(item, lambda: item.calls.write(0, b'abc'))
    digest = hashlib.sha256(b'abcdef').hexdigest()
    session.guest_files.poll_commit.side_effect = [False, False, True]
    assert served(item, lambda: item.calls.commit(6, digest))
    assert session.agent.content == b'abcdef'
    session.guest_files.start_commit.assert_called_once_with(TARGET, 6, digest)
    assert session.end['status'] == command.COMPLETED
    # Flushed and closed before it was verified.
    assert session.agent.calls[-2:] == ['flush', 'close']


def test_append_writes_behind_what_is_there() -> None:
    item, session = writing(b'old', append=True)
    open_(item)
    served(item, lambda: item.calls.write(0, b'new'))
    served(item, lambda: item.calls.commit(3, 'hash'))
    assert session.agent.content == b'oldnew'
    # The hash is of what was sent, not of the file.
    session.guest_files.start_commit.assert_called_once_with(TARGET, 6, '')


def test_unanswered_write_is_made_again_in_its_place() -> None:
    item, session = writing()
    open_(item)
    session.agent.errors['write'] = HUNG
    assert refusal(item, lambda: item.calls.write(0, b'ab'))['kind'] == 'later'
    # The agent may have had it, and then stands behind it.
    session.agent.position = 2
    served(item, lambda: item.calls.write(0, b'ab'))
    assert session.agent.content == b'ab'


def test_chunk_waits_while_the_server_is_migrated() -> None:
    item, session = reading(b'x' * (2 * CHUNK))
    open_(item)
    with mock.patch.object(
        session.agent,
        'file_read',
        autospec=True,
        side_effect=exception.DomainMigrating(),
    ):
        refused = refusal(item, lambda: item.calls.read(0, CHUNK))
    assert refused['kind'] == 'later'
    assert 'migrated' in refused['message']
    assert served(item, lambda: item.calls.read(0, CHUNK)) == b'x' * CHUNK


def test_none_begins_while_the_server_is_migrated() -> None:
    item, session = reading(b'abc')
    session.probe.side_effect = exception.DomainMigrating()
    assert refusal(item, item.calls.open)['kind'] == 'later'
    assert item.is_done
    session.conductor.claim.assert_not_called()
    assert not session.agent.calls


def test_guest_that_is_not_well_refuses_only_who_wants_to_begin() -> None:
    item, _ = reading(b'abc')
    item.meet_failure(exception.DomainMigrating())
    assert item.is_done
    with pytest.raises(exception.TransferRefused, match='migrated'):
        item.calls.open()
    item, _ = reading(b'x' * (2 * CHUNK))
    open_(item)
    item.meet_failure(exception.DomainMigrating())
    assert not item.is_done


def test_request_that_is_not_waited_for_is_not_made() -> None:
    item, session = writing()
    open_(item)
    with (
        mock.patch.object(transfer_calls, 'ANSWER_WAIT', 0.01),
        pytest.raises(exception.TransferRefused) as caught,
    ):
        item.calls.write(0, b'late')
    assert caught.value.kind == 'later'
    item.step()
    assert 'write' not in session.agent.calls


def test_request_after_the_failure_is_answered_at_once() -> None:
    """And not when the guest is rid of what it has, or the wait is over."""
    item, session = writing()
    open_(item)
    session.guest_files.discard.side_effect = HUNG
    session.agent.errors['write'] = exception.AgentRefused('No space left')
    refusal(item, lambda: item.calls.write(0, b'ab'))
    with pytest.raises(exception.TransferRefused, match='No space left'):
        item.calls.write(2, b'cd')
    assert not item.is_done


def test_read_after_the_end_is_answered_at_once() -> None:
    item, session = reading(b'x' * (CHUNK + 1))
    open_(item)
    served(item, lambda: item.calls.commit(CHUNK + 1, ''))
    with pytest.raises(exception.TransferRefused) as caught:
        item.calls.read(0, 1)
    assert caught.value.kind == 'ended'


def test_refused_write_ends_it_and_discards_what_there_is() -> None:
    item, session = writing()
    open_(item)
    session.agent.errors['write'] = exception.AgentRefused('No space left')
    refused = refusal(item, lambda: item.calls.write(0, b'ab'))
    assert refused == {'kind': 'refused', 'message': 'No space left'}
    run(item)
    assert session.end == {'status': command.FAILED, 'error': 'No space left'}
    assert not session.agent.is_open
    session.guest_files.discard.assert_called_once_with(TARGET)
    assert refusal(item, lambda: item.calls.commit(2, ''))['message'] == (
        'No space left'
    )


def test_what_cannot_be_flushed_is_not_written() -> None:
    item, session = writing()
    open_(item)
    session.agent.errors['flush'] = exception.AgentRefused('No space left')
    assert refusal(item, lambda: item.calls.commit(0, ''))['kind'] == 'refused'
    assert session.end['status'] == command.FAILED
    assert not session.agent.is_open
    session.guest_files.start_commit.assert_not_called()


def test_lost_answer_to_the_closing_is_no_failure() -> None:
    item, session = writing()
    open_(item)
    real = session.agent.file_close

    def lose(handle: int) -> None:
        session.agent.file_close = real
        real(handle)
        raise HUNG

    session.agent.file_close = lose
    assert served(item, lambda: item.calls.commit(0, ''))
    assert session.end['status'] == command.COMPLETED


def test_commit_is_sent_again_when_the_agent_forgot_it() -> None:
    item, session = writing()
    open_(item)
    session.guest_files.poll_commit.side_effect = [
        exception.AgentRefused(),
        True,
    ]
    assert served(item, lambda: item.calls.commit(0, ''))
    assert session.guest_files.start_commit.call_count == 2


def test_guest_has_the_last_word_on_what_was_written() -> None:
    """A failure of the commit is none if the file came to its place."""
    item, session = writing()
    open_(item)
    session.guest_files.poll_commit.side_effect = exception.AgentRefused()
    session.guest_files.discard.return_value = True
    assert served(item, lambda: item.calls.commit(0, ''))
    assert session.end['status'] == command.COMPLETED


def test_verification_that_fails_is_told() -> None:
    item, session = writing()
    open_(item)
    session.guest_files.poll_commit.side_effect = exception.FileRefused('hash')
    assert refusal(item, lambda: item.calls.commit(0, '')) == {
        'kind': 'refused',
        'message': 'hash',
    }
    assert session.end['status'] == command.FAILED


def test_commit_answers_the_same_again() -> None:
    item, session = writing()
    open_(item)
    served(item, lambda: item.calls.commit(0, ''))
    assert item.calls.commit(0, '')
    session.guest_files.start_commit.assert_called_once()


def test_lease_ends() -> None:
    item, session = writing()
    open_(item)
    item.calls.lease_until = item.due = session.clock.now()
    run(item)
    assert session.end == {
        'status': command.FAILED,
        'error': transfer_task.NOT_CONTINUED,
    }
    assert not session.agent.is_open
    session.guest_files.discard.assert_called_once_with(TARGET)


def test_cancelled() -> None:
    item, session = writing()
    open_(item)
    item.cancel()
    run(item)
    assert session.end['status'] == command.CANCELLED
    assert refusal(item, lambda: item.calls.write(0, b'x'))['kind'] == 'ended'


def test_aborted() -> None:
    item, session = writing()
    open_(item)
    item.calls.abort('The client went away')
    run(item)
    assert session.end == {
        'status': command.FAILED,
        'error': 'The client went away',
    }


def test_timed_out() -> None:
    item, session = writing()
    session.conductor.claim.return_value['timeout'] = 0
    with contextlib.suppress(exception.TransferRefused):
        served(item, item.calls.open)
    run(item)
    assert session.end['status'] == command.TIMED_OUT


@pytest.mark.parametrize(
    ('error', 'kind'),
    [
        (exception.FileMissing('m'), 'missing'),
        (exception.FileUnsuitable('m'), 'unsuitable'),
        (exception.FileRefused('m'), 'refused'),
        (exception.LauncherUnavailable('m'), 'refused'),
        (HUNG, 'refused'),
    ],
)
def test_why_a_file_cannot_be_opened(
    error: exception.GuestError, kind: str
) -> None:
    item, session = reading(b'')
    session.guest_files.check_readable.side_effect = error
    assert refusal(item, item.calls.open) == {
        'kind': kind,
        'message': str(error),
    }
    run(item)
    assert session.end == {'status': command.FAILED, 'error': str(error)}


def test_guest_that_does_not_answer_is_not_given_the_command() -> None:
    item, session = reading(b'')
    session.probe.side_effect = HUNG
    assert refusal(item, item.calls.open)['kind'] == 'refused'
    assert item.is_done
    session.conductor.claim.assert_not_called()
    session.conductor.finish.assert_not_called()


def test_command_that_is_not_to_be_had_is_left_alone() -> None:
    item, session = writing()
    session.conductor.claim.return_value = None
    assert refusal(item, item.calls.open)['kind'] == 'ended'
    assert item.is_done
    session.guest_files.create.assert_not_called()


def test_what_is_open_is_noted_for_who_comes_next() -> None:
    item, session = writing()
    open_(item)
    noted = session.conductor.started.call_args.args[-1]
    assert noted == {'handle': 3, 'target': TARGET.to_dict()}


@pytest.mark.parametrize('boot_id', ['boot', 'another'])
def test_adopted_transfer_is_closed_and_discarded(boot_id: str) -> None:
    session = Session(
        claim(
            command.FILE_WRITE,
            opened={'handle': 3, 'target': TARGET.to_dict()},
        ),
        Agent(),
    )
    session.agent.is_open = True
    session.probe.return_value = launcher.Probe(boot_id, 1000, ())
    work: Any = {
        'uuid': 'command',
        'attempt': 'previous',
        'cancel_requested': False,
    }
    item = transfer_task.TransferTask.adopted(session, work)
    run(item)
    # After a reboot the number is another file's.
    assert session.agent.is_open == (boot_id == 'another')
    session.guest_files.discard.assert_called_once_with(TARGET)
    assert session.end == {
        'status': command.FAILED,
        'error': transfer_task.INTERRUPTED,
    }


@pytest.mark.parametrize(
    ('kind', 'forgets'),
    [(command.FILE_WRITE, True), (command.FILE_READ, False)],
)
def test_adopted_transfer_whose_start_was_not_recorded(
    kind: str, forgets: bool
) -> None:
    """Who began it was killed between the guest's answer and the record."""
    session = Session(claim(kind, opened=None), Agent())
    work: Any = {
        'uuid': 'command',
        'attempt': 'previous',
        'cancel_requested': False,
    }
    run(transfer_task.TransferTask.adopted(session, work))
    assert session.end['status'] == command.FAILED
    assert session.guest_files.forget.called == forgets


def test_adopted_transfer_may_have_been_completed() -> None:
    session = Session(
        claim(
            command.FILE_WRITE,
            opened={'handle': 3, 'target': TARGET.to_dict()},
        ),
        Agent(),
    )
    session.guest_files.discard.return_value = True
    work: Any = {
        'uuid': 'command',
        'attempt': 'previous',
        'cancel_requested': False,
    }
    run(transfer_task.TransferTask.adopted(session, work))
    assert session.end['status'] == command.COMPLETED


def test_server_that_stops_before_the_commit_has_nothing_written() -> None:
    item, session = writing()
    open_(item)
    item.meet_absence('paused')
    assert item.needs_guest is False and not item.is_done
    item.meet_absence('shutoff')
    run(item)
    assert session.end['status'] == command.FAILED
    session.guest_files.discard.assert_not_called()


def test_server_that_may_have_moved_is_left_to_its_new_host() -> None:
    item, session = writing()
    open_(item)
    session.guest_files.discard.side_effect = exception.DomainNotFound()
    item.meet_absence('absent')
    with pytest.raises(exception.TransferRefused) as caught:
        item.calls.write(0, b'')
    assert caught.value.kind == 'ended'
    step(item)
    item.meet_absence('absent')
    session.conductor.finish.assert_not_called()


def test_server_that_is_nowhere_has_its_transfer_ended() -> None:
    item, session = writing()
    open_(item)
    session.guest_files.discard.side_effect = exception.DomainNotFound()
    item.meet_absence('absent')
    run(item)
    assert session.end['status'] == command.FAILED


def test_server_that_stops_during_the_commit_may_have_it_written() -> None:
    item, session = writing()
    open_(item)
    session.guest_files.poll_commit.side_effect = GONE
    with (
        futures.ThreadPoolExecutor(1) as pool,
        mock.patch.object(transfer_calls, 'ANSWER_WAIT', 5),
    ):
        answer = pool.submit(item.calls.commit, 0, '')
        while not session.guest_files.poll_commit.called:
            step(item)
        item.meet_absence('shutoff')
        run(item)
        with pytest.raises(exception.TransferRefused):
            answer.result()
    assert session.end == {
        'status': command.LOST,
        'error': transfer_task.UNKNOWN,
    }


def test_guest_that_hangs_holds_up_no_end() -> None:
    item, session = writing()
    open_(item)
    item.calls.abort('The client went away')
    session.guest_files.discard.side_effect = HUNG
    # The session does not ask the guest first whether it is well.
    assert not item.needs_guest
    run(item)
    assert session.end['status'] == command.FAILED


def test_ended_without_its_host_is_discarded() -> None:
    item, session = writing()
    open_(item)
    item.abandon()
    run(item)
    session.conductor.finish.assert_not_called()
    session.guest_files.discard.assert_called_once_with(TARGET)
    assert not session.agent.is_open


def test_ended_without_its_host_is_not_told_as_done() -> None:
    """Its row says something else, though the file is at its destination."""
    item, session = writing()
    open_(item)
    session.guest_files.discard.return_value = True
    item.abandon()
    run(item)
    session.conductor.finish.assert_not_called()
    assert item.calls.refusal == {
        'kind': 'ended',
        'message': 'The command has ended',
    }


def test_report_that_comes_beside_the_end_refuses_nothing() -> None:
    """The row has ended because the host said so a moment ago."""
    item, session = reading(b'small')

    def finish(*args: object) -> str:
        item.abandon()
        return command.OK

    session.conductor.finish.side_effect = finish
    opened = open_(item)
    assert opened.data == b'small'
    run(item)
    assert item.calls.refusal is None


@pytest.mark.parametrize('strays', [(), ('a', 'b')])
def test_what_failed_transfers_left_is_removed(
    strays: tuple[str, ...],
) -> None:
    item, session = writing()
    target = session.guest_files.create.return_value = files.Target(
        path='/f',
        temporary='/.ga-command',
        inode='7',
        mode=None,
        strays=strays,
    )
    session.conductor.ended.return_value = ['b']
    open_(item)
    if strays:
        session.conductor.ended.assert_called_once_with(
            session.service, strays
        )
        session.guest_files.remove_strays.assert_called_once_with(
            target, ['b']
        )
    else:
        session.conductor.ended.assert_not_called()


def test_what_is_not_opened_in_time_is_done() -> None:
    """Once it took a slot of its host until the service was restarted."""
    item, session = reading(b'abc')
    lane = compute_lane.Lane(session, mock.Mock(), lambda lane: True)
    lane.begin(item)
    item.postpone(1000)
    session.clock.advance(transfer_calls.OPEN_WAIT + 1)
    assert lane._wait_for_task() is None
    assert lane.is_empty and item.is_done
    assert refusal(item, item.calls.open)['kind'] == 'later'
    session.conductor.claim.assert_not_called()
