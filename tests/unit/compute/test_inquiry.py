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

from collections.abc import Mapping
import threading
from typing import Any

import pytest

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
}


class Guests:
    """Plays libvirt, and an agent behind it."""

    def __init__(self) -> None:
        self.enabled = dict(ENABLED)
        self.answers: dict[str, Any] = {
            'guest-get-osinfo': {'id': 'debian', 'pretty-name': 'Debian 12'},
            'guest-fsfreeze-status': 'thawed',
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
        answer = self.answers[request['execute']]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def guests() -> Guests:
    return Guests()


@pytest.fixture
def inquiries(guests: Guests) -> inquiry.Inquiries:
    return inquiry.Inquiries(guests)


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


def test_few_at_once(
    inquiries: inquiry.Inquiries,
    guests: Guests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inquiry, 'WAIT', 0.01)
    asked, answered = threading.Semaphore(0), threading.Event()

    def hang(uuid: str) -> None:
        asked.release()
        answered.wait(30)

    monkeypatch.setattr(guests, 'ping', hang)
    threads = [
        threading.Thread(target=inquiries.agent_status, args=('server',))
        for _ in range(inquiry.PLACES)
    ]
    for thread in threads:
        thread.start()
        assert asked.acquire(timeout=30)
    assert 'busy' in (inquiries.agent_status('server')['reason'] or '')
    answered.set()
    for thread in threads:
        thread.join()
    assert inquiries.agent_status('server')['reason'] is None


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
    assert inquiries.read_output('server', 'command', 'out', 3) == {
        'data': 'b3V0cHV0',
        'reason': None,
    }


def test_output_of_a_guest_that_does_not_answer(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.ping_error = exception.AgentUnresponsive()
    assert inquiries.read_output('server', 'command', 'out', 3) == {
        'data': '',
        'reason': str(guests.ping_error),
    }


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
    assert inquiries.read_output('server', 'command', 'out', 3) == {
        'data': '',
        'reason': None,
    }
