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

"""The details of guests, with guests that are played."""

from typing import Any

import pytest

from guest_agent_ext import details
from guest_agent_ext import exception
from guest_agent_ext.compute import guest_details
from guest_agent_ext.compute import inquiry
from tests.unit import clock as unit_clock

#: What a Linux and a Windows guest answer.
LINUX: dict[str, Any] = {
    'guest-get-osinfo': {'id': 'debian', 'pretty-name': 'Debian 12'},
    'guest-get-host-name': {'host-name': 'web-1'},
    'guest-get-timezone': {'zone': 'CET', 'offset': 3600},
    'guest-get-time': 10**18,
    'guest-get-users': [{'user': 'root', 'login-time': 1.5}],
    'guest-network-get-interfaces': [
        {
            'name': 'eth0',
            'hardware-address': 'fa:16:3e:00:00:01',
            'ip-addresses': [
                {
                    'ip-address': '10.0.0.5',
                    'ip-address-type': 'ipv4',
                    'prefix': 24,
                }
            ],
            'statistics': {'rx-bytes': 1, 'tx-bytes': 2},
        }
    ],
    'guest-get-fsinfo': [
        {
            'name': 'vda1',
            'mountpoint': '/',
            'type': 'ext4',
            'used-bytes': 5,
            'total-bytes': 10,
            'disk': [
                {
                    'bus-type': 'virtio',
                    'bus': 0,
                    'target': 0,
                    'unit': 0,
                    'pci-controller': {
                        'domain': 0,
                        'bus': 0,
                        'slot': 4,
                        'function': 0,
                    },
                    'dev': '/dev/vda1',
                }
            ],
        }
    ],
    'guest-get-disks': [{'name': '/dev/vda', 'partition': False}],
    'guest-get-vcpus': [
        {'logical-id': 0, 'online': True, 'can-offline': False}
    ],
    'guest-ssh-get-authorized-keys': {'keys': ['ssh-ed25519 AAAA me']},
}
WINDOWS: dict[str, Any] = {
    'guest-get-osinfo': {
        'id': 'mswindows',
        'pretty-name': 'Windows Server 2022 Standard',
        'variant': 'server',
    },
    'guest-get-users': [
        {
            'user': 'Administrator',
            'domain': 'WIN-1',
            'login-time': 1773058402.12,
        }
    ],
    'guest-get-fsinfo': [
        {
            'name': '\\\\?\\Volume{1}\\',
            'mountpoint': 'C:\\',
            'type': 'NTFS',
            'used-bytes': 5,
            'total-bytes': 10,
            'disk': [],
        },
        {
            'name': '\\\\?\\Volume{2}\\',
            'mountpoint': 'System Reserved',
            'type': 'NTFS',
            'disk': [{'bus-type': 'scsi', 'bus': 0, 'target': 0, 'unit': 0}],
        },
    ],
}


class Guests:
    """Plays libvirt, and an agent behind it."""

    def __init__(self) -> None:
        self.answers = dict(LINUX)
        self.disabled: set[str] = set()
        self.asked: list[Any] = []
        self.is_frozen = False

    def ping(self, uuid: str) -> None:
        pass

    def probe_command(self, uuid: str, request: Any, timeout: int) -> Any:
        name = request['execute']
        if name == 'guest-info':
            return {
                'supported_commands': [
                    {
                        'name': call,
                        'enabled': call not in self.disabled
                        and not self.is_frozen,
                    }
                    for call in self.answers
                ]
            }
        if name == 'guest-fsfreeze-status':
            return 'frozen' if self.is_frozen else 'thawed'
        self.asked.append((name, request['arguments']))
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def guests() -> Guests:
    return Guests()


@pytest.fixture
def clock() -> unit_clock.FakeClock:
    return unit_clock.FakeClock()


@pytest.fixture
def inquiries(
    guests: Guests, clock: unit_clock.FakeClock
) -> inquiry.Inquiries:
    return inquiry.Inquiries(guests, clock)


