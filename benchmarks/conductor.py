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

"""What each step of a command costs the conductor, and its row the API.

Methods of the endpoint and the pass of the audit are called in this process,
on a MariaDB, so all counts but RPC. Beside them Nova reads a server, as its
own services do all the time. ``python -m benchmarks.conductor STEP`` profiles
a step.
"""

from collections.abc import Iterator
import contextlib
import cProfile
import dataclasses
import pathlib
import pstats
import sys
import tempfile
import time
from typing import Any
from unittest import mock
import uuid

from nova import context as nova_context
from nova import objects
import pymysql
import sqlalchemy as sa

from benchmarks import measure
from guest_agent_ext import cmd
from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.cmd import options
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import session
from tools.testbed import identity
from tools.testbed.parts import mariadb
from tools.testbed.parts import nova

# Its import selects native threads, as in the conductor.
assert cmd

HOST = 'compute-1'
PROJECT = 'demo'
#: Commands that are measured, after some that are not.
COMMANDS, WARM_UP = 300, 30
#: The steps of a short command, while others come.
STEPS = ('claim', 'finish', 'audit, of many')
ANCHOR = 'Nova reads a server'
PROFILED_LINES = 45


@dataclasses.dataclass
class Cost:
    """What a step took, over all commands.

    :ivar cpu: nanoseconds of this thread
    :ivar statements: statements of SQLAlchemy
    :ivar trips: times that a database was asked anything, also to commit
    """

    cpu: int = 0
    statements: int = 0
    trips: int = 0


class Meter:
    """Adds up what steps take.

    :param profiled: name of the step to profile
    """

    def __init__(self, profiled: str | None = None) -> None:
        self.costs: dict[str, Cost] = {}
        self.profile = cProfile.Profile(time.thread_time)
        self._profiled = profiled
        self._now = Cost()
        sa.event.listen(sa.Engine, 'before_cursor_execute', self._note)
        execute = pymysql.connections.Connection._execute_command

        def counted(*args: Any) -> Any:
            self._now.trips += 1
            return execute(*args)

        pymysql.connections.Connection._execute_command = counted

    def _note(self, *args: object) -> None:
        self._now.statements += 1

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._now = self.costs.setdefault(name, Cost())
        profiling = (
            self.profile
            if name == self._profiled
            else contextlib.nullcontext()
        )
        began = time.thread_time_ns()
        with profiling:
            yield
        self._now.cpu += time.thread_time_ns() - began
        self._now = Cost()


class Conductor:
    """A conductor in this process, and what a host and its guest tell it."""

    def __init__(self, server: str) -> None:
        (self._cell,) = servers.cells()
        self._server = server
        self._manager = manager.ConductorManager(self._cell, mock.Mock())
        incarnation = self._manager.register({}, HOST, 'machine', '1')
        assert incarnation is not None
        self._service: rpcapi.Service = {
            'host': HOST,
            'incarnation': incarnation,
        }

    def post(self) -> str:
        name = str(uuid.uuid4())
        commands.create(
            {
                'uuid': name,
                'type': command.EXEC,
                'project_id': PROJECT,
                'user_id': 'demo-user',
                'request_id': f'req-{uuid.uuid4()}',
                'instance_uuid': self._server,
                'instance_project_id': PROJECT,
                'cell_uuid': self._cell.uuid,
                'host': HOST,
                'arguments': {'command': ['/bin/true']},
                'timeout': 60,
                'inputs': None,
            },
            300,
            None,
            commands.Bounds(1000, 1000),
        )
        return name

    def report(self) -> None:
        assert not self._manager.report({}, self._service, {}, {})['fenced']

    def claim(self, name: str) -> None:
        claim = self._manager.claim(
            {}, self._service, name, name, str(uuid.uuid4()), 100, 30.0
        )
        assert claim is not None

    def started(self, name: str) -> None:
        outcome = self._manager.started(
            {}, self._service, name, name, 7, 50, 0.1
        )
        assert outcome == command.OK, outcome

    def finish(self, name: str) -> None:
        outcome = self._manager.finish(
            {},
            self._service,
            name,
            name,
            {
                'status': command.COMPLETED,
                'pid': 7,
                'exitcode': 0,
                'age': 0.1,
                'out_data': 'b3V0Cg==',
                'err_data': '',
                'out_bytes': 4,
                'err_bytes': 0,
            },
        )
        assert outcome == command.OK, outcome

    def tell(self) -> None:
        audit.tell_due(self._cell)

    def read_server(self) -> None:
        context = nova_context.get_admin_context()
        with nova_context.target_cell(context, self._cell) as cell_context:
            objects.Instance.get_by_uuid(cell_context, self._server)


def run() -> measure.Report:
    report = measure.Report('What a command costs the conductor')
    costs = _measured(Meter()).costs
    report.facts = {
        name: f'{cost.cpu / COMMANDS / 1e6:.2f} ms of CPU, '
        f'{cost.statements / COMMANDS:.1f} statements, '
        f'{cost.trips / COMMANDS:.1f} round trips'
        for name, cost in costs.items()
    }
    report.goals = [
        measure.Goal(
            f'CPU of {", ".join(STEPS)} by that of Nova to read a server',
            sum(costs[name].cpu for name in STEPS) / costs[ANCHOR].cpu,
            1.5,
        )
    ]
    return report


def _measured(meter: Meter) -> Meter:
    with _conductor() as conductor:
        _alone(meter, conductor, WARM_UP)
        _together(meter, conductor, WARM_UP)
        meter.costs.clear()
        meter.profile.clear()
        _alone(meter, conductor, COMMANDS)
        _together(meter, conductor, COMMANDS)
    return meter


def _alone(meter: Meter, conductor: Conductor, count: int) -> None:
    """Have commands run one after the other, and each be told of alone."""
    for _ in range(count):
        with meter.step('POST, the row'):
            name = conductor.post()
        with meter.step('report, of one'):
            conductor.report()
        with meter.step('claim'):
            conductor.claim(name)
        with meter.step('finish'):
            conductor.finish(name)
        with meter.step('audit, of one'):
            conductor.tell()
        with meter.step(ANCHOR):
            conductor.read_server()


def _together(meter: Meter, conductor: Conductor, count: int) -> None:
    """Have commands run whose starts are noted, and be told of together."""
    for _ in range(count):
        name = conductor.post()
        conductor.claim(name)
        with meter.step('started'):
            conductor.started(name)
        conductor.finish(name)
    with meter.step('audit, of many'):
        conductor.tell()


@contextlib.contextmanager
def _conductor() -> Iterator[Conductor]:
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        database = mariadb.MariaDB(directory / 'mariadb')
        try:
            database.start()
            yield _connected(directory, database)
        finally:
            database.stop()


def _connected(
    directory: pathlib.Path, database: mariadb.MariaDB
) -> Conductor:
    compute_api = nova.Nova(
        directory / 'nova',
        nova.Databases.on_mariadb(database),
        'fake:///',
        0,
        identity.make(),
        {'guest_agent': {'sweep_interval': 1}},
    )
    server = str(uuid.uuid4())
    compute_api.configure()
    compute_api.prepare([nova.Server(server, HOST)])
    sys.argv = ['conductor', '--config-file', f'{directory}/nova/nova.conf']
    options.parse()
    objects.register_all()
    session.configure(conf.CONF)
    return Conductor(server)


def main(step: str) -> None:
    meter = _measured(Meter(step))
    pstats.Stats(meter.profile).sort_stats('tottime').print_stats(
        PROFILED_LINES
    )


if __name__ == '__main__':
    if sys.argv[1:]:
        main(sys.argv[1])
    else:
        print(run().as_text())
