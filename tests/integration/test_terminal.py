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

"""Terminals in a guest that has what they need: Debian."""

import os
import re
import signal
import time

import pytest

from tests.integration import conftest
from tests.integration import screen
from tests.integration import test_osc
from tests.integration.attaching import Attached

TERMINAL = {'columns': 80, 'rows': 24, 'term': 'vt220'}
PROMPT = rb'ready> $'
#: Lines that are written while the reader is away: more than all buffers hold.
LINES = 250_000


def test_terminal(debian: conftest.Debian) -> None:
    session = Attached(
        debian.client,
        '/bin/sh',
        '-i',
        terminal=TERMINAL,
        env={'PS1': 'ready# '},
    )
    session.until(b'ready# ')
    session.write(b'stty size; echo "is $TERM"\r')
    assert b'24 80' in session.until(b'is vt220')
    session.until(b'ready# ')
    assert session.act(resize={'columns': 132, 'rows': 50}) == 202
    session.write(b'stty size\r')
    session.until(b'50 132')
    session.until(b'ready# ')
    session.write(b'sleep 600\r')
    session.until(b'sleep 600')
    time.sleep(1)
    session.write(b'\x03')
    session.until(b'ready# ')
    session.write(b'exit 5\r')
    ended = session.end()
    assert (ended['status'], ended['result']['exitcode']) == ('COMPLETED', 5)


@pytest.fixture
def user(debian: conftest.Debian) -> screen.Screen:
    """Somebody who has opened a shell by the command."""
    cli = test_osc.OpenStack(debian.settings)
    user = screen.Screen(
        cli.start,
        *('server', 'guest', 'shell', cli.server_id, '--user', 'tenant'),
    )
    user.expect(rb'[$] $')
    # The quotes keep what is typed from being taken for what it prints.
    user.type(b'cd /tmp; PS1="rea""dy> "\r')
    user.expect(PROMPT)
    return user


def test_keys_that_are_signals(user: screen.Screen) -> None:
    user.type(b'sh -c \'echo be""gun; sleep 600\'\r')
    user.expect(b'begun\r\n')
    user.type(b'\x03')
    user.expect(PROMPT)
    user.type(b'echo co""de $?\r')
    user.expect(b'code 130\r\n')
    user.type(b'sh -c \'echo be""gun; sleep 600\'\r')
    user.expect(b'begun\r\n')
    user.type(b'\x1a')
    user.expect(b'Stopped')
    user.expect(PROMPT)
    user.type(b'kill -9 %1\r')
    user.expect(PROMPT)
    # What is typed before cat begins is the shell's.
    user.type(b'echo be""gun; cat; echo fin""ished\r')
    user.expect(b'begun\r\n')
    user.type(b'line\r')
    user.expect(b'line\r\nline\r\n')
    user.type(b'\x04')
    user.expect(b'finished\r\n')
    user.expect(PROMPT)
    user.type(b'\x04')
    # That of the last command.
    assert user.end() == 0


def test_size_and_full_screen(
    user: screen.Screen, debian: conftest.Debian
) -> None:
    user.type(b'stty size\r')
    user.expect(b'30 100\r\n')
    user.resize(40, 120)
    os.killpg(user.process.pid, signal.SIGWINCH)
    deadline = time.monotonic() + 60
    while b'40 120' not in (shown := size_of(user)):
        assert time.monotonic() < deadline, shown
    user.type(b'rm -f note; busybox vi note\r')
    # In its last line.
    user.expect(rb'\x1b\[40;1H.*- note')
    user.type(b'ihello from vi')
    user.expect(b'hello from vi')
    user.type(b'\x1b')
    user.expect(b'- note')
    user.type(b':wq\r')
    user.expect(PROMPT)
    assert debian.run('/bin/cat', '/tmp/note') == 'hello from vi'
    user.type(b'exit 7\r')
    assert user.end() == 7


def size_of(user: screen.Screen) -> bytes:
    user.type(b'stty size\r')
    return user.expect(rb'\d+ \d+\r\n')


def test_reader_that_is_away(
    user: screen.Screen, pytestconfig: pytest.Config
) -> None:
    """The command stops, and goes on; nothing is lost meanwhile."""
    user.type(f'seq {LINES}; echo fin""ished\r'.encode())
    user.expect(b'\r1\r\n2\r\n')
    user.process.send_signal(signal.SIGSTOP)
    time.sleep(pytestconfig.getoption('away'))
    user.process.send_signal(signal.SIGCONT)
    shown = user.expect(b'finished\r\n')
    numbers = [int(number) for number in re.findall(rb'\d+', shown)]
    assert numbers == list(range(3, LINES + 1))
    user.type(b'exit 7\r')
    assert user.end() == 7
