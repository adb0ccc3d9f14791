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
import threading
import types
from typing import Any

import pytest

from guest_agent_ext import breaker
from guest_agent_ext import doorbell as doorbells
from guest_agent_ext.api import doorbell
from guest_agent_ext.api import servers
from guest_agent_ext.compute import rpcapi
from tests import counted

WAIT = 5


class Broker:
    """Takes doorbells as it is told to."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.error: Exception | None = None
        self.is_free = threading.Event()
        self.is_free.set()
        self.is_reached = threading.Event()

    def work(self, host: str) -> None:
        self.is_reached.set()
        assert self.is_free.wait(WAIT)
        if self.error:
            raise self.error
        self.rung.append(host)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    broker = Broker()
    monkeypatch.setattr(servers, 'transport', lambda cell: broker)
    monkeypatch.setattr(rpcapi, 'ComputeAPI', lambda transport: transport)
    monkeypatch.setattr(doorbells, '_breaker', breaker.Breaker(60))
    monkeypatch.setattr(doorbell, '_doorbells', {})
    yield broker
    broker.is_free.set()
    finish()


def finish() -> None:
    """Wait for what is being rung."""
    for thread in threading.enumerate():
        if thread.name == 'guest-agent-doorbell':
            thread.join(WAIT)
            assert not thread.is_alive()


def cell(uuid: str = 'cell') -> Any:
    return types.SimpleNamespace(uuid=uuid)


def test_rings_and_leaves_no_thread(broker: Broker) -> None:
    doorbell.ring(cell(), 'one')
    finish()
    doorbell.ring(cell(), 'one')
    finish()
    assert broker.rung == ['one', 'one']


def test_nobody_waits_for_a_broker_that_hangs(broker: Broker) -> None:
    broker.is_free.clear()
    doorbell.ring(cell(), 'first')
    assert broker.is_reached.wait(WAIT)
    for _ in range(3):
        for host in ('a', 'b'):
            doorbell.ring(cell(), host)
    assert broker.rung == []
    broker.is_free.set()
    finish()
    # Who was to be rung three times is rung once.
    assert broker.rung == ['first', 'a', 'b']


def test_what_waits_is_bounded(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbells, 'MAX_WAITING', 2)
    broker.is_free.clear()
    doorbell.ring(cell(), 'first')
    assert broker.is_reached.wait(WAIT)
    for host in 'abc':
        doorbell.ring(cell(), host)
    broker.is_free.set()
    finish()
    assert broker.rung == ['first', 'a', 'b']


def test_failure_silences_its_cell_only(broker: Broker) -> None:
    broker.error = ConnectionRefusedError('refused')
    doorbell.ring(cell(), 'one')
    finish()
    broker.error = None
    doorbell.ring(cell(), 'two')
    doorbell.ring(cell('another'), 'three')
    finish()
    assert broker.rung == ['three']


def test_cell_is_rung_again_after_a_while(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbells, '_breaker', breaker.Breaker(0))
    broker.error = ConnectionRefusedError('refused')
    doorbell.ring(cell(), 'one')
    finish()
    broker.error = None
    doorbell.ring(cell(), 'two')
    finish()
    assert broker.rung == ['two']


def test_cell_that_cannot_be_reached_delays_no_other(broker: Broker) -> None:
    broker.is_free.clear()
    doorbell.ring(cell(), 'one')
    assert broker.is_reached.wait(WAIT)
    broker.is_reached.clear()
    doorbell.ring(cell('another'), 'two')
    assert broker.is_reached.wait(WAIT)


def test_no_thread_is_no_error(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', refuse)
        doorbell.ring(cell(), 'one')
    doorbell.ring(cell(), 'two')
    finish()
    assert broker.rung == ['one', 'two']


def test_works_in_a_process_that_was_forked_while_it_rang(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.is_free.clear()
    doorbell.ring(cell(), 'parent')
    assert broker.is_reached.wait(WAIT)
    broker.is_reached.clear()
    monkeypatch.setattr('os.getpid', lambda: -1)
    doorbell.ring(cell(), 'child')
    assert broker.is_reached.wait(WAIT)


def test_lost_doorbells_are_counted(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbells, 'MAX_WAITING', 1)
    broker.is_free.clear()
    broker.error = ConnectionRefusedError('refused')
    with (
        counted.grows('guest_agent_doorbells_total', 3, outcome='lost'),
        counted.grows('guest_agent_doorbells_total', 0, outcome='rung'),
    ):
        # One that the broker refuses, one that is not tried after it, one that
        # waits already, and one for which there is no room.
        doorbell.ring(cell(), 'first')
        assert broker.is_reached.wait(WAIT)
        for host in ('a', 'a', 'b'):
            doorbell.ring(cell(), host)
        broker.is_free.set()
        finish()
    broker.error = None
    with counted.grows('guest_agent_doorbells_total', outcome='rung'):
        doorbell.ring(cell('another'), 'c')
        finish()
