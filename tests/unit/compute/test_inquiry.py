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

"""What nova-api is told of a guest, with its agent played."""

import base64
from collections.abc import Iterator
from collections.abc import Mapping
import threading
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import clock
from guest_agent_ext import exception
from guest_agent_ext.compute import inquiry

ENABLED = {
    'guest-exec': True,
    'guest-exec-status': True,
    'guest-get-osinfo': True,
    'guest-file-open': False,
}
NOTHING = {
    'version': None,
    'os': None,
    'supported_commands': None,
    'execution': None,
    'command_types': None,
    'unavailable': None,
}


def printed(text: str) -> dict[str, Any]:
    return {
        'exited': True,
        'exitcode': 0,
        'out-data': base64.b64encode(text.encode()).decode(),
    }


class Guests:
    """Plays libvirt, and an agent behind it."""

    def __init__(self) -> None:
        self.enabled = dict(ENABLED)
        self.answers: dict[str, Any] = {
            'guest-get-osinfo': {'id': 'debian', 'pretty-name': 'Debian 12'},
            'guest-fsfreeze-status': 'thawed',
            'guest-exec': {'pid': 5},
            'guest-exec-status': printed('guest boot-1 100'),
        }
        self.ping_error: Exception | None = None

    def ping(self, uuid: str) -> None:
        assert uuid == 'server'
        if self.ping_error is not None:
            raise self.ping_error

    def probe_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        if request['execute'] == 'guest-info':
            return {
                'version': '7.2',
                'supported_commands': [
                    {'name': name, 'enabled': is_enabled}
                    for name, is_enabled in self.enabled.items()
                ],
            }
        if 'for kind in pipes terminal' in str(request):
            return {'pid': 6}
        if request.get('arguments') == {'pid': 6}:
            return printed('-\nscript/python3\n')
        answer = self.answers[request['execute']]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def guests() -> Guests:
    return Guests()


@pytest.fixture
def inquiries(guests: Guests) -> inquiry.Inquiries:
    return inquiry.Inquiries(guests, clock.SystemClock())


def test_available(inquiries: inquiry.Inquiries) -> None:
    assert inquiries.agent_status('server') == {
        'reason': None,
        'version': '7.2',
        'os': 'Debian 12',
        'supported_commands': [
            'guest-exec',
            'guest-exec-status',
            'guest-get-osinfo',
        ],
        'execution': 'guarded',
        'command_types': ['exec'],
        'unavailable': {
            'terminal': 'Commands cannot be run in this guest: it has no '
            'usable script/python3'
        },
    }


@pytest.mark.parametrize(
    'error',
    [
        exception.AgentNotConfigured(),
        exception.AgentNotConnected(),
        exception.AgentUnresponsive(),
        exception.DomainNotRunning('paused'),
        exception.DomainNotFound(),
        exception.HypervisorUnavailable(),
    ],
)
def test_no_answer_to_a_ping(
    inquiries: inquiry.Inquiries, guests: Guests, error: Exception
) -> None:
    guests.ping_error = error
    assert inquiries.agent_status('server') == {
        'reason': str(error),
        **NOTHING,
    }


