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

"""The audit of commands: instance actions, notifications and log lines.

A thread of each cell writes them afterwards, from the row, and one those of
runs. So a dead cell or broker delays no command, and what could not be written
is written when it is back. The audit never has a command's arguments, input or
output.
"""

import datetime

from nova import context as nova_context
from oslo_db import exception as db_exc
from oslo_log import log as logging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext import run
from guest_agent_ext.conductor import actions
from guest_agent_ext.conductor import notifications
from guest_agent_ext.db import audit
from guest_agent_ext.db import models

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Maximum number of rows that one query reads.
PAGE = 500
#: Seconds after which a command that a conductor failed to tell of is due
#: again.
RETRY_AFTER = 60


def tell_due(cell: nova_types.CellMapping) -> None:
    """Tell of all commands of a cell that are due.

    :param cell: mapping of the cell
    """
    while rows := audit.due(cell.uuid, PAGE):
        for row in rows:
            tell(cell, row)


def tell(cell: nova_types.CellMapping | None, row: audit.Due) -> None:
    """Tell of a command that is due, unless another conductor does.

    :param cell: mapping of the cell that gets the instance action; None if the
        server is in no cell
    """
    if audit.take(row.uuid, RETRY_AFTER):
        _tell(cell, row)
        audit.note_told(row.uuid, row.status)
        _count(row)


def tell_due_runs() -> None:
    """Tell of all runs that are due."""
    while rows := audit.due_runs(PAGE):
        for row in rows:
            if audit.take(row.uuid, RETRY_AFTER, models.Run):
                _tell_run(row)
                audit.note_run_told(row.uuid, row.status)


def _tell_run(row: models.Run) -> None:
    context = _context_of(row)
    if row.audited is None:
        notifications.emit_run_start(context, row)
    if row.status in run.ENDED:
        LOG.info(
            'Run %(uuid)s of %(targets)s servers ended as %(status)s, with '
            '%(errors)s errors; project %(project)s, request %(request)s',
            {
                'uuid': row.uuid,
                'targets': row.targets,
                'status': row.status,
                'errors': row.errors,
                'project': row.project_id,
                'request': row.request_id,
            },
        )
        notifications.emit_run_end(context, row)


def _context_of(row: audit.Due | models.Run) -> nova_types.RequestContext:
    """Return the context of the request that a row is of."""
    context: nova_types.RequestContext = nova_context.RequestContext(
        user_id=row.user_id,
        project_id=row.project_id,
        request_id=row.request_id,
        is_admin=False,
    )
    return context


def _tell(cell: nova_types.CellMapping | None, row: audit.Due) -> None:
    context = _context_of(row)
    if cell is not None and CONF.guest_agent.record_instance_actions:
        _record(cell, row)
    # A short command has often ended before its start is told.
    if row.started_at is not None and row.audited is None:
        notifications.emit_start(context, actions.name_of(row), row)
    if row.status in command.ENDED:
        _log_end(row)
        notifications.emit_end(context, actions.name_of(row), row)


def _log_end(row: audit.Due) -> None:
    """Log an end, whoever made the change."""
    LOG.log(
        logging.WARNING if row.status == command.LOST else logging.INFO,
        'Command %(uuid)s of server %(server)s on host %(host)s ended as '
        '%(status)s%(reason)s; project %(project)s, request %(request)s',
        {
            'uuid': row.uuid,
            'server': row.instance_uuid,
            'host': row.host,
            'status': row.status,
            'reason': _reason(row),
            'project': row.instance_project_id,
            'request': row.request_id,
        },
    )


def _reason(row: audit.Due) -> str:
    """Return the part of an error that has no data of the tenant.

    What follows a colon is the guest's or the tenant's, and errors of files
    name their paths.
    """
    if row.error is None or row.type != command.EXEC:
        return ''
    return ' (%s)' % row.error.partition(':')[0].partition('. ')[0]


def _count(row: audit.Due) -> None:
    """Count a start or an end that was told."""
    if row.started_at is not None and row.audited is None:
        metrics.START_SECONDS.labels(row.type).observe(
            _seconds_until(row.started_at, row)
        )
    if row.finished_at is not None:
        metrics.ENDED.labels(row.type, row.status).inc()
        metrics.END_SECONDS.labels(row.type).observe(
            _seconds_until(row.finished_at, row)
        )


def _seconds_until(time: datetime.datetime, row: audit.Due) -> float:
    # A start comes from the guest's clock, which may differ a little.
    return max(0.0, (time - row.created_at).total_seconds())


def _record(cell: nova_types.CellMapping, row: audit.Due) -> None:
    """Write the instance action of a command into the database of its cell."""
    try:
        actions.record(cell, row)
    except db_exc.DBReferenceError:
        LOG.info(
            'Command %(uuid)s gets no instance action: its server '
            '%(server)s has been purged',
            {'uuid': row.uuid, 'server': row.instance_uuid},
        )
