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


import time

from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import times


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('2026-03-09T12:13:22Z', '2026-03-09T12:13:22Z'),
        ('2026-03-09T12:13:22.75Z', '2026-03-09T12:13:22Z'),
        ('2026-03-09T14:13:22+02:00', '2026-03-09T12:13:22Z'),
        ('20260309T121322Z', '2026-03-09T12:13:22Z'),
        ('20260309T1213-0130', '2026-03-09T13:43:00Z'),
        ('2026-03-09 12:13Z', '2026-03-09T12:13:00Z'),
        # These are local, five hours behind.
        ('2026-03-09T12:13', '2026-03-09T17:13:00Z'),
        ('2026-03-09', '2026-03-09T05:00:00Z'),
        ('2026-W11-1', '2026-03-09T05:00:00Z'),
        ('2026-03', '2026-03-01T05:00:00Z'),
    ],
)
def test_times(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv('TZ', 'XYZ5')
    time.tzset()
    try:
        assert times.in_utc(text) == shown
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    'text', ['noon', '2026-13-01', '', '0001-01-01T00+20']
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(exceptions.CommandError, match='ISO 8601'):
        times.in_utc(text)
