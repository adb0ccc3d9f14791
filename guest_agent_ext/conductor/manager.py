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

"""The calls that guest-agent-conductor answers to compute services.

A change is accepted only from the host that the command's server is on,
according to Nova's cell at that moment, and only with arguments that pass
checks.py.
"""

import base64
from collections.abc import Callable
from collections.abc import Mapping
import functools
import threading
import typing
from typing import Any

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext import untrusted
from guest_agent_ext.compute import rpcapi as compute_rpcapi
from guest_agent_ext.conductor import checks
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts

CONF = conf.CONF
LOG = logging.getLogger(__name__)

SHUT_OFF = 'The server was shut off while the command ran'
DELETED = 'The server was deleted'
NOT_BUILT = 'The server could not be built'
NOT_SCHEDULED = 'The server is not scheduled yet'
NO_HOST = 'The server has no host yet'

#: Maximum number of commands whose servers a cell's endpoint remembers.
MAX_KNOWN = 20_000

#: Fields of an end that have columns of the same name.
_END_FIELDS = ('error', 'pid', 'exitcode', 'signal', 'out_bytes', 'err_bytes')
_END_STREAMS = ('out_data', 'err_data')

_FENCED: rpcapi.Report = {'fenced': True, 'work': [], 'ended': [], 'moved': []}


class _Servers:
    """The servers of the commands that were handed out last.

    A command never gets another server, so none of this is ever out of date;
    the statement that makes a change compares it all the same.
    """

    def __init__(self) -> None:
        self._uuids: dict[str, str] = {}
        self._lock = threading.Lock()

    def note(self, uuids: Mapping[str, str]) -> None:
        """Note servers by the uuids of their commands, and forget the oldest.

        :param uuids: uuids of servers
        """
        with self._lock:
            self._uuids.update(uuids)
            while len(self._uuids) > MAX_KNOWN:
                del self._uuids[next(iter(self._uuids))]

    def of(self, uuid: str) -> str | None:
        """Return the server of a command, or None if that is not known."""
        return self._uuids.get(uuid)


