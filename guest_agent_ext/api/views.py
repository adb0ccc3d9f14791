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

"""Commands and hosts as the API shows them."""

import base64
import dataclasses
import datetime
from typing import Any

from nova.api.openstack import common

from guest_agent_ext import command
from guest_agent_ext import policies
from guest_agent_ext.api import schemas
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models

_AS_RECORDED = (
    'uuid',
    'type',
    'instance_uuid',
    'error',
    'project_id',
    'user_id',
    'request_id',
)
_TIMES = ('created_at', 'updated_at', 'started_at', 'finished_at')


@dataclasses.dataclass(frozen=True)
class Viewer:
    """What a caller may see of a server's commands."""

    #: Arguments and output.
    sees_contents: bool
    is_admin: bool


def viewer_of(context: Any, project_id: str) -> Viewer:
    """Return what a caller may see of the commands of a project's servers."""
    return Viewer(
        sees_contents=policies.allows(context, policies.USE, project_id),
        is_admin=context.is_admin,
    )


def show(row: models.Command, viewer: Viewer) -> dict[str, Any]:
    """Return a command with its output.

    :param row: read with its output
    """
    view = _metadata(row, viewer)
    out, err = row.out_data or b'', row.err_data or b''
    result = _result(row, len(out), len(err))
    if result is not None and viewer.sees_contents:
        keep = row.arguments.get('output_keep')
        out_shown, err_shown = command.share_output(len(out), len(err))
        result.update(
            _output('out', _end(out, out_shown, keep)),
            **_output('err', _end(err, err_shown, keep)),
        )
    return dict(view, result=result)


def listed(
    row: models.Command, sizes: tuple[int, int], viewer: Viewer
) -> dict[str, Any]:
    """Return a command without its output.

    :param sizes: bytes that the row has of stdout and of stderr
    """
    return dict(_metadata(row, viewer), result=_result(row, *sizes))


def host(state: hosts.HostState, down_time: int) -> dict[str, Any]:
    """Return a compute service.

    :param down_time: seconds of silence after which it is down
    """
    return {
        'host': state.host,
        'cell': state.cell_uuid,
        'state': 'up' if state.silent_for <= down_time else 'down',
        'version': state.version,
        'last_seen_at': _time(state.last_seen_at),
        'running': state.running,
        'pending': state.pending,
    }


def agent(status: rpcapi.AgentStatus) -> dict[str, Any]:
    """Return a server's guest agent."""
    is_available = status['reason'] is None
    return {'status': 'available' if is_available else 'unavailable', **status}


class Links(common.ViewBuilder):
    """Links as Nova builds them."""

    def next_page(
        self, req: Any, collection: str, marker: str
    ) -> list[dict[str, str]]:
        """Return the link to where a list of commands goes on.

        :param collection: the list's path, below the version
        :param marker: uuid of the last command on this page
        """
        return [
            {
                'rel': 'next',
                'href': self._get_next_link(req, marker, collection),
            }
        ]


def _metadata(row: models.Command, viewer: Viewer) -> dict[str, Any]:
    view = {name: getattr(row, name) for name in _AS_RECORDED}
    view.update({name: _time(getattr(row, name)) for name in _TIMES})
    view['status'] = command.shown_status(
        row.status, row.started_at is not None
    )
    if viewer.sees_contents:
        view['arguments'] = row.arguments
    if viewer.is_admin:
        view['host'] = row.host
    return view


def _result(row: models.Command, out: int, err: int) -> dict[str, Any] | None:
    """Return what came of a command, None while or where there is nothing."""
    if (
        row.type != command.EXEC
        or row.status not in command.ENDED
        or row.started_at is None
    ):
        return None
    out_shown, err_shown = command.share_output(out, err)
    return {
        'pid': row.pid,
        'exitcode': row.exitcode,
        'signal': row.signal,
        'out_truncated': max(out, row.out_bytes or 0) > out_shown,
        'err_truncated': max(err, row.err_bytes or 0) > err_shown,
        'out_bytes': row.out_bytes,
        'err_bytes': row.err_bytes,
    }


def _end(data: bytes, size: int, keep: str | None) -> bytes:
    if keep == 'tail':
        return data[len(data) - size :]
    return data[:size]


def _output(name: str, data: bytes) -> dict[str, str]:
    try:
        text, encoding = data.decode(), 'utf-8'
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(data).decode(), 'base64'
    return {name + '_data': text, name + '_encoding': encoding}


def _time(time: datetime.datetime | None) -> str | None:
    return None if time is None else time.strftime(schemas.TIME_FORMAT)
