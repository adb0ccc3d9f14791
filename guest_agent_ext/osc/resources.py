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


"""The resources of the API, as classes of openstacksdk.

They are used with the compute proxy of a connection::

    connection.compute.get(...)
    resources.Command.new(server_id=..., ...).fetch(connection.compute)
"""

import base64
from collections.abc import Iterator
import shlex
from typing import Any
from typing import TypedDict
from urllib import parse

from keystoneauth1 import adapter
from openstack import exceptions
from openstack import resource


class Result(TypedDict, total=False):
    """The fields of an ``exec`` command's result that the client reads."""

    exitcode: int | None
    signal: int | None
    out_bytes: int | None
    err_bytes: int | None
    out_truncated: bool
    err_truncated: bool
    out_data: str
    err_data: str
    out_encoding: str
    err_encoding: str


class _Resource(resource.Resource):
    """A resource whose subclasses have its ``id`` under the same name.

    The SDK looks for it among the attributes of the very class only.
    """

    @classmethod
    def _alternate_id(cls) -> str:
        for kind in cls.__mro__:
            for value in vars(kind).values():
                if getattr(value, 'alternate_id', False):
                    return str(value.name)
        return ''


class Command(_Resource):
    """A command of a server."""

    resource_key = 'command'
    resources_key = 'commands'
    base_path = '/servers/%(server_id)s/guest-agent/commands'

    allow_create = True
    allow_fetch = True
    allow_list = True
    allow_delete = True

    _query_mapping = resource.QueryParameters('status', 'type')

    #: UUID of the server in the path; a body calls it ``instance_uuid``.
    server_id = resource.URI('server_id')
    #: UUID of the command, which is also its ``id``.
    uuid = resource.Body('uuid', alternate_id=True)
    #: ``exec``, ``file-read`` or ``file-write``.
    type = resource.Body('type')
    #: UUID of the server.
    instance_uuid = resource.Body('instance_uuid')
    #: ``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``TIMED_OUT``,
    #: ``CANCELLED`` or ``LOST``.
    status = resource.Body('status')
    #: Reason why the command did not complete.
    error = resource.Body('error')
    #: Result of the command; None until the command has ended.
    result: Result | None = resource.Body('result')
    #: Arguments of the request.
    arguments: dict[str, object] | None = resource.Body('arguments')
    #: Times (ISO 8601, UTC) when the command was accepted, last changed,
    #: started and ended.
    created_at = resource.Body('created_at')
    updated_at = resource.Body('updated_at')
    started_at = resource.Body('started_at')
    finished_at = resource.Body('finished_at')
    #: Project, user and request that created the command.
    project_id = resource.Body('project_id')
    user_id = resource.Body('user_id')
    request_id = resource.Body('request_id')
    #: Last known host of the server; shown to admins only.
    host = resource.Body('host')

    #: Final states.
    ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')

    @property
    def has_ended(self) -> bool:
        return self.status in self.ENDED

    @property
    def command_line(self) -> str | None:
        """What was run, as a shell would read it; the path of a transfer."""
        return _command_line(self.arguments)

    @property
    def exit_code(self) -> int | None:
        """The program's exit code; None if there is none."""
        return (self.result or Result()).get('exitcode')

    def kept(self, stream: str) -> bytes | None:
        """Return the whole output if the ended command holds all of it.

        :param stream: ``out`` or ``err``
        :returns: bytes; None if some are missing here
        """
        result: dict[str, object] = dict(self.result or {})
        data = result.get(stream + '_data')
        if result.get(stream + '_truncated', True) or data is None:
            return None
        if result.get(stream + '_encoding') == 'base64':
            return base64.b64decode(str(data))
        return str(data).encode()

    def wait(self, session: adapter.Adapter, seconds: int) -> None:
        """Fetch the command, and have the server wait for the end.

        :param session: the compute proxy
        :param seconds: maximum seconds that the server waits
        """
        response = session.get(
            self._url(), headers={'Prefer': 'wait=%d' % seconds}
        )
        exceptions.raise_from_response(response)
        self._translate_response(response)

    def cancel(self, session: adapter.Adapter) -> None:
        """Request the cancellation of the command.

        :param session: the compute proxy
        """
        exceptions.raise_from_response(
            session.post(self._url('/action'), json={'cancel': None})
        )

    def output(
        self, session: adapter.Adapter, stream: str, offset: int
    ) -> tuple[bytes, int, bool]:
        """Read the output of the command.

        :param session: the compute proxy
        :param stream: ``out`` or ``err``
        :param offset: number of bytes to leave out
        :returns: bytes, the offset of the next bytes, and True if the output
            is complete
        """
        response = session.get(
            self._url('/output'), params={'stream': stream, 'offset': offset}
        )
        exceptions.raise_from_response(response)
        prefix = 'OpenStack-Guest-Agent-'
        return (
            response.content,
            int(response.headers[prefix + 'Next-Offset']),
            response.headers[prefix + 'Complete'] == 'true',
        )

    def _url(self, below: str = '') -> str:
        base = self.base_path % {'server_id': self.server_id}
        return f'{base}/{self.id}{below}'


def _command_line(arguments: dict[str, object] | None) -> str | None:
    program = (arguments or {}).get('command')
    if isinstance(program, list):
        return shlex.join(map(str, program))
    path = (arguments or {}).get('path')
    return None if path is None else str(path)


class ProjectCommand(Command):
    """A command in the list of a project's commands."""

    base_path = '/guest-agent/commands'
    allow_create = allow_fetch = allow_delete = False

    _query_mapping = resource.QueryParameters(
        'status', 'all_projects', 'project_id', 'host', 'since'
    )


