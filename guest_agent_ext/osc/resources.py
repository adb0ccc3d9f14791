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


"""The resources of the API, as openstacksdk has them.

They are used with the compute proxy of a connection::

    connection.compute.get(...)
    resources.Command.new(server_id=..., ...).fetch(connection.compute)
"""

from typing import Any

from openstack import exceptions
from openstack import resource


class Command(resource.Resource):
    """A command of a server."""

    resource_key = 'command'
    resources_key = 'commands'
    base_path = '/servers/%(server_id)s/guest-agent/commands'

    allow_create = True
    allow_fetch = True
    allow_list = True
    allow_delete = True

    _query_mapping = resource.QueryParameters('status', 'type')

    #: The server, in the path; in a body it is ``instance_uuid``.
    server_id = resource.URI('server_id')
    #: Its uuid, which is its ``id`` too.
    uuid = resource.Body('uuid', alternate_id=True)
    #: ``exec``, ``file-read`` or ``file-write``.
    type = resource.Body('type')
    #: The uuid of the server.
    instance_uuid = resource.Body('instance_uuid')
    #: ``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``TIMED_OUT``,
    #: ``CANCELLED`` or ``LOST``.
    status = resource.Body('status')
    #: Why it did not complete.
    error = resource.Body('error')
    #: What came of it; None until then.
    result: dict[str, Any] | None = resource.Body('result')
    #: What was asked for.
    arguments: dict[str, Any] | None = resource.Body('arguments')
    #: When it was accepted, changed last, started and ended: ISO 8601, UTC.
    created_at = resource.Body('created_at')
    updated_at = resource.Body('updated_at')
    started_at = resource.Body('started_at')
    finished_at = resource.Body('finished_at')
    #: Who asked, with which request.
    project_id = resource.Body('project_id')
    user_id = resource.Body('user_id')
    request_id = resource.Body('request_id')
    #: Where the server was when last seen; for admins.
    host = resource.Body('host')

    #: The states that do not change any more.
    ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')

    @property
    def has_ended(self) -> bool:
        return self.status in self.ENDED

    def wait(self, session: Any, seconds: int) -> None:
        """Read it again, when it has ended if the server lets wait.

        :param session: the compute proxy
        :param seconds: to wait at most
        """
        response = session.get(
            self._url(), headers={'Prefer': 'wait=%d' % seconds}
        )
        exceptions.raise_from_response(response)
        self._translate_response(response)

    def cancel(self, session: Any) -> None:
        """Have it never start, or be killed."""
        exceptions.raise_from_response(
            session.post(self._url('/action'), json={'cancel': None})
        )

    def output(
        self, session: Any, stream: str, offset: int
    ) -> tuple[bytes, int, bool]:
        """Read what it has written.

        :param stream: ``out`` or ``err``
        :param offset: bytes to leave out
        :returns: bytes, the offset to read on from, and whether nothing
            follows
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


class ProjectCommand(Command):
    """A command of any server of a project, or of all of them."""

    base_path = '/guest-agent/commands'
    allow_create = allow_fetch = allow_delete = False

    _query_mapping = resource.QueryParameters(
        'status', 'all_projects', 'project_id', 'host', 'since'
    )


class GuestAgent(resource.Resource):
    """The guest agent of a server."""

    resource_key = 'guest_agent'
    base_path = '/servers/%(server_id)s/guest-agent'

    allow_fetch = True
    requires_id = False

    #: The server.
    server_id = resource.URI('server_id')
    #: ``available`` or ``unavailable``.
    status = resource.Body('status')
    #: Why no command can be run.
    reason = resource.Body('reason')
    #: Of the agent.
    version = resource.Body('version')
    #: What the guest calls its operating system.
    os = resource.Body('os')
    #: The calls that the guest lets its agent answer.
    supported_commands = resource.Body('supported_commands', type=list)
    #: ``guarded`` or ``direct``.
    execution = resource.Body('execution')


class Host(resource.Resource):
    """A guest-agent-compute service."""

    resources_key = 'hosts'
    base_path = '/guest-agent/hosts'

    allow_list = True

    #: The name of the compute host.
    host = resource.Body('host', alternate_id=True)
    #: The uuid of its cell.
    cell = resource.Body('cell')
    #: ``up`` or ``down``.
    state = resource.Body('state')
    #: The release that it runs.
    version = resource.Body('version')
    #: When it was last heard of.
    last_seen_at = resource.Body('last_seen_at')
    #: Commands that are running, and that wait to start.
    running = resource.Body('running', type=int)
    pending = resource.Body('pending', type=int)
