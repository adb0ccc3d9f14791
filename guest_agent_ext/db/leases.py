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

"""Leases, under which one process at a time works, and turns of transactions.

A lease expires, so that another process takes over from one that died. A turn
orders the transactions of one project.
"""

import contextlib
import hashlib

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext import exception
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_LEASES = models.Lease

#: Seconds for which the row of a turn is kept after its last use.
TURN_KEPT_FOR = 86400


@session.retried
def take(name: str, holder: str, seconds: float) -> bool:
    """Take or renew a lease.

    :param holder: uuid of the holder
    :param seconds: time until the lease expires
    :returns: False while another holder has the lease
    """
    values = {'holder': holder, 'expires_at': sqltypes.utc_in(seconds)}
    free = sa.or_(
        _LEASES.holder == holder, _LEASES.expires_at < sqltypes.utc_in()
    )
    with session.writer() as db:
        if session.changed(
            db,
            sa.update(_LEASES)
            .where(_LEASES.name == name, free)
            .values(values),
        ):
            return True
    try:
        with session.writer() as db:
            db.execute(sa.insert(_LEASES).values(name=name, **values))
    except db_exc.DBDuplicateEntry:
        return False
    return True


@session.retried
def release(name: str, holder: str) -> None:
    """Release a lease, unless another holder has taken the lease."""
    with session.writer() as db:
        db.execute(
            sa.delete(_LEASES).where(
                _LEASES.name == name, _LEASES.holder == holder
            )
        )


_LEASE_TBL = models.table_of(models.Lease)
_TAKE_TURN = (
    sa.update(_LEASE_TBL)
    .where(_LEASE_TBL.c.name == sa.bindparam('turn'))
    .values(expires_at=sqltypes.utc_in(TURN_KEPT_FOR))
)


def wait_for_turn(db: orm.Session | sa.Connection, project_id: str) -> None:
    """Wait until no other transaction of the project is under way.

    The row is changed, not only locked: in a cluster, where a lock holds on
    one node alone, the second of two transactions fails at its commit and is
    repeated.

    :param db: current transaction. This must be its first statement, so that
        later ones read what the transaction before has committed.
    :raises exception.NoTurn: the row does not exist; call add_turn() and
        repeat the transaction
    """
    if not session.changed(db, _TAKE_TURN, {'turn': _turn_of(project_id)}):
        raise exception.NoTurn


@session.retried
def add_turn(project_id: str) -> None:
    """Add the row that wait_for_turn() needs, if missing."""
    with contextlib.suppress(db_exc.DBDuplicateEntry), session.writer() as db:
        db.execute(
            sa.insert(_LEASES).values(
                name=_turn_of(project_id),
                holder='',
                expires_at=sqltypes.utc_in(TURN_KEPT_FOR),
            )
        )


@session.retried
def remove_expired(limit: int) -> int:
    """Remove leases that have expired, and turns of idle projects.

    :param limit: maximum number of rows
    :returns: number of rows that were removed
    """
    expired = _LEASES.expires_at < sqltypes.utc_in()
    with session.reader() as db:
        names = db.scalars(
            sa.select(_LEASES.name).where(expired).limit(limit)
        ).all()
    if not names:
        return 0
    with session.writer() as db:
        return session.changed(
            db, sa.delete(_LEASES).where(_LEASES.name.in_(names), expired)
        )


def _turn_of(project_id: str) -> str:
    # A hash, because a project's id may be longer than the column.
    return 'turn-' + hashlib.sha256(project_id.encode()).hexdigest()[:32]
