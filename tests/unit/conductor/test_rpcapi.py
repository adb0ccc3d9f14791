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

from collections.abc import Iterator
from concurrent import futures
import logging
import threading
from typing import Any
from unittest import mock

import oslo_messaging
import pytest

from guest_agent_ext import exception
from guest_agent_ext.conductor import rpcapi

SERVICE: rpcapi.Service = {'host': 'here', 'incarnation': 'f00d'}
#: Seconds after which a test is given up.
PATIENCE = 10


class Queue:
    """Plays the conductor: answers no call but reports until it is let."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.arrived: list[str] = []
        self._changed = threading.Condition()

    def call(self, ctxt: dict[str, Any], method: str, **args: Any) -> Any:
        with self._changed:
            self.arrived.append(method)
            self._changed.notify()
        if method != 'report':
            assert self.released.wait(PATIENCE)
        return []

    def wait_for(self, calls: int) -> None:
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self.arrived) == calls, PATIENCE
            )


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    played = Queue()
    monkeypatch.setattr(
        oslo_messaging, 'get_rpc_client', mock.Mock(return_value=played)
    )
    yield played
    played.released.set()


def test_host_sends_no_more_calls_than_are_answered(played: Queue) -> None:
    conductor = rpcapi.ConductorAPI(mock.Mock(), PATIENCE)
    calls = rpcapi.CALLS + 2
    with futures.ThreadPoolExecutor(calls) as pool:
        done = [
            pool.submit(conductor.ended, SERVICE, ['id']) for _ in range(calls)
        ]
        played.wait_for(rpcapi.CALLS)
        conductor.report(SERVICE, {}, {})
        assert played.arrived.count('ended') == rpcapi.CALLS
        played.released.set()
        assert [call.result(PATIENCE) for call in done] == [[]] * calls


def test_call_that_finds_no_slot_counts_as_not_answered(played: Queue) -> None:
    conductor = rpcapi.ConductorAPI(mock.Mock(), 0.01)
    with futures.ThreadPoolExecutor(rpcapi.CALLS) as pool:
        for _ in range(rpcapi.CALLS):
            pool.submit(conductor.ended, SERVICE, ['id'])
        played.wait_for(rpcapi.CALLS)
        with pytest.raises(exception.ConductorUnreachable):
            conductor.ended(SERVICE, ['id'])
        played.released.set()


def test_conductor_that_does_not_answer_is_logged_once(
    played: Queue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    conductor = rpcapi.ConductorAPI(mock.Mock(), PATIENCE)
    away = mock.Mock(side_effect=oslo_messaging.MessagingTimeout('away'))
    with monkeypatch.context() as patched:
        patched.setattr(played, 'call', away)
        for _ in range(3):
            with pytest.raises(exception.ConductorUnreachable):
                conductor.report(SERVICE, {}, {})
    for _ in range(3):
        conductor.report(SERVICE, {}, {})
    assert caplog.messages == [
        'No answer from the conductor to report: away',
        'The conductor answers again',
    ]


def test_conductor_that_fails_is_not_told_to_be_away(
    played: Queue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It answers, and its log has why."""
    conductor = rpcapi.ConductorAPI(mock.Mock(), PATIENCE)
    failed = oslo_messaging.RemoteError('DBError', 'gone', ['Traceback'])
    monkeypatch.setattr(played, 'call', mock.Mock(side_effect=failed))
    for _ in range(3):
        with pytest.raises(exception.ConductorUnreachable):
            conductor.report(SERVICE, {}, {})
    assert caplog.messages == [
        'guest-agent-conductor failed at report: DBError; see its log'
    ]
