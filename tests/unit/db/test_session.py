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

"""Which database is used, and what is done again."""

from typing import Any
from unittest import mock

from oslo_db import exception as db_exc
import pytest

from guest_agent_ext.db import session


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    configured = mock.Mock(is_started=False)
    monkeypatch.setattr(session, '_context_manager', configured)
    return configured


def conf(ours: str | None, **pool: int | None) -> Any:
    def group(connection: str | None) -> mock.MagicMock:
        values = dict(
            connection=connection, max_pool_size=5, max_overflow=50, **pool
        )
        group = mock.MagicMock(connection=connection)
        group.items.return_value = values.items()
        return group

    return mock.Mock(
        guest_agent_database=group(ours), api_database=group('nova')
    )


@pytest.mark.parametrize(
    ('ours', 'used'), [(None, 'nova'), ('', 'nova'), ('own', 'own')]
)
def test_database_is_ours_if_there_is_one(
    configured: mock.Mock, ours: str | None, used: str
) -> None:
    session.configure(conf(ours))
    assert configured.configure.call_args.kwargs['connection'] == used


def test_database_in_use_is_not_exchanged(configured: mock.Mock) -> None:
    """nova-api configures once for each application that it loads."""
    configured.is_started = True
    session.configure(conf('own'))
    configured.configure.assert_not_called()


@pytest.mark.parametrize(
    ('size', 'overflow', 'kept'),
    [
        (5, 50, (55, 0)),
        (None, 50, (None, 50)),
        (5, None, (5, None)),
        (0, 50, (0, 50)),
        (5, -1, (5, -1)),
    ],
)
def test_pool_keeps_what_it_opens(
    size: int | None, overflow: int | None, kept: tuple[int | None, int | None]
) -> None:
    """Unless it has no limit, or one that is not known here."""
    options = session._kept({'max_pool_size': size, 'max_overflow': overflow})
    assert (options['max_pool_size'], options['max_overflow']) == kept


def test_deadlock_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    change = mock.Mock(side_effect=[db_exc.DBDeadlock(), 7], __name__='change')
    assert session.retried(change)() == 7


def test_duplicate_is_not_tried_again() -> None:
    change = mock.Mock(
        side_effect=db_exc.DBDuplicateEntry(), __name__='change'
    )
    with pytest.raises(db_exc.DBDuplicateEntry):
        session.retried(change)()
    assert change.call_count == 1
