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

from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests.functional.db import base


class TestSqltypes:
    def test_clock_counts_seconds_in_both_directions(self) -> None:
        """A time that is off by a unit or a sign makes commands overdue."""
        query = sa.select(
            sqltypes.utc_in(-90).label('before'),
            sqltypes.utc_in(0.25).label('after'),
        )
        with session.reader() as db:
            row = db.execute(query).one()
        between = (row.after - row.before).total_seconds()
        assert 90.2 < between < 90.3

    def test_clock_takes_seconds_of_a_column(self) -> None:
        base.new(timeout=3600)
        query = sa.select(
            sqltypes.utc_in(models.Command.timeout).label('then'),
            sqltypes.utc_in().label('now'),
        )
        with session.reader() as db:
            row = db.execute(query).one()
        assert 3599 < (row.then - row.now).total_seconds() < 3601

    def test_times_keep_fractions_of_a_second(self) -> None:
        """Two that follow each other within a second keep their order."""
        fractions = {
            base.read(base.new()).created_at.microsecond for _ in range(4)
        }
        assert fractions != {0}
