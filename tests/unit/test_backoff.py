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

from guest_agent_ext import backoff


def test_gaps_grow_by_a_factor_up_to_a_bound() -> None:
    gaps = backoff.Exponential(first=5, longest=60)
    assert [gaps.gap(count) for count in range(6)] == [5, 10, 20, 40, 60, 60]


def test_gap_after_any_number_of_attempts() -> None:
    """A power of that many would be no float."""
    assert backoff.Exponential(5, 60, 2).gap(10**6) == 60


@pytest.mark.parametrize(
    ('passed', 'gap'), [(0, 0.5), (10, 1.0), (25, 2.5), (1000, 4.0)]
)
def test_gap_is_a_share_of_what_has_passed(passed: float, gap: float) -> None:
    gaps = backoff.Proportional(shortest=0.5, longest=4, share=0.1)
    assert gaps.gap(passed) == pytest.approx(gap)
