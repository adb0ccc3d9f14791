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

"""Which gauge shows which total."""

import pytest

from guest_agent_ext import command
from guest_agent_ext import metrics
from guest_agent_ext.conductor import totals
from guest_agent_ext.db import totals as queries
from tests import counted

FOUND = queries.Totals(
    pending=1, running=2, oldest_pending=3.5, kept=4, hosts_up=5, hosts_down=6
)


def test_each_gauge_shows_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, 'read', lambda down_time: FOUND)
    metrics.DATABASE_READ_AT.set(0)
    totals.show()
    for name, labels, value in (
        ('commands_unfinished', {'status': command.PENDING}, 1),
        ('commands_unfinished', {'status': command.RUNNING}, 2),
        ('commands_oldest_pending_seconds', {}, 3.5),
        ('commands_kept', {}, 4),
        ('hosts', {'state': 'up'}, 5),
        ('hosts', {'state': 'down'}, 6),
    ):
        assert counted.value(f'guest_agent_{name}', **labels) == value
    assert counted.value('guest_agent_database_read_timestamp_seconds') > 0


def test_failed_read_is_not_shown_as_recent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An alert rests on the time: the gauges keep what was read last."""

    def fail(down_time: int) -> queries.Totals:
        raise RuntimeError

    monkeypatch.setattr(queries, 'read', fail)
    metrics.DATABASE_READ_AT.set(0)
    with pytest.raises(RuntimeError):
        totals.show()
    assert counted.value('guest_agent_database_read_timestamp_seconds') == 0
