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

"""Builds the JSON of commands, runs, hosts and agents."""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime

from nova.api.openstack import common

from guest_agent_ext import command
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext import run as runs
from guest_agent_ext.api import schemas
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models

_AS_RECORDED = (
    'uuid',
    'type',
    'instance_uuid',
    'project_id',
    'user_id',
    'request_id',
    'run_uuid',
)
_TIMES = ('created_at', 'updated_at', 'started_at', 'finished_at')
_RUN_AS_RECORDED = (
    'uuid',
    'name',
    'type',
    'status',
    'targets',
    'errors',
    'max_concurrency',
    'max_errors',
    'error',
    'project_id',
    'user_id',
    'request_id',
)
_RUN_TIMES = ('created_at', 'updated_at', 'finished_at')

#: JSON of an object, as a schema of schemas.py describes it.
View = dict[str, object]

#: The error for viewers who do not see contents. The recorded one may name
#: programs, paths and directories, and its words may be the guest's.
_GENERAL_ERRORS: Mapping[str, str] = {
    command.FAILED: 'The command failed',
    command.TIMED_OUT: 'The timeout of the command passed',
    command.CANCELLED: 'The command was cancelled',
    command.LOST: 'The end of the command is not known',
}


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A caller's rights to see a server's commands.

    :ivar sees_contents: whether arguments, output and error are shown
    """

    sees_contents: bool
    is_admin: bool


def viewer_of(context: nova_types.RequestContext, project_id: str) -> Viewer:
    """Return a caller's rights to see the commands of a project's servers."""
    return Viewer(
        sees_contents=policies.allows(context, policies.USE, project_id),
        is_admin=context.is_admin,
    )


def show(row: models.Command, viewer: Viewer) -> View:
    """Return the view of a command, with its output.

    :param row: command, read with its output
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


def listed(row: models.Command, viewer: Viewer) -> View:
    """Return the view of a command, without its output.

    :param row: command, read with the sizes of its output
    """
    return dict(
        _metadata(row, viewer), result=_result(row, row.out_size, row.err_size)
    )


def run(row: models.Run, viewer: Viewer, counts: Mapping[str, int]) -> View:
    """Return the view of a run in a list.

    :param counts: number of targets by the states of runs.COUNTED
    """
    view: View = {name: getattr(row, name) for name in _RUN_AS_RECORDED}
    view.update({name: _time(getattr(row, name)) for name in _RUN_TIMES})
    view['counts'] = {status: counts.get(status, 0) for status in runs.COUNTED}
    if viewer.sees_contents:
        view['arguments'] = row.arguments
    return view


def refused(targets: Sequence[models.RunTarget]) -> list[View]:
    """Return the views of targets whose servers could not take a command."""
    return [
        {'instance_uuid': target.instance_uuid, 'error': target.error}
        for target in targets
    ]


def host(state: hosts.HostState, down_time: int) -> View:
    """Return the view of a compute service.

    :param down_time: seconds of silence after which a service counts as down
    """
    return {
        'host': state.host,
        'cell': state.cell_uuid,
        'state': state.state(down_time),
        'version': state.version,
        'last_seen_at': _time(state.last_seen_at),
        'running': state.running,
        'pending': state.pending,
    }


def agent(status: rpcapi.AgentStatus) -> View:
    """Return the view of a server's guest agent."""
    is_available = status['reason'] is None
    return {'status': 'available' if is_available else 'unavailable', **status}


def details(answer: rpcapi.Details) -> View:
    """Return the view of what a guest's agent tells of the guest."""
    return {**answer['details'], 'unavailable': answer['unavailable']}


class Links(common.ViewBuilder):
    """Builds links as Nova does."""

    def next_page(
        self, req: nova_types.Request, collection: str, marker: str
    ) -> list[dict[str, str]]:
        """Return the link to the next page of a list.

        :param collection: path of the list, below the version
        :param marker: uuid of the last row on this page
        """
        return [
            {
                'rel': 'next',
                'href': self._get_next_link(req, marker, collection),
            }
        ]


def _metadata(row: models.Command, viewer: Viewer) -> View:
    view: View = {name: getattr(row, name) for name in _AS_RECORDED}
    view.update({name: _time(getattr(row, name)) for name in _TIMES})
    view['status'] = command.shown_status(
        row.status, row.started_at is not None
    )
    view['error'] = (
        row.error if viewer.sees_contents else _GENERAL_ERRORS.get(row.status)
    )
    if viewer.sees_contents:
        view['arguments'] = row.arguments
    if viewer.is_admin:
        view['host'] = row.host or None
    return view


def _result(row: models.Command, out: int, err: int) -> View | None:
    """Return the result of an exec that has started and ended, else None.

    :param out: number of bytes kept of stdout
    :param err: number of bytes kept of stderr
    """
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
