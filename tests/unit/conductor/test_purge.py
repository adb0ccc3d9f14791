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

"""What is removed and how much of it, with the database played."""

from collections.abc import Iterator
from collections.abc import Sequence
from unittest import mock

import pytest

from guest_agent_ext.conductor import purge
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import keys
from guest_agent_ext.db import leases
from guest_agent_ext.db import purge as queries
from guest_agent_ext.db import runs
from tests import counted

NO_BOUND = {
    'max_kept_per_server': -1,
    'max_kept_per_project': -1,
    'max_kept_bytes_per_server': -1,
    'max_kept_bytes_per_project': -1,
    'max_kept_runs_per_project': -1,
}


class Table:
    """Plays the commands of servers, each of ten bytes.

    :param kept: number of commands by server and project
    :param unfinished: number of commands of each server that stay
    """

    def __init__(
        self, kept: dict[tuple[str, str], int], unfinished: int = 0
    ) -> None:
        self.kept = kept
        self._unfinished = unfinished

    def kept_of_servers(
        self, after: str, limit: int
    ) -> Sequence[queries.Kept]:
        return [
            queries.Kept(server, project, rows, rows * 10)
            for (server, project), rows in sorted(self.kept.items())
            if server > after and rows
        ][:limit]

    def trim(
        self,
        *,
        rows: int,
        size: int,
        limit: int,
        server: str | None = None,
        project: str | None = None,
    ) -> tuple[int, int]:
        removed = 0
        for key in self.kept:
            if server in (None, key[0]) and project in (None, key[1]):
                number = min(
                    self.kept[key] - self._unfinished,
                    max(rows, -(-size // 10)) - removed,
                    limit - removed,
                )
                self.kept[key] -= number
                removed += number
        return removed, removed * 10


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """A database in which nothing is to be removed."""
    database = mock.Mock()
    database.take.return_value = True
    database.servers.return_value = database.kept_of_servers.return_value = []
    for name in ('remove_old', 'remove_of_servers', 'remove_expired'):
        getattr(database, name).return_value = 0
    for name in (
        'remove_old',
        'remove_of_servers',
        'servers',
        'kept_of_servers',
        'trim',
    ):
        monkeypatch.setattr(queries, name, getattr(database, name))
    for module in (keys, leases):
        monkeypatch.setattr(module, 'remove_expired', database.remove_expired)
    database.remove_deleted.return_value = None
    for name in ('mark_old', 'mark_beyond', 'remove_deleted'):
        monkeypatch.setattr(runs, name, getattr(database, name))
    monkeypatch.setattr(leases, 'take', database.take)
    monkeypatch.setattr(leases, 'release', database.release)
    yield database


def use(
    database: mock.Mock,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
    **bounds: int,
) -> None:
    database.kept_of_servers.side_effect = table.kept_of_servers
    database.trim.side_effect = table.trim
    monkeypatch.setattr(
        purge,
        'CONF',
        mock.Mock(guest_agent=mock.Mock(retention=60, **(NO_BOUND | bounds))),
    )


def test_runs_go_with_their_commands(database: mock.Mock) -> None:
    # The last is that of the run itself.
    database.remove_deleted.side_effect = [2, 1, 0, None]
    assert list(purge.run()) == [2, 1, 0]
    database.mark_old.assert_called_once_with(86400)
    database.mark_beyond.assert_called_once_with(1000)


def test_lease_of_another_is_respected(database: mock.Mock) -> None:
    database.take.return_value = False
    assert list(purge.run()) == []
    database.remove_old.assert_not_called()
    database.release.assert_not_called()


def test_purge_ends_when_its_lease_is_lost(database: mock.Mock) -> None:
    database.remove_old.return_value = 1
    database.take.side_effect = [True, True, False]
    assert list(purge.run()) == [1, 1]
    assert counted.value('guest_agent_lease_held', lease='purge') == 0


def test_lease_is_released_after_a_failure(database: mock.Mock) -> None:
    """Kept, no other process could purge until it expires."""
    database.remove_old.side_effect = RuntimeError
    with pytest.raises(RuntimeError):
        list(purge.run())
    holder = database.take.call_args.args[1]
    database.release.assert_called_once_with('purge', holder)
    assert counted.value('guest_agent_lease_held', lease='purge') == 0


def test_page_without_forgotten_servers_is_not_the_last(
    database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {'': ['a', 'b'], 'b': ['c'], 'c': []}
    database.servers.side_effect = lambda after, limit: pages[after]
    monkeypatch.setattr(servers, 'forgotten', lambda uuids: {'c'} & set(uuids))
    database.remove_of_servers.side_effect = [4, 0]
    assert sum(purge.run()) == 4
    database.remove_of_servers.assert_called_with({'c'}, purge.BATCH)


def test_expired_rows_are_no_commands(database: mock.Mock) -> None:
    """They would be counted as purged, and shown by the progress bar."""
    database.remove_expired.side_effect = [5, 0, 7, 0]
    with counted.grows('guest_agent_commands_purged_total', 0):
        assert sum(purge.run()) == 0
    assert database.remove_expired.call_count == 4


def test_bounds_are_checked_by_one_process_at_a_time(
    database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        leases, 'take', lambda name, holder, seconds: name == 'purge'
    )
    assert list(purge.run()) == []
    database.kept_of_servers.assert_not_called()


@pytest.mark.parametrize(
    'bound', [{'max_kept_per_server': 4}, {'max_kept_bytes_per_server': 40}]
)
def test_bound_of_a_server(
    database: mock.Mock, bound: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table({('a', 'p'): 10, ('b', 'p'): 3})
    use(database, table, monkeypatch, **bound)
    assert sum(purge.run()) == 6
    assert table.kept == {('a', 'p'): 4, ('b', 'p'): 3}


def test_what_a_server_lost_counts_for_its_project(
    database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the project would lose as many once more."""
    table = Table({('a', 'p'): 10, ('b', 'q'): 3})
    use(
        database,
        table,
        monkeypatch,
        max_kept_per_server=4,
        max_kept_per_project=4,
    )
    assert sum(purge.run()) == 6
    assert table.kept == {('a', 'p'): 4, ('b', 'q'): 3}


def test_bound_of_a_project_is_of_all_its_servers(
    database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table({('a', 'p'): 3, ('b', 'p'): 3, ('c', 'q'): 3})
    # A page for each server.
    monkeypatch.setattr(purge, 'BATCH', 1)
    use(database, table, monkeypatch, max_kept_per_project=4)
    assert sum(purge.run()) == 2
    assert table.kept[('a', 'p')] + table.kept[('b', 'p')] == 4
    assert table.kept[('c', 'q')] == 3


def test_no_bound_removes_nothing(
    database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(database, Table({('a', 'p'): 10}), monkeypatch)
    assert sum(purge.run()) == 0
    database.trim.assert_not_called()


def test_purge_ends_where_the_rest_has_not_ended(
    database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked until the bound is kept, the database would be asked for ever."""
    table = Table({('a', 'p'): 10}, unfinished=8)
    use(database, table, monkeypatch, max_kept_per_server=4)
    assert sum(purge.run()) == 2
    assert table.kept == {('a', 'p'): 8}
