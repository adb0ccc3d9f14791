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

from tools.faults import kinds
from tools.faults import schedule
from tools.faults.traps import traps

TARGETS = {kind.target: ['one', 'two'] for kind in kinds.KINDS.values()}


def test_schedule_is_the_same_for_the_same_seed() -> None:
    assert schedule.make(1, 0, TARGETS) == schedule.make(1, 0, TARGETS)
    assert schedule.make(1, 0, TARGETS) != schedule.make(2, 0, TARGETS)


def test_traps_take_turns_until_each_was_armed() -> None:
    names = traps.names()
    runs = -(-len(names) // schedule.TRAPS)
    armed = {
        fault.target
        for run in range(runs)
        for fault in schedule.make(1, run, TARGETS)
        if fault.kind == 'trap'
    }
    assert armed == set(names)
