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

import concurrent.futures
from typing import Any

from nova.compute import vm_states
from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from guest_agent_ext.db import commands
from guest_agent_ext.db import keys
from guest_agent_ext.db import session
from tests.functional.api import base

BODY = {'command': ['id'], 'env': {'A': 'x', 'B': 'y'}}


def post(
    cloud: base.Cloud, asked: Any = None, key: str = 'key', **kwargs: Any
) -> Any:
    return cloud.post(
        asked or BODY, headers={'Idempotency-Key': key}, **kwargs
    )


def uuid_of(response: Any) -> str:
    assert response.status_code == 200, response.text
    uuid: str = response.json()['command']['uuid']
    return uuid


def count(cloud: base.Cloud) -> int:
    return len(cloud.get(cloud.path).json()['commands'])


def test_repetition_answers_the_first_as_it_is_now(cloud: base.Cloud) -> None:
    uuid = uuid_of(post(cloud))
    cloud.end(uuid, out_data=b'out', out_bytes=3)
    again = post(cloud, {'env': {'B': 'y', 'A': 'x'}, 'command': ['id']})
    assert uuid_of(again) == uuid
    assert again.json()['command']['status'] == 'COMPLETED'
    assert again.json()['command']['result']['out_data'] == 'out'
    assert count(cloud) == len(cloud.rung) == 1


def test_parallel_posts_make_one_command(cloud: base.Cloud) -> None:
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        responses = list(pool.map(lambda _: post(cloud), range(50)))
    assert len({uuid_of(response) for response in responses}) == 1
    assert count(cloud) == len(cloud.rung) == 1


def test_other_body(cloud: base.Cloud) -> None:
    uuid = uuid_of(post(cloud))
    message = base.message_of(
        post(cloud, dict(BODY, timeout=5)), 422, 'computeFault'
    )
    assert uuid in message
    assert count(cloud) == 1


def test_key_is_its_user_s_project_s_and_server_s(cloud: base.Cloud) -> None:
    other = base.commands_of(cloud.make_instance().uuid)
    admin = {'user': 'admin', 'roles': 'admin'}
    uuids = [
        uuid_of(response)
        for response in (
            post(cloud),
            post(cloud, key='Key'),
            post(cloud, user='other'),
            post(cloud, path=other),
            post(cloud, **admin),
            post(cloud, project_id=base.OTHER_PROJECT, **admin),
        )
    ]
    assert len(set(uuids)) == 6


def test_known_before_every_check_of_the_server(cloud: base.Cloud) -> None:
    uuid = uuid_of(post(cloud))
    # It has shut its server down.
    cloud.instance.vm_state = vm_states.STOPPED
    cloud.instance.save()
    assert uuid_of(post(cloud)) == uuid
    base.message_of(post(cloud, key='new'), 409, 'conflictingRequest')


def test_refused_request_leaves_its_key_unused(cloud: base.Cloud) -> None:
    cloud.instance.vm_state = vm_states.STOPPED
    cloud.instance.save()
    assert post(cloud).status_code == 409
    cloud.instance.vm_state = vm_states.ACTIVE
    cloud.instance.save()
    uuid_of(post(cloud))


def test_after_delete(cloud: base.Cloud) -> None:
    uuid = uuid_of(post(cloud))
    cloud.end(uuid)
    cloud.request('DELETE', f'{cloud.path}/{uuid}')
    assert uuid in base.message_of(post(cloud), 410, 'computeFault')
    assert post(cloud, {'command': ['other']}).status_code == 422
    assert count(cloud) == 0


def test_schema_and_policy_come_first(cloud: base.Cloud) -> None:
    uuid_of(post(cloud))
    assert post(cloud, {'command': []}).status_code == 400
    assert post(cloud, roles='reader').status_code == 403


@pytest.mark.parametrize('key', ['', 'x' * 256])
def test_key_of_a_wrong_length(cloud: base.Cloud, key: str) -> None:
    message = base.message_of(post(cloud, key=key), 400, 'badRequest')
    assert message.endswith(f'1 to 255 characters, not {len(key)}')


def test_longest_key(cloud: base.Cloud) -> None:
    key = 'x' * 254
    assert uuid_of(post(cloud, key=key + 'y')) != uuid_of(
        post(cloud, key=key + 'z')
    )


def test_other_calls_have_no_key(cloud: base.Cloud) -> None:
    uuid = uuid_of(cloud.post())
    for method, path in (
        ('GET', cloud.path),
        ('GET', f'{cloud.path}/{uuid}'),
        ('DELETE', f'{cloud.path}/{uuid}'),
        ('POST', f'{cloud.path}/{uuid}/action'),
        ('GET', '/guest-agent/hosts'),
        ('GET', '/guest-agent/metrics'),
    ):
        response = cloud.request(
            method, path, {'cancel': None}, headers={'Idempotency-Key': 'key'}
        )
        assert 'Idempotency-Key' in base.message_of(
            response, 400, 'badRequest'
        )
    assert (
        cloud.get(f'{cloud.path}/{uuid}').json()['command']['status']
        == 'PENDING'
    )


def test_commit_of_unknown_fate_says_to_repeat(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*args: Any) -> None:
        raise db_exc.DBConnectionError()

    with monkeypatch.context() as patch:
        patch.setattr(commands, 'create', create)
        message = base.message_of(post(cloud), 503, 'serviceUnavailable')
    assert 'with the same Idempotency-Key' in message
    uuid_of(post(cloud))


def test_first_that_is_gone_says_to_repeat(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*args: Any) -> None:
        raise db_exc.DBDuplicateEntry()

    with monkeypatch.context() as patch:
        patch.setattr(commands, 'create', create)
        message = base.message_of(post(cloud), 503, 'serviceUnavailable')
    assert 'with the same Idempotency-Key' in message
    assert not cloud.rung


def test_database_that_is_too_busy(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*args: Any) -> None:
        raise db_exc.DBDeadlock()

    with monkeypatch.context() as patch:
        patch.setattr(commands, 'create', create)
        response = post(cloud)
    message = base.message_of(response, 503, 'serviceUnavailable')
    assert base.PROJECT in message
    assert response.headers['Retry-After'] == '5'
    uuid_of(post(cloud))


def test_body_cannot_be_told_from_what_is_kept(cloud: base.Cloud) -> None:
    uuid_of(post(cloud)), uuid_of(post(cloud, key='other'))
    with session.reader() as db:
        rows = db.scalars(
            sa.select(keys.models.IdempotencyKey)
            .order_by(keys.models.IdempotencyKey.id.desc())
            .limit(2)
        ).all()
    assert rows[0].body_hash != rows[1].body_hash
