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

"""One command in many servers: the API, and the conductor's part in it."""

from collections.abc import Iterator
import concurrent.futures
import json
import pathlib
import threading
import time
from typing import Any
from unittest import mock

from nova import context as nova_context
from nova import objects
from oslo_db import exception as db_exc
from oslo_utils import uuidutils
import pytest
import sqlalchemy as sa
import webob.exc

from guest_agent_ext import breaker
from guest_agent_ext import command
from guest_agent_ext import limits
from guest_agent_ext import policies
from guest_agent_ext import reads
from guest_agent_ext import run
from guest_agent_ext.api import servers
from guest_agent_ext.api import slots
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import runs as conductor
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import runs
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests import counted
from tests.functional.api import base

SAMPLES = pathlib.Path(__file__).parents[3] / 'doc/notification_samples'
RUNS = '/guest-agent/runs'
ADMIN = {'user': 'admin', 'roles': 'admin,member,reader'}
SECRET = 'hunter2'


@pytest.fixture
def project(cloud: base.Cloud) -> Iterator[str]:
    """A project of this test's own."""
    conductor._breaker = breaker.Breaker(5)
    yield uuidutils.generate_uuid(dashed=False)
    with session.writer() as db:
        for table in (models.Run, models.RunTarget, models.Command):
            db.execute(sa.delete(table))


class Runs:
    """What a project does with runs.

    :ivar servers: servers of the project, by name
    """

    def __init__(self, cloud: base.Cloud, project_id: str) -> None:
        self.cloud = cloud
        self.project_id = project_id
        self.servers: dict[str, Any] = {}
        self.rung: list[tuple[str, str]] = []

    def server(
        self,
        name: str,
        tags: list[str] | None = None,
        metadata: dict[str, str] | None = None,
        **values: Any,
    ) -> str:
        """Make a server, and return its uuid."""
        instance = self.cloud.make_instance(
            project_id=self.project_id, metadata=metadata or {}, **values
        )
        cell = values.get('cell') or self.cloud.cell
        context = nova_context.get_admin_context()
        with nova_context.target_cell(context, cell) as cell_context:
            if tags:
                objects.TagList.create(cell_context, instance.uuid, tags)
        self.servers[name] = instance
        uuid: str = instance.uuid
        return uuid

    def body(
        self, targets: Any, arguments: Any = None, **values: Any
    ) -> dict[str, Any]:
        return {
            'run': {
                'targets': targets,
                'type': 'exec',
                'arguments': arguments or {'command': ['id']},
                **values,
            }
        }

    def post(
        self,
        targets: Any,
        *,
        headers: dict[str, str] | None = None,
        caller: dict[str, str] | None = None,
        **values: Any,
    ) -> Any:
        return self.cloud.request(
            'POST',
            RUNS,
            self.body(targets, **values),
            headers=headers,
            **{'project_id': self.project_id, **(caller or {})},
        )

    def new(self, *names: str, **values: Any) -> dict[str, Any]:
        """Ask for a run in servers, and return the run."""
        uuids = [self.servers[name].uuid for name in names]
        answer = self.post({'servers': uuids}, **values)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()['run']
        return found

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.cloud.get(
            path, **{'project_id': self.project_id, **kwargs}
        )

    def show(self, uuid: str) -> dict[str, Any]:
        answer = self.get(f'{RUNS}/{uuid}')
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()['run']
        return found

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return self.cloud.request(
            method, path, body, project_id=self.project_id
        )

    def release(self) -> None:
        """Let a conductor work until nothing is due."""
        while conductor.work_on_due(
            lambda cell, host: self.rung.append((cell, host))
        ):
            pass

    def commands(self, uuid: str, query: str = '') -> list[dict[str, Any]]:
        answer = self.get(f'{RUNS}/{uuid}/commands{query}')
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()['commands']
        return found

    def names(self, found: list[dict[str, Any]]) -> list[str]:
        """Return the names of the servers of commands, oldest first."""
        known = {server.uuid: name for name, server in self.servers.items()}
        return [known[row['instance_uuid']] for row in reversed(found)]

    def targets(self, uuid: str) -> list[str]:
        """Return the names of the servers of a run, in their order."""
        known = {server.uuid: name for name, server in self.servers.items()}
        row = runs.get(uuid)
        assert row is not None
        return [
            known[target.instance_uuid]
            for target in runs._targets(row.id, run.WAITING, 100)
        ]


@pytest.fixture
def mine(cloud: base.Cloud, project: str) -> Runs:
    """The runs of a project with three servers."""
    found = Runs(cloud, project)
    found.server('web1', ['web', 'blue'], {'role': 'web', 'tier': '1'})
    found.server('web2', ['web'], {'role': 'web', 'tier': '2'})
    found.server('db', ['db'], {'role': '1', 'tier': 'web'})
    return found


