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

"""What the audit tells of commands, as Nova's own API and bus show it."""

import json
import logging
import pathlib
from typing import Any
from unittest import mock

from nova import context as nova_context
from nova.db.main import api as nova_db
from oslo_db import exception as db_exc
from oslo_utils import timeutils
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.conductor import audit
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests import counted
from tests.functional.api import base

SAMPLES = pathlib.Path(__file__).parents[3] / 'doc/notification_samples'
SECRET = 'hunter2'
ASKED = {'command': ['sh', SECRET], 'env': {'A': SECRET}, 'input_data': SECRET}


def post(cloud: base.Cloud) -> dict[str, Any]:
    return dict(cloud.post(ASKED).json()['command'])


def start(cloud: base.Cloud, uuid: str) -> None:
    commands.claim(
        uuid,
        attempt='attempt',
        cell_uuid=cloud.cell.uuid,
        host=base.HOST,
        boot_id='boot',
        ticket=1,
        window=1.0,
        grace=600,
    )
    commands.note_started(
        uuid, attempt='attempt', pid=7, started_uptime=1, age=0.0
    )


def actions(cloud: base.Cloud) -> list[dict[str, Any]]:
    """Return what Nova shows of the actions of the server."""
    path = f'/servers/{cloud.instance.uuid}/os-instance-actions'
    headers = {'OpenStack-API-Version': 'compute 2.84'}
    listed = cloud.admin_get(path, headers=headers).json()['instanceActions']
    return [
        cloud.admin_get(
            f'{path}/{item["request_id"]}', headers=headers
        ).json()['instanceAction']
        for item in listed
    ]


def failing(error: Exception) -> Any:
    """Have a change in the database of Nova's cell fail."""
    return mock.patch.object(
        audit.actions, 'record', autospec=True, side_effect=error
    )


def test_nothing_is_told_before_the_start(
    cloud: base.Cloud, sent: list[Any]
) -> None:
    post(cloud)
    audit.tell_due(cloud.cell)
    assert not actions(cloud)
    assert not sent


def test_start_and_end_make_one_action(cloud: base.Cloud) -> None:
    asked = post(cloud)
    start(cloud, asked['uuid'])
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    (event,) = action['events']
    assert (event['result'], event['finish_time']) == (None, None)
    cloud.end(asked['uuid'], exitcode=3, out_data=SECRET.encode())
    audit.tell_due(cloud.cell)
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    (event,) = action['events']
    assert action['action'] == event['event'] == 'guest_agent_exec'
    assert action['request_id'] == asked['request_id']
    assert action['user_id'] == 'fake'
    assert action['project_id'] == base.PROJECT
    assert action['message'] is None
    assert event['result'] == 'Success'
    assert event['finish_time']
    assert event['details'] == f'{asked["uuid"]}: COMPLETED, exit code 3'
    assert SECRET not in json.dumps(action)


@pytest.mark.parametrize(
    ('source', 'status'),
    [
        (command.PENDING, command.CANCELLED),
        (command.PENDING, command.FAILED),
        (command.RUNNING, command.LOST),
        (command.RUNNING, command.FAILED),
    ],
)
def test_end_that_no_host_reported(
    cloud: base.Cloud, sent: list[Any], source: str, status: str
) -> None:
    uuid = post(cloud)['uuid']
    if source == command.RUNNING:
        start(cloud, uuid)
    commands.end(uuid, source=source, status=status, error=SECRET)
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    assert action['message'] == 'Error'
    assert action['events'][0]['result'] == 'Error'
    assert action['events'][0]['details'] == f'{uuid}: {status}'
    assert SECRET not in json.dumps([action, sent])
    phases = [
        message['event_type'].rpartition('.')[2] for _, message, *_ in sent
    ]
    assert phases == (
        ['start', 'end'] if source == command.RUNNING else ['end']
    )


def test_deleted_command_is_told_of(cloud: base.Cloud) -> None:
    uuid = post(cloud)['uuid']
    cloud.end(uuid)
    path = f'{cloud.path}/{uuid}'
    assert cloud.request('DELETE', path).status_code == 204
    assert cloud.get(path).status_code == 404
    assert cloud.get(cloud.path).json()['commands'] == []
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    assert action['events'][0]['details'].startswith(uuid)


def test_overdue_command_is_told_of(cloud: base.Cloud) -> None:
    row = cloud.post({'command': ['id'], 'start_timeout': 1}).json()
    uuid = row['command']['uuid']
    with session.writer() as db:
        db.execute(
            sa.text('UPDATE guest_agent_commands SET start_by = created_at')
        )
    commands.end_overdue(500)
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    assert action['events'][0]['details'] == f'{uuid}: FAILED'


