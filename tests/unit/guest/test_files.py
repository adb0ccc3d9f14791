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


"""What is made of the answers of the script for files."""

import base64
import json
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import files
from guest_agent_ext.guest.launchers import direct
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import windows

STRAY = '00000000-0000-4000-8000-000000000000'
ID = '3f6f5f0e-0000-4000-8000-000000000000'


@pytest.fixture
def agent() -> mock.Mock:
    return mock.create_autospec(guest_agent.Agent, instance=True)


@pytest.fixture(params=['posix', 'windows'])
def launcher(request: pytest.FixtureRequest, agent: mock.Mock) -> str:
    return str(request.param)


@pytest.fixture
def guest(launcher: str, agent: mock.Mock) -> files.Files:
    return files.Files(
        posix.PosixLauncher(agent)
        if launcher == 'posix'
        else windows.WindowsLauncher(agent)
    )


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def answer(
    agent: mock.Mock,
    launcher: str,
    word: str,
    *details: str,
    path: str = '',
    error: str = '',
) -> None:
    """Have the guest answer something, in the way of its launcher."""
    out = ' '.join([word, *details]) + '\n' + path
    err = f'guest-agent: line 12: {error}\n'
    if launcher == 'windows':
        out = json.dumps(
            {
                'says': word,
                'details': details,
                'path': encoded(path),
                'error': encoded(error),
            }
        )
        err = ''
    agent.exec_status.return_value = guest_agent.ExecStatus(
        True, 0, None, out.encode(), err.encode()
    )


def asked(agent: mock.Mock, launcher: str) -> list[str]:
    """Return what the script was asked for."""
    call = agent.exec.call_args
    if launcher == 'windows':
        order: dict[str, Any] = json.loads(call.kwargs['stdin'])
        return [base64.b64decode(word).decode() for word in order['args']]
    # The first is the directory of commands.
    found = dict(item.split('=', 1) for item in call.kwargs['env'])
    return [
        found[f'GUEST_AGENT_{number}'] for number in range(1, len(found) - 1)
    ]


@pytest.mark.parametrize(
    ('path', 'temporary'),
    [
        ('/a dir/ü', '/a dir/.ga-' + ID),
        ('/f', '/.ga-' + ID),
        ('/a\\b', '/.ga-' + ID),
        ('C:\\d\\f', 'C:\\d\\.ga-' + ID),
        ('C:/d/f', 'C:/d/.ga-' + ID),
        ('/ends\n', '/.ga-' + ID),
    ],
)
def test_where_a_file_is_written(
    guest: files.Files,
    agent: mock.Mock,
    launcher: str,
    path: str,
    temporary: str,
) -> None:
    answer(agent, launcher, 'created', '17', STRAY, 'nonsense', path=path)
    target = guest.create('/link', ID, mode='0640', append=False)
    assert asked(agent, launcher) == ['create', '/link', ID, '0640', 'no', '']
    assert target == files.Target(path, temporary, '17', '0640', '', (STRAY,))
    kept = json.loads(json.dumps(target.to_dict()))
    assert files.Target.from_dict(kept).temporary == temporary
    # As a service of an earlier release has recorded it.
    del kept['owner']
    assert files.Target.from_dict(kept).owner == ''


@pytest.mark.parametrize(
    ('owner', 'group', 'said'),
    [
        ('www-data', None, 'www-data'),
        ('33', 'adm', '33:adm'),
        (None, '4', ':4'),
    ],
)
def test_whom_a_file_is_given(
    guest: files.Files,
    agent: mock.Mock,
    launcher: str,
    owner: str | None,
    group: str | None,
    said: str,
) -> None:
    answer(agent, launcher, 'created', '17', path='/f')
    target = guest.create(
        '/f', ID, mode=None, append=False, owner=owner, group=group
    )
    assert asked(agent, launcher)[-1] == said
    agent.exec.reset_mock()
    guest.start_commit(target, 3, '')
    assert asked(agent, launcher)[-1] == said


