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


"""What nova-api hears of transfers, and how many there may be."""

import base64
from collections.abc import Callable
import time
from unittest import mock

import pytest

from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import task
from guest_agent_ext.compute import transfer
from guest_agent_ext.compute import transfers

OPENED: rpcapi.Opened = {'refusal': None, 'size': 9, 'data': None}
REFUSAL: rpcapi.Refusal = {'kind': 'refused', 'message': 'No'}


@pytest.fixture
def items() -> list[mock.Mock]:
    """The transfers that were begun."""
    return []


@pytest.fixture
def host(items: list[mock.Mock]) -> transfers.Transfers:
    def begin(
        instance_uuid: str, make: Callable[[task.Lane], transfer.Transfer]
    ) -> mock.Mock:
        item = mock.Mock(
            spec=make(mock.Mock()),
            is_done=False,
            lease_until=time.monotonic() + 60,
        )
        item.open.return_value = OPENED
        items.append(item)
        return item

    return transfers.Transfers(begin)


def test_requests_reach_their_transfer(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    assert host.open_file('server', 'one') == OPENED
    host.open_file('server', 'two')
    items[0].read.return_value = b'data'
    items[0].commit.return_value = False
    assert host.read_chunk('one', 3, 4) == {
        'refusal': None,
        'data': base64.b64encode(b'data').decode(),
    }
    items[0].read.assert_called_once_with(3, 4)
    host.write_chunk('two', 5, base64.b64encode(b'data').decode())
    items[1].write.assert_called_once_with(5, b'data')
    assert host.commit('one', 9, 'hash') == {'refusal': None, 'done': False}
    host.abort('two', 'why')
    items[1].abort.assert_called_once_with('why')


def test_refusals_are_passed_on(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    host.open_file('server', 'one')
    for name in ('read', 'write', 'commit'):
        getattr(items[0], name).side_effect = transfer.Refused(REFUSAL)
    assert host.read_chunk('one', 0, 1)['refusal'] == REFUSAL
    assert host.write_chunk('one', 0, '')['refusal'] == REFUSAL
    assert host.commit('one', 0, '')['refusal'] == REFUSAL


def test_unknown_transfer_has_ended(host: transfers.Transfers) -> None:
    """The service was restarted."""
    refusal = host.write_chunk('one', 0, '')['refusal']
    assert refusal is not None and refusal['kind'] == 'ended'
    host.abort('one', 'why')


def _open(host: transfers.Transfers, server: str, uuid: str) -> str | None:
    refusal = host.open_file(server, uuid)['refusal']
    return None if refusal is None else refusal['kind']


def test_host_has_a_bound(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    for number in range(8):
        assert _open(host, f'server{number}', f'{number}') is None
    assert _open(host, 'another', 'x') == 'busy'
    items[0].is_done = True
    assert _open(host, 'another', 'x') is None


def test_server_has_a_bound(host: transfers.Transfers) -> None:
    for number in range(4):
        assert _open(host, 'server', f'{number}') is None
    assert _open(host, 'server', 'x') == 'busy'
    assert _open(host, 'another', 'x') is None


def test_what_has_ended_is_forgotten_after_a_while(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    host.open_file('server', 'one')
    items[0].is_done = True
    items[0].commit.return_value = True
    host.open_file('server', 'two')
    assert host.commit('one', 0, '')['done']
    items[0].lease_until = 0
    host.open_file('server', 'three')
    assert host.commit('one', 0, '')['refusal'] is not None


def test_message_that_comes_twice_begins_once(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    assert host.open_file('server', 'one') == OPENED
    assert host.open_file('server', 'one') == OPENED
    assert len(items) == 1


def test_host_that_does_not_serve_yet_is_busy() -> None:
    host = transfers.Transfers(lambda server, make: None)
    assert _open(host, 'server', 'one') == 'busy'
