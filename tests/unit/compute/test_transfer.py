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
from guest_agent_ext.compute import pace
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import transfer
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.guest import files
from guest_agent_ext.guest import launcher

CHUNK = rpcapi.READ_CHUNK
PROBE = launcher.Probe(boot_id='boot', uptime=1000, ids=())
TARGET = files.Target(
    path='/f', temporary='/.ga-command', inode='7', mode=None
)
#: Of a host that has no other transfer.
PACE = pace.Pace(lambda: 1)
HUNG = exception.AgentUnresponsive()
GONE = exception.DomainNotRunning('shutoff')


def claim(kind: str, **order: Any) -> conductor_rpcapi.Claim:
    file: Any = {'path': '/f', 'mode': None, 'append': False, 'opened': None}
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


class Lane:
    """Plays guest and conductor."""

    service: conductor_rpcapi.Service = {'host': 'here', 'incarnation': 1}

    def __init__(self, order: conductor_rpcapi.Claim, agent: Agent) -> None:
        self.agent: Any = agent
        self.conductor = mock.Mock()
        self.conductor.claim.return_value = order
        self.conductor.adopt.return_value = order
        for method in (self.conductor.started, self.conductor.finish):
            method.return_value = command.OK
        self.guest_files = mock.Mock()
        self.guest_files.create.return_value = TARGET
        self.guest_files.start_commit.return_value = 9
        self.guest_files.poll_commit.return_value = True
        self.guest_files.discard.return_value = False
        self.guest = self.acknowledge = self.clear = mock.Mock()
        self.probe = self.recent_probe = mock.Mock(return_value=PROBE)
        self.forget_probe = self.first_look = self.note_duration = mock.Mock()
        self.wake = mock.Mock()
        self.is_migrating = mock.Mock(return_value=False)

    def files(self) -> Any:
        return self.guest_files

    @property
    def end(self) -> conductor_rpcapi.End:
        """How the conductor was told that the transfer ended."""
        self.conductor.finish.assert_called_once()
        end: conductor_rpcapi.End = self.conductor.finish.call_args.args[3]
        return end


def reading(content: bytes) -> tuple[transfer.Transfer, Lane]:
    lane = Lane(claim(command.FILE_READ), Agent(content))
    return transfer.Transfer(lane, 'command', PACE), lane


def writing(
    content: bytes = b'', **order: Any
) -> tuple[transfer.Transfer, Lane]:
    lane = Lane(claim(command.FILE_WRITE, **order), Agent(content))
    return transfer.Transfer(lane, 'command', PACE), lane


def step(item: transfer.Transfer) -> None:
    """Make a step as the lane does, when it is due."""
    if item.is_done or item.due > time.monotonic():
        time.sleep(0.001)
        return
    with contextlib.suppress(exception.GuestError):
        item.step()


def served(item: transfer.Transfer, call: Callable[[], Any]) -> Any:
    """Wait for something in a thread, and make the steps meanwhile."""
    with futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call)
        while not answer.done():
            step(item)
        return answer.result()


def run(item: transfer.Transfer) -> None:
    """Make steps until it is done."""
    deadline = time.monotonic() + 10
    while not item.is_done:
        assert time.monotonic() < deadline, 'It does not end'
        step(item)


def refusal(
    item: transfer.Transfer, call: Callable[[], Any]
) -> rpcapi.Refusal:
    with pytest.raises(transfer.Refused) as caught:
        served(item, call)
    return caught.value.refusal


def short_grace() -> Any:
    """Have a guest be given little time to be rid of a transfer."""
    return mock.patch.object(
        transfer.CONF.guest_agent, 'transfer_grace', 0.05, create=True
    )


def open_(item: transfer.Transfer) -> rpcapi.Opened:
    opened: rpcapi.Opened = served(item, item.open)
    return opened


