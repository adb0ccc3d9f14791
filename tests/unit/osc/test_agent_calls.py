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

"""The client's calls of the guest agent, with a service that is played."""

import getpass
import io
import pathlib
import sys
from typing import Any
from unittest import mock

from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import agent_calls
from tests.unit.osc import fakes

SECRET = 'hush hush'


def completed() -> fakes.Response:
    return fakes.Response(body=fakes.shown('COMPLETED'))


@pytest.fixture
def compute(compute: mock.Mock, monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    monkeypatch.setattr(agent_calls, 'GAP', 0)
    monkeypatch.setattr(agent_calls, 'RETRY_GAP', 0)
    compute.post.return_value = completed()
    return compute


def asked(compute: mock.Mock) -> Any:
    assert compute.post.call_args.args == (
        f'/servers/{fakes.SERVER}/guest-agent/commands',
    )
    return compute.post.call_args.kwargs['json']['command']


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is typed at a terminal that shows nothing of it."""
    lines: list[str] = []
    monkeypatch.setattr(sys, 'stdin', Terminal())
    monkeypatch.setattr(getpass, 'getpass', lambda prompt: lines.pop(0))
    return lines


def test_password_is_asked_for_and_not_logged(
    compute: mock.Mock, typed: list[str]
) -> None:
    typed.extend([SECRET, SECRET])
    fakes.run(agent_calls.SetPassword, compute, '--user', 'me')
    assert asked(compute) == {
        'type': 'set-password',
        'arguments': {'user': 'me', 'password': SECRET},
    }
    assert compute.post.call_args.kwargs['log'] is False


@pytest.mark.parametrize(
    ('lines', 'words'),
    [([SECRET, 'other'], 'differ'), (['', ''], 'must not be empty')],
)
def test_password_that_was_mistyped(
    compute: mock.Mock, typed: list[str], lines: list[str], words: str
) -> None:
    typed.extend(lines)
    with pytest.raises(exceptions.CommandError, match=words):
        fakes.run(agent_calls.SetPassword, compute)
    compute.post.assert_not_called()


def test_password_from_a_pipe(
    compute: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'stdin', io.StringIO('$6$hash\nmore\n'))
    fakes.run(agent_calls.SetPassword, compute, '--crypted')
    assert asked(compute)['arguments'] == {
        'user': 'root',
        'password': '$6$hash',
        'crypted': True,
    }


def test_keys_of_files(compute: mock.Mock, tmp_path: pathlib.Path) -> None:
    one, two = tmp_path / 'one.pub', tmp_path / 'two.pub'
    one.write_text('# mine\nssh-rsa A me\n\n')
    two.write_text('ssh-rsa B\n')
    fakes.run(agent_calls.AddSshKeys, compute, str(one), str(two), '--reset')
    keys = ['ssh-rsa A me', 'ssh-rsa B']
    assert asked(compute) == {
        'type': 'ssh-keys-add',
        'arguments': {'user': 'root', 'keys': keys, 'reset': True},
    }
    fakes.run(agent_calls.RemoveSshKeys, compute, str(two), '--user', 'me')
    assert asked(compute) == {
        'type': 'ssh-keys-remove',
        'arguments': {'user': 'me', 'keys': ['ssh-rsa B']},
    }


@pytest.mark.parametrize(
    'text', ['', '-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n']
)
def test_private_key_is_not_sent(
    compute: mock.Mock, tmp_path: pathlib.Path, text: str
) -> None:
    path = tmp_path / 'id'
    path.write_text(text)
    with pytest.raises(exceptions.CommandError, match='no public keys'):
        fakes.run(agent_calls.AddSshKeys, compute, str(path))
    compute.post.assert_not_called()


def test_keys_are_listed(compute: mock.Mock) -> None:
    compute.get.return_value = fakes.Response(
        body={
            'guest_agent_details': {
                'ssh_keys': ['ssh-rsa A me at home', 'ssh-rsa B'],
                'unavailable': {},
            }
        }
    )
    _, rows = fakes.run(agent_calls.ListSshKeys, compute, '--user', 'me')
    assert list(map(list, rows)) == [
        ['ssh-rsa', 'A', 'me at home'],
        ['ssh-rsa', 'B', ''],
    ]
    assert compute.get.call_args.kwargs['params'] == {
        'fields': 'ssh_keys',
        'user': 'me',
    }


def test_keys_that_the_guest_does_not_tell(compute: mock.Mock) -> None:
    compute.get.return_value = fakes.Response(
        body={'guest_agent_details': {'unavailable': {'ssh_keys': 'too old'}}}
    )
    with pytest.raises(exceptions.CommandError, match='too old'):
        fakes.run(agent_calls.ListSshKeys, compute)


def test_trim_waits_for_the_end(compute: mock.Mock) -> None:
    compute.post.return_value = fakes.Response(body=fakes.shown('PENDING'))
    compute.get.side_effect = [
        fakes.Response(body=fakes.shown('RUNNING')),
        completed(),
    ]
    fakes.run(agent_calls.Trim, compute, '--minimum', '4096')
    assert asked(compute) == {'type': 'fstrim', 'arguments': {'minimum': 4096}}
    assert compute.get.call_args.kwargs['headers'] == {'Prefer': 'wait=30'}


def test_failure_is_told(compute: mock.Mock) -> None:
    compute.post.return_value = fakes.Response(
        body=fakes.shown('FAILED', error='no such user')
    )
    with pytest.raises(exceptions.CommandError, match='no such user'):
        fakes.run(agent_calls.Trim, compute)


def test_lost_answer_is_asked_for_with_the_same_key(
    compute: mock.Mock,
) -> None:
    compute.post.side_effect = [OSError(), completed()]
    fakes.run(agent_calls.Trim, compute)
    keys = {
        call.kwargs['headers']['Idempotency-Key']
        for call in compute.post.call_args_list
    }
    assert (compute.post.call_count, len(keys)) == (2, 1)
