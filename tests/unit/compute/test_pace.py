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

import pytest

from guest_agent_ext.compute import pace
from tests.unit import clock as unit_clock


def test_one_transfer_need_not_wait() -> None:
    clock = unit_clock.FakeClock()
    assert pace.Pace(lambda: 1, clock).after(0.1) <= clock.now()


@pytest.mark.parametrize(('count', 'apart'), [(2, 5 / 3), (4, 3.0)])
def test_many_leave_room_between_their_chunks(
    count: int, apart: float
) -> None:
    found = pace.Pace(lambda: count, unit_clock.FakeClock(1000))
    # Whoever made them: the room is the host's.
    times = [found.after(0.03) for _ in range(3)]
    assert times[0] == pytest.approx(1000 - 0.03 + 0.03 * apart)
    assert times[2] - times[1] == pytest.approx(0.03 * apart)


def test_guest_that_hangs_does_not_slow_down_others() -> None:
    found = pace.Pace(lambda: 2, unit_clock.FakeClock(1000))
    assert found.after(5.0) <= 1000
    assert found.after(0.03) < 1001
