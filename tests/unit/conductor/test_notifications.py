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

"""What notifications have, with the notifier played."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

from nova import rpc
import pytest

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.conductor import notifications
from guest_agent_ext.db import models


@pytest.fixture
def notifier(monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    notifier = mock.Mock()
    monkeypatch.setattr(rpc, 'NOTIFIER', mock.Mock())
    monkeypatch.setattr(rpc, 'get_versioned_notifier', notifier.get)
    conf.CONF.set_override(
        'notification_format', 'versioned', group='notifications'
    )
    yield notifier
    conf.CONF.clear_override('notification_format', group='notifications')


def sent(notifier: mock.Mock) -> tuple[str, dict[str, Any]]:
    """Return event type and payload of the notification that was sent."""
    (_, kwargs) = notifier.get.return_value.info.call_args
    return kwargs['event_type'], kwargs['payload']['nova_object.data']


def test_start_is_told_as_it_was(
    notifier: mock.Mock, row: models.Command
) -> None:
    """Told late, it would have the end of the command in it."""
    notifications.emit_start(mock.Mock(), 'guest_agent_exec', row)
    event_type, payload = sent(notifier)
    assert event_type == 'instance.guest_agent_exec.start'
    assert payload['status'] == command.RUNNING
    assert payload['started_at'] == '2026-01-01T12:00:02Z'
    assert (payload['finished_at'], payload['exitcode']) == (None, None)


def test_end(notifier: mock.Mock, row: models.Command) -> None:
    notifications.emit_end(mock.Mock(), 'guest_agent_exec', row)
    event_type, payload = sent(notifier)
    assert event_type == 'instance.guest_agent_exec.end'
    assert (payload['status'], payload['exitcode'], payload['signal']) == (
        command.COMPLETED,
        3,
        None,
    )
    assert payload['finished_at'] == '2026-01-01T12:00:05Z'


def test_what_a_command_is_stays_unsaid(
    notifier: mock.Mock, row: models.Command
) -> None:
    row.error = 'secret'
    notifications.emit_end(mock.Mock(), 'guest_agent_exec', row)
    _, payload = sent(notifier)
    assert 'secret' not in str(payload)
    assert not payload.keys() & {
        'arguments',
        'inputs',
        'error',
        'out_data',
        'err_data',
    }


def test_dead_broker_is_not_waited_for(
    notifier: mock.Mock, row: models.Command
) -> None:
    notifications.emit_end(mock.Mock(), 'guest_agent_exec', row)
    assert notifier.get.return_value.retry == 1


def test_sender_is_named_by_its_host(
    notifier: mock.Mock, row: models.Command
) -> None:
    notifications.emit_end(mock.Mock(), 'guest_agent_exec', row)
    notifier.get.assert_called_once_with(
        f'guest-agent-conductor:{conf.CONF.host}'
    )
