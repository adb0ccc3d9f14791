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

"""Queries of the compute services and their heartbeats."""

from collections.abc import Sequence
import dataclasses
import datetime
import secrets

from oslo_db import exception as db_exc
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_HOSTS = models.Host
_COMMANDS = models.Command

_INCARNATION_BYTES = 16

_HOST_TBL = models.table_of(models.Host)
_H = _HOST_TBL.c
_NAMED = (
    _H.cell_uuid == sa.bindparam('cell'),
    _H.host == sa.bindparam('name'),
)
_HEARD = (
    sa.update(_HOST_TBL)
    .where(*_NAMED, _H.incarnation == sa.bindparam('hash'))
    .values(last_seen_at=sqltypes.utc_in())
)
_IS_UP = sa.select(_H.id).where(
    *_NAMED,
    _H.last_seen_at >= sqltypes.utc_in(sa.bindparam('since', type_=sa.Float)),
)


@dataclasses.dataclass(frozen=True)
class HostState:
    """One compute service with the number of its unfinished commands."""

    host: str
    cell_uuid: str
    version: str
    last_seen_at: datetime.datetime
    #: Seconds since the last heartbeat.
    silent_for: float
    running: int
    pending: int

    def state(self, down_time: int) -> str:
        """Return ``up`` or ``down``.

        :param down_time: seconds without a heartbeat until a service is down
        """
        return 'up' if self.silent_for <= down_time else 'down'


@session.retried
def register(
    cell_uuid: str, host: str, *, machine_id: str, version: str, down_time: int
) -> str | None:
    """Note the start of a service, and fence those started before.

    :param machine_id: id of the machine that the service runs on
    :param down_time: seconds without a heartbeat until a service is down
    :returns: new incarnation of the service, or None while another machine
        serves under this name
    """
    incarnation = secrets.token_hex(_INCARNATION_BYTES)
    values = {
        'machine_id': machine_id,
        'version': version,
        'incarnation': commands.hash_of(incarnation),
        'last_seen_at': sqltypes.utc_in(),
    }
    takeover = (
        sa.update(_HOSTS)
        .where(
            *_is(cell_uuid, host),
            sa.or_(
                _HOSTS.machine_id == machine_id,
                _HOSTS.last_seen_at < sqltypes.utc_in(-down_time),
            ),
        )
        .values(values)
    )
    with session.writer() as db:
        if session.changed(db, takeover):
            return incarnation
    try:
        with session.writer() as db:
            db.execute(
                sa.insert(_HOSTS).values(
                    cell_uuid=cell_uuid,
                    host=host,
                    created_at=sqltypes.utc_in(),
                    **values,
                )
            )
    except db_exc.DBDuplicateEntry:
        return None
    return incarnation


@session.retried
def heartbeat(
    cell_uuid: str, host: str, incarnation: str, pending: int
) -> Sequence[commands.Unfinished] | None:
    """Note the heartbeat of a service, and return the work of its host.

    One connection does both: with many hosts this is most of a conductor's
    work. The heartbeat is committed first, because changes of the host's
    commands wait for its row.

    :param pending: maximum number of PENDING commands of each server
    :returns: None if a newer incarnation has fenced the service
    """
    service = {
        'cell': cell_uuid,
        'name': host,
        'hash': commands.hash_of(incarnation),
    }
    with session.get_engine().connect() as db:
        with db.begin():
            is_known = session.changed(db, _HEARD, service) > 0
        if not is_known:
            return None
        return commands.work_of_host(db, cell_uuid, host, pending)


def is_up(cell_uuid: str, host: str, down_time: int) -> bool:
    """Return whether a service reported within ``down_time`` seconds."""
    with session.reader_connection() as db:
        found = db.execute(
            _IS_UP, {'cell': cell_uuid, 'name': host, 'since': -down_time}
        ).one_or_none()
    return found is not None


def list_all() -> Sequence[HostState]:
    """Return all services with the number of their unfinished commands."""
    hosts = sa.select(
        _HOSTS.cell_uuid,
        _HOSTS.host,
        _HOSTS.version,
        _HOSTS.last_seen_at,
        sqltypes.utc_in().label('now'),
    ).order_by(_HOSTS.cell_uuid, _HOSTS.host)
    group = (
        _COMMANDS.cell_uuid,
        _COMMANDS.host,
        _COMMANDS.status,
        _COMMANDS.started_at.is_not(None),
    )
    counts = (
        sa.select(*group, sa.func.count())
        .where(_COMMANDS.status.in_(command.UNFINISHED))
        .group_by(*group)
    )
    with session.reader() as db:
        rows = db.execute(hosts).all()
        count: dict[tuple[str, str, str], int] = {}
        for cell_uuid, host, status, started, number in db.execute(counts):
            key = (cell_uuid, host, command.shown_status(status, started))
            count[key] = count.get(key, 0) + number
    return [
        HostState(
            row.host,
            row.cell_uuid,
            row.version,
            row.last_seen_at,
            (row.now - row.last_seen_at).total_seconds(),
            count.get((row.cell_uuid, row.host, command.RUNNING), 0),
            count.get((row.cell_uuid, row.host, command.PENDING), 0),
        )
        for row in rows
    ]


def remove(host: str, cell_uuid: str | None, down_time: int) -> None:
    """Remove a service that is down and has no unfinished commands.

    :param cell_uuid: uuid of the host's cell, None if only one cell has a host
        of this name
    :param down_time: seconds without a heartbeat until a service is down
    :raises exception.HostNotFound: no service of that name is known
    :raises exception.HostInUse: the service is up or has unfinished commands,
        or several cells have a host of this name
    """
    cells = _cells_of(host, cell_uuid)
    if not cells:
        raise exception.HostNotFound(f'Host {host} is not known')
    if len(cells) > 1:
        raise exception.HostInUse(
            f'Host {host} is in several cells; name one of them as cell: '
            f'{", ".join(cells)}'
        )
    if not _remove(cells[0], host, down_time):
        raise exception.HostInUse(
            f'Host {host} is up or has unfinished commands; stop its '
            f'guest-agent-compute, wait {down_time} seconds, and until its '
            'commands have ended'
        )


def _cells_of(host: str, cell_uuid: str | None) -> Sequence[str]:
    query = (
        sa.select(_HOSTS.cell_uuid)
        .where(_HOSTS.host == host)
        .order_by(_HOSTS.cell_uuid)
    )
    if cell_uuid is not None:
        query = query.where(_HOSTS.cell_uuid == cell_uuid)
    with session.reader() as db:
        return db.scalars(query).all()


@session.retried
def _remove(cell_uuid: str, host: str, down_time: int) -> int:
    unfinished = sa.select(_COMMANDS.id).where(
        _COMMANDS.cell_uuid == cell_uuid,
        _COMMANDS.host == host,
        _COMMANDS.status.in_(command.UNFINISHED),
    )
    with session.writer() as db:
        return session.changed(
            db,
            sa.delete(_HOSTS).where(
                *_is(cell_uuid, host),
                _HOSTS.last_seen_at < sqltypes.utc_in(-down_time),
                ~unfinished.exists(),
            ),
        )


def _is(cell_uuid: str, host: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_HOSTS.cell_uuid == cell_uuid, _HOSTS.host == host)
