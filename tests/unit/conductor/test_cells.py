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

"""How cells are served and servers followed, with database and Nova played."""

from collections.abc import Iterator
import dataclasses
import threading
from typing import Any
from unittest import mock

from nova.compute import vm_states
import oslo_messaging
import pytest

from guest_agent_ext import command
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import cells
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import runs
from guest_agent_ext.conductor import servers
from guest_agent_ext.conductor import unscheduled
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from tests import counted

PATIENCE = 10
HERE = servers.Server('here', vm_states.ACTIVE, None, False)


def mapping(uuid: str, transport_url: str = 'one') -> Any:
    return mock.Mock(
        uuid=uuid, transport_url=transport_url, database_connection='database'
    )


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    database = mock.Mock()
    database.unfinished_of_cell.return_value = []
    database.end_overdue.return_value = 0
    for name in (
        'unfinished_of_cell',
        'end_overdue',
        'end',
        'relocate',
        'note_seen',
    ):
        monkeypatch.setattr(commands, name, getattr(database, name))
    monkeypatch.setattr(audit, 'tell_due', database.tell_due)
    monkeypatch.setattr(audit, 'tell_due_runs', database.tell_due_runs)
    monkeypatch.setattr(runs, 'work', database.work)
    monkeypatch.setattr(unscheduled, 'settle', database.settle)
    return database