def test_all_parts(inquiries: inquiry.Inquiries) -> None:
    answer = inquiries.details('server', list(details.PARTS), 'root')
    assert (answer['reason'], answer['unavailable']) == (None, {})
    told = answer['details']
    assert told.keys() == details.PARTS.keys()
    assert told['os'] == {'id': 'debian', 'pretty_name': 'Debian 12'}
    assert told['host_name'] == 'web-1'
    assert told['timezone'] == {'zone': 'CET', 'offset': 3600}
    assert told['time']['nanoseconds'] == 10**18
    assert told['time']['offset'] < 0
    assert told['interfaces'][0]['ip_addresses'][0]['ip_address'] == (
        '10.0.0.5'
    )
    assert told['filesystems'][0]['disk'][0]['pci_controller']['slot'] == 4
    assert told['vcpus'] == [
        {'logical_id': 0, 'online': True, 'can_offline': False}
    ]
    assert told['ssh_keys'] == ['ssh-ed25519 AAAA me']


def test_windows(inquiries: inquiry.Inquiries, guests: Guests) -> None:
    guests.answers = WINDOWS
    answer = inquiries.details(
        'server', ['os', 'users', 'filesystems', 'vcpus'], None
    )
    assert answer['details']['os']['variant'] == 'server'
    assert answer['details']['users'][0]['domain'] == 'WIN-1'
    assert [
        item['mountpoint'] for item in answer['details']['filesystems']
    ] == ['C:\\', 'System Reserved']
    assert 'does not know' in answer['unavailable']['vcpus']


def test_each_part_has_its_own_reason(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.disabled = {'guest-get-users'}
    guests.answers['guest-get-disks'] = exception.AgentRefused('no sysfs')
    guests.answers['guest-get-vcpus'] = [{'logical-id': 'many'}]
    del guests.answers['guest-get-time']
    answer = inquiries.details('server', [*details.PARTS], None)
    unavailable = answer['unavailable']
    assert 'must be enabled' in unavailable['users']
    assert unavailable['disks'] == 'no sysfs'
    assert 'no proper answer to guest-get-vcpus' in unavailable['vcpus']
    assert 'does not know guest-get-time' in unavailable['time']
    assert unavailable['ssh_keys'] == guest_details.NO_USER
    assert answer['details']['host_name'] == 'web-1'


def test_guest_that_falls_silent_is_asked_nothing_more(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.answers['guest-get-timezone'] = exception.AgentUnresponsive()
    answer = inquiries.details('server', ['os', 'timezone', 'vcpus'], None)
    assert 'os' in answer['details']
    assert answer['unavailable'].keys() == {'timezone', 'vcpus'}
    assert [name for name, _ in guests.asked] == [
        'guest-get-osinfo',
        'guest-get-timezone',
    ]


def test_slow_guest_does_not_hold_the_call_for_ever(
    inquiries: inquiry.Inquiries,
    guests: Guests,
    clock: unit_clock.FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = guests.probe_command

    def slow(*args: Any) -> Any:
        clock.advance(3.0)
        return plain(*args)

    monkeypatch.setattr(guests, 'probe_command', slow)
    answer = inquiries.details('server', list(details.PARTS), None)
    assert len(guests.asked) == 2
    assert answer['unavailable']['vcpus'] == guest_details.LATE


def test_answers_are_given_again_for_a_moment(
    inquiries: inquiry.Inquiries, guests: Guests, clock: unit_clock.FakeClock
) -> None:
    def ask(*fields: str, user: str | None = None) -> int:
        """Return the number of calls that the guest gets for it."""
        guests.asked.clear()
        assert not inquiries.details('server', fields, user)['unavailable']
        return len(guests.asked)

    assert ask('os', 'users') == 2
    assert ask('os', 'users', 'vcpus') == 1
    assert ask('ssh_keys', user='root') == 1
    assert ask('ssh_keys', user='root') == 0
    # The keys of one user are not another's.
    assert ask('ssh_keys', user='tenant') == 1
    clock.advance(guest_details.FRESH + 0.1)
    assert ask('os') == 1


def test_answers_of_few_guests_are_kept(clock: unit_clock.FakeClock) -> None:
    answers = guest_details.Answers(clock)
    told = {'os': guest_details._Answer(clock.now(), {}, None)}
    for number in range(guest_details.MAX_GUESTS + 1):
        answers.keep(str(number), told, None)
    assert answers.fresh('0', ['os'], None) == {}
    assert answers.fresh('1', ['os'], None) == told


def test_frozen_guest_is_not_one_that_blocks_all(
    inquiries: inquiry.Inquiries, guests: Guests
) -> None:
    guests.is_frozen = True
    answer = inquiries.details('server', ['os'], None)
    assert 'frozen' in (answer['reason'] or '')
