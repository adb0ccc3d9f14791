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

from guest_agent_ext.cmd import bar
from tests.unit import terminal


@pytest.fixture
def clock() -> terminal.Clock:
    return terminal.Clock()


def test_more_items_than_expected(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with bar.of_items(8, clock) as advance:
        clock.now += 1
        advance(2)
        advance(8)
    last = shown.last()
    assert '100%' in last and '10/10' in last


def test_items_have_a_rate(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with bar.of_items(100, clock) as advance:
        for _ in range(3):
            clock.now += 1
            advance(20)
    last = shown.last()
    assert '20/s' in last and '0:00:02' in last


def test_nothing_is_expected(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with bar.of_items(0, clock):
        pass
    assert '0/0' in shown.getvalue()


def test_nothing_is_shown_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # rich takes everything for a terminal where colors are forced.
    monkeypatch.setenv('FORCE_COLOR', '1')
    with bar.of_items(8) as advance:
        advance(8)
    assert capsys.readouterr() == ('', '')