class ConductorManager:
    """The endpoint of one cell's queue; ConductorAPI documents the calls.

    :param cell: mapping of the cell
    :param compute_api: client of the cell's compute services
    """

    target = oslo_messaging.Target(version=rpcapi.VERSION)

    def __init__(
        self,
        cell: nova_types.CellMapping,
        compute_api: compute_rpcapi.ComputeAPI,
    ) -> None:
        self._cell = cell
        self._compute_api = compute_api
        self._servers = _Servers()

    @checks.believing(
        None,
        host=checks.host,
        machine_id=checks.machine_id,
        version=checks.word,
    )
    def register(
        self,
        ctxt: Mapping[str, object],
        host: str,
        machine_id: str,
        version: str,
    ) -> str | None:
        incarnation = hosts.register(
            self._cell.uuid,
            host,
            machine_id=machine_id,
            version=version,
            down_time=CONF.guest_agent.service_down_time,
        )
        if incarnation is None:
            LOG.error(
                'Refused guest-agent-compute on machine %(machine)s: '
                'another machine serves as host %(host)s',
                {'machine': machine_id, 'host': host},
            )
        return incarnation

    @checks.believing(
        _FENCED,
        service=checks.service,
        held=checks.attempts,
        seen=checks.sentences,
    )
    def report(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        held: Mapping[str, str],
        seen: Mapping[str, str],
    ) -> rpcapi.Report:
        cell_uuid, host = self._cell.uuid, service['host']
        work = hosts.heartbeat(
            cell_uuid, host, service['incarnation'], rpcapi.PENDING_PER_SERVER
        )
        if work is None:
            return _FENCED
        metrics.REPORTS.inc()
        self._servers.note({item.uuid: item.instance_uuid for item in work})
        mine = {item.uuid: item.attempt for item in work}
        for uuid in mine.keys() & seen.keys():
            commands.note_seen(uuid, seen[uuid])
        strays = {
            uuid: attempt
            for uuid, attempt in held.items()
            if mine.get(uuid) != attempt
        }
        states = commands.states(strays) if strays else {}
        ended = [uuid for uuid in strays if _has_ended(states.get(uuid))]
        return {
            'fenced': False,
            'work': [_work(item) for item in work],
            'ended': ended,
            'moved': [
                uuid
                for uuid, attempt in strays.items()
                if uuid not in ended
                and states[uuid] != (command.RUNNING, attempt)
            ],
        }

    @checks.believing(
        None,
        service=checks.service,
        uuid=checks.word,
        attempt=checks.word,
        boot_id=untrusted.boot_id,
        ticket=untrusted.uptime,
        window=checks.window,
    )
    def claim(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        boot_id: str,
        ticket: int,
        window: float,
    ) -> rpcapi.Claim | None:
        group = CONF.guest_agent
        claim = functools.partial(
            commands.claim,
            uuid,
            attempt=attempt,
            cell_uuid=self._cell.uuid,
            host=service['host'],
            boot_id=boot_id,
            ticket=ticket,
            window=window,
            grace=group.kill_grace + group.outage_grace,
        )
        guard = self._guard(service, uuid)
        order = None if guard is None else claim(guard=guard)
        if order is None and self._may_change(service, uuid):
            order = claim()
        return _claim(order)

    @checks.believing(
        None, service=checks.service, uuid=checks.word, error=untrusted.text
    )
    def refuse(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuid: str,
        error: str,
    ) -> None:
        if self._may_change(service, uuid):
            commands.end(
                uuid,
                source=command.PENDING,
                status=command.FAILED,
                error=error,
            )

    @checks.believing(
        None,
        service=checks.service,
        uuid=checks.word,
        attempt=checks.word,
        previous=checks.word,
    )
    def adopt(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        previous: str,
    ) -> rpcapi.Claim | None:
        if not self._may_change(service, uuid):
            return None
        return _claim(
            commands.adopt(
                uuid,
                previous=previous,
                attempt=attempt,
                cell_uuid=self._cell.uuid,
                host=service['host'],
            )
        )

    @checks.believing(
        command.MOVED,
        service=checks.service,
        uuid=checks.word,
        attempt=checks.word,
        pid=checks.optional(untrusted.natural),
        started_uptime=checks.optional(untrusted.uptime),
        age=untrusted.age,
        opened=checks.optional(checks.opened),
    )
    def started(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        pid: int | None,
        started_uptime: int | None,
        age: float,
        opened: dict[str, Any] | None = None,
    ) -> str:
        return self._changed(
            service,
            uuid,
            functools.partial(
                commands.note_started,
                uuid,
                attempt=attempt,
                pid=pid,
                started_uptime=started_uptime,
                age=age,
                opened=opened,
            ),
        )

    @checks.believing(
        command.MOVED,
        service=checks.service,
        uuid=checks.word,
        attempt=checks.word,
        end=checks.end,
    )
    def finish(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        end: rpcapi.End,
    ) -> str:
        return self._changed(
            service,
            uuid,
            functools.partial(
                commands.finish,
                uuid,
                attempt=attempt,
                status=end['status'],
                values=_columns(end),
                age=end.get('age'),
            ),
        )

    @checks.believing(
        command.MOVED,
        service=checks.service,
        uuid=checks.word,
        attempt=checks.word,
        state=checks.word,
    )
    def not_here(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        state: str,
    ) -> str:
        server = self._server_of(service, uuid)
        if server is None:
            return command.MOVED if commands.get(uuid) else command.GONE
        error = _loss(server, state)
        if error is None:
            return command.OK
        commands.end(
            uuid,
            source=command.RUNNING,
            status=command.LOST,
            error=error,
            attempt=attempt,
        )
        return command.SUPERSEDED

    @checks.believing([], service=checks.service, uuids=checks.words)
    def ended(
        self,
        ctxt: Mapping[str, object],
        service: rpcapi.Service,
        uuids: list[str],
    ) -> list[str]:
        if not uuids:
            return []
        states = commands.states(uuids)
        return [uuid for uuid in uuids if _has_ended(states.get(uuid))]

    def _changed(
        self, service: rpcapi.Service, uuid: str, change: Callable[..., str]
    ) -> str:
        """Make a change of a command if a service may, and return the outcome.

        :param change: function that makes the change, with a guard or without
        """
        guard = self._guard(service, uuid)
        if guard is not None and change(guard=guard) == command.OK:
            return command.OK
        if not self._may_change(service, uuid):
            return command.MOVED
        return change()

    def _guard(
        self, service: rpcapi.Service, uuid: str
    ) -> commands.Guard | None:
        """Return what the statement of a change is to check, to spare a read.

        :returns: None if this conductor does not know the command's server, or
            the server is on another host
        """
        instance_uuid = self._servers.of(uuid)
        if instance_uuid is None:
            return None
        server = servers.read(self._cell, [instance_uuid]).get(instance_uuid)
        if server is None or server.host != service['host']:
            return None
        return commands.Guard(
            instance_uuid,
            self._cell.uuid,
            service['host'],
            service['incarnation'],
        )

    def _may_change(self, service: rpcapi.Service, uuid: str) -> bool:
        """Return whether the command's server is on the host of a service."""
        return self._server_of(service, uuid) is not None

    def _server_of(
        self, service: rpcapi.Service, uuid: str
    ) -> servers.Server | None:
        """Return the server of a command that a service may change.

        Host and state of the server come from one read, because the end of a
        migration changes both at once.

        :returns: None if the server is on another host or in another cell, or
            the service is fenced
        """
        instance_uuid = commands.instance_for(
            uuid,
            cell_uuid=self._cell.uuid,
            host=service['host'],
            incarnation=service['incarnation'],
        )
        if instance_uuid is None:
            return None
        self._servers.note({uuid: instance_uuid})
        server = servers.read(self._cell, [instance_uuid]).get(instance_uuid)
        if server is None or server.host == service['host']:
            return server
        if server.host:
            commands.relocate(
                [uuid], cell_uuid=self._cell.uuid, host=server.host
            )
            ring(self._compute_api, server.host)
        return None


