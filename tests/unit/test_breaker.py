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

import time
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import breaker
from guest_agent_ext import doorbell
from guest_agent_ext.api import servers
from guest_agent_ext.conductor import runs
from tests import counted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    return now


def test_nothing_that_works_is_held_up(clock: list[float]) -> None:
    found = breaker.Breaker(5)
    assert found.allows('a')
    found.worked('a')
    assert found.allows('a')


def test_one_tries_again_in_a_period(clock: list[float]) -> None:
    found = breaker.Breaker(5)
    found.failed('a')
    assert not found.allows('a')
    assert found.allows('b')
    clock[0] += 5
    assert found.allows('a')
    assert not found.allows('a')
    clock[0] += 5
    assert found.allows('a')
    found.worked('a')
    assert found.allows('a') and found.allows('a')


def test_failures_are_told(clock: list[float]) -> None:
    told = mock.Mock()
    found = breaker.Breaker(5, told)
    found.worked('a')
    found.allows('a')
    told.assert_not_called()
    found.failed('a')
    found.failed('b')
    assert told.call_args_list == [mock.call(), mock.call()]


@pytest.mark.parametrize(
    ('module', 'part'),
    [(servers, 'database'), (runs, 'database'), (doorbell, 'queue')],
)
def test_failures_of_cells_are_counted(module: Any, part: str) -> None:
    with counted.grows('guest_agent_breaker_trips_total', part=part):
        module._breaker.failed('a cell of this test')
        module._breaker.worked('a cell of this test')
