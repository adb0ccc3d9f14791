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

"""``openstack server guest wait`` with a service that is played."""

from typing import Any
from unittest import mock

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import resources
from guest_agent_ext.osc import wait
from tests.unit.osc import fakes

NOT_YET = 'Server x has vm_state building; it must be active or resized'


class Time:
    """Plays the clock: only sleep takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(wait.time, 'monotonic', clock.monotonic)
    monkeypatch.setattr(wait.time, 'sleep', clock.sleep)
    return clock


@pytest.fixture
def reasons(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What the agent lacks, an answer each; the last one stays."""
    reasons: list[str | None] = [None]

    def fetch(self: Any, session: Any, requires_id: bool) -> Any:
        reason = reasons.pop(0) if len(reasons) > 1 else reasons[0]
        self._body.attributes['reason'] = reason
        self._body.attributes['status'] = (
            'unavailable' if reason else 'available'
        )

    monkeypatch.setattr(resources.GuestAgent, 'fetch', fetch)
    return reasons


@pytest.fixture
def compute(compute: mock.Mock) -> mock.Mock:
    compute.get_server.return_value = mock.Mock(status='BUILD', fault=None)
    return compute


def cloud_init(
    code: int | None, out: str = '', status: str = 'COMPLETED', **more: Any
) -> fakes.Response:
    result = {
        'exitcode': code,
        'out_data': out,
        'out_encoding': 'utf-8',
        'out_truncated': False,
    }
    return fakes.Response(body=fakes.shown(status, result=result, **more))


def test_server_that_is_ready(
    compute: mock.Mock, reasons: list[str | None], capsys: Any
) -> None:
    assert fakes.run(wait.Wait, compute) == 0
    assert capsys.readouterr() == ('', '')
    compute.post.assert_not_called()


def test_what_is_missing_is_told_once(
    compute: mock.Mock, reasons: list[str | None], capsys: Any, clock: Time
) -> None:
    reasons[:] = [NOT_YET, NOT_YET, 'The agent is not connected', None]
    assert fakes.run(wait.Wait, compute) == 0
    assert capsys.readouterr() == (
        '',
        f'{NOT_YET}\nThe agent is not connected\n',
    )
    assert clock.now == 3 * wait.GAP


def test_wait_is_bounded(
    compute: mock.Mock, reasons: list[str | None], clock: Time
) -> None:
    reasons[:] = [NOT_YET]
    assert fakes.run(wait.Wait, compute, '--timeout', '5') == 124
    assert clock.now == 5


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        (None, 'The server is in ERROR$'),
        ({'message': 'No valid host'}, 'in ERROR: No valid host'),
    ],
)
def test_server_that_will_never_be(
    compute: mock.Mock, reasons: list[str | None], fault: Any, words: str
) -> None:
    reasons[:] = [NOT_YET]
    compute.get_server.return_value = mock.Mock(status='ERROR', fault=fault)
    with pytest.raises(exceptions.CommandError, match=words):
        fakes.run(wait.Wait, compute)