def ring(compute_api: compute_rpcapi.ComputeAPI, host: str) -> None:
    """Ring the doorbell of a host; a lost ring costs the host some seconds."""
    try:
        compute_api.work(host)
        metrics.DOORBELLS.labels('rung').inc()
    except exception.HostUnreachable as error:
        metrics.DOORBELLS.labels('lost').inc()
        LOG.debug(
            'Could not ring the doorbell of host %(host)s: %(error)s',
            {'host': host, 'error': error},
        )


def end(row: commands.Followed, error: str) -> None:
    """End a command whose server does not run any more.

    :param error: reason for the user
    """
    status = command.FAILED if row.status == command.PENDING else command.LOST
    commands.end(
        row.uuid,
        source=row.status,
        status=status,
        error=error,
        attempt=row.attempt,
    )


def note_seen(row: commands.Followed, seen: str) -> None:
    """Note why a command waits, unless that is noted already.

    :param seen: reason for the user
    """
    if row.last_seen != seen:
        commands.note_seen(row.uuid, seen)


def _loss(server: servers.Server, state: str) -> str | None:
    """Return why a command is lost whose domain does not run, or None.

    :param state: state of the domain, in libvirt's words, or ``absent``
    """
    if server.deleted:
        return DELETED
    if not server.is_settled or server.vm_state in servers.KEEPS_MEMORY:
        return None
    if server.vm_state in servers.HAS_NO_MEMORY or state == 'shutoff':
        return SHUT_OFF
    return None


def _has_ended(state: tuple[str, str | None] | None) -> bool:
    return state is None or state[0] in command.ENDED


def _work(item: commands.Unfinished) -> rpcapi.Work:
    return {
        'uuid': item.uuid,
        'type': item.type,
        'instance_uuid': item.instance_uuid,
        'status': item.status,
        'attempt': item.attempt,
        'cancel_requested': item.cancel_requested,
        'start_in': item.start_in,
    }


def _claim(row: commands.Order | None) -> rpcapi.Claim | None:
    if row is None or row.boot_id is None or row.ticket is None:
        return None
    return {
        'uuid': row.uuid,
        'type': row.type,
        'exec': _exec_order(row) if row.type == command.EXEC else None,
        'file': _file_order(row) if row.type in command.TRANSFERS else None,
        'call': _call_order(row) if row.type in command.AGENT_CALLS else None,
        'timeout': row.timeout,
        'boot_id': row.boot_id,
        'ticket': row.ticket,
        'started_uptime': row.started_uptime,
    }


def _exec_order(row: commands.Order) -> rpcapi.ExecOrder:
    inputs = row.inputs or {}
    return {
        'command': row.arguments['command'],
        'cwd': row.arguments.get('cwd'),
        'user': row.arguments.get('user'),
        'env': inputs.get('env', {}),
        'stdin': inputs.get('stdin', ''),
        'output_keep': row.arguments.get('output_keep', 'head'),
        'attach': _attach(row) if row.is_attached else None,
    }


def _attach(row: commands.Order) -> rpcapi.Attach:
    return {
        'terminal': row.arguments.get('terminal'),
        'detach': row.arguments.get('detach', False),
    }


def _file_order(row: commands.Order) -> rpcapi.FileOrder:
    return {
        'path': row.arguments['path'],
        'mode': row.arguments.get('mode'),
        'append': row.arguments.get('append', False),
        'owner': row.arguments.get('owner'),
        'group': row.arguments.get('group'),
        'opened': row.opened,
    }


def _call_order(row: commands.Order) -> dict[str, Any]:
    return {**row.arguments, **(row.inputs or {})}


def _columns(end: rpcapi.End) -> commands.Outcome:
    values: dict[str, object] = {
        name: value for name, value in end.items() if name in _END_FIELDS
    }
    values.update(
        {
            name: base64.b64decode(str(value))
            for name, value in end.items()
            if name in _END_STREAMS
        }
    )
    return typing.cast(commands.Outcome, values)
