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

from collections.abc import Collection
import types
from typing import Any

from oslo_db import exception as db_exc
import pytest

from guest_agent_ext import command
from guest_agent_ext.api import waiting
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


@pytest.mark.parametrize(
    ('header', 'seconds'),
    [
        ('wait=5', 5),
        ('wait = "7"', 7),
        ('respond-async, WAIT=3; x=1', 3),
        ('wait=0', 0),
        ('wait=1000', 30),
        ('wait=4, wait=9', 4),
        ('', None),
        ('wait', None),
        ('wait=x', None),
        ('wait=-1', None),
        ('await=3', None),
        ('wait=1.5', None),
        ('x="wait=3"', None),
    ],
)
def test_preference(header: str, seconds: int | None) -> None:
    assert waiting.preferred({'Prefer': header}) == seconds


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, 'time', clock)
    return clock


def request(multithread: bool = True, prefer: str = 'wait=2') -> Any:
    return types.SimpleNamespace(
        headers={'Prefer': prefer}, environ={'wsgi.multithread': multithread}
    )


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> models.Command:
    """A command that does not end by itself."""
    row = models.Command(id=3, uuid='uuid', status=command.PENDING)
    monkeypatch.setattr(commands, 'statuses', lambda ids: {3: row.status})
    monkeypatch.setattr(commands, 'get', lambda uuid, with_output: row)
    return row


def test_gap_grows_to_its_limit(clock: Clock, row: models.Command) -> None:
    _, headers = waiting.waited(request(), row)
    assert headers == {'Preference-Applied': 'wait=2'}
    assert sum(clock.slept) == pytest.approx(2)
    gaps = clock.slept[:-1]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1]) == (0.01, 0.04)


def test_end_is_answered_at_the_next_poll(
    clock: Clock, row: models.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = iter([command.PENDING, command.RUNNING, command.LOST])
    monkeypatch.setattr(commands, 'statuses', lambda ids: {3: next(statuses)})
    monkeypatch.setattr(waiting, 'FRESH', -1)
    waiting.waited(request(), row)
    assert len(clock.slept) == 2


def test_deleted_command_is_not_waited_for(
    clock: Clock, row: models.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, 'statuses', lambda ids: {})
    waiting.waited(request(), row)
    assert clock.slept == []


def test_database_that_stays_away_does_not_hide_what_was_accepted(
    row: models.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statuses(ids: Collection[int]) -> dict[int, str]:
        raise db_exc.DBConnectionError()

    monkeypatch.setattr(commands, 'statuses', statuses)
    assert waiting.waited(request(), row)[0] is row


def test_nobody_waits_without_threads(
    clock: Clock, row: models.Command
) -> None:
    waiting.CONF.set_override('max_waiters', 16, group='guest_agent')
    try:
        assert waiting.waited(request(multithread=False), row) == (row, {})
    finally:
        waiting.CONF.clear_override('max_waiters', group='guest_agent')
    assert clock.slept == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """What the database was asked for; all of it is PENDING."""
    asked: list[set[int]] = []

    def statuses(ids: Collection[int]) -> dict[int, str]:
        asked.append(set(ids))
        return dict.fromkeys(ids, command.PENDING)

    monkeypatch.setattr(commands, 'statuses', statuses)
    return asked


def test_one_query_serves_all_who_wait(
    asked: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, 'FRESH', 60)
    cache = waiting.StatusCache()
    with cache.watching(1), cache.watching(2), cache.watching(2):
        for row_id in (1, 2, 2):
            assert cache.status(row_id) == command.PENDING
        assert asked == [{1, 2}]
        # The last query did not include this one.
        with cache.watching(3):
            assert cache.status(3) == command.PENDING
        assert asked[1:] == [{1, 2, 3}]


def test_statuses_are_read_again_when_they_are_old(
    asked: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, 'FRESH', -1)
    cache = waiting.StatusCache()
    with cache.watching(1):
        with cache.watching(2), cache.watching(1):
            cache.status(2)
        cache.status(1)
    assert asked == [{1, 2}, {1}]


def test_failed_query_is_made_again(
    asked: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, 'FRESH', 60)
    cache = waiting.StatusCache()
    with cache.watching(1):
        with monkeypatch.context() as patched:
            patched.setattr(
                commands,
                'statuses',
                lambda ids: (_ for _ in ()).throw(db_exc.DBConnectionError()),
            )
            with pytest.raises(db_exc.DBError):
                cache.status(1)
        assert cache.status(1) == command.PENDING