@pytest.mark.parametrize(
    ('details', 'path'), [(('1' * 65,), '/f'), (('17',), '/' + 'x' * 8192)]
)
def test_guest_that_fills_the_row(
    guest: files.Files,
    agent: mock.Mock,
    launcher: str,
    details: tuple[str, ...],
    path: str,
) -> None:
    answer(agent, launcher, 'created', *details, path=path)
    with pytest.raises(exception.AgentError):
        guest.create('/f', ID, mode=None, append=False)


def test_strays_are_few(
    guest: files.Files, agent: mock.Mock, launcher: str
) -> None:
    answer(agent, launcher, 'created', '17', *[STRAY] * 200, path='/f')
    target = guest.create('/f', ID, mode=None, append=False)
    assert len(target.strays) == 100


def test_where_something_is_appended(
    guest: files.Files, agent: mock.Mock, launcher: str
) -> None:
    answer(agent, launcher, 'created', '-', path='/f')
    target = guest.create('/f', ID, mode=None, append=True)
    assert asked(agent, launcher) == ['create', '/f', ID, '', 'yes', '']
    assert target.temporary is None
    # There is nothing to discard.
    agent.exec.reset_mock()
    assert not guest.discard(target)
    agent.exec.assert_not_called()


def test_commit_is_polled(
    guest: files.Files, agent: mock.Mock, launcher: str
) -> None:
    target = files.Target('/f', '/.ga', '17', None)
    agent.exec.return_value = 5
    assert guest.start_commit(target, 9, 'hash') == 5
    assert asked(agent, launcher) == [
        'commit',
        '/f',
        '/.ga',
        '17',
        '9',
        'hash',
        '',
        '',
    ]
    agent.exec_status.return_value = guest_agent.ExecStatus(
        False, None, None, b'', b''
    )
    assert not guest.poll_commit(target, 5)
    answer(agent, launcher, 'committed')
    assert guest.poll_commit(target, 5)
    answer(agent, launcher, 'refused', error='mv: No space left on device')
    with pytest.raises(
        exception.FileRefused, match='refuses: mv: No space left on device'
    ):
        guest.poll_commit(target, 5)


@pytest.mark.parametrize(
    ('word', 'is_written'), [('committed', True), ('discarded', False)]
)
def test_discard_tells_what_became_of_it(
    guest: files.Files,
    agent: mock.Mock,
    launcher: str,
    word: str,
    is_written: bool,
) -> None:
    answer(agent, launcher, word)
    target = files.Target('/f', '/.ga', '17', None)
    assert guest.discard(target) is is_written
    assert asked(agent, launcher) == ['discard', '/f', '/.ga', '17']


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        (('missing',), exception.FileMissing),
        (('unsuitable', 'directory'), exception.FileUnsuitable),
        (('unsuitable', 'special'), exception.FileUnsuitable),
        (('refused',), exception.FileRefused),
        (('nonsense',), exception.AgentError),
        (('',), exception.AgentError),
    ],
)
def test_refusals(
    guest: files.Files,
    agent: mock.Mock,
    launcher: str,
    words: tuple[str, ...],
    error: type[exception.GuestError],
) -> None:
    answer(agent, launcher, *words)
    with pytest.raises(error):
        guest.check_readable('/f')


def test_guest_says_too_much(
    guest: files.Files, agent: mock.Mock, launcher: str
) -> None:
    answer(agent, launcher, 'refused', error='x' * 100000)
    with pytest.raises(exception.FileRefused) as caught:
        guest.check_readable('/f')
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize('out', [b'', b'[]', b'{}', b'\xff', b'7\n\xff'])
def test_improper_answers(
    guest: files.Files, agent: mock.Mock, out: bytes
) -> None:
    agent.exec_status.return_value = guest_agent.ExecStatus(
        True, 0, None, out, b''
    )
    with pytest.raises(exception.GuestError):
        guest.check_readable('/f')


def test_guest_without_a_launcher(agent: mock.Mock) -> None:
    with pytest.raises(exception.LauncherUnavailable):
        files.Files(direct.DirectLauncher(agent))
