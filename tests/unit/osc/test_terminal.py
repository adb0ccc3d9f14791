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


import os

import pytest

from guest_agent_ext.osc import terminal


@pytest.mark.parametrize(
    ('typed', 'sent', 'is_over'),
    [
        ('~.', '', True),
        ('ls\r~.rest', 'ls\r', True),
        ('ls\n~.', 'ls\n', True),
        # What is no escape arrives.
        ('echo ~.\r', 'echo ~.\r', False),
        ('~/bin\r', '~/bin\r', False),
        ('~~.\r', '~.\r', False),
        ('~\r~.', '~\r', True),
    ],
)
@pytest.mark.parametrize('size', [1, 99])
def test_escapes(typed: str, sent: str, is_over: bool, size: int) -> None:
    escapes = terminal.Escapes()
    found = b''
    for start in range(0, len(typed), size):
        found += escapes.filter(typed[start : start + size].encode())
        if escapes.is_over:
            break
    assert (found.decode(), escapes.is_over) == (sent, is_over)


@pytest.mark.parametrize(
    ('size', 'term', 'found'),
    [
        ((100, 30), 'vt100', (100, 30, 'vt100')),
        ((0, 0), '', (80, 24, 'xterm')),
        ((5000, 2000), 'a b', (1000, 1000, 'xterm')),
    ],
)
def test_terminal_is_one_that_the_service_takes(
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    term: str,
    found: tuple[int, int, str],
) -> None:
    monkeypatch.setattr(os, 'get_terminal_size', lambda _: size)
    monkeypatch.setenv('TERM', term)
    made = terminal.of(0)
    assert (made.columns, made.rows, made.term) == found