def counts(found: dict[str, Any]) -> dict[str, int]:
    return {name: number for name, number in found['counts'].items() if number}


def make_due() -> None:
    with session.writer() as db:
        db.execute(
            sa.update(models.Run)
            .where(models.Run.status == run.RUNNING)
            .values(due_at=sqltypes.utc_in(-1))
        )
        db.execute(sa.update(models.RunTarget).values(retry_at=None))


def test_from_the_request_to_the_end(mine: Runs) -> None:
    made = mine.new(
        'web1', 'db', name='patch', max_concurrency=1, max_errors='50%'
    )
    assert made['status'] == 'RUNNING'
    assert (made['name'], made['targets']) == ('patch', 2)
    assert (made['max_concurrency'], made['max_errors']) == (1, 1)
    assert counts(made) == {'WAITING': 2}
    assert made['counts'].keys() == run.COUNTED.keys()
    assert made['refused'] == []
    assert made['updated_at'] is made['finished_at'] is made['error'] is None
    assert made['arguments'] == {'command': ['id']}
    assert made['project_id'] == mine.project_id
    uuid = made['uuid']
    mine.release()
    assert mine.rung == [(mine.cloud.cell.uuid, base.HOST)]
    assert counts(mine.show(uuid)) == {'WAITING': 1, 'PENDING': 1}
    (first,) = mine.commands(uuid)
    assert first['run_uuid'] == uuid
    path = base.commands_of(first['instance_uuid'])
    shown = mine.get(f'{path}/{first["uuid"]}').json()['command']
    assert (shown['run_uuid'], shown['status']) == (uuid, 'PENDING')
    assert shown['request_id'] == made['request_id']
    mine.cloud.end(first['uuid'])
    mine.release()
    second = mine.commands(uuid)[0]
    assert second['instance_uuid'] == mine.servers['db'].uuid
    assert counts(mine.show(uuid)) == {'COMPLETED': 1, 'PENDING': 1}
    mine.cloud.end(second['uuid'], exitcode=3)
    mine.release()
    ended = mine.show(uuid)
    assert (ended['status'], ended['errors']) == ('COMPLETED', 1)
    assert counts(ended) == {'COMPLETED': 2}
    assert ended['finished_at'] and ended['updated_at']
    assert ended['error'] is None


def test_command_by_itself_is_of_no_run(cloud: base.Cloud) -> None:
    assert cloud.post().json()['command']['run_uuid'] is None


@pytest.mark.parametrize(
    ('targets', 'names'),
    [
        ({'tags': ['web']}, ['web1', 'web2']),
        ({'tags': ['web', 'blue']}, ['web1']),
        ({'metadata': {'role': 'web'}}, ['web1', 'web2']),
        # Not what has the name of one item and the value of another.
        ({'metadata': {'role': 'web', 'tier': '2'}}, ['web2']),
        ({'metadata': {'tier': 'web'}}, ['db']),
        ({'tags': ['blue'], 'metadata': {'role': 'web'}}, ['web1']),
        ({'tags': ['Web']}, None),
        ({'metadata': {'role': 'WEB'}}, None),
        ({'metadata': {'role': 'none'}}, None),
        ({'tags': ['\U0001f600']}, None),
        ({'metadata': {'role': '\U0001f600'}}, None),
        ({'metadata': {'role': ''}}, None),
    ],
)
def test_targets_by_tags_and_metadata(
    mine: Runs, targets: Any, names: list[str] | None
) -> None:
    mine.server('deleted', ['web', 'blue'], {'role': 'web', 'tier': '2'})
    mine.servers['deleted'].destroy()
    other = Runs(mine.cloud, base.OTHER_PROJECT)
    other.server('foreign', ['web', 'blue'], {'role': 'web', 'tier': '2'})
    answer = mine.post(targets)
    if names is None:
        message = base.message_of(answer, 400, 'badRequest')
        assert 'run.targets must choose at least one server' in message
    else:
        assert mine.targets(answer.json()['run']['uuid']) == names


def test_listed_targets_come_first_and_once(mine: Runs) -> None:
    uuids = [mine.servers[name].uuid for name in ('db', 'web2', 'db')]
    answer = mine.post({'servers': uuids, 'tags': ['web']})
    assert mine.targets(answer.json()['run']['uuid']) == ['db', 'web2', 'web1']


def test_spelling_of_a_uuid(mine: Runs) -> None:
    uuid = mine.servers['db'].uuid
    for spelled in (uuid.upper(), uuid.replace('-', '')):
        answer = mine.post({'servers': [spelled]})
        assert mine.targets(answer.json()['run']['uuid']) == ['db']


