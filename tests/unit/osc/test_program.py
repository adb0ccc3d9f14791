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


import argparse
import pathlib

from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import program


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    other = argparse.ArgumentParser('exec', add_help=False)
    other.add_argument('server')
    made = program.parser_like(other)
    made.add_argument('--timeout', type=int)
    made.add_argument('-t', action='store_true')
    return made


@pytest.mark.parametrize(
    ('words', 'command'),
    [
        # All of these lost a -- of the program's once, or were refused.
        ('s -- grep -- -x f', 'grep -- -x f'),
        ('s git checkout -- f', 'git checkout -- f'),
        ('s -- -- x', '-- x'),
        ('--timeout 5 s -- ls -t --timeout 6', 'ls -t --timeout 6'),
        ('s --timeout 5 ls', 'ls'),
        ('s --timeout 5 -- ls', 'ls'),
        ('s id', 'id'),
        ('s ls /tmp', 'ls /tmp'),
        ('s --', ''),
        ('s', ''),
    ],
)
def test_words_of_the_program_stay_as_they_are(
    parser: argparse.ArgumentParser, words: str, command: str
) -> None:
    found = parser.parse_args(words.split())
    assert found.command == command.split()
    assert found.timeout == (5 if ' 5 ' in words + ' ' else None)


@pytest.mark.parametrize(
    'words', ['s ls -la', 's ls -t', 's ls --timeout 5', 's ls -t -- x']
)
def test_option_that_might_be_the_programs_is_asked_about(
    parser: argparse.ArgumentParser,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(words.split())
    assert 's -- ls ...' in capsys.readouterr().err


@pytest.mark.parametrize('words', ['', '--', '-x s -- ls', '--timeout -- ls'])
def test_what_is_wrong_before_the_program(
    parser: argparse.ArgumentParser,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(words.split())
    assert '-- ls ...' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('line', 'interpreter'),
    [
        (b'echo', ['/bin/sh']),
        (b'#!/bin/bash', ['/bin/bash']),
        (b'#! /bin/sh -e \r', ['/bin/sh', '-e']),
        (b'#!/usr/bin/env -S a b', ['/usr/bin/env', '-S a b']),
    ],
)
def test_interpreter(
    tmp_path: pathlib.Path, line: bytes, interpreter: list[str]
) -> None:
    script = tmp_path / 'script'
    script.write_bytes(line + b'\nrest')
    command, stdin = program.of_script(str(script), ['a b'])
    assert command[4:] == [*interpreter, '/proc/self/fd/9', 'a b']
    assert stdin == line + b'\nrest'


@pytest.mark.parametrize('line', [b'#!', b'#!\xff'])
def test_no_interpreter(tmp_path: pathlib.Path, line: bytes) -> None:
    script = tmp_path / 'script'
    script.write_bytes(line)
    with pytest.raises(exceptions.CommandError, match='no interpreter'):
        program.of_script(str(script), [])
