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

"""What the audit tells of commands: instance actions and notifications.

It tells after the fact, from the row, in a thread of each cell: a cell or a
broker that is dead holds up no command, and what could not be told is told
when it is back. Never told: what was run, and what it wrote.
"""

from typing import Any

from nova import context as nova_context
from nova.db.main import api as nova_db
from oslo_db import exception as db_exc
from oslo_log import log as logging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.conductor import notifications
from guest_agent_ext.db import audit
from guest_agent_ext.db import models

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Rows that one statement reads.
PAGE = 500
#: Seconds after which what a conductor did not finish telling is told again.
RETRY_AFTER = 60


def tell_due(cell: Any) -> None:
    """Tell of all commands of a cell that started or ended since.

    :param cell: nova's CellMapping
    """
    while rows := audit.due(cell.uuid, PAGE):
        for row in rows:
            if audit.take(row.uuid, RETRY_AFTER):
                _tell(cell, row)
                audit.note_told(row.uuid, row.status)


def action_of(row: models.Command) -> str:
    """Return the name of a command's action: ``guest_agent_exec``."""
    return 'guest_agent_' + row.type.replace('-', '_')


def _tell(cell: Any, row: models.Command) -> None:
    context = nova_context.RequestContext(
        user_id=row.user_id,
        project_id=row.project_id,
        request_id=row.request_id,
        is_admin=False,
    )
    if CONF.guest_agent.record_instance_actions:
        _record(context, cell, row)
    # A short command is told of once, when it has already ended.
    if row.started_at is not None and row.audited is None:
        notifications.emit_start(context, action_of(row), row)
    if row.status in command.ENDED:
        notifications.emit_end(context, action_of(row), row)


def _record(context: Any, cell: Any, row: models.Command) -> None:
    try:
        with nova_context.target_cell(context, cell) as cell_context:
            _start_event(cell_context, row, _action_id(cell_context, row))
            if row.status in command.ENDED:
                _finish_event(cell_context, row)
    except db_exc.DBReferenceError:
        LOG.info(
            'No action for command %(uuid)s: server %(server)s has been '
            'purged',
            {'uuid': row.uuid, 'server': row.instance_uuid},
        )


def _action_id(context: Any, row: models.Command) -> int:
    """Return the id of a command's action, which is made if need be."""
    action = nova_db.action_get_by_request_id(
        context, row.instance_uuid, row.request_id
    )
    if action is None:
        action = nova_db.action_start(
            context,
            dict(
                _key(row),
                user_id=row.user_id,
                project_id=row.project_id,
                action=action_of(row),
                start_time=row.created_at,
                updated_at=row.created_at,
            ),
        )
    return int(action['id'])


def _start_event(context: Any, row: models.Command, action_id: int) -> None:
    if nova_db.action_events_get(context, action_id):
        return
    nova_db.action_event_start(
        context,
        dict(
            _key(row),
            event=action_of(row),
            host=row.host,
            start_time=row.started_at or row.created_at,
        ),
    )


def _finish_event(context: Any, row: models.Command) -> None:
    is_success = row.status == command.COMPLETED
    nova_db.action_event_finish(
        context,
        dict(
            _key(row),
            event=action_of(row),
            finish_time=row.finished_at,
            result='Success' if is_success else 'Error',
            details=_details(row),
        ),
    )


def _key(row: models.Command) -> dict[str, Any]:
    """What Nova finds an action by."""
    return {'instance_uuid': row.instance_uuid, 'request_id': row.request_id}


def _details(row: models.Command) -> str:
    for name, value in (('exit code', row.exitcode), ('signal', row.signal)):
        if value is not None:
            return '%s: %s, %s %s' % (row.uuid, row.status, name, value)
    return '%s: %s' % (row.uuid, row.status)
