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

"""Which transfers a host has, and how many there may be."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.compute import transfers
from tests.unit import clock as unit_clock


@pytest.fixture
def items() -> list[mock.Mock]:
    """The tasks that were begun."""
    return []


@pytest.fixture
def clock() -> unit_clock.FakeClock:
    return unit_clock.FakeClock()


@pytest.fixture
def host(
    items: list[mock.Mock], clock: unit_clock.FakeClock
) -> transfers.Transfers:
    def begin(instance_uuid: str, make: Callable[[Any], Any]) -> mock.Mock:
        made = make(mock.Mock(clock=clock))
        item = mock.Mock(spec=made, is_done=False, calls=made.calls)
        items.append(item)
        return item

    return transfers.Transfers(begin, clock)


def refusal(host: transfers.Transfers, server: str, uuid: str) -> str | None:
    try:
        host.begin(server, uuid)
    except exception.TransferRefused as error:
        return error.kind
    return None


def test_calls_are_those_of_their_transfer(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    assert host.begin('server', 'one') is items[0].calls
    assert host.begin('server', 'two') is items[1].calls
    assert host.find('one') is items[0].calls


def test_unknown_transfer_has_ended(host: transfers.Transfers) -> None:
    """The service was restarted."""
    with pytest.raises(exception.TransferRefused) as caught:
        host.find('one')
    assert caught.value.kind == 'ended'


def test_host_has_a_bound(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    for number in range(8):
        assert refusal(host, f'server{number}', f'{number}') is None
    assert refusal(host, 'another', 'x') == 'busy'
    items[0].is_done = True
    assert refusal(host, 'another', 'x') is None


def test_server_has_a_bound(host: transfers.Transfers) -> None:
    for number in range(4):
        assert refusal(host, 'server', f'{number}') is None
    assert refusal(host, 'server', 'x') == 'busy'
    assert refusal(host, 'another', 'x') is None


def test_what_has_ended_is_forgotten_after_a_while(
    host: transfers.Transfers,
    items: list[mock.Mock],
    clock: unit_clock.FakeClock,
) -> None:
    calls = host.begin('server', 'one')
    items[0].is_done = True
    host.begin('server', 'two')
    assert host.find('one') is calls
    clock.time = calls.lease_until + 1
    host.begin('server', 'three')
    with pytest.raises(exception.TransferRefused):
        host.find('one')
    # It is under way.
    host.find('two')


def test_message_that_comes_twice_begins_once(
    host: transfers.Transfers, items: list[mock.Mock]
) -> None:
    assert host.begin('server', 'one') is host.begin('server', 'one')
    assert len(items) == 1


def test_host_that_does_not_serve_yet_is_busy(
    clock: unit_clock.FakeClock,
) -> None:
    host = transfers.Transfers(lambda server, make: None, clock)
    assert refusal(host, 'server', 'one') == 'busy'