def test_blocked_by_the_guest_s_policy(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.enabled['guest-exec'] = False
    status = inquiries.agent_status('server')
    assert 'allow-rpcs' in (status['reason'] or '')
    assert status['version'] == '7.2'
    assert status['supported_commands'] == [
        'guest-exec-status',
        'guest-get-osinfo',
    ]
    assert status['execution'] is None


@pytest.mark.parametrize(
    ('said', 'words'),
    [('unusable', 'cannot write to /run/guest-agent'), ('', '/bin/sh')],
)
def test_guest_that_runs_no_commands_says_why(
    inquiries: inquiry.Inquiries, guests: Guests, said: str, words: str
) -> None:
    guests.answers['guest-exec-status'] = printed(said)
    status = inquiries.agent_status('server')
    assert words in (status['reason'] or '')
    assert (status['version'], status['execution']) == ('7.2', None)


def test_frozen(inquiries: inquiry.Inquiries, guests: Guests) -> None:
    guests.enabled = dict.fromkeys(ENABLED, False)
    guests.answers['guest-fsfreeze-status'] = 'frozen'
    status = inquiries.agent_status('server')
    assert 'frozen for a snapshot' in (status['reason'] or '')


def test_guest_without_os_release(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.answers['guest-get-osinfo'] = exception.AgentRefused()
    status = inquiries.agent_status('server')
    assert (status['reason'], status['os']) == (None, None)


def test_what_a_guest_says_is_bounded(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.answers['guest-get-osinfo'] = {'pretty-name': 'x' * 9999}
    guests.enabled.update({f'a{number}' * 300: True for number in range(1000)})
    status = inquiries.agent_status('server')
    assert len(status['os'] or '') == inquiry.MAX_CHARACTERS
    names = status['supported_commands'] or []
    assert len(names) == inquiry.MAX_NAMES
    assert max(map(len, names)) == inquiry.MAX_CHARACTERS


class Hanging:
    """Plays guests that hang, until they are let go."""

    def __init__(
        self, guests: Guests, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inquiry, 'WAIT', 0.01)
        monkeypatch.setattr(guests, 'ping', self._ping)
        self.error: Exception | None = None
        self.pinged: list[str] = []
        self._asked = threading.Semaphore(0)
        self._let_go = threading.Event()
        self._threads: list[threading.Thread] = []

    def _ping(self, uuid: str) -> None:
        self.pinged.append(uuid)
        if not uuid.startswith('hung'):
            return
        self._asked.release()
        self._let_go.wait(30)
        if self.error is not None:
            raise self.error

    def ask(self, inquiries: inquiry.Inquiries, uuid: str) -> None:
        thread = threading.Thread(target=inquiries.agent_status, args=(uuid,))
        self._threads.append(thread)
        thread.start()
        assert self._asked.acquire(timeout=30)

    def let_go(self) -> None:
        self._let_go.set()
        for thread in self._threads:
            thread.join(30)
        self._let_go.clear()


@pytest.fixture
def hanging(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hanging]:
    hanging = Hanging(guests, monkeypatch)
    yield hanging
    hanging.let_go()


def test_few_at_once(inquiries: inquiry.Inquiries, hanging: Hanging) -> None:
    for number in range(inquiry.SLOTS):
        hanging.ask(inquiries, f'hung-{number}')
    assert 'other guests' in (inquiries.agent_status('well')['reason'] or '')
    hanging.let_go()
    assert inquiries.agent_status('well')['reason'] is None


def test_one_question_to_a_guest_at_once(
    inquiries: inquiry.Inquiries, hanging: Hanging
) -> None:
    hanging.ask(inquiries, 'hung')
    for _ in range(inquiry.SLOTS):
        reason = inquiries.agent_status('hung')['reason'] or ''
        assert 'another request' in reason
        with pytest.raises(exception.AgentBusy, match='another request'):
            inquiries.read_output('hung', 'command', 'out', 0)
    assert hanging.pinged == ['hung']
    assert inquiries.agent_status('well')['reason'] is None


def test_guests_that_did_not_answer_leave_a_slot(
    inquiries: inquiry.Inquiries, hanging: Hanging
) -> None:
    hanging.error = exception.AgentUnresponsive()
    for number in range(inquiry.SLOTS):
        hanging.ask(inquiries, f'hung-{number}')
    hanging.let_go()
    hanging.ask(inquiries, 'hung-0')
    assert 'other guests' in (inquiries.agent_status('hung-1')['reason'] or '')
    assert inquiries.agent_status('well')['reason'] is None
    # It answers, and is trusted again.
    hanging.error = None
    hanging.let_go()
    for number in (0, 2):
        hanging.ask(inquiries, f'hung-{number}')


def test_slot_is_free_between_two_calls(
    inquiries: inquiry.Inquiries,
    guests: Guests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inquiry, 'SLOTS', 1)
    monkeypatch.setattr(inquiry, 'WAIT', 0.01)
    alone = inquiry.Inquiries(guests, clock.SystemClock())
    answers = []

    def ask_another(agent: Any) -> None:
        # What a guest's launcher does between two polls is to wait.
        answers.append(alone.read_output('other', 'command', 'out', 0))

    monkeypatch.setattr(guests, 'ping', lambda uuid: None)
    monkeypatch.setattr(inquiry, '_system', ask_another)
    monkeypatch.setattr(inquiry, '_launcher', mock.Mock())
    assert alone.agent_status('server')['reason'] is None
    assert answers == [b'']


def test_suspects_are_bounded(
    inquiries: inquiry.Inquiries,
    guests: Guests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inquiry, 'MAX_SUSPECTS', 3)
    monkeypatch.setattr(
        guests, 'ping', mock.Mock(side_effect=exception.AgentUnresponsive())
    )
    for number in range(9):
        inquiries.agent_status(f'server-{number}')
    assert list(inquiries._slots._suspects) == [
        'server-6',
        'server-7',
        'server-8',
    ]


def test_output(inquiries: inquiry.Inquiries, guests: Guests) -> None:
    guests.answers.update(
        {
            'guest-exec': {'pid': 7},
            'guest-exec-status': {
                'exited': True,
                'exitcode': 0,
                'out-data': 'b3V0cHV0',
            },
        }
    )
    assert inquiries.read_output('server', 'command', 'out', 3) == b'output'


def test_output_of_a_guest_that_does_not_answer(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.ping_error = exception.AgentUnresponsive()
    with pytest.raises(exception.AgentUnresponsive):
        inquiries.read_output('server', 'command', 'out', 3)


@pytest.fixture
def direct_capture(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest where no launcher works, and direct capture permitted."""
    guests.answers |= {
        'guest-exec': {'pid': 5},
        'guest-exec-status': {'exited': True, 'exitcode': 127},
    }
    monkeypatch.setattr(
        inquiry.CONF.guest_agent,
        'allow_unbounded_capture',
        True,
        raising=False,
    )


@pytest.mark.usefixtures('direct_capture')
def test_direct_capture_is_told(inquiries: inquiry.Inquiries) -> None:
    assert inquiries.agent_status('server')['execution'] == 'direct'


@pytest.mark.usefixtures('direct_capture')
def test_other_launchers_give_output_at_the_end(
    inquiries: inquiry.Inquiries,
) -> None:
    assert inquiries.read_output('server', 'command', 'out', 3) == b''


def test_types_that_need_no_program_work_where_programs_are_blocked(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.enabled.update(
        {
            'guest-exec': False,
            'guest-set-user-password': True,
            'guest-fstrim': True,
            'guest-ssh-add-authorized-keys': False,
        }
    )
    status = inquiries.agent_status('server')
    assert status['execution'] is None
    assert status['command_types'] == ['set-password', 'fstrim']


@pytest.mark.parametrize('is_complete', [True, False])
def test_files_need_all_their_calls(
    inquiries: inquiry.Inquiries, guests: Guests, is_complete: bool
) -> None:
    guests.enabled.update(
        dict.fromkeys(
            (f'guest-file-{name}' for name in inquiry._FILE_CALLS), True
        )
    )
    guests.enabled['guest-file-flush'] = is_complete
    types = inquiries.agent_status('server')['command_types'] or []
    assert 'exec' in types
    assert ('file-write' in types) is ('file-read' in types) is is_complete
