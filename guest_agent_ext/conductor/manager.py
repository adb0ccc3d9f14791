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

"""What guest-agent-conductor does with what compute services tell it.

It is the only writer after the INSERT. A change is accepted only from the
host that the command's server is on, as Nova's cell says at that moment.
"""

import base64
from collections.abc import Mapping
from typing import Any

from oslo_log import log as logging
import oslo_messaging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.compute import rpcapi as compute_rpcapi
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Commands that one report hands out at most; the next one has the rest.
WORK_LIMIT = 500

SHUT_OFF = 'The server was shut off while the command ran'
DELETED = 'The server was deleted'

#: Fields of a report that go into columns of the same name.
_END_FIELDS = ('error', 'pid', 'exitcode', 'signal', 'out_bytes', 'err_bytes')
_END_STREAMS = ('out_data', 'err_data')


class ConductorManager:
    """The endpoint of one cell's queue; its methods are conductor/rpcapi's.

    :param cell: nova's CellMapping
    :param compute_api: client of the cell's compute services
    """

    target = oslo_messaging.Target(version=rpcapi.VERSION)

    def __init__(
        self, cell: Any, compute_api: compute_rpcapi.ComputeAPI
    ) -> None:
        self._cell = cell
        self._compute_api = compute_api

    def register(
        self, ctxt: Mapping[str, Any], host: str, machine_id: str, version: str
    ) -> int | None:
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

    def report(
        self,
        ctxt: Mapping[str, Any],
        service: rpcapi.Service,
        held: Mapping[str, str],
        seen: Mapping[str, str],
    ) -> rpcapi.Report:
        cell_uuid, host = self._cell.uuid, service['host']
        work = hosts.heartbeat(
            cell_uuid, host, service['incarnation'], WORK_LIMIT
        )
        if work is None:
            return {'fenced': True, 'work': [], 'ended': [], 'moved': []}
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

    def claim(
        self,
        ctxt: Mapping[str, Any],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        boot_id: str,
        ticket: int,
        window: float,
    ) -> rpcapi.Claim | None:
        if not self._may_change(service, uuid):
            return None
        group = CONF.guest_agent
        return _claim(
            commands.claim(
                uuid,
                attempt=attempt,
                cell_uuid=self._cell.uuid,
                host=service['host'],
                boot_id=boot_id,
                ticket=ticket,
                window=window,
                grace=group.kill_grace + group.outage_grace,
            )
        )

    def refuse(
        self,
        ctxt: Mapping[str, Any],
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

    def adopt(
        self,
        ctxt: Mapping[str, Any],
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

    def started(
        self,
        ctxt: Mapping[str, Any],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        pid: int | None,
        started_uptime: int | None,
        age: float,
        opened: dict[str, Any] | None = None,
    ) -> str:
        if not self._may_change(service, uuid):
            return command.MOVED
        return commands.note_started(
            uuid,
            attempt=attempt,
            pid=pid,
            started_uptime=started_uptime,
            age=age,
            opened=opened,
        )

    def finish(
        self,
        ctxt: Mapping[str, Any],
        service: rpcapi.Service,
        uuid: str,
        attempt: str,
        end: rpcapi.End,
    ) -> str:
        if not self._may_change(service, uuid):
            return command.MOVED
        values = _columns(end)
        outcome = commands.finish(
            uuid,
            attempt=attempt,
            status=end['status'],
            values=values,
            age=end.get('age'),
        )
        LOG.info(
            'Command %(uuid)s ended as %(status)s: %(outcome)s',
            {'uuid': uuid, 'status': end['status'], 'outcome': outcome},
        )
        return outcome

    def not_here(
        self,
        ctxt: Mapping[str, Any],
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

    def ended(
        self,
        ctxt: Mapping[str, Any],
        service: rpcapi.Service,
        uuids: list[str],
    ) -> list[str]:
        if not uuids:
            return []
        states = commands.states(uuids)
        return [uuid for uuid in uuids if _has_ended(states.get(uuid))]

    def _may_change(self, service: rpcapi.Service, uuid: str) -> bool:
        """Tell whether this service is the one that the server is on."""
        return self._server_of(service, uuid) is not None

    def _server_of(
        self, service: rpcapi.Service, uuid: str
    ) -> servers.Server | None:
        """Return a command's server if this service is the one it is on.

        Where it is and in which state come from one read: a migration's end
        changes both at once.
        """
        instance_uuid = commands.instance_for(
            uuid,
            cell_uuid=self._cell.uuid,
            host=service['host'],
            incarnation=service['incarnation'],
        )
        if instance_uuid is None:
            return None
        server = servers.read(self._cell, [instance_uuid]).get(instance_uuid)
        if server is None or server.host == service['host']:
            return server
        self._follow(uuid, server)
        return None

    def _follow(self, uuid: str, server: servers.Server) -> None:
        if not server.host:
            return
        commands.relocate([uuid], cell_uuid=self._cell.uuid, host=server.host)
        ring(self._compute_api, server.host)


def ring(compute_api: compute_rpcapi.ComputeAPI, host: str) -> None:
    """Tell a host that it has work; it finds out by itself a little later."""
    try:
        compute_api.work(host)
    except oslo_messaging.MessagingException as error:
        LOG.debug(
            'No doorbell for host %(host)s: %(error)s',
            {'host': host, 'error': error},
        )


def _loss(server: servers.Server, state: str) -> str | None:
    """Tell why a command is lost whose domain does not run, if it is.

    :param state: of the domain, in libvirt's words, or ``absent``
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


def _work(item: commands.Work) -> rpcapi.Work:
    return {
        'uuid': item.uuid,
        'type': item.type,
        'instance_uuid': item.instance_uuid,
        'status': item.status,
        'attempt': item.attempt,
        'cancel_requested': item.cancel_requested,
        'start_in': item.start_in,
    }


def _claim(row: models.Command | None) -> rpcapi.Claim | None:
    if row is None or row.boot_id is None or row.ticket is None:
        return None
    is_exec = row.type == command.EXEC
    return {
        'uuid': row.uuid,
        'type': row.type,
        'exec': _exec_order(row) if is_exec else None,
        'file': None if is_exec else _file_order(row),
        'timeout': row.timeout,
        'boot_id': row.boot_id,
        'ticket': row.ticket,
        'started_uptime': row.started_uptime,
    }


def _exec_order(row: models.Command) -> rpcapi.ExecOrder:
    inputs = row.inputs or {}
    return {
        'command': row.arguments['command'],
        'cwd': row.arguments.get('cwd'),
        'env': inputs.get('env', {}),
        'stdin': inputs.get('stdin', ''),
        'output_keep': row.arguments.get('output_keep', 'head'),
    }


def _file_order(row: models.Command) -> rpcapi.FileOrder:
    return {
        'path': row.arguments['path'],
        'mode': row.arguments.get('mode'),
        'append': row.arguments.get('append', False),
        'opened': row.opened,
    }


def _columns(end: rpcapi.End) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: value for name, value in end.items() if name in _END_FIELDS
    }
    values.update(
        {
            name: base64.b64decode(str(value))
            for name, value in end.items()
            if name in _END_STREAMS
        }
    )
    return values
