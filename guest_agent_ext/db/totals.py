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

"""The query of the totals that metrics show."""

import dataclasses

import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes

_COMMANDS = models.Command
_HOSTS = models.Host


@dataclasses.dataclass(frozen=True)
class Totals:
    """Totals of the whole cloud.

    :ivar pending: number of commands that have not started, as users see them
    :ivar running: number of commands that have started and not ended
    :ivar oldest_pending: seconds since the acceptance of the oldest command
        that has not started
    :ivar kept: upper bound of the number of commands in the table
    :ivar hosts_up: number of compute services that report
    :ivar hosts_down: number of compute services that do not
    """

    pending: int
    running: int
    oldest_pending: float
    kept: int
    hosts_up: int
    hosts_down: int


def read(down_time: int) -> Totals:
    """Return the totals, by one statement that is cheap for any table.

    The statement reads unfinished commands, by their index, and the first and
    the last ``id`` of the table.

    :param down_time: seconds without a heartbeat until a service is down
    """
    # As in command.shown_status(): a claimed command may not have started.
    started = sa.func.count(_COMMANDS.started_at)
    unfinished = (
        sa.select(
            (sa.func.count() - started).label('pending'),
            started.label('running'),
            sa.func.min(
                sa.case((_COMMANDS.started_at.is_(None), _COMMANDS.created_at))
            ).label('oldest'),
        )
        .where(_COMMANDS.status.in_(command.UNFINISHED))
        .subquery()
    )
    is_up = _HOSTS.last_seen_at >= sqltypes.utc_in(-down_time)
    query = sa.select(
        unfinished,
        sqltypes.utc_in().label('now'),
        sa.select(sa.func.min(_COMMANDS.id)).scalar_subquery().label('first'),
        sa.select(sa.func.max(_COMMANDS.id)).scalar_subquery().label('last'),
        sa.select(sa.func.count()).where(is_up).scalar_subquery().label('up'),
        sa.select(sa.func.count())
        .where(~is_up)
        .scalar_subquery()
        .label('down'),
    )
    with session.reader() as db:
        row = db.execute(query).one()
    return Totals(
        pending=row.pending,
        running=row.running,
        oldest_pending=(
            (row.now - row.oldest).total_seconds()
            if row.oldest is not None
            else 0.0
        ),
        kept=0 if row.first is None else row.last - row.first + 1,
        hosts_up=row.up,
        hosts_down=row.down,
    )
