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

"""The cells that a conductor serves, each on its own.

A cell has three threads: one serves its queue, one follows its servers, one
tells the audit of its commands. They may hang in a dead cell for as long as it
is dead; no other cell waits for them.
"""

from collections.abc import Callable
import threading
from typing import Any

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.compute import rpcapi as compute_rpcapi
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import purge
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Rows that one statement reads or ends.
PAGE = 500
#: Seconds that one cell may take to stop.
STOP_TIMEOUT = 5


class Cell:
    """One cell: its queue served, its servers followed.

    :param mapping: nova's CellMapping
    :param host: the name of this conductor
    """

    def __init__(self, mapping: Any, host: str) -> None:
        self.mapping = mapping
        self._host = host
        self._stopping = threading.Event()
        self._server: Any = None
        self._compute_api: compute_rpcapi.ComputeAPI | None = None
        self._threads = [
            _thread(f'serve-{mapping.uuid}', self._serve),
            _thread(f'follow-{mapping.uuid}', self._follow),
            _thread(f'audit-{mapping.uuid}', self._audit),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop serving; what hangs in a dead cell is left behind."""
        self._stopping.set()
        if self._server is not None:
            stopper = _thread('stop', self._server.stop)
            stopper.start()
            stopper.join(STOP_TIMEOUT)

    def _serve(self) -> None:
        """Serve the queue; until that works, try again."""
        while not self._stopping.is_set():
            try:
                return self._start_server()
            except Exception:
                LOG.exception(
                    'Cell %s cannot be served yet', self.mapping.uuid
                )
                self._stopping.wait(CONF.guest_agent.sweep_interval)
        return None

    def _start_server(self) -> None:
        # Opening the queue and start() wait for a dead broker to come back.
        transport = servers.create_transport(self.mapping)
        compute_api = compute_rpcapi.ComputeAPI(transport)
        self._compute_api = compute_api
        endpoint = manager.ConductorManager(self.mapping, compute_api)
        self._server = oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic=rpcapi.TOPIC, server=self._host),
            [endpoint],
            executor='threading',
        )
        self._server.start()
        if self._stopping.is_set():
            self._server.stop()
        LOG.info('Serving cell %s', self.mapping.uuid)

    def _follow(self) -> None:
        periodically(
            self._stopping, CONF.guest_agent.sweep_interval, self._follow_once
        )

    def _audit(self) -> None:
        periodically(
            self._stopping,
            CONF.guest_agent.sweep_interval,
            lambda: audit.tell_due(self.mapping),
        )

    def _follow_once(self) -> None:
        after = 0
        while rows := commands.unfinished_of_cell(
            self.mapping.uuid, after, PAGE
        ):
            found = servers.read(
                self.mapping, {row.instance_uuid for row in rows}
            )
            for row in rows:
                self._settle(row, found.get(row.instance_uuid))
            after = rows[-1].id

    def _settle(
        self, row: models.Command, server: servers.Server | None
    ) -> None:
        """Send a command after its server, or end it with its server."""
        if server is None:
            self._leave(row)
        elif server.deleted:
            _end(row, manager.DELETED)
        elif server.host and server.host != row.host:
            self._move(row, server.host)
        elif (
            row.status == command.RUNNING
            and server.is_settled
            and server.vm_state in servers.HAS_NO_MEMORY
        ):
            _end(row, manager.SHUT_OFF)

    def _move(self, row: models.Command, host: str) -> None:
        commands.relocate([row.uuid], cell_uuid=self.mapping.uuid, host=host)
        if self._compute_api is not None:
            manager.ring(self._compute_api, host)

    def _leave(self, row: models.Command) -> None:
        """Pass a command to the cell that its server is mapped to now."""
        cell_uuid = servers.cell_of(row.instance_uuid)
        if cell_uuid is None:
            _end(row, manager.DELETED)
        elif cell_uuid != self.mapping.uuid:
            commands.relocate([row.uuid], cell_uuid=cell_uuid, host='')


class Conductor:
    """All cells, and the end of all that is overdue.

    :param host: the name of this conductor
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._stopping = threading.Event()
        self._cells: dict[str, Cell] = {}
        self._threads = [
            _thread('cells', self._keep_cells),
            _thread('overdue', self._keep_time),
            _thread('purge', self._keep_clean),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for cell in self._cells.values():
            cell.stop()

    def _keep_cells(self) -> None:
        periodically(
            self._stopping, CONF.guest_agent.cells_interval, self._read_cells
        )

    def _read_cells(self) -> None:
        """Serve new cells, leave those that are gone or have changed."""
        mappings = {mapping.uuid: mapping for mapping in servers.cells()}
        for uuid, cell in list(self._cells.items()):
            if not _is_same(cell.mapping, mappings.get(uuid)):
                LOG.info('Leaving cell %s', uuid)
                self._cells.pop(uuid).stop()
        for uuid, mapping in mappings.items():
            if uuid not in self._cells and not self._stopping.is_set():
                self._cells[uuid] = Cell(mapping, self._host)
                self._cells[uuid].start()

    def _keep_time(self) -> None:
        periodically(
            self._stopping, CONF.guest_agent.sweep_interval, _end_overdue
        )

    def _keep_clean(self) -> None:
        periodically(self._stopping, purge.INTERVAL, self._purge)

    def _purge(self) -> None:
        removed = 0
        for number in purge.run():
            removed += number
            if self._stopping.is_set():
                break
        if removed:
            LOG.info('Removed %s commands that are kept no longer', removed)


def periodically(
    stopping: threading.Event, interval: float, task: Callable[[], None]
) -> None:
    """Do a task now and every ``interval`` seconds until told to stop.

    A failure is logged and the task done again: what it depends on (a
    database, a broker) comes back.
    """
    while not stopping.is_set():
        try:
            task()
        except Exception:
            LOG.exception('Will try again in %s seconds', interval)
        stopping.wait(interval)


def _end_overdue() -> None:
    while ended := commands.end_overdue(PAGE):
        LOG.info('Ended %s overdue commands', ended)


def _end(row: models.Command, error: str) -> None:
    status = command.FAILED if row.status == command.PENDING else command.LOST
    commands.end(
        row.uuid,
        source=row.status,
        status=status,
        error=error,
        attempt=row.attempt,
    )


def _is_same(one: Any, other: Any) -> bool:
    return (
        other is not None
        and one.transport_url == other.transport_url
        and one.database_connection == other.database_connection
    )


def _thread(name: str, target: Callable[[], Any]) -> threading.Thread:
    return threading.Thread(name=name, target=target, daemon=True)