class Queues:
    """Plays the message queues of cells; that of ``dead`` never opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.failures: list[Exception] = []
        self.serving = threading.Event()
        self.server = mock.Mock()
        self.server.start.side_effect = self.serving.set

    def open(self, cell: Any) -> Any:
        if cell.uuid == 'dead':
            # Its thread is a daemon and stays behind, as in life.
            self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        return cell.uuid

    def serve(self, transport: Any, *args: Any, **kwargs: Any) -> Any:
        return self.server


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    queues = Queues()
    monkeypatch.setattr(servers, 'create_transport', queues.open)
    monkeypatch.setattr(oslo_messaging, 'get_rpc_server', queues.serve)
    monkeypatch.setattr(cells.compute_rpcapi, 'ComputeAPI', mock.Mock())
    yield queues


@pytest.fixture
def conductor(
    database: mock.Mock, queues: Queues
) -> Iterator[cells.Conductor]:
    conductor = cells.Conductor('conductor')
    yield conductor
    conductor.stop()


def test_dead_cell_delays_no_other(
    conductor: cells.Conductor, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        servers, 'cells', lambda: [mapping('dead'), mapping('alive')]
    )
    conductor.start()
    assert queues.serving.wait(PATIENCE)
    assert queues.server.start.call_count == 1


def test_audit_that_hangs_holds_up_no_command(
    conductor: cells.Conductor,
    queues: Queues,
    database: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = threading.Event()
    database.tell_due.side_effect = lambda cell: queues.gate.wait()
    database.unfinished_of_cell.side_effect = lambda *args: (
        followed.set() or []
    )
    monkeypatch.setattr(servers, 'cells', lambda: [mapping('alive')])
    conductor.start()
    assert queues.serving.wait(PATIENCE)
    assert followed.wait(PATIENCE)


def test_cell_that_cannot_be_served_is_tried_again(
    conductor: cells.Conductor, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, 'cells', lambda: [mapping('alive')])
    monkeypatch.setattr(
        cells,
        'CONF',
        mock.Mock(
            guest_agent=mock.Mock(sweep_interval=0.01, cells_interval=60)
        ),
    )
    queues.failures = [ValueError(), ValueError()]
    conductor.start()
    assert queues.serving.wait(PATIENCE)
    assert not queues.failures


def test_cells_come_and_go(
    conductor: cells.Conductor, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [mapping('one')]
    monkeypatch.setattr(servers, 'cells', lambda: found)
    conductor._read_cells()
    first = conductor._cells['one']
    conductor._read_cells()
    assert conductor._cells['one'] is first
    found[:] = [mapping('one', transport_url='moved'), mapping('two')]
    conductor._read_cells()
    assert set(conductor._cells) == {'one', 'two'}
    assert conductor._cells['one'] is not first


def row(**values: Any) -> models.Command:
    return models.Command(
        **(
            dict(
                id=1,
                uuid='command',
                instance_uuid='server',
                host='here',
                status=command.RUNNING,
                attempt='attempt',
            )
            | values
        )
    )


@pytest.fixture
def cell(database: mock.Mock) -> cells.Cell:
    cell = cells.Cell(mapping('cell'), 'conductor')
    cell._compute_api = mock.Mock()
    return cell


def follow(
    cell: cells.Cell,
    database: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
    item: models.Command,
    server: servers.Server | None,
) -> None:
    """Look once after one command whose server is there or not."""
    database.unfinished_of_cell.side_effect = [[item], []]
    monkeypatch.setattr(
        servers,
        'read',
        lambda mapping, uuids: {'server': server} if server else {},
    )
    cell._follow()


def test_command_follows_its_server(
    cell: cells.Cell, database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(
        cell,
        database,
        monkeypatch,
        row(),
        dataclasses.replace(HERE, host='there'),
    )
    database.relocate.assert_called_once_with(
        ['command'], cell_uuid='cell', host='there'
    )
    assert cell._compute_api is not None
    cell._compute_api.work.assert_called_once_with('there')


def test_command_of_a_server_without_a_host_waits(
    cell: cells.Cell, database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(
        cell,
        database,
        monkeypatch,
        row(status=command.PENDING, host=''),
        dataclasses.replace(HERE, host=None, vm_state=vm_states.BUILDING),
    )
    database.note_seen.assert_called_once_with('command', manager.NO_HOST)
    database.relocate.assert_not_called()
    database.end.assert_not_called()


def test_command_of_a_server_that_stays_is_left_alone(
    cell: cells.Cell, database: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(cell, database, monkeypatch, row(), HERE)
    database.relocate.assert_not_called()
    database.end.assert_not_called()


@pytest.mark.parametrize(
    ('status', 'end'),
    [(command.PENDING, command.FAILED), (command.RUNNING, command.LOST)],
)
def test_command_ends_with_its_server(
    cell: cells.Cell,
    database: mock.Mock,
    status: str,
    end: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow(
        cell,
        database,
        monkeypatch,
        row(status=status),
        dataclasses.replace(HERE, deleted=True),
    )
    database.end.assert_called_once_with(
        'command',
        source=status,
        status=end,
        error=manager.DELETED,
        attempt='attempt',
    )


@pytest.mark.parametrize(
    ('values', 'ends'),
    [
        ({}, True),
        ({'host': None}, True),
        ({'launched': True}, False),
        ({'task_state': 'spawning'}, False),
        ({'vm_state': vm_states.BUILDING}, False),
    ],
)
def test_command_ends_with_a_build_that_failed(
    cell: cells.Cell,
    database: mock.Mock,
    values: dict[str, Any],
    ends: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = dataclasses.replace(
        HERE, vm_state=vm_states.ERROR, launched=False
    )
    follow(
        cell,
        database,
        monkeypatch,
        row(status=command.PENDING),
        dataclasses.replace(failed, **values),
    )
    assert database.end.called == ends
    if ends:
        assert database.end.call_args.kwargs['error'] == manager.NOT_BUILT


@pytest.mark.parametrize(
    ('status', 'task_state', 'ends'),
    [
        (command.RUNNING, None, True),
        (command.RUNNING, 'powering-on', False),
        # It may be started again in time.
        (command.PENDING, None, False),
    ],
)
def test_stop_of_a_server_ends_what_ran_in_it(
    cell: cells.Cell,
    database: mock.Mock,
    status: str,
    task_state: str | None,
    ends: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow(
        cell,
        database,
        monkeypatch,
        row(status=status),
        dataclasses.replace(
            HERE, vm_state=vm_states.STOPPED, task_state=task_state
        ),
    )
    assert database.end.called == ends


@pytest.mark.parametrize(
    ('cell_uuid', 'host', 'ends'),
    [('other', '', False), (None, None, True), ('cell', None, False)],
)
def test_server_that_left_its_cell(
    cell: cells.Cell,
    database: mock.Mock,
    cell_uuid: str | None,
    host: str | None,
    ends: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, 'cell_of', lambda uuid: cell_uuid)
    follow(cell, database, monkeypatch, row(), None)
    assert database.end.called == ends
    assert database.relocate.called == (host is not None)


def test_run_s_hosts_are_rung_in_their_cells(
    conductor: cells.Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        servers, 'cells', lambda: [mapping('one'), mapping('two')]
    )
    conductor._read_cells()
    rung = {}
    for uuid, found in conductor._cells.items():
        rung[uuid] = threading.Event()
        found._compute_api = mock.Mock(
            work=lambda host, uuid=uuid: host == 'host' and rung[uuid].set()
        )
    conductor._ring('two', 'host')
    assert rung['two'].wait(PATIENCE)
    assert not rung['one'].is_set()
    # A cell that is not served any more, or not yet.
    conductor._ring('three', 'host')
    conductor._cells['one']._compute_api = None
    conductor._ring('one', 'host')


def test_workers_of_runs_are_told_to_stop(
    conductor: cells.Conductor,
    database: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, 'cells', list)
    stopped = threading.Semaphore(0)
    database.work.side_effect = lambda stopping, ring: (
        stopping.wait(PATIENCE) and stopped.release()
    )
    conductor = cells.Conductor('conductor')
    conductor.start()
    conductor.stop()
    for _ in range(runs.WORKERS):
        assert stopped.acquire(timeout=PATIENCE)


def test_task_that_fails_is_done_again() -> None:
    stopping, done = threading.Event(), []

    def task() -> None:
        done.append(None)
        if len(done) == 3:
            stopping.set()
        raise ValueError

    cells.periodically(stopping, 0.001, task)
    assert len(done) == 3


def test_failed_passes_are_counted() -> None:
    stopping = threading.Event()
    passes = iter([ValueError, RuntimeError, None])

    def task() -> None:
        error = next(passes)
        if error is not None:
            raise error
        stopping.set()

    with counted.grows('guest_agent_conductor_pass_failures_total', 2):
        cells.periodically(stopping, 0, task)


def test_database_is_read_for_metrics_only_where_they_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def has_thread() -> bool:
        return 'totals' in {
            thread.name for thread in cells.Conductor('conductor')._threads
        }

    assert not has_thread()
    conf = mock.Mock(guest_agent=mock.Mock(metrics_bind=('::1', 9177)))
    monkeypatch.setattr(cells, 'CONF', conf)
    assert has_thread()


def test_failed_attempts_to_serve_a_cell_are_counted(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cells, 'CONF', mock.Mock(guest_agent=mock.Mock(sweep_interval=0.01))
    )
    queues.failures = [ValueError(), ValueError()]
    with counted.grows('guest_agent_conductor_pass_failures_total', 2):
        cells.Cell(mapping('alive'), 'conductor')._serve()