def test_end_is_one_line_for_the_operator(
    cloud: base.Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """With all that is asked for at night, and nothing of the tenant's."""
    lost, failed, done = (post(cloud)['uuid'] for _ in range(3))
    for uuid, error in (
        (lost, f'{commands.NOT_REPORTED}. Last seen: {SECRET}'),
        (failed, f'The command could not be executed: {SECRET}'),
        (done, None),
    ):
        with session.writer() as db:
            db.execute(
                sa.text(
                    'UPDATE guest_agent_commands SET error = :error, '
                    'status = :status, finished_at = created_at, '
                    'audit_at = created_at WHERE uuid = :uuid'
                ),
                {
                    'uuid': uuid,
                    'error': error,
                    'status': {lost: 'LOST', failed: 'FAILED'}.get(
                        uuid, 'COMPLETED'
                    ),
                },
            )
    with caplog.at_level(logging.INFO, 'guest_agent_ext'):
        audit.tell_due(cloud.cell)
    lines = {
        uuid: next(
            record for record in caplog.records if uuid in record.getMessage()
        )
        for uuid in (lost, failed, done)
    }
    assert [lines[uuid].levelname for uuid in (lost, failed, done)] == [
        'WARNING',
        'INFO',
        'INFO',
    ]
    for record in lines.values():
        text = record.getMessage()
        assert SECRET not in text
        assert cloud.instance.uuid in text and base.HOST in text
        assert 'req-' in text
    assert commands.NOT_REPORTED in lines[lost].getMessage()
    assert 'could not be executed' in lines[failed].getMessage()


def test_dead_cell_is_told_when_it_is_back(cloud: base.Cloud) -> None:
    uuid = post(cloud)['uuid']
    cloud.end(uuid)
    with (
        failing(db_exc.DBConnectionError()),
        pytest.raises(db_exc.DBConnectionError),
    ):
        audit.tell_due(cloud.cell)
    audit.tell_due(cloud.cell)
    assert not actions(cloud)
    expire()
    audit.tell_due(cloud.cell)
    assert len(actions(cloud)) == 1


@pytest.mark.parametrize('was_started', [False, True])
def test_action_that_was_half_written_is_completed(
    cloud: base.Cloud, *, was_started: bool
) -> None:
    """By Nova's own functions, as earlier releases did."""
    row = post(cloud)
    cloud.end(row['uuid'])
    key = {
        'instance_uuid': cloud.instance.uuid,
        'request_id': row['request_id'],
    }
    now = timeutils.utcnow()
    with nova_context.target_cell(
        nova_context.get_admin_context(), cloud.cell
    ) as context:
        nova_db.action_start(
            context, dict(key, action='guest_agent_exec', start_time=now)
        )
        if was_started:
            nova_db.action_event_start(
                context,
                dict(
                    key,
                    event='guest_agent_exec',
                    host=base.HOST,
                    start_time=now,
                ),
            )
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    (event,) = action['events']
    assert event['result'] == 'Success'
    assert event['finish_time']


def test_action_is_written_whole_or_not(cloud: base.Cloud) -> None:
    cloud.end(post(cloud)['uuid'])
    with (
        mock.patch.object(
            audit.actions,
            '_add_event',
            autospec=True,
            side_effect=db_exc.DBConnectionError(),
        ),
        pytest.raises(db_exc.DBConnectionError),
    ):
        audit.tell_due(cloud.cell)
    assert not actions(cloud)
    expire()
    audit.tell_due(cloud.cell)
    assert len(actions(cloud)) == 1


def test_action_grows_with_the_command(cloud: base.Cloud) -> None:
    uuid = post(cloud)['uuid']
    start(cloud, uuid)
    audit.tell_due(cloud.cell)
    ((event,),) = [action['events'] for action in actions(cloud)]
    assert (event['result'], event['finish_time']) == (None, None)
    cloud.finish(uuid, command.LOST)
    audit.tell_due(cloud.cell)
    (action,) = actions(cloud)
    (event,) = action['events']
    assert (action['message'], event['result']) == ('Error', 'Error')
    assert event['finish_time'] >= event['start_time']


def expire() -> None:
    """Have the time pass after which telling is tried again."""
    with session.writer() as db:
        db.execute(
            sa.text(
                'UPDATE guest_agent_commands SET audit_at = created_at '
                'WHERE audit_at IS NOT NULL'
            )
        )


def test_server_that_was_purged_ends_the_matter(cloud: base.Cloud) -> None:
    cloud.end(post(cloud)['uuid'])
    gone = db_exc.DBReferenceError('instance_actions', 'fk', 'key', 'table')
    with failing(gone):
        audit.tell_due(cloud.cell)
    expire()
    audit.tell_due(cloud.cell)
    assert not actions(cloud)


def test_change_while_it_is_told_is_told_next(
    cloud: base.Cloud, sent: list[Any]
) -> None:
    uuid = post(cloud)['uuid']
    start(cloud, uuid)
    emit = audit.notifications.emit_start

    def end_meanwhile(*args: Any) -> None:
        emit(*args)
        cloud.end(uuid)

    with mock.patch.object(audit.notifications, 'emit_start', end_meanwhile):
        audit.tell_due(cloud.cell)
    assert [message['event_type'] for _, message, *_ in sent] == [
        'instance.guest_agent_exec.start',
        'instance.guest_agent_exec.end',
    ]


def test_option_turns_actions_off(cloud: base.Cloud, sent: list[Any]) -> None:
    cloud.end(post(cloud)['uuid'])
    base.CONF.set_override(
        'record_instance_actions', False, group='guest_agent'
    )
    try:
        audit.tell_due(cloud.cell)
    finally:
        base.CONF.clear_override(
            'record_instance_actions', group='guest_agent'
        )
    assert not actions(cloud)
    assert len(sent) == 2


def test_notifications_are_as_the_samples_say(
    cloud: base.Cloud, sent: list[Any]
) -> None:
    uuid = post(cloud)['uuid']
    cloud.end(uuid, exitcode=3, out_data=SECRET.encode())
    audit.tell_due(cloud.cell)
    assert SECRET not in json.dumps(sent)
    for (_, message, _, retry), phase in zip(
        sent, ('start', 'end'), strict=True
    ):
        assert retry == 1
        sample = json.loads(
            (SAMPLES / f'guest_agent_exec-{phase}.json').read_text()
        )
        shown = message['payload'].pop('nova_object.data')
        expected = sample['payload'].pop('nova_object.data')
        same = ('type', 'status', 'exitcode', 'signal')
        assert [shown[name] for name in same] == [
            expected[name] for name in same
        ]
        assert (shown['uuid'], shown['instance_uuid']) == (
            uuid,
            cloud.instance.uuid,
        )
        assert shown.keys() == expected.keys()
        assert message['publisher_id'].startswith('guest-agent-conductor:')
        for name in ('event_type', 'payload', 'priority'):
            assert message[name] == sample[name]


def test_unversioned_format_sends_none(
    cloud: base.Cloud, sent: list[Any]
) -> None:
    base.CONF.set_override(
        'notification_format', 'unversioned', group='notifications'
    )
    cloud.end(post(cloud)['uuid'])
    audit.tell_due(cloud.cell)
    assert len(actions(cloud)) == 1
    assert not sent


def test_start_and_end_are_counted_once(cloud: base.Cloud) -> None:
    labels = {'type': 'exec', 'status': 'COMPLETED'}
    uuid = post(cloud)['uuid']
    with (
        counted.grows('guest_agent_command_start_seconds_count', type='exec'),
        counted.grows('guest_agent_commands_ended_total', **labels),
    ):
        start(cloud, uuid)
        with counted.grows('guest_agent_commands_ended_total', 0, **labels):
            audit.tell_due(cloud.cell)
        cloud.end(uuid)
        audit.tell_due(cloud.cell)
        # As a conductor that was asked the same again.
        cloud.end(uuid)
        audit.tell_due(cloud.cell)


def test_end_of_what_never_started_is_counted(cloud: base.Cloud) -> None:
    uuid = post(cloud)['uuid']
    with (
        counted.grows(
            'guest_agent_command_start_seconds_count', 0, type='exec'
        ),
        counted.grows('guest_agent_command_end_seconds_count', type='exec'),
        counted.grows(
            'guest_agent_commands_ended_total', type='exec', status='CANCELLED'
        ),
    ):
        assert commands.cancel(uuid)
        audit.tell_due(cloud.cell)


def test_end_that_could_not_be_told_is_counted_when_it_was(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, 'RETRY_AFTER', 0)
    uuid = post(cloud)['uuid']
    cloud.end(uuid)
    with counted.grows(
        'guest_agent_commands_ended_total', type='exec', status='COMPLETED'
    ):
        with (
            failing(db_exc.DBConnectionError()),
            pytest.raises(db_exc.DBConnectionError),
        ):
            audit.tell_due(cloud.cell)
        audit.tell_due(cloud.cell)


def test_seconds_are_from_the_acceptance(cloud: base.Cloud) -> None:
    uuid = post(cloud)['uuid']
    with session.writer() as db:
        db.execute(
            sa.update(models.Command)
            .where(models.Command.uuid == uuid)
            .values(created_at=sqltypes.utc_in(-100))
        )
    before = counted.value('guest_agent_command_end_seconds_sum', type='exec')
    cloud.end(uuid)
    audit.tell_due(cloud.cell)
    seconds = (
        counted.value('guest_agent_command_end_seconds_sum', type='exec')
        - before
    )
    assert 99 < seconds < 200
