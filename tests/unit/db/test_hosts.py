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

import datetime

import pytest

from guest_agent_ext.db import hosts


@pytest.mark.parametrize(
    ('silent_for', 'state'), [(0.0, 'up'), (60.0, 'up'), (60.1, 'down')]
)
def test_state(silent_for: float, state: str) -> None:
    """As is_up() tells it: a request would be refused by one of the two."""
    found = hosts.HostState(
        host='host',
        cell_uuid='cell',
        version='1',
        last_seen_at=datetime.datetime(2026, 1, 1),
        silent_for=silent_for,
        running=0,
        pending=0,
    )
    assert found.state(60) == state
