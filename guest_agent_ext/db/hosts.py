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

"""Queries of the compute services: who they are and when last heard of."""

from collections.abc import Sequence
import dataclasses
import datetime

from oslo_db import exception as db_exc
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_T = models.Host
_C = models.Command


@dataclasses.dataclass(frozen=True)
class HostState:
    """One compute service, and what it has to do."""

    host: str
    cell_uuid: str
    version: str
    last_seen_at: datetime.datetime
    #: Seconds since it was last heard.
    silent_for: float
    running: int
    pending: int


@session.retried
def register(
    cell_uuid: str, host: str, *, machine_id: str, version: str, down_time: int
) -> int | None:
    """Note the start of a service; it fences those started before it.

    :param machine_id: of the machine it runs on
    :param down_time: seconds after which a silent service counts as down
    :returns: its incarnation, or None while another machine serves under
        this name
    """
    values = {
        'machine_id': machine_id,
        'version': version,
        'last_seen_at': sqltypes.utc_in(),
    }
    takeover = (
        sa.update(_T)
        .where(
            *_is(cell_uuid, host),
            sa.or_(
                _T.machine_id == machine_id,
                _T.last_seen_at < sqltypes.utc_in(-down_time),
            ),
        )
        .values(incarnation=_T.incarnation + 1, **values)
    )
    with session.writer() as db:
        if session.changed(db, takeover):
            return db.scalars(
                sa.select(_T.incarnation).where(*_is(cell_uuid, host))
            ).one()
    try:
        with session.writer() as db:
            db.execute(
                sa.insert(_T).values(
                    cell_uuid=cell_uuid,
                    host=host,
                    incarnation=1,
                    created_at=sqltypes.utc_in(),
                    **values,
                )
            )
    except db_exc.DBDuplicateEntry:
        return None
    return 1


@session.retried
def heartbeat(
    cell_uuid: str, host: str, incarnation: int, limit: int
) -> Sequence[commands.Work] | None:
    """Note that a service was heard of, and tell what its host has to do.

    In one transaction: with many hosts this is most of a conductor's work.

    :param limit: commands, the oldest ones
    :returns: None if a newer incarnation has fenced it
    """
    with session.writer() as db:
        if not session.changed(
            db,
            sa.update(_T)
            .where(*_is(cell_uuid, host), _T.incarnation == incarnation)
            .values(last_seen_at=sqltypes.utc_in()),
        ):
            return None
        return commands.unfinished_of_host(db, cell_uuid, host, limit)


def is_up(cell_uuid: str, host: str, down_time: int) -> bool:
    """Tell whether a service was heard of within ``down_time`` seconds."""
    query = sa.select(_T.id).where(
        *_is(cell_uuid, host), _T.last_seen_at >= sqltypes.utc_in(-down_time)
    )
    with session.reader() as db:
        return db.scalars(query).one_or_none() is not None


def list_all() -> Sequence[HostState]:
    """Return all services with the number of their unfinished commands."""
    hosts = sa.select(
        _T.cell_uuid,
        _T.host,
        _T.version,
        _T.last_seen_at,
        sqltypes.utc_in().label('now'),
    ).order_by(_T.cell_uuid, _T.host)
    counts = (
        sa.select(
            _C.cell_uuid,
            _C.host,
            _C.status,
            _C.started_at.is_not(None),
            sa.func.count(),
        )
        .where(_C.status.in_(command.UNFINISHED))
        .group_by(_C.cell_uuid, _C.host, _C.status, _C.started_at.is_not(None))
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


def _is(cell_uuid: str, host: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_T.cell_uuid == cell_uuid, _T.host == host)
