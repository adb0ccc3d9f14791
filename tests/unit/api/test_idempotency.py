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

import types
from typing import Any

import pytest
import webob.exc

from guest_agent_ext.api import idempotency
from guest_agent_ext.db import keys

BODY: Any = {
    'command': {
        'type': 'exec',
        'arguments': {'command': ['id'], 'env': {'A': '1', 'B': '2'}},
    }
}


def key(
    user: str = 'user',
    project: str = 'project',
    server: str = 'server',
    text: str = 'key',
    body: Any = BODY,
) -> idempotency.Key:
    context: Any = types.SimpleNamespace(user_id=user, project_id=project)
    return idempotency.Key(context, server, text, body)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The rows of keys, by scope."""
    rows: dict[str, Any] = {}
    monkeypatch.setattr(keys, 'find', rows.get)
    return rows


def record(rows: dict[str, Any], of: idempotency.Key) -> dict[str, str]:
    columns = of.columns()
    rows[columns['scope']] = types.SimpleNamespace(
        command_uuid='uuid', **columns
    )
    return columns


@pytest.mark.parametrize(
    'other', [{'user': 'x'}, {'project': 'x'}, {'server': 'x'}, {'text': 'x'}]
)
def test_key_is_its_caller_s_own(
    recorded: dict[str, Any], other: dict[str, str]
) -> None:
    record(recorded, key())
    assert key().find() == 'uuid'
    assert key(**other).find() is None


def test_parts_of_a_scope_are_not_run_together(
    recorded: dict[str, Any],
) -> None:
    record(recorded, key(server='a', text='bc'))
    assert key(server='ab', text='c').find() is None


def test_order_of_names_makes_no_other_body(recorded: dict[str, Any]) -> None:
    record(recorded, key())
    again: Any = {
        'command': {
            'arguments': {'env': {'B': '2', 'A': '1'}, 'command': ['id']},
            'type': 'exec',
        }
    }
    assert key(body=again).find() == 'uuid'


def test_other_body_is_refused(recorded: dict[str, Any]) -> None:
    record(recorded, key())
    other: Any = {
        'command': {'type': 'exec', 'arguments': {'command': ['id', '-u']}}
    }
    with pytest.raises(webob.exc.HTTPUnprocessableEntity, match='uuid'):
        key(body=other).find()


def test_hashes_do_not_tell_which_bodies_are_the_same(
    recorded: dict[str, Any],
) -> None:
    first, second = record(recorded, key()), record(recorded, key())
    assert first['scope'] == second['scope']
    assert first['body_hash'] != second['body_hash']


@pytest.mark.parametrize(
    ('text', 'is_accepted'),
    [('', False), ('x', True), ('x' * 255, True), ('x' * 256, False)],
)
def test_length_of_a_key(text: str, is_accepted: bool) -> None:
    context = types.SimpleNamespace(user_id='user', project_id='project')
    req: Any = types.SimpleNamespace(
        headers={'Idempotency-Key': text}, environ={'nova.context': context}
    )
    if is_accepted:
        assert idempotency.key_of(req, 'server', BODY) is not None
        return
    with pytest.raises(webob.exc.HTTPBadRequest, match='1 to 255'):
        idempotency.key_of(req, 'server', BODY)
