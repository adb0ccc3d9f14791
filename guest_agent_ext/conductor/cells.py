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

"""The cells that a conductor serves, each in threads of its own.

A cell has three threads: one serves its queue, one follows its servers, one
writes the audit of its commands. In a dead cell they may hang until the cell
is back; no other cell waits for them.
"""

from collections.abc import Callable
import functools
import threading

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import doorbell
from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext import rpc
from guest_agent_ext.compute import rpcapi as compute_rpcapi
from guest_agent_ext.conductor import audit
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import purge
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.conductor import runs
from guest_agent_ext.conductor import servers
from guest_agent_ext.conductor import totals
from guest_agent_ext.conductor import unscheduled
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Maximum number of rows that one statement reads or changes.
PAGE = 500
#: Maximum number of seconds to wait until a cell has stopped.
STOP_TIMEOUT = 5


class Cell:
    """One cell, whose queue is served and whose servers are followed.

    :param mapping: mapping of the cell
    :param host: name of this conductor
    """

    def __init__(self, mapping: nova_types.CellMapping, host: str) -> None:
        self.mapping = mapping
        self._host = host
        self._stopping = threading.Event()
        self._server: oslo_messaging.MessageHandlingServer | None = None
        self._compute_api: compute_rpcapi.ComputeAPI | None = None
        self._doorbell = doorbell.Doorbell(mapping.uuid, self._ring)
        interval = CONF.guest_agent.sweep_interval
        self._threads = [
            _thread(f'serve-{mapping.uuid}', self._serve),
            _thread(
                f'follow-{mapping.uuid}',
                periodically,
                self._stopping,
                interval,
                self._follow,
            ),
            _thread(
                f'audit-{mapping.uuid}',
                periodically,
                self._stopping,
                interval,
                functools.partial(audit.tell_due, mapping),
            ),
        ]

    def start(self) -> None:
        """Start the threads of the cell."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop serving; threads that hang in a dead cell are left behind."""
        self._stopping.set()
        if self._server is not None:
            stopper = _thread('stop', self._server.stop)
            stopper.start()
            stopper.join(STOP_TIMEOUT)

    def ring(self, host: str) -> None:
        """Ring the doorbell of a host soon; this neither waits nor fails."""
        if self._compute_api is not None:
            self._doorbell.ring(host)

    def _ring(self, host: str) -> None:
        assert self._compute_api is not None
        self._compute_api.work(host)

    def _serve(self) -> None:
        """Start to serve the queue, and try again after a failure."""
        while not self._stopping.is_set():
            try:
                return self._start_server()
            except Exception:
                metrics.PASS_FAILURES.inc()
                gap = CONF.guest_agent.sweep_interval
                LOG.exception(
                    'Cell %(cell)s cannot be served yet; will try '
                    'again in %(gap)s seconds',
                    {'cell': self.mapping.uuid, 'gap': gap},
                )
                self._stopping.wait(gap)
        return None

    def _start_server(self) -> None:
        # To open the queue and to start wait until a dead broker is back.
        transport = servers.create_transport(self.mapping)
        compute_api = compute_rpcapi.ComputeAPI(transport)
        self._compute_api = compute_api
        endpoint = manager.ConductorManager(self.mapping, compute_api)
        self._server = rpc.create_server(
            transport,
            oslo_messaging.Target(topic=rpcapi.TOPIC, server=self._host),
            endpoint,
        )
        self._server.start()
        if self._stopping.is_set():
            self._server.stop()
        LOG.info('Serving cell %s', self.mapping.uuid)

    def _follow(self) -> None:
        """Settle all unfinished commands of the cell."""
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
        self, row: commands.Followed, server: servers.Server | None
    ) -> None:
        """Move a command to its server's host, or end a lost one."""
        if server is None:
            self._leave(row)
        elif server.deleted:
            manager.end(row, manager.DELETED)
        elif server.is_failed_build:
            manager.end(row, manager.NOT_BUILT)
        elif server.host and server.host != row.host:
            commands.relocate(
                [row.uuid], cell_uuid=self.mapping.uuid, host=server.host
            )
            if self._compute_api is not None:
                manager.ring(self._compute_api, server.host)
        elif (
            row.status == command.RUNNING
            and server.is_settled
            and server.vm_state in servers.HAS_NO_MEMORY
        ):
            manager.end(row, manager.SHUT_OFF)
        elif not server.host:
            manager.note_seen(row, manager.NO_HOST)

    def _leave(self, row: commands.Followed) -> None:
        """Move a command to its server's new cell, or end a lost one."""
        cell_uuid = servers.cell_of(row.instance_uuid)
        if cell_uuid is None:
            manager.end(row, manager.DELETED)
        elif cell_uuid != self.mapping.uuid:
            commands.relocate(
                [row.uuid], cell_uuid=cell_uuid, host=models.NOWHERE
            )