def test_interrupt(
    compute: mock.Mock,
    reasons: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasons[:] = [NOT_YET]
    monkeypatch.setattr(
        wait.time, 'sleep', mock.Mock(side_effect=interrupts.Interrupted(2))
    )
    assert fakes.run(wait.Wait, compute) == 130


def test_cloud_init_that_finishes(
    compute: mock.Mock, reasons: list[str | None], capsys: Any
) -> None:
    compute.post.return_value = cloud_init(0, '....\nstatus: done\n')
    assert fakes.run(wait.Wait, compute, '--cloud-init') == 0
    assert capsys.readouterr().err == 'cloud-init has not finished\n'
    sent = compute.post.call_args.kwargs['json']['command']['arguments']
    assert sent['command'][2].endswith('cloud-init status --wait --long')
    assert (sent['timeout'], sent['start_timeout']) == (600, 600)


def test_cloud_init_that_warns(
    compute: mock.Mock, reasons: list[str | None], capsys: Any
) -> None:
    compute.post.return_value = cloud_init(2, '..\nstatus: done\nx: y\n')
    assert fakes.run(wait.Wait, compute, '--cloud-init') == 0
    told = capsys.readouterr().err
    assert told.endswith('finished with warnings:\nstatus: done\nx: y\n')


@pytest.mark.parametrize(
    ('code', 'words'),
    [(1, 'has failed:\nstatus: error'), (127, 'is not installed')],
)
def test_cloud_init_that_does_not(
    compute: mock.Mock, reasons: list[str | None], code: int, words: str
) -> None:
    compute.post.return_value = cloud_init(code, 'status: error\n')
    with pytest.raises(exceptions.CommandError, match=words):
        fakes.run(wait.Wait, compute, '--cloud-init')


def test_server_without_a_shell(
    compute: mock.Mock, reasons: list[str | None]
) -> None:
    """To ask again would be in vain."""
    compute.post.return_value = cloud_init(
        None, status='FAILED', error='No such file: /bin/sh'
    )
    with pytest.raises(exceptions.CommandError, match='No such file'):
        fakes.run(wait.Wait, compute, '--cloud-init')
    compute.post.assert_called_once()


def test_cloud_init_that_reboots(
    compute: mock.Mock, reasons: list[str | None], capsys: Any
) -> None:
    """The guest is waited for again, and cloud-init in it."""
    reasons[:] = [None, 'The agent is not connected', None]
    compute.post.side_effect = [
        cloud_init(None, status='LOST', error='The guest was rebooted'),
        cloud_init(0),
    ]
    assert fakes.run(wait.Wait, compute, '--cloud-init') == 0
    told = capsys.readouterr().err.splitlines()
    assert told == [
        'cloud-init has not finished',
        'The guest was rebooted',
        'The agent is not connected',
        'cloud-init has not finished',
    ]


def test_server_that_is_shut_off_meanwhile(
    compute: mock.Mock, reasons: list[str | None]
) -> None:
    compute.post.side_effect = [
        fakes.Response(409, {'conflictingRequest': {'message': 'shut off'}}),
        cloud_init(0),
    ]
    assert fakes.run(wait.Wait, compute, '--cloud-init') == 0


def test_cloud_init_takes_too_long(
    compute: mock.Mock, reasons: list[str | None], clock: Time
) -> None:
    def time_out(*args: Any, **kwargs: Any) -> fakes.Response:
        arguments = kwargs['json']['command']['arguments']
        clock.now += arguments['timeout']
        return cloud_init(None, status='TIMED_OUT', error='Its timeout passed')

    compute.post.side_effect = time_out
    argv = ('--cloud-init', '--timeout', '7')
    assert fakes.run(wait.Wait, compute, *argv) == 124
    assert clock.now == 7


def test_interrupt_cancels_the_command_that_waits(
    compute: mock.Mock,
    reasons: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        wait.time,
        'sleep',
        mock.Mock(side_effect=[interrupts.Interrupted(15), None]),
    )
    compute.post.side_effect = [
        fakes.Response(body=fakes.shown('RUNNING')),
        fakes.Response(202),
    ]

    def fetch(self: resources.Command, session: Any) -> None:
        self._translate_response(fakes.Response(body=fakes.shown('CANCELLED')))

    monkeypatch.setattr(resources.Command, 'fetch', fetch)
    assert fakes.run(wait.Wait, compute, '--cloud-init') == 143
    assert compute.post.call_args.kwargs['json'] == {'cancel': None}


def test_server_that_is_gone(
    compute: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        resources.GuestAgent,
        'fetch',
        mock.Mock(side_effect=sdk_exceptions.NotFoundException('gone')),
    )
    with pytest.raises(sdk_exceptions.NotFoundException):
        fakes.run(wait.Wait, compute)
