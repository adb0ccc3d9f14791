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

"""The instance actions of commands, in the database of a cell.

Nova's own functions would need a dozen statements in five transactions for
each command. Here are the same rows, as Nova's API shows them, in one.
"""

from collections.abc import Mapping

from nova.db.main import models
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import nova_types
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import audit
from guest_agent_ext.db import session

_ACTION_TBL = models.InstanceAction.__table__
_EVENT_TBL = models.InstanceActionEvent.__table__
_A, _E = _ACTION_TBL.c, _EVENT_TBL.c

#: The action of a request, and its event if there is one.
_FIND = (
    sa.select(_A.id, _E.id.label('event_id'))
    .select_from(
        _ACTION_TBL.outerjoin(
            _EVENT_TBL,
            sa.and_(
                _E.action_id == _A.id,
                _E.event == sa.bindparam('name'),
                _E.deleted == 0,
            ),
        )
    )
    .where(
        _A.instance_uuid == sa.bindparam('server'),
        _A.request_id == sa.bindparam('request'),
        _A.deleted == 0,
    )
    .order_by(_A.id.desc(), _E.id)
    .limit(1)
)
_ADD_ACTION, _ADD_EVENT = sa.insert(_ACTION_TBL), sa.insert(_EVENT_TBL)
_CHANGE_ACTION = sa.update(_ACTION_TBL).where(
    _A.id == sa.bindparam('of_action')
)
_CHANGE_EVENT = sa.update(_EVENT_TBL).where(_E.id == sa.bindparam('of_event'))


def name_of(row: audit.Due) -> str:
    """Return the name of a command's action, such as ``guest_agent_exec``."""
    return 'guest_agent_' + row.type.replace('-', '_')


@session.retried
def record(cell: nova_types.CellMapping, row: audit.Due) -> None:
    """Write the action of a command, or what is missing of the action.

    :param cell: mapping of the cell that gets the action
    :raises oslo_db.exception.DBReferenceError: Nova has purged the server
    """
    with servers.engine(cell).connect() as db:
        found = db.execute(
            _FIND,
            {
                'name': name_of(row),
                'server': row.instance_uuid,
                'request': row.request_id,
            },
        ).one_or_none()
        # On SQLite a transaction that has read cannot wait for a writer.
        db.rollback()
        with db.begin():
            if found is None:
                _add(db, row)
            else:
                _complete(db, row, found.id, found.event_id)


def _add(db: sa.Connection, row: audit.Due) -> None:
    added = db.execute(
        _ADD_ACTION,
        {
            'action': name_of(row),
            'instance_uuid': row.instance_uuid,
            'request_id': row.request_id,
            'user_id': row.user_id,
            'project_id': row.project_id,
            'start_time': row.created_at,
            **_progress(row),
        },
    )
    assert added.inserted_primary_key is not None
    _add_event(db, row, added.inserted_primary_key[0])


def _complete(
    db: sa.Connection, row: audit.Due, action_id: int, event_id: int | None
) -> None:
    """Write what has happened since an action was recorded.

    :param event_id: id of the action's event, if that was recorded too
    """
    if event_id is None:
        _add_event(db, row, action_id)
    elif row.status in command.ENDED:
        db.execute(_CHANGE_EVENT, {'of_event': event_id, **_end(row)})
    else:
        return
    db.execute(_CHANGE_ACTION, {'of_action': action_id, **_progress(row)})


def _add_event(db: sa.Connection, row: audit.Due, action_id: int) -> None:
    db.execute(
        _ADD_EVENT,
        {
            'action_id': action_id,
            'event': name_of(row),
            'host': row.host,
            'start_time': row.started_at or row.created_at,
            **_end(row),
        },
    )


def _progress(row: audit.Due) -> Mapping[str, object]:
    """Return the columns of an action that change with its events."""
    if row.status not in command.ENDED:
        return {'updated_at': row.started_at or row.created_at}
    if row.status == command.COMPLETED:
        return {'updated_at': row.finished_at}
    return {'updated_at': row.finished_at, 'message': 'Error'}


def _end(row: audit.Due) -> Mapping[str, object]:
    """Return the columns of an event that its end sets."""
    if row.status not in command.ENDED:
        return {}
    is_success = row.status == command.COMPLETED
    return {
        'finish_time': row.finished_at,
        'result': 'Success' if is_success else 'Error',
        'details': _details(row),
    }


def _details(row: audit.Due) -> str:
    for name, value in (('exit code', row.exitcode), ('signal', row.signal)):
        if value is not None:
            return '%s: %s, %s %s' % (row.uuid, row.status, name, value)
    return '%s: %s' % (row.uuid, row.status)
