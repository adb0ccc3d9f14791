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

from guest_agent_ext import progress
from tests.unit import terminal


@pytest.fixture
def clock() -> terminal.Clock:
    return terminal.Clock()


def test_transfer_shows_share_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with progress.of_bytes(10_000_000, clock=clock) as bar:
        for _ in range(5):
            clock.now += 1
            bar.advance(1_000_000)
    last = shown.last()
    for part in ('50%', '5.0/10.0 MB', '1.0 MB/s', '0:00:05'):
        assert part in last


def test_bytes_of_an_earlier_transfer_are_no_rate(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with progress.of_bytes(10_000_000, 8_000_000, clock) as bar:
        for _ in range(2):
            clock.now += 1
            bar.advance(500_000)
    last = shown.last()
    assert '90%' in last and '500.0 kB/s' in last


def test_file_that_grew(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with progress.of_bytes(8_000_000, clock=clock) as bar:
        clock.now += 1
        bar.advance(2_000_000)
        bar.advance(8_000_000)
    assert bar.done == 10_000_000
    last = shown.last()
    assert '100%' in last and '10.0/10.0 MB' in last


@pytest.mark.parametrize('color', ['', '1'])
def test_nothing_is_shown_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    color: str,
) -> None:
    # rich takes everything for a terminal where colors are forced.
    monkeypatch.setenv('FORCE_COLOR', color)
    with progress.of_bytes(8) as bar:
        bar.advance(8)
    assert capsys.readouterr() == ('', '')
    assert bar.done == 8


def test_servers_are_counted_with_words_behind(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with progress.of_servers(4, 1, clock=clock) as bar:
        clock.now += 1
        bar.advance(1)
        bar.describe('1 succeeded, 1 [lost]')
    last = shown.last()
    for part in ('50%', '2/4', '1 succeeded, 1 [lost]'):
        assert part in last


def test_bar_makes_room_for_what_is_written(
    monkeypatch: pytest.MonkeyPatch, clock: terminal.Clock
) -> None:
    shown = terminal.opened(monkeypatch)
    with progress.of_servers(2, clock=clock) as bar:
        bar.advance(1)
        with bar.aside():
            before = len(shown.getvalue())
            shown.write('output\n')
            written = shown.getvalue()[before:]
        bar.advance(1)
    # Nothing of the bar comes between.
    assert written == 'output\n'
    # The line that the bar was on is empty again.
    assert shown.getvalue()[:before].endswith('\x1b[1A\x1b[2K')
    assert '2/2' in shown.last()


def test_writing_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.of_servers(2) as bar, bar.aside():
        pass
    assert capsys.readouterr() == ('', '')
