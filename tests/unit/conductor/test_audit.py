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

"""What is told of commands, when, and how often."""

from collections.abc import Callable
from collections.abc import Iterator
import datetime
import logging
from unittest import mock

from oslo_db import exception as db_exc
import pytest

from guest_agent_ext import command
from guest_agent_ext.conductor import actions
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import notifications
from guest_agent_ext.db import audit as queries
from guest_agent_ext.db import models
from tests import counted


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """All that the audit calls, in one order."""
    told = mock.Mock()
    told.take.return_value = True
    for name in ('due', 'take', 'note_told'):
        monkeypatch.setattr(queries, name, getattr(told, name))
    for name in ('emit_start', 'emit_end'):
        monkeypatch.setattr(notifications, name, getattr(told, name))
    monkeypatch.setattr(actions, 'record', told.record)
    return told


Tell = Callable[..., list[str]]


@pytest.fixture
def tell(told: mock.Mock, cell: mock.Mock) -> Iterator[Tell]:
    """Tell of commands, and return the names of the calls."""

    def tell(*rows: models.Command) -> list[str]:
        told.due.side_effect = [list(rows), []]
        told.reset_mock()
        audit.tell_due(cell)
        return [call[0] for call in told.mock_calls]

    yield tell


def test_short_command_is_told_of_once(
    tell: Tell, row: models.Command
) -> None:
    assert tell(row) == [
        'due',
        'take',
        'record',
        'emit_start',
        'emit_end',
        'note_told',
        'due',
    ]


def test_start_that_was_told_is_not_told_again(
    tell: Tell, told: mock.Mock, row: models.Command
) -> None:
    row.audited = command.RUNNING
    with counted.grows(
        'guest_agent_command_start_seconds_count', 0, type=command.EXEC
    ):
        calls = tell(row)
    assert 'emit_end' in calls
    assert 'emit_start' not in calls


def test_command_that_runs_has_no_end_yet(
    tell: Tell, row: models.Command
) -> None:
    row.status, row.finished_at = command.RUNNING, None
    calls = tell(row)
    assert 'emit_start' in calls
    assert 'emit_end' not in calls


def test_command_that_never_started_has_no_start(
    tell: Tell, row: models.Command
) -> None:
    row.status, row.started_at = command.FAILED, None
    calls = tell(row)
    assert 'emit_end' in calls
    assert 'emit_start' not in calls


def test_command_of_another_conductor_is_left_to_it(
    tell: Tell, told: mock.Mock, row: models.Command
) -> None:
    told.take.return_value = False
    assert tell(row) == ['due', 'take', 'due']


def test_what_could_not_be_told_stays_due(
    tell: Tell, told: mock.Mock, row: models.Command
) -> None:
    """Noted before, or in spite of the failure, it would be forgotten."""
    told.emit_end.side_effect = RuntimeError
    with pytest.raises(RuntimeError):
        tell(row)
    told.note_told.assert_not_called()


def test_state_that_is_noted_is_the_one_that_was_told(
    tell: Tell, told: mock.Mock, row: models.Command
) -> None:
    tell(row)
    told.note_told.assert_called_once_with(row.uuid, command.COMPLETED)


def test_server_that_nova_has_purged_costs_the_action_alone(
    tell: Tell, told: mock.Mock, row: models.Command
) -> None:
    told.record.side_effect = db_exc.DBReferenceError(
        'table', 'constraint', 'key', 'key_table'
    )
    calls = tell(row)
    assert {'emit_start', 'emit_end', 'note_told'} <= {*calls}


def test_actions_can_be_turned_off(
    tell: Tell, row: models.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        audit,
        'CONF',
        mock.Mock(guest_agent=mock.Mock(record_instance_actions=False)),
    )
    assert tell(row) == [
        'due',
        'take',
        'emit_start',
        'emit_end',
        'note_told',
        'due',
    ]


@pytest.mark.parametrize(
    ('kind', 'error', 'logged'),
    [
        (command.EXEC, None, ''),
        (command.EXEC, 'The shell said: secret', ' (The shell said)'),
        (command.EXEC, 'It was late. Last seen: secret', ' (It was late)'),
        (command.FILE_READ, 'There is no /home/secret', ''),
    ],
)
def test_log_has_no_words_of_the_tenant(
    tell: Tell,
    row: models.Command,
    kind: str,
    error: str | None,
    logged: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    row.type, row.error = kind, error
    tell(row)
    (message,) = [message for message in caplog.messages if 'ended' in message]
    assert f'ended as COMPLETED{logged}; project owner' in message
    assert 'secret' not in message


@pytest.mark.parametrize(
    ('status', 'level'),
    [(command.LOST, logging.WARNING), (command.FAILED, logging.INFO)],
)
def test_loss_is_a_warning(
    tell: Tell,
    row: models.Command,
    status: str,
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    row.status = status
    tell(row)
    assert [record.levelno for record in caplog.records] == [level]


def test_times_count_from_the_acceptance(
    tell: Tell, row: models.Command
) -> None:
    with (
        counted.grows(
            'guest_agent_command_start_seconds_sum', 2, type=command.EXEC
        ),
        counted.grows(
            'guest_agent_command_end_seconds_sum', 5, type=command.EXEC
        ),
        counted.grows(
            'guest_agent_commands_ended_total',
            type=command.EXEC,
            status=command.COMPLETED,
        ),
    ):
        tell(row)


def test_guest_s_clock_makes_no_negative_times(
    tell: Tell, row: models.Command
) -> None:
    row.started_at = row.created_at - datetime.timedelta(seconds=1)
    with counted.grows(
        'guest_agent_command_start_seconds_sum', 0, type=command.EXEC
    ):
        tell(row)
