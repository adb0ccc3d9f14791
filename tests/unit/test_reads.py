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
import os
import threading
import time

import pytest

from guest_agent_ext import exception
from guest_agent_ext import reads

WAIT = 5


class Cell:
    """Answers once it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def read(self) -> str:
        self.answers.wait(WAIT)
        return 'found'


@pytest.fixture
def cell() -> Iterator[Cell]:
    cell = Cell()
    yield cell
    cell.answers.set()


@pytest.fixture
def hung(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> reads.Reads:
    """Two reads of a cell that hang, as many as may be under way."""
    monkeypatch.setattr(reads, 'MAX_READS', 2)
    found = reads.Reads()
    for _ in range(2):
        with pytest.raises(exception.ReadNotEnded):
            found.run(cell.read, 0.02)
    return found


def test_result_and_error_reach_the_caller() -> None:
    def fail() -> None:
        raise TimeoutError('of its own')

    found = reads.Reads()
    for _ in range(reads.MAX_READS + 1):
        assert found.run(lambda: 'found', WAIT) == 'found'
        with pytest.raises(TimeoutError, match='of its own'):
            found.run(fail, WAIT)


def test_reads_that_hang_are_bounded(hung: reads.Reads) -> None:
    began: list[bool] = []
    start = time.monotonic()
    with pytest.raises(exception.ReadNotBegun):
        hung.run(lambda: began.append(True), 0.2)
    assert time.monotonic() - start < 0.19
    assert not began


def test_read_that_ends_late_gives_its_slot_back(
    hung: reads.Reads, cell: Cell
) -> None:
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hung.run, cell.read, WAIT)
        cell.answers.set()
        assert waiting.result(WAIT) == 'found'


def test_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, 'MAX_WAITING', 0)
    with pytest.raises(exception.ReadNotBegun):
        reads.Reads().run(lambda: 'found', WAIT)


def test_thread_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(reads, 'MAX_READS', 1)
    found = reads.Reads()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', start)
        for _ in range(2):
            with pytest.raises(exception.ReadNotBegun):
                found.run(lambda: 'found', 0.1)
    assert found.run(lambda: 'found', WAIT) == 'found'


def test_each_cell_and_process_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, '_reads', {})
    first = reads.of('cell1')
    assert reads.of('cell1') is first
    assert reads.of('cell2') is not first
    monkeypatch.setattr(os, 'getpid', lambda: 0)
    assert reads.of('cell1') is not first
