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

"""How many statements a command costs a conductor, in all databases."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import rpcapi
from tests.functional.api import base

UUID = 'a0f1e2d3-0000-4000-8000-00000000000a'


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The verb of each statement, and the table it names first."""
    sent: list[str] = []

    def note(
        connection: Any, cursor: Any, statement: str, *others: Any
    ) -> None:
        if statement != 'BEGIN':
            sent.append(_in_short(statement))

    sa.event.listen(sa.Engine, 'before_cursor_execute', note)
    yield sent
    sa.event.remove(sa.Engine, 'before_cursor_execute', note)


def _in_short(statement: str) -> str:
    words = statement.split()
    before = {'SELECT': 'FROM', 'DELETE': 'FROM', 'INSERT': 'INTO'}
    name = words[
        words.index(before[words[0]]) + 1 if words[0] in before else 1
    ]
    return f'{words[0]} {name.removeprefix("guest_agent_")}'


class Host:
    """What the compute service of the host asks of a conductor."""

    def __init__(self, cloud: base.Cloud) -> None:
        self._conductor = manager.ConductorManager(cloud.cell, mock.Mock())
        incarnation = self._conductor.register({}, base.HOST, 'machine', '1')
        assert incarnation is not None
        self._service: rpcapi.Service = {
            'host': base.HOST,
            'incarnation': incarnation,
        }

    def report(self) -> rpcapi.Report:
        return self._conductor.report({}, self._service, {}, {})

    def claim(self, uuid: str) -> rpcapi.Claim | None:
        return self._conductor.claim(
            {}, self._service, uuid, 'attempt', UUID, 100, 30.0
        )

    def started(self, uuid: str) -> str:
        return self._conductor.started(
            {}, self._service, uuid, 'attempt', 7, 50, 0.1
        )

    def finish(self, uuid: str) -> str:
        return self._conductor.finish(
            {},
            self._service,
            uuid,
            'attempt',
            {'status': command.COMPLETED, 'exitcode': 0, 'age': 0.1},
        )


@pytest.fixture
def host(cloud: base.Cloud) -> Host:
    return Host(cloud)


Sent = Callable[[Callable[[], object]], list[str]]


@pytest.fixture
def sent(statements: list[str]) -> Sent:
    """Return what is sent for a call."""

    def sent(call: Callable[[], object]) -> list[str]:
        statements.clear()
        assert call() is not None
        return list(statements)

    return sent


#: What is read before a change: the command for the newest service of the
#: host, unless this conductor knows the command's server; and where Nova has
#: the server.
SERVICE, SERVER = 'SELECT commands', 'SELECT instances'


def test_statements_of_a_command_are_known(
    cloud: base.Cloud, host: Host, sent: Sent
) -> None:
    uuid = cloud.post().json()['command']['uuid']
    assert sent(lambda: host.claim(uuid)) == [
        SERVICE,
        SERVER,
        'UPDATE commands',
        'SELECT commands',
    ]
    assert sent(lambda: host.started(uuid)) == [SERVER, 'UPDATE commands']
    assert sent(lambda: host.finish(uuid)) == [SERVER, 'UPDATE commands']


def test_statements_of_a_command_that_was_handed_out_are_known(
    cloud: base.Cloud, host: Host, sent: Sent
) -> None:
    uuid = cloud.post().json()['command']['uuid']
    host.report()
    assert sent(lambda: host.claim(uuid)) == [
        SERVER,
        'UPDATE commands',
        'SELECT commands',
    ]


def test_statements_of_a_report_are_known(
    cloud: base.Cloud, host: Host, sent: Sent
) -> None:
    # What runs, and the servers that have something waiting.
    idle = ['UPDATE hosts', 'SELECT commands', 'SELECT commands']
    assert sent(host.report)[:3] == idle
    cloud.post()
    assert sent(host.report) == [*idle, 'SELECT (SELECT']


def test_statements_of_the_audit_are_known(
    cloud: base.Cloud, host: Host, sent: Sent
) -> None:
    audit.tell_due(cloud.cell)
    uuid = cloud.post().json()['command']['uuid']
    host.claim(uuid)
    due, take, told = 'SELECT commands', 'UPDATE commands', 'UPDATE commands'

    def tell() -> bool:
        audit.tell_due(cloud.cell)
        return True

    assert sent(tell) == [due]
    host.started(uuid)
    assert sent(tell) == [
        due,
        take,
        'SELECT instance_actions',
        'INSERT instance_actions',
        'INSERT instance_actions_events',
        told,
        due,
    ]
    host.finish(uuid)
    assert sent(tell) == [
        due,
        take,
        'SELECT instance_actions',
        'UPDATE instance_actions_events',
        'UPDATE instance_actions',
        told,
        due,
    ]
