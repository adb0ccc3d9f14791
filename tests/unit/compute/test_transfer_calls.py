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

"""The mailbox of a transfer, with its task played."""

from collections.abc import Callable
from concurrent import futures
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import transfer_calls
from tests.unit import clock as unit_clock

REFUSAL: rpcapi.Refusal = {'kind': 'refused', 'message': 'No space left'}


@pytest.fixture
def clock() -> unit_clock.FakeClock:
    return unit_clock.FakeClock()


@pytest.fixture
def rouse() -> mock.Mock:
    return mock.Mock()


@pytest.fixture
def calls(
    clock: unit_clock.FakeClock, rouse: mock.Mock
) -> transfer_calls.TransferCalls:
    return transfer_calls.TransferCalls(clock, rouse)


def answered(
    call: Callable[[], Any], calls: transfer_calls.TransferCalls, answer: bytes
) -> Any:
    """Make a call in a thread, and answer its request."""
    with futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(call)
        while (request := calls.next_request()) is None:
            assert not made.done()
        request.answer.set_result(answer)
        return made.result()


def kind_of(call: Callable[[], Any]) -> str:
    with pytest.raises(exception.TransferRefused) as caught:
        call()
    return caught.value.kind


def test_chunk_that_was_read_is_returned(
    calls: transfer_calls.TransferCalls,
) -> None:
    assert answered(lambda: calls.read(3, 4), calls, b'data') == b'data'
    answered(lambda: calls.write(3, b'data'), calls, b'')
    assert not calls.is_asked


def test_file_that_is_open_is_told(
    calls: transfer_calls.TransferCalls,
) -> None:
    opened = rpcapi.OpenedFile(9, None)
    calls.answer_open(opened)
    assert calls.open() == opened


def test_file_that_is_not_opened_in_time_is_given_up(
    calls: transfer_calls.TransferCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_calls, 'OPEN_WAIT', 0)
    assert kind_of(calls.open) == 'later'
    assert calls.aborted == transfer_calls.NOT_IN_TIME


def test_chunk_that_is_no_longer_waited_for_is_no_request(
    calls: transfer_calls.TransferCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_calls, 'ANSWER_WAIT', 0)
    assert kind_of(lambda: calls.read(0, 1)) == 'later'
    assert not calls.is_asked
    assert calls.next_request() is None


def test_each_call_renews_the_lease_and_rouses_the_task(
    calls: transfer_calls.TransferCalls,
    clock: unit_clock.FakeClock,
    rouse: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer_calls, 'ANSWER_WAIT', 0)
    for number, call in enumerate(
        (
            lambda: kind_of(lambda: calls.read(0, 1)),
            lambda: kind_of(lambda: calls.write(0, b'x')),
            lambda: calls.commit(0, ''),
            lambda: calls.abort('why'),
        )
    ):
        before = calls.lease_until
        clock.advance(10)
        call()
        assert calls.lease_until == before + 10
        assert rouse.call_count == number + 1


def test_first_reason_to_give_up_counts(
    calls: transfer_calls.TransferCalls,
) -> None:
    calls.abort('first')
    calls.abort('second')
    assert calls.aborted == 'first'


def test_closed_mailbox_refuses_chunks_at_once(
    calls: transfer_calls.TransferCalls,
) -> None:
    calls.close(REFUSAL)
    assert kind_of(lambda: calls.read(0, 1)) == 'refused'
    calls.close(None)
    assert kind_of(lambda: calls.read(0, 1)) == 'ended'


def test_end_is_told_to_who_commits(
    calls: transfer_calls.TransferCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_calls, 'ANSWER_WAIT', 0)
    calls.close(None)
    assert calls.commit(9, 'hash') is False
    assert calls.to_commit == (9, 'hash')
    calls.end(None)
    assert calls.commit(9, 'hash') is True


def test_first_refusal_is_the_reason_of_the_end(
    calls: transfer_calls.TransferCalls,
) -> None:
    calls.close(REFUSAL)
    calls.end({'kind': 'ended', 'message': 'Dropped'})
    assert kind_of(lambda: calls.commit(0, '')) == 'refused'
    # Who waits for the opening is told by whoever ends the transfer.
    assert kind_of(calls.open) == 'ended'
    calls.end({'kind': 'ended', 'message': 'Dropped again'})
