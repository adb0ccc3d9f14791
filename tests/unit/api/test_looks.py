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

from oslo_db import exception as db_exc
import pytest

from guest_agent_ext import command
from guest_agent_ext.api import looks
from guest_agent_ext.db import commands


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """What the database was asked for; all of it is PENDING."""
    asked: list[set[int]] = []

    def statuses(ids: Collection[int]) -> dict[int, str]:
        asked.append(set(ids))
        return dict.fromkeys(ids, command.PENDING)

    monkeypatch.setattr(commands, 'statuses', statuses)
    return asked


def test_one_look_serves_all_who_wait(
    asked: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, 'FRESH', 60)
    board = looks.Looks()
    with board.one(1), board.one(2), board.one(2):
        for row_id in (1, 2, 2):
            assert board.status(row_id) == command.PENDING
        assert asked == [{1, 2}]
        # Nobody has looked at this one.
        with board.one(3):
            assert board.status(3) == command.PENDING
        assert asked[1:] == [{1, 2, 3}]


def test_old_look_is_not_good(
    asked: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, 'FRESH', -1)
    board = looks.Looks()
    with board.one(1):
        with board.one(2), board.one(1):
            board.status(2)
        board.status(1)
    assert asked == [{1, 2}, {1}]


def test_failed_look_is_none(
    asked: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, 'FRESH', 60)
    board = looks.Looks()
    with board.one(1):
        with monkeypatch.context() as patched:
            patched.setattr(
                commands,
                'statuses',
                lambda ids: (_ for _ in ()).throw(db_exc.DBConnectionError()),
            )
            with pytest.raises(db_exc.DBError):
                board.status(1)
        assert board.status(1) == command.PENDING
