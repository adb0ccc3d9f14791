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

import concurrent.futures

import sqlalchemy as sa

from guest_agent_ext.db import commands
from guest_agent_ext.db import leases
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests.functional.db import base


class TestLeases:
    def test_turn_that_was_removed_is_made_anew(self) -> None:
        bounds = commands.Bounds(9, 9)
        base.new(bounds=bounds)
        assert leases.remove_expired(10) == 0
        with session.writer() as db:
            db.execute(
                sa.update(models.Lease).values(expires_at=sqltypes.utc_in(-1))
            )
        assert leases.take('x', 'a', 60)
        assert leases.remove_expired(10) == 1
        assert base.new(bounds=bounds)
        assert not leases.take('x', 'b', 60)

    def test_longest_project_has_a_turn(self) -> None:
        assert base.new(
            bounds=commands.Bounds(1, 1), instance_project_id='ü' * 255
        )

    def test_lease_is_one_s_until_it_is_given_back(self) -> None:
        assert leases.take('x', 'a', 60) and leases.take('x', 'a', 60)
        assert not leases.take('x', 'b', 60)
        assert leases.take('y', 'b', 60)
        leases.release('x', 'b')
        assert not leases.take('x', 'b', 60)
        leases.release('x', 'a')
        assert leases.take('x', 'b', -1)
        assert leases.take('x', 'a', 60)

    def test_one_of_many_takes_a_lease(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            taken = list(
                pool.map(
                    lambda number: leases.take('x', str(number), 60), range(16)
                )
            )
        assert taken.count(True) == 1