class RunCommand(Command):
    """A command in the list of a run's commands."""

    base_path = '/guest-agent/runs/%(run_id)s/commands'
    allow_create = allow_fetch = allow_delete = False

    _query_mapping = resource.QueryParameters('status', 'server')

    #: UUID of the run in the path.
    run_id = resource.URI('run_id')

    def whole(self, session: adapter.Adapter) -> Command:
        """Return the command with its output, which lists leave out.

        :param session: the compute proxy
        """
        found: Command = Command.new(
            id=self.id, server_id=self.instance_uuid
        ).fetch(session)
        return found


class Run(_Resource):
    """One command in many servers."""

    resource_key = 'run'
    resources_key = 'runs'
    base_path = '/guest-agent/runs'

    allow_create = True
    allow_fetch = True
    allow_list = True
    allow_delete = True

    _query_mapping = resource.QueryParameters(
        'status', 'all_projects', 'project_id'
    )

    #: UUID of the run, which is also its ``id``.
    uuid = resource.Body('uuid', alternate_id=True)
    #: Name that the user gave.
    name = resource.Body('name')
    #: ``RUNNING``, ``COMPLETED``, ``STOPPED`` or ``CANCELLED``.
    status = resource.Body('status')
    #: Reason why not all servers of the request got the command.
    error = resource.Body('error')
    #: Number of servers.
    targets = resource.Body('targets', type=int)
    #: Number of servers by the state of their command.
    counts: dict[str, int] | None = resource.Body('counts')
    #: Number of errors, and number after which nothing more is released.
    errors = resource.Body('errors', type=int)
    max_errors = resource.Body('max_errors', type=int)
    #: Maximum number of unfinished commands.
    max_concurrency = resource.Body('max_concurrency', type=int)
    #: Servers that could not take a command, and why; absent in lists.
    refused: list[dict[str, str]] | None = resource.Body('refused')
    #: Type of the commands, and arguments of the request.
    type = resource.Body('type')
    arguments: dict[str, object] | None = resource.Body('arguments')
    #: Times (ISO 8601, UTC) when the run was accepted, last changed and ended.
    created_at = resource.Body('created_at')
    updated_at = resource.Body('updated_at')
    finished_at = resource.Body('finished_at')
    #: Project, user and request that created the run.
    project_id = resource.Body('project_id')
    user_id = resource.Body('user_id')
    request_id = resource.Body('request_id')

    @property
    def has_ended(self) -> bool:
        return self.status is not None and self.status != 'RUNNING'

    @property
    def command_line(self) -> str | None:
        """What is run, as a shell would read it."""
        return _command_line(self.arguments)

    def commands(
        self, session: adapter.Adapter, **query: Any
    ) -> Iterator[RunCommand]:
        """List the commands of the run, newest first, without output.

        :param session: the compute proxy
        :param query: filters: ``status``, ``server``
        """
        found: Iterator[RunCommand] = RunCommand.list(
            session, run_id=self.id, **query
        )
        return found

    def cancel(self, session: adapter.Adapter) -> None:
        """Request that nothing more is released, and what runs is cancelled.

        :param session: the compute proxy
        """
        exceptions.raise_from_response(
            session.post(
                f'{self.base_path}/{self.id}/action', json={'cancel': None}
            )
        )


class GuestAgent(resource.Resource):
    """The guest agent of a server."""

    resource_key = 'guest_agent'
    base_path = '/servers/%(server_id)s/guest-agent'

    allow_fetch = True
    requires_id = False

    #: UUID of the server.
    server_id = resource.URI('server_id')
    #: ``available`` or ``unavailable``.
    status = resource.Body('status')
    #: Reason why no command can be run.
    reason = resource.Body('reason')
    #: Version of the agent.
    version = resource.Body('version')
    #: Operating system of the guest, as reported by the guest.
    os = resource.Body('os')
    #: Calls that the guest allows its agent to answer.
    supported_commands = resource.Body('supported_commands', type=list)
    #: Types of commands that work in the guest.
    command_types = resource.Body('command_types', type=list)
    #: Reasons why attached commands (``attach``) or those with a terminal
    #: (``terminal``) cannot be run.
    unavailable = resource.Body('unavailable', type=dict)
    #: ``guarded`` or ``direct``, the way in which commands are run.
    execution = resource.Body('execution')


class Host(_Resource):
    """A guest-agent-compute service."""

    resources_key = 'hosts'
    base_path = '/guest-agent/hosts'

    allow_list = True

    #: Name of the compute host.
    host = resource.Body('host', alternate_id=True)
    #: UUID of the host's cell.
    cell = resource.Body('cell')
    #: ``up`` or ``down``.
    state = resource.Body('state')
    #: Release of the service.
    version = resource.Body('version')
    #: Time of the last report.
    last_seen_at = resource.Body('last_seen_at')
    #: Numbers of commands that are running, and that wait to start.
    running = resource.Body('running', type=int)
    pending = resource.Body('pending', type=int)

    @classmethod
    def remove(
        cls, session: adapter.Adapter, host: str, cell: str | None
    ) -> None:
        """Remove a service that is down and whose host has no commands.

        :param session: the compute proxy
        :param host: name of the compute host
        :param cell: UUID of the host's cell; None if only one cell has a host
            of that name
        """
        exceptions.raise_from_response(
            session.delete(
                f'{cls.base_path}/{parse.quote(host, safe="")}',
                params={'cell': cell} if cell else {},
            )
        )
