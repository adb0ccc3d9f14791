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

"""What is recorded, what is not, and what is never told."""

from collections.abc import Iterator
import logging
from typing import Any

from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from guest_agent_ext.db import commands
from guest_agent_ext.db import session
from tests.functional.api import base

SECRET = 'hunter2'


@pytest.fixture
def statements(cloud: base.Cloud) -> Iterator[list[str]]:
    """The statements that our database was sent."""
    sent: list[str] = []

    def note(
        connection: Any, cursor: Any, statement: str, *others: Any
    ) -> None:
        if statement != 'BEGIN':
            sent.append(statement.split()[0])

    engine = session.get_engine()
    sa.event.listen(engine, 'before_cursor_execute', note)
    yield sent
    sa.event.remove(engine, 'before_cursor_execute', note)


def test_number_of_statements_is_known(
    cloud: base.Cloud, statements: list[str]
) -> None:
    # The project has its turn from now on.
    cloud.post()
    statements.clear()
    # The host's state, the turn, what the server and its project have with the
    # time, and the row.
    cloud.post()
    assert statements == ['SELECT', 'UPDATE', 'SELECT', 'INSERT']
    for _ in range(3):
        cloud.post()
    statements.clear()
    cloud.get(cloud.path)
    assert statements == ['SELECT', 'SELECT']


def test_number_of_all_statements_is_known(cloud: base.Cloud) -> None:
    """Those that Nova's own databases are sent for us are counted too."""
    sent: list[str] = []

    def note(
        connection: Any, cursor: Any, statement: str, *others: Any
    ) -> None:
        if statement != 'BEGIN':
            sent.append(statement)

    uuid = cloud.post().json()['command']['uuid']
    sa.event.listen(sa.Engine, 'before_cursor_execute', note)
    try:
        counts = {}
        for name, request in (
            ('POST', cloud.post),
            ('GET', lambda: cloud.get(f'{cloud.path}/{uuid}')),
            ('list', lambda: cloud.get(cloud.path)),
            (
                'metadata',
                lambda: cloud.get(f'/servers/{cloud.instance.uuid}/metadata'),
            ),
        ):
            sent.clear()
            assert request().status_code == 200
            counts[name] = len(sent)
    finally:
        sa.event.remove(sa.Engine, 'before_cursor_execute', note)
    assert counts == {'POST': 7, 'GET': 2, 'list': 3, 'metadata': 5}


def fail_commit(monkeypatch: pytest.MonkeyPatch, is_made: bool) -> None:
    """Have the connection break at the commit."""
    create = commands.create

    def break_connection(*args: Any) -> None:
        if is_made:
            create(*args)
        raise db_exc.DBConnectionError()

    monkeypatch.setattr(commands, 'create', break_connection)


def test_commit_whose_answer_is_lost(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_commit(monkeypatch, is_made=True)
    uuid = cloud.post().json()['command']['uuid']
    assert cloud.get(f'{cloud.path}/{uuid}').status_code == 200
    assert len(cloud.rung) == 1


def test_commit_of_unknown_fate(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_commit(monkeypatch, is_made=False)
    message = base.message_of(cloud.post(), 503, 'serviceUnavailable')
    assert 'may have been accepted' in message
    assert not cloud.rung


def test_database_that_stays_away(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_commit(monkeypatch, is_made=True)

    def get(*args: Any, **kwargs: Any) -> None:
        raise db_exc.DBConnectionError()

    monkeypatch.setattr(commands, 'get', get)
    base.message_of(cloud.post(), 503, 'serviceUnavailable')


@pytest.mark.parametrize(
    'asked',
    [
        {'command': ['echo', SECRET]},
        {'command': ['id'], 'env': {'A': SECRET}},
        {'command': ['id'], 'input_data': SECRET},
        {'command': ['id', SECRET], 'timeout': 0},
        {'command': SECRET},
        {'command': ['id', SECRET + '\0']},
        {'command': ['id'], 'input_data': SECRET, 'input_encoding': 'base64'},
        {'command': [SECRET] * 65536},
    ],
)
def test_nothing_secret_is_logged(
    cloud: base.Cloud, asked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cloud.post(asked)
    assert caplog.records
    assert SECRET not in caplog.text


def test_nothing_secret_is_logged_of_a_failure(
    cloud: base.Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with session.writer() as db:
        db.execute(sa.text('ALTER TABLE guest_agent_commands RENAME TO x'))
    try:
        response = cloud.post(
            {'command': ['id', SECRET], 'env': {'A': SECRET}}
        )
    finally:
        with session.writer() as db:
            db.execute(sa.text('ALTER TABLE x RENAME TO guest_agent_commands'))
    assert response.status_code == 500
    assert 'guest_agent_commands' in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in response.text


def test_answer_that_does_not_fit_its_schema(
    cloud: base.Cloud,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uuid = cloud.post({'command': [SECRET]}).json()['command']['uuid']
    cloud.end(uuid, out_data=SECRET.encode(), exitcode='no number')
    assert cloud.get(f'{cloud.path}/{uuid}').status_code == 500
    base.CONF.set_override('response_validation', 'warn', group='api')
    try:
        assert cloud.get(f'{cloud.path}/{uuid}').status_code == 200
    finally:
        base.CONF.set_override('response_validation', 'error', group='api')
    assert 'command.result.exitcode must be of type' in caplog.text
    assert SECRET not in caplog.text