def test_servers_of_many_pages(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('guest_agent_ext.api.run_targets.PAGE', 1)
    answer = mine.post({'metadata': {'role': 'web'}})
    assert mine.targets(answer.json()['run']['uuid']) == ['web1', 'web2']


@pytest.mark.parametrize('whose', ['nobody', 'other', 'deleted'])
def test_listed_server_that_is_not_there(mine: Runs, whose: str) -> None:
    uuid = uuidutils.generate_uuid()
    if whose == 'other':
        uuid = Runs(mine.cloud, base.OTHER_PROJECT).server('foreign')
    elif whose == 'deleted':
        uuid = mine.server('deleted')
        mapping = objects.InstanceMapping.get_by_instance_uuid(
            nova_context.get_admin_context(), uuid
        )
        mapping.queued_for_delete = True
        mapping.save()
    answer = mine.post({'servers': [mine.servers['db'].uuid, uuid]})
    assert base.message_of(answer, 400, 'badRequest') == (
        f'run.targets.servers[1] must be a server of project '
        f'{mine.project_id}, and {uuid} is none'
    )
    assert mine.get(RUNS).json() == {'runs': []}


def test_admin_s_run_is_of_the_admin_s_project(mine: Runs) -> None:
    answer = mine.post(
        {'servers': [mine.servers['db'].uuid]},
        caller=dict(ADMIN, project_id=base.OTHER_PROJECT),
    )
    assert answer.status_code == 400


@pytest.mark.parametrize('by', ['servers', 'tags'])
def test_too_many_targets(mine: Runs, by: str) -> None:
    base.CONF.set_override('max_run_targets', 1, group='guest_agent')
    uuids = [mine.servers[name].uuid for name in ('web1', 'web2')]
    targets = {'servers': uuids} if by == 'servers' else {'tags': ['web']}
    try:
        message = base.message_of(mine.post(targets), 400, 'badRequest')
    finally:
        base.CONF.clear_override('max_run_targets', group='guest_agent')
    assert message.startswith('run.targets')
    assert 'at most 1 ' in message


@pytest.fixture
def other_cell(cloud: base.Cloud) -> Iterator[Any]:
    """A cell beside the first, whose database it shares here."""
    cell = objects.CellMapping(
        nova_context.get_admin_context(),
        uuid=uuidutils.generate_uuid(),
        name='cell-b',
        transport_url=cloud.cell.transport_url,
        database_connection=cloud.cell.database_connection,
    )
    cell.create()
    yield cell
    cell.destroy()


@pytest.fixture
def cell_is_down(
    other_cell: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[threading.Event]:
    """Have the other cell's database hang, while the event is not set."""
    is_back = threading.Event()
    find = objects.InstanceList.get_by_filters

    def get_by_filters(context: Any, *args: Any, **kwargs: Any) -> Any:
        if context.cell_uuid == other_cell.uuid:
            is_back.wait(60)
            # Both cells have one database here.
            return []
        return find(context, *args, **kwargs)

    monkeypatch.setattr(objects.InstanceList, 'get_by_filters', get_by_filters)
    monkeypatch.setattr(reads, '_reads', {})
    monkeypatch.setattr(servers, '_breaker', breaker.Breaker(0))
    base.CONF.set_override('cell_timeout', 0.3, group='guest_agent')
    yield is_back
    is_back.set()
    base.CONF.clear_override('cell_timeout', group='guest_agent')


def test_cell_that_is_down_is_told(
    mine: Runs, cell_is_down: threading.Event
) -> None:
    answer = mine.post({'tags': ['web']})
    message = base.message_of(answer, 409, 'conflictingRequest')
    assert 'Cell cell-b is down' in message
    assert 'allow_missing_cells' in message
    assert mine.get(RUNS).json() == {'runs': []}
    # Those that are listed need no cell to be found.
    assert mine.new('db')['targets'] == 1
    cell_is_down.set()
    assert mine.post({'tags': ['web']}).status_code == 202


def test_cell_that_is_down_may_be_left_out(
    mine: Runs, cell_is_down: threading.Event
) -> None:
    found = mine.post({'tags': ['web']}, allow_missing_cells=True).json()
    assert found['run']['targets'] == 2
    assert 'cell-b' in found['run']['error']


def test_refused_servers_say_why(mine: Runs, other_cell: Any) -> None:
    mine.server('locked', locked=True, locked_by='owner')
    mine.server('stopped', vm_state='stopped')
    mine.server('silent', host='silent')
    mine.server('deleted')
    mine.servers['deleted'].destroy()
    mine.server('elsewhere', cell=other_cell)
    uuid = mine.new(
        'locked', 'stopped', 'silent', 'deleted', 'elsewhere', 'db'
    )['uuid']
    with mock.patch.object(
        conductor, '_guests', _with_cell_down(other_cell.uuid)
    ):
        mine.release()
    found = mine.show(uuid)
    assert counts(found) == {'REFUSED': 5, 'PENDING': 1}
    assert (found['status'], found['errors']) == ('RUNNING', 5)
    reasons = {
        item['instance_uuid']: item['error'] for item in found['refused']
    }
    for name, words in {
        'locked': 'is locked',
        'stopped': 'has vm_state stopped',
        'silent': 'guest agent service is down',
        'deleted': 'could not be found',
        'elsewhere': 'is down',
    }.items():
        reason = reasons[mine.servers[name].uuid]
        assert words in reason
        assert mine.servers[name].uuid in reason
    assert mine.names(mine.commands(uuid)) == ['db']
    # A list does not tell them.
    (listed,) = mine.get(RUNS).json()['runs']
    assert 'refused' not in listed
    assert listed['counts'] == found['counts']


def _with_cell_down(cell_uuid: str) -> Any:
    read = conductor._guests

    def guests(cell: Any, uuids: Any) -> Any:
        return None if cell.uuid == cell_uuid else read(cell, uuids)

    return guests


def test_cell_that_hangs_is_left_alone_for_a_while(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    asked = []

    def hang(cell: Any, uuids: Any) -> Any:
        asked.append(cell.uuid)
        is_over.wait(60)

    monkeypatch.setattr(conductor.servers, 'guests', hang)
    monkeypatch.setattr(reads, '_reads', {})
    base.CONF.set_override('cell_timeout', 0.2, group='guest_agent')
    try:
        uuid = mine.new('db', 'web1', max_concurrency=1)['uuid']
        mine.release()
    finally:
        base.CONF.clear_override('cell_timeout', group='guest_agent')
        is_over.set()
    found = mine.show(uuid)
    assert (found['status'], counts(found)) == ('COMPLETED', {'REFUSED': 2})
    assert asked == [mine.cloud.cell.uuid]


def test_cell_whose_database_fails(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        conductor.servers,
        'guests',
        mock.Mock(side_effect=db_exc.DBConnectionError()),
    )
    uuid = mine.new('db')['uuid']
    mine.release()
    (refused,) = mine.show(uuid)['refused']
    assert refused['error'].endswith('is down; try again later')


def test_admin_s_run_goes_into_locked_servers(mine: Runs) -> None:
    mine.server('locked', locked=True, locked_by='owner')
    uuid = mine.new('locked', caller=ADMIN)['uuid']
    mine.release()
    assert mine.names(mine.commands(uuid)) == ['locked']


@pytest.mark.parametrize(
    ('channel', 'refusals'), [('yes', []), ('no', ['hw_qemu_guest_agent=yes'])]
)
def test_server_that_is_not_scheduled_yet(
    mine: Runs, channel: str, refusals: list[str]
) -> None:
    server = base.Unscheduled(mine.cloud, channel, mine.project_id)
    made = mine.post({'servers': [server.uuid]}).json()['run']
    mine.release()
    shown = mine.show(made['uuid'])
    for refused, words in zip(shown['refused'], refusals, strict=True):
        assert words in refused['error']
    assert shown['counts']['PENDING'] == (channel == 'yes')


def test_server_deleted_before_it_was_scheduled(mine: Runs) -> None:
    server = base.Unscheduled(mine.cloud, project_id=mine.project_id)
    made = mine.post({'servers': [server.uuid]}).json()['run']
    server.request.destroy()
    mine.release()
    (refused,) = mine.show(made['uuid'])['refused']
    assert 'could not be found' in refused['error']


def test_server_that_is_started(mine: Runs) -> None:
    mine.server('web', vm_state='stopped', task_state='powering-on')
    uuid = mine.new('web')['uuid']
    mine.release()
    assert mine.names(mine.commands(uuid)) == ['web']


def test_run_waits_for_the_bounds_of_its_project(mine: Runs) -> None:
    base.CONF.set_override(
        'max_unfinished_per_project', 1, group='guest_agent'
    )
    try:
        uuid = mine.new('web1', 'web2')['uuid']
        mine.release()
        assert counts(mine.show(uuid)) == {'PENDING': 1, 'WAITING': 1}
        mine.cloud.end(mine.commands(uuid)[0]['uuid'])
        mine.release()
        assert counts(mine.show(uuid)) == {'PENDING': 1, 'COMPLETED': 1}
    finally:
        base.CONF.clear_override(
            'max_unfinished_per_project', group='guest_agent'
        )


def test_run_waits_for_keystone(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = mine.new('db')['uuid']
    with monkeypatch.context() as patch:
        patch.setattr(
            limits, 'of_project', mock.Mock(side_effect=ValueError('away'))
        )
        mine.release()
    assert counts(mine.show(uuid)) == {'WAITING': 1}
    make_due()
    mine.release()
    assert counts(mine.show(uuid)) == {'PENDING': 1}


def test_run_with_large_inputs_is_released_in_small_batches(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conductor, 'BATCH_BYTES', 100)
    sizes = []
    release = runs.release

    def spy(uuid: str, candidates: Any, bounds: Any) -> Any:
        sizes.append(len(candidates))
        return release(uuid, candidates, bounds)

    monkeypatch.setattr(runs, 'release', spy)
    uuid = mine.new(
        'web1',
        'web2',
        'db',
        arguments={'command': ['cat'], 'input_data': 'x' * 60},
    )['uuid']
    mine.release()
    assert sizes == [1, 1, 1]
    assert counts(mine.show(uuid)) == {'PENDING': 3}


def test_failure_of_one_run_delays_no_other(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = mine.new('web1')['uuid'], mine.new('web2')['uuid']
    settle = runs.settle

    def fail(uuid: str) -> Any:
        if uuid == first:
            raise RuntimeError
        return settle(uuid)

    monkeypatch.setattr(runs, 'settle', fail)
    with counted.grows('guest_agent_conductor_pass_failures_total'):
        mine.release()
    assert counts(mine.show(first)) == {'WAITING': 1}
    assert counts(mine.show(second)) == {'PENDING': 1}


def test_work_goes_on_after_a_failure_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = threading.Event()
    answers: Any = iter([db_exc.DBConnectionError(), True, False])
    gaps = []

    def work_on_due(ring: Any) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            stopping.set()
        return bool(answer)

    monkeypatch.setattr(conductor, 'work_on_due', work_on_due)
    monkeypatch.setattr(
        conductor, 'GAPS', mock.Mock(gap=lambda idle: gaps.append(idle) or 0)
    )
    conductor.work(stopping, mock.Mock())
    assert gaps == [1, 0, 1]


def test_cancel(mine: Runs) -> None:
    uuid = mine.new('web1', 'web2', 'db', max_concurrency=2)['uuid']
    mine.release()
    first, second = (row['uuid'] for row in mine.commands(uuid))
    mine.cloud.start_command(first)
    mine.rung.clear()
    answer = mine.request('POST', f'{RUNS}/{uuid}/action', {'cancel': None})
    assert answer.status_code == 202
    mine.release()
    assert mine.rung == [(mine.cloud.cell.uuid, base.HOST)]
    found = mine.show(uuid)
    assert (found['status'], counts(found)) == (
        'RUNNING',
        {'RUNNING': 1, 'CANCELLED': 1, 'WAITING': 1},
    )
    mine.cloud.finish(first, command.CANCELLED)
    mine.release()
    found = mine.show(uuid)
    assert (found['status'], counts(found)) == (
        'CANCELLED',
        {'CANCELLED': 2, 'WAITING': 1},
    )
    answer = mine.request('POST', f'{RUNS}/{uuid}/action', {'cancel': None})
    assert 'already ended' in base.message_of(
        answer, 409, 'conflictingRequest'
    )


def test_delete(mine: Runs) -> None:
    uuid = mine.new('db')['uuid']
    path = f'{RUNS}/{uuid}'
    answer = mine.request('DELETE', path)
    assert 'has not ended' in base.message_of(
        answer, 409, 'conflictingRequest'
    )
    mine.release()
    (row,) = mine.commands(uuid)
    mine.cloud.end(row['uuid'])
    mine.release()
    assert mine.request('DELETE', path).status_code == 204
    assert mine.request('DELETE', path).status_code == 404
    assert mine.get(path).status_code == 404
    assert mine.get(f'{path}/commands').status_code == 404
    listed = mine.get(base.commands_of(mine.servers['db'].uuid)).json()
    assert listed == {'commands': []}
    assert mine.get(RUNS).json() == {'runs': []}


def test_list_is_paged(mine: Runs) -> None:
    made = [mine.new('db')['uuid'] for _ in range(3)]
    page = mine.get(f'{RUNS}?limit=2').json()
    assert [item['uuid'] for item in page['runs']] == [made[2], made[1]]
    (link,) = page['runs_links']
    assert f'marker={made[1]}' in link['href']
    page = mine.get(f'{RUNS}?limit=2&marker={made[1]}').json()
    assert [item['uuid'] for item in page['runs']] == [made[0]]
    assert 'runs_links' not in page
    answer = mine.get(f'{RUNS}?marker={uuidutils.generate_uuid()}')
    assert 'marker must be a run of this list' in base.message_of(
        answer, 400, 'badRequest'
    )
    assert mine.get(f'{RUNS}?status=STOPPED').json() == {'runs': []}


def test_commands_are_filtered_and_paged(mine: Runs) -> None:
    uuid = mine.new('web1', 'web2', 'db')['uuid']
    other = mine.new('db')['uuid']
    mine.release()
    rows = mine.commands(uuid)
    assert mine.names(rows) == ['web1', 'web2', 'db']
    mine.cloud.end(rows[0]['uuid'])
    assert mine.names(mine.commands(uuid, '?status=COMPLETED')) == ['db']
    web2 = mine.servers['web2'].uuid
    assert mine.names(mine.commands(uuid, f'?server={web2}')) == ['web2']
    query = f'?server={web2}&server={mine.servers["db"].uuid}'
    assert mine.names(mine.commands(uuid, query)) == ['web2', 'db']
    query += '&status=PENDING&status=RUNNING'
    assert mine.names(mine.commands(uuid, query)) == ['web2']
    answer = mine.get(f'{RUNS}/{uuid}/commands?limit=2').json()
    assert mine.names(answer['commands']) == ['web2', 'db']
    marker = answer['commands'][-1]['uuid']
    (link,) = answer['commands_links']
    assert f'{uuid}/commands?limit=2&marker={marker}' in link['href']
    assert mine.names(mine.commands(uuid, f'?marker={marker}')) == ['web1']
    foreign = mine.commands(other)[0]['uuid']
    answer = mine.get(f'{RUNS}/{uuid}/commands?marker={foreign}')
    assert answer.status_code == 400


def test_key(mine: Runs) -> None:
    targets = {'servers': [mine.servers['db'].uuid]}
    headers = {'Idempotency-Key': 'key'}
    first = mine.post(targets, headers=headers).json()['run']['uuid']
    # The same key of a command is another.
    answer = mine.cloud.post(
        path=base.commands_of(mine.servers['db'].uuid),
        project_id=mine.project_id,
        headers=headers,
    )
    assert answer.status_code == 200
    mine.release()
    again = mine.post(targets, headers=headers).json()['run']
    assert (again['uuid'], counts(again)) == (first, {'PENDING': 1})
    answer = mine.post(targets, headers=headers, name='other')
    assert f'for run {first}' in base.message_of(answer, 422, 'computeFault')
    mine.cloud.end(mine.commands(first)[0]['uuid'])
    mine.release()
    mine.request('DELETE', f'{RUNS}/{first}')
    answer = mine.post(targets, headers=headers)
    assert f'The run {first}' in base.message_of(answer, 410, 'computeFault')


def test_repetitions_at_once_are_one_run(mine: Runs) -> None:
    targets = {'servers': [mine.servers['db'].uuid]}

    def post(_: int) -> str:
        answer = mine.post(targets, headers={'Idempotency-Key': 'key'})
        uuid: str = answer.json()['run']['uuid']
        return uuid

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(post, range(6)))) == 1
    assert len(mine.get(RUNS).json()['runs']) == 1


def test_too_many_runs(mine: Runs) -> None:
    base.CONF.set_override('max_runs_per_project', 1, group='guest_agent')
    try:
        mine.new('db')
        answer = mine.post({'servers': [mine.servers['db'].uuid]})
        message = base.message_of(answer, 403, 'forbidden')
        assert 'may have 1 runs' in message
    finally:
        base.CONF.clear_override('max_runs_per_project', group='guest_agent')


def test_commit_whose_fate_is_unknown(mine: Runs) -> None:
    create = runs.create
    targets = {'servers': [mine.servers['db'].uuid]}

    def lose(*args: Any) -> Any:
        create(*args)
        raise db_exc.DBConnectionError

    with mock.patch.object(runs, 'create', lose):
        assert mine.post(targets).status_code == 202
        with mock.patch.object(
            runs, 'get', autospec=True, side_effect=db_exc.DBConnectionError
        ):
            answer = mine.post(targets)
    assert 'may have been accepted' in base.message_of(
        answer, 503, 'serviceUnavailable'
    )
    with mock.patch.object(
        runs, 'create', autospec=True, side_effect=db_exc.DBDeadlock
    ):
        answer = mine.post(targets)
    assert 'try again' in base.message_of(answer, 503, 'serviceUnavailable')
    assert answer.headers['Retry-After']


def test_get_waits_for_the_end(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, 'threads', lambda environ: 2)
    uuid = mine.new('db')['uuid']
    mine.release()
    path = f'{RUNS}/{uuid}'
    answer = mine.get(path, headers={'Prefer': 'wait=0'})
    assert answer.headers['Preference-Applied'] == 'wait=0'
    assert answer.json()['run']['status'] == 'RUNNING'
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        waiting = pool.submit(mine.get, path, headers={'Prefer': 'wait=20'})
        mine.cloud.end(mine.commands(uuid)[0]['uuid'])
        mine.release()
        assert waiting.result().json()['run']['status'] == 'COMPLETED'
    assert time.monotonic() - began < 15


def test_secrets_are_not_shown(mine: Runs) -> None:
    made = mine.new(
        'db',
        arguments={
            'command': ['cat'],
            'env': {'TOKEN': SECRET},
            'input_data': SECRET,
        },
    )
    mine.release()
    assert made['arguments'] == {
        'command': ['cat'],
        'env': ['TOKEN'],
        'input_bytes': len(SECRET),
    }
    (row,) = mine.commands(made['uuid'])
    found = commands.get(row['uuid'], with_inputs=True)
    assert found is not None
    assert found.inputs is not None
    assert found.inputs['env'] == {'TOKEN': SECRET}
    assert SECRET not in json.dumps(mine.show(made['uuid'])) + json.dumps(row)


def test_run_of_another_type(mine: Runs) -> None:
    body = mine.body({'servers': [mine.servers['db'].uuid]})
    body['run'].update(
        type='set-password', arguments={'user': 'root', 'password': SECRET}
    )
    made = mine.request('POST', RUNS, body).json()['run']
    assert made['arguments'] == {'user': 'root'}
    mine.release()
    (row,) = mine.commands(made['uuid'])
    assert row['type'] == 'set-password'


#: Changes of a run's request, and what the message must say.
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({'targets': {}}, 'run.targets must have at least 1 name'),
    ({'targets': {'servers': []}}, 'run.targets.servers must have at least 1'),
    ({'targets': {'servers': ['x']}}, 'run.targets.servers[0] must match'),
    (
        {'targets': {'servers': ['-' * 36]}},
        'run.targets.servers[0] must be a uuid',
    ),
    ({'targets': {'tags': ['a,b']}}, 'run.targets.tags[0] must match'),
    ({'targets': {'tags': ['a'] * 51}}, 'run.targets.tags must have at most'),
    ({'targets': {'tags': ['a\0']}}, 'run.targets.tags[0] must be valid'),
    ({'targets': {'tags': ['a\ud800']}}, 'run.targets.tags[0] must be valid'),
    ({'targets': {'metadata': {'\ud800': 'a'}}}, 'may have only names that'),
    ({'targets': {'metadata': {'a': '\0'}}}, 'run.targets.metadata.a must be'),
    ({'targets': {'metadata': {}}}, 'run.targets.metadata must have at least'),
    ({'targets': {'metadata': {'a': 1}}}, 'run.targets.metadata.a must be of'),
    ({'targets': {'tag': ['a']}}, 'run.targets.tag is not known here'),
    ({'max_concurrency': 0}, 'run.max_concurrency must be at least 1, not 0'),
    ({'max_concurrency': 1001}, 'run.max_concurrency must be at most 1000'),
    ({'max_concurrency': '0%'}, 'run.max_concurrency must match'),
    ({'max_concurrency': '101%'}, 'run.max_concurrency must match'),
    ({'max_concurrency': '5'}, 'run.max_concurrency must match'),
    ({'max_concurrency': '5%\n'}, 'run.max_concurrency must match'),
    ({'max_concurrency': 1.5}, 'run.max_concurrency must be of type'),
    ({'max_concurrency': True}, 'run.max_concurrency must be of type'),
    ({'max_errors': 0}, 'run.max_errors must be at least 1'),
    ({'max_errors': None}, 'run.max_errors must be of type'),
    ({'name': ''}, 'run.name must have at least 1 character'),
    ({'name': 'x' * 256}, 'run.name must have at most 255 character'),
    ({'name': 'a\0'}, 'run.name must be valid Unicode without NUL'),
    ({'type': 'file-read'}, 'run.type must be one of: exec'),
    ({'arguments': {}}, 'run.arguments.command is missing'),
    (
        {'arguments': {'command': ['a'], 'attach': True}},
        'run.arguments.attach is not known here',
    ),
    (
        {'arguments': {'command': ['x' * 65537]}},
        'run.arguments must have together at most 65536 bytes, not 65537',
    ),
    (
        {
            'arguments': {
                'command': ['a'],
                'input_data': '*',
                'input_encoding': 'base64',
            }
        },
        'run.arguments.input_data must be base64',
    ),
    ({'allow_missing_cells': 'yes'}, 'run.allow_missing_cells must be of'),
    ({'unknown': 1}, 'run.unknown is not known here'),
]


@pytest.mark.parametrize(('change', 'words'), MALFORMED)
@pytest.mark.parametrize('version', ['/v2.1', '/v2'])
def test_malformed(
    mine: Runs, change: dict[str, Any], words: str, version: str
) -> None:
    body = mine.body({'servers': [mine.servers['db'].uuid]})
    body['run'].update(change)
    answer = mine.cloud.request(
        'POST', RUNS, body, project_id=mine.project_id, version=version
    )
    assert words in base.message_of(answer, 400, 'badRequest')


@pytest.mark.parametrize(
    ('concurrency', 'number'), [('50%', 1), ('1%', 1), ('100%', 3), (7, 7)]
)
def test_percentages_are_of_the_targets(
    mine: Runs, concurrency: Any, number: int
) -> None:
    made = mine.new('web1', 'web2', 'db', max_concurrency=concurrency)
    assert made['max_concurrency'] == number


def test_project_id_in_the_path(mine: Runs) -> None:
    path = f'/{mine.project_id}{RUNS}'
    body = mine.body({'servers': [mine.servers['db'].uuid]})
    answer = mine.request('POST', path, body)
    assert answer.status_code == 202
    assert len(mine.get(path).json()['runs']) == 1


def calls(mine: Runs, **caller: Any) -> dict[str, int]:
    """Make each call and return the statuses."""
    uuid = mine.new('db')['uuid']
    path = f'{RUNS}/{uuid}'
    body = mine.body({'servers': [mine.servers['db'].uuid]})
    caller = {'project_id': mine.project_id, **caller}
    return {
        'create': mine.cloud.request('POST', RUNS, body, **caller).status_code,
        'malformed': mine.cloud.request(
            'POST', RUNS, {}, **caller
        ).status_code,
        'index': mine.cloud.get(RUNS, **caller).status_code,
        'show': mine.cloud.get(path, **caller).status_code,
        'commands': mine.cloud.get(path + '/commands', **caller).status_code,
        'query': mine.cloud.get(path + '?x=1', **caller).status_code,
        'delete': mine.cloud.request('DELETE', path, **caller).status_code,
        'cancel': mine.cloud.request(
            'POST', path + '/action', {'cancel': None}, **caller
        ).status_code,
    }


@pytest.mark.parametrize(
    ('caller', 'statuses'),
    [
        ({}, [202, 400, 200, 200, 200, 400, 409, 202]),
        (ADMIN, [202, 400, 200, 200, 200, 400, 409, 202]),
        # Their servers are none of the admin's project.
        (
            dict(ADMIN, project_id=base.OTHER_PROJECT),
            [400, 400, 200, 200, 200, 400, 409, 202],
        ),
        ({'roles': 'reader'}, [403] * 8),
        (
            {'project_id': base.OTHER_PROJECT},
            [400, 400, 200, 404, 404, 404, 404, 404],
        ),
        (
            dict(ADMIN, project_id=base.NO_PROJECT),
            [403, 400, 403, 200, 200, 400, 409, 202],
        ),
    ],
)
def test_who_may(
    mine: Runs, caller: dict[str, Any], statuses: list[int]
) -> None:
    assert list(calls(mine, **caller).values()) == statuses


def test_lists_of_other_projects_are_for_admins(mine: Runs) -> None:
    uuid = mine.new('db')['uuid']
    for query in ('all_projects=true', f'project_id={mine.project_id}'):
        assert mine.get(f'{RUNS}?{query}').status_code == 403
        found = mine.cloud.admin_get(f'{RUNS}?{query}').json()['runs']
        assert [item['uuid'] for item in found] == [uuid]
    assert mine.cloud.admin_get(RUNS).json() == {'runs': []}


def test_type_has_a_rule_of_its_own(
    mine: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorize = policies.authorize

    def refuse(context: Any, rule: str, project_id: Any) -> None:
        if rule == policies.CREATE:
            raise webob.exc.HTTPForbidden
        authorize(context, rule, project_id)

    monkeypatch.setattr(policies, 'authorize', refuse)
    answer = mine.post({'servers': [mine.servers['db'].uuid]})
    assert answer.status_code == 403


def test_notifications_are_as_the_samples_say(
    mine: Runs, sent: list[Any]
) -> None:
    made = mine.new('db', name='patch web', arguments={'command': [SECRET]})
    audit.tell_due_runs()
    assert [message['event_type'] for _, message, _, _ in sent] == [
        'guest_agent.run.start'
    ]
    mine.release()
    mine.cloud.end(mine.commands(made['uuid'])[0]['uuid'], exitcode=1)
    mine.release()
    audit.tell_due_runs()
    audit.tell_due_runs()
    assert SECRET not in json.dumps(sent)
    for (_, message, _, retry), phase in zip(
        sent, ('start', 'end'), strict=True
    ):
        assert retry == 1
        sample = json.loads(
            (SAMPLES / f'guest_agent_run-{phase}.json').read_text()
        )
        shown = message['payload'].pop('nova_object.data')
        expected = sample['payload'].pop('nova_object.data')
        same = ('type', 'name', 'status', 'targets', 'counts', 'errors')
        assert [shown[name] for name in same] == [
            expected[name] for name in same
        ]
        assert shown['uuid'] == made['uuid']
        assert shown.keys() == expected.keys()
        assert message['publisher_id'].startswith('guest-agent-conductor:')
        for name in ('event_type', 'payload', 'priority'):
            assert message[name] == sample[name]


def test_released_commands_are_counted(mine: Runs) -> None:
    with counted.grows('guest_agent_commands_accepted_total', 2, type='exec'):
        mine.new('db', 'web1')
        mine.release()