class Conductor:
    """All cells, and what is of none: runs, the overdue, purge, totals.

    :param host: name of this conductor
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._stopping = threading.Event()
        self._cells: dict[str, Cell] = {}
        group = CONF.guest_agent
        tasks: list[tuple[str, float, Callable[[], None]]] = [
            ('cells', group.cells_interval, self._read_cells),
            ('overdue', group.sweep_interval, _end_overdue),
            ('unscheduled', group.sweep_interval, unscheduled.settle),
            ('purge', purge.INTERVAL, self._purge),
            ('audit-runs', group.sweep_interval, audit.tell_due_runs),
        ]
        if group.metrics_bind is not None:
            tasks.append(('totals', group.sweep_interval, totals.show))
        self._threads = [
            _thread(name, periodically, self._stopping, interval, task)
            for name, interval, task in tasks
        ] + [
            _thread(f'runs-{number}', runs.work, self._stopping, self._ring)
            for number in range(runs.WORKERS)
        ]

    def start(self) -> None:
        """Start the threads; they start to serve the cells."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all cells."""
        self._stopping.set()
        for cell in self._cells.values():
            cell.stop()

    def _read_cells(self) -> None:
        """Start to serve new cells, and stop changed and removed ones."""
        mappings = {mapping.uuid: mapping for mapping in servers.cells()}
        for uuid, cell in list(self._cells.items()):
            if not _is_same(cell.mapping, mappings.get(uuid)):
                LOG.info(
                    'Cell %s is no longer served: it was changed or removed',
                    uuid,
                )
                self._cells.pop(uuid).stop()
        for uuid, mapping in mappings.items():
            if uuid not in self._cells and not self._stopping.is_set():
                self._cells[uuid] = Cell(mapping, self._host)
                self._cells[uuid].start()

    def _ring(self, cell_uuid: str, host: str) -> None:
        cell = self._cells.get(cell_uuid)
        if cell is not None:
            cell.ring(host)

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
    """Run a task now and every ``interval`` seconds.

    A failure is logged and the task repeated, because the database or broker
    that it depends on comes back.

    :param stopping: event that ends the repetition
    """
    while not stopping.is_set():
        try:
            task()
        except Exception:
            metrics.PASS_FAILURES.inc()
            LOG.exception(
                'Will try again in %(interval)s seconds: pass '
                '"%(pass)s" failed',
                {
                    'interval': interval,
                    'pass': threading.current_thread().name,
                },
            )
        stopping.wait(interval)


def _end_overdue() -> None:
    # The audit logs each of them.
    while commands.end_overdue(PAGE):
        pass


def _is_same(
    one: nova_types.CellMapping, other: nova_types.CellMapping | None
) -> bool:
    return (
        other is not None
        and one.transport_url == other.transport_url
        and one.database_connection == other.database_connection
    )


def _thread(
    name: str, target: Callable[..., None], *arguments: object
) -> threading.Thread:
    return threading.Thread(
        name=name, target=target, args=arguments, daemon=True
    )