def test_large_file_is_read_by_chunks_in_any_order() -> None:
    content = bytes(range(256)) * (CHUNK // 128)
    item, lane = reading(content)
    assert open_(item)['size'] == len(content)
    lane.guest_files.look.assert_called_once_with('/f')
    second = served(item, lambda: item.read(CHUNK, CHUNK))
    assert served(item, lambda: item.read(0, CHUNK)) + second == content
    assert served(item, lambda: item.commit(len(content), ''))
    assert lane.end['status'] == command.COMPLETED
    assert not lane.agent.is_open


@pytest.mark.parametrize('size', [0, 1, CHUNK])
def test_small_file_comes_with_its_opening(size: int) -> None:
    item, lane = reading(b'x' * size)
    opened = open_(item)
    assert opened['size'] == size
    assert opened['data'] is not None
    assert lane.end['status'] == command.COMPLETED
    assert not lane.agent.is_open


def test_what_cannot_be_sought_in_is_read_to_its_end() -> None:
    """As in /proc."""
    item, lane = reading(b'made up')
    lane.agent.errors['seek'] = exception.AgentRefused()
    assert open_(item)['size'] == 7


def test_what_has_no_size_and_is_large_is_refused() -> None:
    item, lane = reading(b'x' * (CHUNK + 1))
    with mock.patch.object(
        transfer, '_size_of', autospec=True, return_value=0
    ):
        assert refusal(item, item.open)['kind'] == 'unsuitable'
    run(item)
    assert lane.end['status'] == command.FAILED
    assert not lane.agent.is_open


def test_file_that_becomes_shorter_is_refused() -> None:
    item, lane = reading(b'x' * (2 * CHUNK))
    open_(item)
    del lane.agent.content[CHUNK + 1 :]
    assert refusal(item, lambda: item.read(CHUNK, CHUNK))['kind'] == 'refused'
    run(item)
    assert lane.end['status'] == command.FAILED
    assert not lane.agent.is_open


def test_file_is_written_verified_and_put_in_its_place() -> None:
    item, lane = writing(mode='0640')
    open_(item)
    lane.guest_files.create.assert_called_once_with(
        '/f', 'command', mode='0640', append=False
    )
    served(item, lambda: item.write(3, b'def'))
    served(item, lambda: item.write(0, b'abc'))
    digest = hashlib.sha256(b'abcdef').hexdigest()
    lane.guest_files.poll_commit.side_effect = [False, False, True]
    assert served(item, lambda: item.commit(6, digest))
    assert lane.agent.content == b'abcdef'
    lane.guest_files.start_commit.assert_called_once_with(TARGET, 6, digest)
    assert lane.end['status'] == command.COMPLETED
    # Flushed and closed before it was verified.
    assert lane.agent.calls[-2:] == ['flush', 'close']


def test_append_writes_behind_what_is_there() -> None:
    item, lane = writing(b'old', append=True)
    open_(item)
    served(item, lambda: item.write(0, b'new'))
    served(item, lambda: item.commit(3, 'hash'))
    assert lane.agent.content == b'oldnew'
    # The hash is of what was sent, not of the file.
    lane.guest_files.start_commit.assert_called_once_with(TARGET, 6, '')


def test_unanswered_write_is_made_again_in_its_place() -> None:
    item, lane = writing()
    open_(item)
    lane.agent.errors['write'] = HUNG
    assert refusal(item, lambda: item.write(0, b'ab'))['kind'] == 'later'
    # The agent may have had it, and then stands behind it.
    lane.agent.position = 2
    served(item, lambda: item.write(0, b'ab'))
    assert lane.agent.content == b'ab'


def test_no_large_call_is_made_while_the_server_is_migrated() -> None:
    item, lane = reading(b'x' * (2 * CHUNK))
    open_(item)
    lane.agent.calls.clear()
    lane.is_migrating.return_value = True
    refused = refusal(item, lambda: item.read(0, CHUNK))
    assert refused['kind'] == 'later'
    assert 'migrated' in refused['message']
    assert not lane.agent.calls
    lane.is_migrating.return_value = False
    assert served(item, lambda: item.read(0, CHUNK)) == b'x' * CHUNK


def test_none_begins_while_the_server_is_migrated() -> None:
    item, lane = reading(b'abc')
    lane.is_migrating.return_value = True
    assert refusal(item, item.open)['kind'] == 'later'
    assert item.is_done
    lane.conductor.claim.assert_not_called()
    assert not lane.agent.calls


def test_request_that_is_not_waited_for_is_not_made() -> None:
    item, lane = writing()
    open_(item)
    with (
        mock.patch.object(transfer, 'ANSWER_WAIT', 0.01),
        pytest.raises(transfer.Refused) as caught,
    ):
        item.write(0, b'late')
    assert caught.value.refusal['kind'] == 'later'
    item.step()
    assert 'write' not in lane.agent.calls


def test_request_after_the_failure_is_answered_at_once() -> None:
    """And not when the guest is rid of what it has, or the wait is over."""
    item, lane = writing()
    open_(item)
    lane.guest_files.discard.side_effect = HUNG
    lane.agent.errors['write'] = exception.AgentRefused('No space left')
    refusal(item, lambda: item.write(0, b'ab'))
    with pytest.raises(transfer.Refused, match='No space left'):
        item.write(2, b'cd')
    assert not item.is_done


def test_read_after_the_end_is_answered_at_once() -> None:
    item, lane = reading(b'x' * (CHUNK + 1))
    open_(item)
    served(item, lambda: item.commit(CHUNK + 1, ''))
    with pytest.raises(transfer.Refused) as caught:
        item.read(0, 1)
    assert caught.value.refusal['kind'] == 'ended'


def test_refused_write_ends_it_and_discards_what_there_is() -> None:
    item, lane = writing()
    open_(item)
    lane.agent.errors['write'] = exception.AgentRefused('No space left')
    refused = refusal(item, lambda: item.write(0, b'ab'))
    assert refused == {'kind': 'refused', 'message': 'No space left'}
    run(item)
    assert lane.end == {'status': command.FAILED, 'error': 'No space left'}
    assert not lane.agent.is_open
    lane.guest_files.discard.assert_called_once_with(TARGET)
    assert refusal(item, lambda: item.commit(2, ''))['message'] == (
        'No space left'
    )


def test_what_cannot_be_flushed_is_not_written() -> None:
    item, lane = writing()
    open_(item)
    lane.agent.errors['flush'] = exception.AgentRefused('No space left')
    assert refusal(item, lambda: item.commit(0, ''))['kind'] == 'refused'
    assert lane.end['status'] == command.FAILED
    assert not lane.agent.is_open
    lane.guest_files.start_commit.assert_not_called()


def test_lost_answer_to_the_closing_is_no_failure() -> None:
    item, lane = writing()
    open_(item)
    real = lane.agent.file_close

    def lose(handle: int) -> None:
        lane.agent.file_close = real
        real(handle)
        raise HUNG

    lane.agent.file_close = lose
    assert served(item, lambda: item.commit(0, ''))
    assert lane.end['status'] == command.COMPLETED


def test_commit_is_sent_again_when_the_agent_forgot_it() -> None:
    item, lane = writing()
    open_(item)
    lane.guest_files.poll_commit.side_effect = [exception.AgentRefused(), True]
    assert served(item, lambda: item.commit(0, ''))
    assert lane.guest_files.start_commit.call_count == 2


def test_guest_has_the_last_word_on_what_was_written() -> None:
    """A failure of the commit is none if the file came to its place."""
    item, lane = writing()
    open_(item)
    lane.guest_files.poll_commit.side_effect = exception.AgentRefused()
    lane.guest_files.discard.return_value = True
    assert served(item, lambda: item.commit(0, ''))
    assert lane.end['status'] == command.COMPLETED


def test_verification_that_fails_is_told() -> None:
    item, lane = writing()
    open_(item)
    lane.guest_files.poll_commit.side_effect = exception.FileRefused('hash')
    assert refusal(item, lambda: item.commit(0, '')) == {
        'kind': 'refused',
        'message': 'hash',
    }
    assert lane.end['status'] == command.FAILED


def test_commit_answers_the_same_again() -> None:
    item, lane = writing()
    open_(item)
    served(item, lambda: item.commit(0, ''))
    assert item.commit(0, '')
    lane.guest_files.start_commit.assert_called_once()


def test_lease_ends() -> None:
    item, lane = writing()
    open_(item)
    item.lease_until = item.due = time.monotonic()
    run(item)
    assert lane.end == {
        'status': command.FAILED,
        'error': transfer.NOT_CONTINUED,
    }
    assert not lane.agent.is_open
    lane.guest_files.discard.assert_called_once_with(TARGET)


def test_cancelled() -> None:
    item, lane = writing()
    open_(item)
    item.cancel()
    run(item)
    assert lane.end['status'] == command.CANCELLED
    assert refusal(item, lambda: item.write(0, b'x'))['kind'] == 'ended'


def test_aborted() -> None:
    item, lane = writing()
    open_(item)
    item.abort('The client went away')
    run(item)
    assert lane.end == {
        'status': command.FAILED,
        'error': 'The client went away',
    }


def test_timed_out() -> None:
    item, lane = writing()
    lane.conductor.claim.return_value['timeout'] = 0
    with contextlib.suppress(transfer.Refused):
        served(item, item.open)
    run(item)
    assert lane.end['status'] == command.TIMED_OUT


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
    item, lane = reading(b'')
    lane.guest_files.look.side_effect = error
    assert refusal(item, item.open) == {'kind': kind, 'message': str(error)}
    run(item)
    assert lane.end == {'status': command.FAILED, 'error': str(error)}


def test_guest_that_does_not_answer_is_not_given_the_command() -> None:
    item, lane = reading(b'')
    lane.probe.side_effect = HUNG
    assert refusal(item, item.open)['kind'] == 'refused'
    assert item.is_done
    lane.conductor.claim.assert_not_called()
    lane.conductor.finish.assert_not_called()


def test_command_that_is_not_to_be_had_is_left_alone() -> None:
    item, lane = writing()
    lane.conductor.claim.return_value = None
    assert refusal(item, item.open)['kind'] == 'ended'
    assert item.is_done
    lane.guest_files.create.assert_not_called()


def test_what_is_open_is_noted_for_who_comes_next() -> None:
    item, lane = writing()
    open_(item)
    noted = lane.conductor.started.call_args.args[-1]
    assert noted == {'handle': 3, 'target': TARGET.to_dict()}


@pytest.mark.parametrize('boot_id', ['boot', 'another'])
def test_adopted_transfer_is_closed_and_discarded(boot_id: str) -> None:
    lane = Lane(
        claim(
            command.FILE_WRITE,
            opened={'handle': 3, 'target': TARGET.to_dict()},
        ),
        Agent(),
    )
    lane.agent.is_open = True
    lane.probe.return_value = launcher.Probe(boot_id, 1000, ())
    work: Any = {
        'uuid': 'command',
        'attempt': 'previous',
        'cancel_requested': False,
    }
    item = transfer.Transfer.adopted(lane, work)
    run(item)
    # After a reboot the number is another file's.
    assert lane.agent.is_open == (boot_id == 'another')
    lane.guest_files.discard.assert_called_once_with(TARGET)
    assert lane.end == {
        'status': command.FAILED,
        'error': transfer.INTERRUPTED,
    }


def test_adopted_transfer_may_have_been_completed() -> None:
    lane = Lane(
        claim(
            command.FILE_WRITE,
            opened={'handle': 3, 'target': TARGET.to_dict()},
        ),
        Agent(),
    )
    lane.guest_files.discard.return_value = True
    work: Any = {
        'uuid': 'command',
        'attempt': 'previous',
        'cancel_requested': False,
    }
    run(transfer.Transfer.adopted(lane, work))
    assert lane.end['status'] == command.COMPLETED


def test_server_that_stops_before_the_commit_has_nothing_written() -> None:
    item, lane = writing()
    open_(item)
    item.meet_absence('paused')
    assert item.needs_guest is False and not item.is_done
    item.meet_absence('shutoff')
    run(item)
    assert lane.end['status'] == command.FAILED
    lane.guest_files.discard.assert_not_called()


def test_server_that_may_have_moved_is_left_to_its_new_host() -> None:
    item, lane = writing()
    open_(item)
    lane.guest_files.discard.side_effect = exception.DomainNotFound()
    item.meet_absence('absent')
    with pytest.raises(transfer.Refused) as caught:
        item.write(0, b'')
    assert caught.value.refusal['kind'] == 'ended'
    step(item)
    item.meet_absence('absent')
    lane.conductor.finish.assert_not_called()


def test_server_that_is_nowhere_has_its_transfer_ended() -> None:
    item, lane = writing()
    open_(item)
    lane.guest_files.discard.side_effect = exception.DomainNotFound()
    with short_grace():
        item.meet_absence('absent')
        run(item)
    assert lane.end['status'] == command.FAILED


def test_server_that_stops_during_the_commit_may_have_it_written() -> None:
    item, lane = writing()
    open_(item)
    lane.guest_files.poll_commit.side_effect = GONE
    with (
        futures.ThreadPoolExecutor(1) as pool,
        mock.patch.object(transfer, 'ANSWER_WAIT', 5),
    ):
        answer = pool.submit(item.commit, 0, '')
        while not lane.guest_files.poll_commit.called:
            step(item)
        item.meet_absence('shutoff')
        run(item)
        with pytest.raises(transfer.Refused):
            answer.result()
    assert lane.end == {'status': command.LOST, 'error': transfer.UNKNOWN}


def test_guest_that_hangs_holds_up_no_end() -> None:
    item, lane = writing()
    open_(item)
    item.abort('The client went away')
    lane.guest_files.discard.side_effect = HUNG
    # The lane does not ask the guest first whether it is well.
    assert not item.needs_guest
    with short_grace():
        run(item)
    assert lane.end['status'] == command.FAILED


def test_ended_without_its_host_is_discarded() -> None:
    item, lane = writing()
    open_(item)
    item.abandon()
    run(item)
    lane.conductor.finish.assert_not_called()
    lane.guest_files.discard.assert_called_once_with(TARGET)
    assert not lane.agent.is_open


@pytest.mark.parametrize('strays', [(), ('a', 'b')])
def test_what_failed_transfers_left_is_removed(
    strays: tuple[str, ...],
) -> None:
    item, lane = writing()
    target = lane.guest_files.create.return_value = files.Target(
        path='/f',
        temporary='/.ga-command',
        inode='7',
        mode=None,
        strays=strays,
    )
    lane.conductor.ended.return_value = ['b']
    open_(item)
    if strays:
        lane.conductor.ended.assert_called_once_with(lane.service, strays)
        lane.guest_files.remove_strays.assert_called_once_with(target, ['b'])
    else:
        lane.conductor.ended.assert_not_called()
