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

import io

import pytest

from guest_agent_ext.cmd import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    bar = progress.Bar(8)
    with bar:
        bar.advance(2)
        bar.advance(8)
    lines = terminal.getvalue().split('\r')[1:]
    assert lines == [
        '[%-40s]   0%%  0 of 8' % '',
        '[%-40s]  25%%  2 of 8' % ('#' * 10),
        '[%-40s] 100%%  10 of 10\n' % ('#' * 40),
    ]


def test_nothing_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = progress.Bar(8)
    with bar:
        bar.advance(8)
    assert capsys.readouterr().err == ''
    assert bar.done == 8


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    with progress.Bar(0):
        pass
    assert terminal.getvalue().endswith('100%  0 of 0\n')
