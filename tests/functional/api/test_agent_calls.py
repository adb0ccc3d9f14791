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

"""Commands that are calls of the guest agent, as users ask for them."""

import logging
from typing import Any

from nova import policy as nova_policy
import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import policies
from guest_agent_ext.conductor import manager
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from tests.functional.api import base

SECRET = 'never-shown-x7'
KEY = 'ssh-ed25519 AAAAC3Nza tenant@home'
ARGUMENTS: dict[str, dict[str, Any]] = {
    'set-password': {'user': 'root', 'password': SECRET},
    'ssh-keys-add': {'user': 'root', 'keys': [KEY], 'reset': True},
    'ssh-keys-remove': {'user': 'root', 'keys': [KEY]},
    'fstrim': {'minimum': 4096},
}


def post(
    cloud: base.Cloud, kind: str, arguments: dict[str, Any], **kwargs: Any
) -> Any:
    return cloud.request(
        'POST',
        cloud.path,
        {'command': {'type': kind, 'arguments': arguments}},
        **kwargs,
    )


@pytest.mark.parametrize('kind', ARGUMENTS)
def test_command_is_recorded_handed_out_and_shown(
    cloud: base.Cloud, kind: str
) -> None:
    answer = post(cloud, kind, ARGUMENTS[kind])
    assert answer.status_code == 200, answer.text
    shown = answer.json()['command']
    assert (shown['type'], shown['status']) == (kind, 'PENDING')
    assert shown['arguments'] == {
        name: value
        for name, value in ARGUMENTS[kind].items()
        if name != 'password'
    }
    claim = manager._claim(
        commands.claim(
            shown['uuid'],
            attempt='attempt',
            cell_uuid=cloud.cell.uuid,
            host=base.HOST,
            boot_id='none',
            ticket=0,
            window=1.0,
            grace=600,
        )
    )
    assert claim is not None
    assert claim['call'] == ARGUMENTS[kind]
    assert (claim['exec'], claim['file']) == (None, None)
    commands.finish(
        shown['uuid'],
        attempt='attempt',
        status=command.COMPLETED,
        values={},
        age=0.1,
    )
    ended = cloud.get(f'{cloud.path}/{shown["uuid"]}').json()['command']
    assert (ended['status'], ended['result']) == ('COMPLETED', None)
    assert ended['started_at'] is not None
    (listed,) = cloud.get(f'{cloud.path}?type={kind}').json()['commands']
    assert listed['uuid'] == shown['uuid']


def test_password_is_in_no_answer_log_or_row_after_the_end(
    cloud: base.Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = post(cloud, 'set-password', ARGUMENTS['set-password'])
    uuid = answer.json()['command']['uuid']
    shown = cloud.admin_get(f'{cloud.path}/{uuid}')
    cloud.end(uuid)
    ended = cloud.admin_get(f'{cloud.path}/{uuid}')
    for text in (answer.text, shown.text, ended.text, caplog.text):
        assert SECRET not in text
    with session.reader() as db:
        row = db.execute(
            sa.text('SELECT * FROM guest_agent_commands WHERE uuid = :uuid'),
            {'uuid': uuid},
        ).one()
    assert row.inputs is None
    assert SECRET not in str(row)


def test_password_waits_in_the_row_apart_from_what_is_shown(
    cloud: base.Cloud,
) -> None:
    answer = post(cloud, 'set-password', ARGUMENTS['set-password'])
    with session.reader() as db:
        row = db.execute(
            sa.select(models.Command.arguments, models.Command.inputs).where(
                models.Command.uuid == answer.json()['command']['uuid']
            )
        ).one()
    assert row.arguments == {'user': 'root'}
    assert row.inputs == {'password': SECRET}


def test_repeated_request_is_the_first_command(cloud: base.Cloud) -> None:
    headers = {'Idempotency-Key': 'once'}
    first, second = (
        post(
            cloud, 'set-password', ARGUMENTS['set-password'], headers=headers
        ).json()['command']['uuid']
        for _ in range(2)
    )
    assert first == second
    other = dict(ARGUMENTS['set-password'], password='another')
    assert (
        post(cloud, 'set-password', other, headers=headers).status_code == 422
    )


def test_cancel_before_the_start(cloud: base.Cloud) -> None:
    uuid = post(cloud, 'fstrim', {}).json()['command']['uuid']
    path = f'{cloud.path}/{uuid}'
    cloud.request('POST', path + '/action', {'cancel': None})
    assert cloud.get(path).json()['command']['status'] == 'CANCELLED'


@pytest.mark.parametrize(
    ('kind', 'arguments', 'words'),
    [
        ('file-read', {}, 'command.type must be one of'),
        ('set-password', {'user': 'root'}, 'password is missing'),
        ('set-password', {'password': SECRET}, 'user is missing'),
        (
            'set-password',
            {'user': 'root', 'password': SECRET + '\n'},
            'command.arguments.password must be one line',
        ),
        (
            'set-password',
            {'user': 'root', 'password': ''},
            'command.arguments.password must have at least 1',
        ),
        (
            'set-password',
            {'user': 'root', 'password': SECRET, 'crypted': 'yes'},
            'crypted must be of type boolean',
        ),
        (
            'set-password',
            {'user': '-x', 'password': SECRET},
            'command.arguments.user must match',
        ),
        (
            'set-password',
            {'user': 'root', 'password': SECRET, 'command': ['id']},
            'command is not known here',
        ),
        (
            'ssh-keys-add',
            {'user': 'root', 'keys': []},
            'keys must have at least 1',
        ),
        (
            'ssh-keys-add',
            {'user': 'root', 'keys': ['a\nb']},
            'command.arguments.keys[0] must match',
        ),
        (
            'ssh-keys-add',
            {'user': 'root', 'keys': ['x' * 16384] * 3},
            'together at most 32768 bytes, not 49152',
        ),
        (
            'ssh-keys-remove',
            {'user': 'root', 'keys': ['a'], 'reset': True},
            'reset is not known here',
        ),
        ('fstrim', {'minimum': -1}, 'minimum must be at least 0'),
        ('fstrim', [], 'command.arguments must be of type object'),
        ('exec', {'user': 'root'}, 'command is missing'),
    ],
)
def test_what_is_wrong_is_said_without_secrets(
    cloud: base.Cloud, kind: str, arguments: Any, words: str
) -> None:
    message = base.message_of(post(cloud, kind, arguments), 400, 'badRequest')
    assert words in message
    assert SECRET not in message


def test_policy_of_one_type_is_not_another_s(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may only trim must neither run programs nor set passwords."""
    allowed = {policies.CREATE_FSTRIM}

    def authorize(context: Any, rule: str, project_id: Any) -> None:
        if rule not in allowed:
            raise nova_policy.exception.PolicyNotAuthorized(action=rule)

    monkeypatch.setattr(policies, 'authorize', authorize)
    monkeypatch.setattr(
        policies, 'allows', lambda context, rule, project: rule in allowed
    )
    assert post(cloud, 'fstrim', {}).status_code == 200
    for kind in ('set-password', 'ssh-keys-add', 'ssh-keys-remove'):
        assert post(cloud, kind, ARGUMENTS[kind]).status_code == 403
    assert cloud.post().status_code == 403
    allowed.clear()
    assert post(cloud, 'fstrim', {}).status_code == 403
