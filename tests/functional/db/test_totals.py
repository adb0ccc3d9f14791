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

import sqlalchemy as sa

from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from guest_agent_ext.db import totals
from tests.functional.db import base


class TestTotals:
    def test_totals_of_an_empty_database(self) -> None:
        assert totals.read(60) == totals.Totals(
            pending=0,
            running=0,
            oldest_pending=0.0,
            kept=0,
            hosts_up=0,
            hosts_down=0,
        )

    def test_totals_count_what_users_see(self) -> None:
        base.register('machine')
        hosts.register(
            base.CELL, 'silent', machine_id='other', version='1', down_time=60
        )
        ended, oldest = base.new(), base.new()
        handed_out, running = base.new(), base.new()
        commands.cancel(ended)
        for uuid in (handed_out, running):
            base.claim(uuid)
        commands.note_started(
            running, attempt='first', pid=1, started_uptime=1, age=0
        )
        with session.writer() as db:
            db.execute(
                sa.update(models.Command)
                .where(models.Command.uuid == oldest)
                .values(created_at=sqltypes.utc_in(-300))
            )
            db.execute(
                sa.update(models.Host)
                .where(models.Host.host == 'silent')
                .values(last_seen_at=sqltypes.utc_in(-90))
            )
        found = totals.read(60)
        assert (found.pending, found.running, found.kept) == (2, 1, 4)
        assert (found.hosts_up, found.hosts_down) == (1, 1)
        assert 300 <= found.oldest_pending < 360
