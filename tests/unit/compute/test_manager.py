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


"""The manager of a host, with guests, transfers and conductor played."""

import base64
import inspect
from typing import Any
from unittest import mock

import oslo_messaging
import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.cmd import compute as cmd_compute
from guest_agent_ext.compute import manager
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.compute import transfer_calls
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from tests import counted

REFUSAL: rpcapi.Refusal = {'kind': 'refused', 'message': 'No'}
SERVICE: conductor_rpcapi.Service = {'host': 'here', 'incarnation': 1}


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> manager.ComputeManager:
    for name in ('get_rpc_server', 'get_rpc_client'):
        monkeypatch.setattr(oslo_messaging, name, mock.Mock())
    # Nobody makes their steps.
    monkeypatch.setattr(manager.lane.Lane, 'start', lambda lane: None)
    return manager.ComputeManager('here', mock.Mock(), mock.Mock())


def test_lanes_are_counted_as_they_are_now(
    compute: manager.ComputeManager,
) -> None:
    def shown() -> tuple[float, float]:
        well, suspect = (
            counted.value('guest_agent_lanes', state=state)
            for state in ('well', 'suspect')
        )
        return well, suspect

    cmd_compute._show_metrics(compute)
    assert shown() == (0, 0)
    lanes: list[Any] = [compute._lane_of(SERVICE, uuid) for uuid in 'abc']
    assert shown() == (3, 0)
    lanes[0].session.failures = 1
    assert shown() == (2, 1)
    assert compute._leave(lanes[0])
    assert shown() == (2, 0)


def test_report_that_was_answered_is_noted(
    compute: manager.ComputeManager,
) -> None:
    name = 'guest_agent_report_timestamp_seconds'
    conductor: Any = mock.Mock()
    compute._service, compute._conductor = SERVICE, conductor
    before = counted.value(name)
    conductor.report.side_effect = exception.ConductorUnreachable('')
    compute._report_safely()
    assert counted.value(name) == before
    conductor.report.side_effect = None
    conductor.report.return_value = {
        'fenced': False,
        'work': [],
        'ended': [],
        'moved': [],
    }
    compute._report_safely()
    assert counted.value(name) > before


def test_others_may_call_what_the_client_calls_and_no_more(
    compute: manager.ComputeManager,
) -> None:
    (options,) = [
        call.kwargs for call in oslo_messaging.get_rpc_server.call_args_list
    ]
    policy = options['access_policy']()
    allowed = {
        name
        for name in dir(manager.ComputeManager)
        if policy.is_allowed(compute, name)
    }
    assert allowed == {
        name
        for name, _ in inspect.getmembers(
            rpcapi.ComputeAPI, inspect.isfunction
        )
        if not name.startswith('_')
    }
    assert not policy.is_allowed(compute, 'stop')


@pytest.fixture
def calls(compute: manager.ComputeManager) -> mock.Mock:
    """The mailbox of each transfer."""
    calls = mock.Mock(spec=transfer_calls.TransferCalls)
    compute._transfers = mock.Mock(
        **{'begin.return_value': calls, 'find.return_value': calls}
    )
    return calls


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize('data', [None, b'', b'whole'])
def test_file_is_opened(
    compute: manager.ComputeManager, calls: mock.Mock, data: bytes | None
) -> None:
    calls.open.return_value = rpcapi.OpenedFile(5, data)
    assert compute.open_file({}, 'server', 'one') == {
        'refusal': None,
        'size': 5,
        'data': None if data is None else encoded(data),
    }
    compute._transfers.begin.assert_called_once_with('server', 'one')


def test_chunks_are_base64_on_the_wire_alone(
    compute: manager.ComputeManager, calls: mock.Mock
) -> None:
    calls.read.return_value = b'data'
    assert compute.read_chunk({}, 'one', 3, 4) == {
        'refusal': None,
        'data': encoded(b'data'),
    }
    calls.read.assert_called_once_with(3, 4)
    compute.read_chunk({}, 'one', 0, 10**9)
    calls.read.assert_called_with(0, rpcapi.READ_CHUNK)
    assert compute.write_chunk({}, 'one', 5, encoded(b'data')) == {
        'refusal': None,
        'done': True,
    }
    calls.write.assert_called_once_with(5, b'data')


@pytest.mark.parametrize('is_done', [True, False])
def test_commit_tells_whether_it_is_done(
    compute: manager.ComputeManager, calls: mock.Mock, is_done: bool
) -> None:
    calls.commit.return_value = is_done
    assert compute.commit({}, 'one', 9, 'hash') == {
        'refusal': None,
        'done': is_done,
    }
    calls.commit.assert_called_once_with(9, 'hash')


def test_transfer_that_is_not_there_need_not_be_aborted(
    compute: manager.ComputeManager, calls: mock.Mock
) -> None:
    compute.abort({}, 'one', 'why')
    calls.abort.assert_called_once_with('why')
    compute._transfers.find.side_effect = refused()
    compute.abort({}, 'one', 'why')


def refused() -> exception.TransferRefused:
    return exception.TransferRefused(**REFUSAL)


def test_refusals_are_passed_on(
    compute: manager.ComputeManager, calls: mock.Mock
) -> None:
    for name in ('open', 'read', 'write', 'commit'):
        getattr(calls, name).side_effect = refused()
    assert [
        compute.open_file({}, 'server', 'one')['refusal'],
        compute.read_chunk({}, 'one', 0, 1)['refusal'],
        compute.write_chunk({}, 'one', 0, '')['refusal'],
        compute.commit({}, 'one', 0, '')['refusal'],
    ] == [REFUSAL] * 4


def test_output_that_cannot_be_read_has_a_reason(
    compute: manager.ComputeManager,
) -> None:
    inquiries: Any = mock.Mock()
    compute._inquiries = inquiries
    inquiries.read_output.return_value = b'out'
    assert compute.read_output({}, 'server', 'one', 'out', 0) == {
        'data': encoded(b'out'),
        'reason': None,
    }
    error = inquiries.read_output.side_effect = exception.AgentUnresponsive()
    assert compute.read_output({}, 'server', 'one', 'out', 0) == {
        'data': '',
        'reason': str(error),
    }


def test_doorbell_rings(compute: manager.ComputeManager) -> None:
    compute.work({})
    assert compute._doorbell.is_set()


@pytest.mark.parametrize('name', command.TYPES)
def test_each_type_of_command_has_a_task(
    compute: manager.ComputeManager, name: str
) -> None:
    compute._offer(
        SERVICE,
        {
            'uuid': 'command',
            'type': name,
            'instance_uuid': 'server',
            'status': command.RUNNING,
            'attempt': 'previous',
            'cancel_requested': False,
            'start_in': 30.0,
        },
    )
    assert list(compute._lanes['server']._tasks) == ['command']


def test_transfer_that_nobody_opened_is_not_begun(
    compute: manager.ComputeManager,
) -> None:
    compute._offer(
        SERVICE,
        {
            'uuid': 'command',
            'type': command.FILE_READ,
            'instance_uuid': 'server',
            'status': command.PENDING,
            'attempt': None,
            'cancel_requested': False,
            'start_in': 30.0,
        },
    )
    assert not compute._lanes


def test_transfer_begins_in_the_lane_of_its_server(
    compute: manager.ComputeManager,
) -> None:
    make = mock.Mock()
    assert compute._begin('server', make) is None
    compute._service = SERVICE
    begun = compute._begin('server', make)
    lane = compute._lanes['server']
    make.assert_called_once_with(lane.session)
    assert list(lane._tasks.values()) == [begun]
    compute.stopping.set()
    assert compute._begin('another', make) is None
