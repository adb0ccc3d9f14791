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

"""A client of the API for tempest.

A refused request raises the error that ``tempest.lib.exceptions`` has for the
status.
"""

from collections.abc import Mapping
import json
from typing import Any
import urllib.parse

from tempest.lib.common import rest_client

_JSON = {'Content-Type': 'application/json', 'Accept': 'application/json'}
_BYTES = {'Content-Type': 'application/octet-stream', 'Accept': '*/*'}

_RUNS = 'guest-agent/runs'

Response = tuple[Mapping[str, str], bytes]


class GuestAgentClient(rest_client.RestClient):
    """Commands, runs, files and agents of servers."""

    def create_command(
        self,
        server_id: str,
        command: list[str],
        headers: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> rest_client.ResponseBody:
        """Run a command.

        :param arguments: ``input_data``, ``env``, ``timeout`` and so on
        """
        return self.create_raw(
            server_id,
            {
                'command': {
                    'type': 'exec',
                    'arguments': {'command': command, **arguments},
                }
            },
            headers,
        )

    def create_agent_call(
        self, server_id: str, kind: str, **arguments: Any
    ) -> rest_client.ResponseBody:
        """Have the agent of a server carry out one of its calls.

        :param kind: type of the command
        """
        return self.create_raw(
            server_id, {'command': {'type': kind, 'arguments': arguments}}
        )

    def create_raw(
        self,
        server_id: str,
        body: Any,
        headers: Mapping[str, str] | None = None,
    ) -> rest_client.ResponseBody:
        """Post a body unchanged, also one that is wrong."""
        return self._show(
            *self.post(
                _commands(server_id),
                json.dumps(body),
                headers={**_JSON, **(headers or {})},
            )
        )

    def show_command(
        self,
        server_id: str,
        command_id: str,
        headers: Mapping[str, str] | None = None,
    ) -> rest_client.ResponseBody:
        return self._show(
            *self.get(
                f'{_commands(server_id)}/{command_id}',
                headers={**_JSON, **(headers or {})},
            )
        )

    def list_commands(
        self, server_id: str, **query: Any
    ) -> rest_client.ResponseBody:
        return self._show(*self.get(_with(_commands(server_id), query)))

    def list_project_commands(self, **query: Any) -> rest_client.ResponseBody:
        """List the commands of a project, or of all projects."""
        return self._show(*self.get(_with('guest-agent/commands', query)))

    def cancel_command(
        self, server_id: str, command_id: str
    ) -> rest_client.ResponseBody:
        response, body = self.post(
            f'{_commands(server_id)}/{command_id}/action',
            json.dumps({'cancel': None}),
        )
        self.expected_success(202, response.status)
        return rest_client.ResponseBody(response)

    def delete_command(
        self, server_id: str, command_id: str
    ) -> rest_client.ResponseBody:
        response, body = self.delete(f'{_commands(server_id)}/{command_id}')
        self.expected_success(204, response.status)
        return rest_client.ResponseBody(response)

    def show_output(
        self, server_id: str, command_id: str, **query: Any
    ) -> Response:
        """Read the output of a command.

        :param query: ``stream`` and ``offset``
        :returns: headers and bytes
        """
        response, body = self.get(
            _with(f'{_commands(server_id)}/{command_id}/output', query),
            headers={'Accept': '*/*'},
        )
        self.expected_success(200, response.status)
        return response, body

    def read_file(
        self,
        server_id: str,
        path: str,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Read a file.

        :returns: headers and bytes
        """
        response, body = self.get(
            _with(
                f'servers/{server_id}/guest-agent/file-read', {'path': path}
            ),
            headers={**_BYTES, **(headers or {})},
        )
        self.expected_success([200, 206], response.status)
        return response, body

    def write_file(
        self, server_id: str, path: str, content: bytes, **query: Any
    ) -> Response:
        """Write a file.

        :param query: ``mode`` and ``append``
        """
        response, body = self.post(
            _with(
                f'servers/{server_id}/guest-agent/file-write',
                {'path': path, **query},
            ),
            content,
            headers=_BYTES,
        )
        self.expected_success(204, response.status)
        return response, body

    def show_agent(self, server_id: str) -> rest_client.ResponseBody:
        return self._show(*self.get(f'servers/{server_id}/guest-agent'))

    def show_details(
        self, server_id: str, **query: Any
    ) -> rest_client.ResponseBody:
        """Show what the agent of a server tells of the guest.

        :param query: ``fields`` and ``user``
        """
        return self._show(
            *self.get(_with(f'servers/{server_id}/guest-agent/details', query))
        )

    def create_run(
        self,
        targets: Mapping[str, Any],
        command: list[str],
        headers: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        **run: Any,
    ) -> rest_client.ResponseBody:
        """Run a command in many servers.

        :param targets: ``servers``, ``tags`` and ``metadata``
        :param arguments: ``input_data``, ``env``, ``timeout`` and so on
        :param run: ``name``, ``max_concurrency``, ``max_errors`` and so on
        """
        response, body = self.post(
            _RUNS,
            json.dumps(
                {
                    'run': {
                        'targets': targets,
                        'type': 'exec',
                        'arguments': {'command': command, **(arguments or {})},
                        **run,
                    }
                }
            ),
            headers={**_JSON, **(headers or {})},
        )
        self.expected_success(202, response.status)
        return rest_client.ResponseBody(response, json.loads(body))

    def list_runs(self, **query: Any) -> rest_client.ResponseBody:
        return self._show(*self.get(_with(_RUNS, query)))

    def show_run(
        self, run_id: str, headers: Mapping[str, str] | None = None
    ) -> rest_client.ResponseBody:
        return self._show(
            *self.get(
                f'{_RUNS}/{run_id}', headers={**_JSON, **(headers or {})}
            )
        )

    def list_run_commands(
        self, run_id: str, **query: Any
    ) -> rest_client.ResponseBody:
        return self._show(
            *self.get(_with(f'{_RUNS}/{run_id}/commands', query))
        )

    def cancel_run(self, run_id: str) -> rest_client.ResponseBody:
        response, body = self.post(
            f'{_RUNS}/{run_id}/action', json.dumps({'cancel': None})
        )
        self.expected_success(202, response.status)
        return rest_client.ResponseBody(response)

    def delete_run(self, run_id: str) -> rest_client.ResponseBody:
        response, body = self.delete(f'{_RUNS}/{run_id}')
        self.expected_success(204, response.status)
        return rest_client.ResponseBody(response)

    def list_hosts(self) -> rest_client.ResponseBody:
        return self._show(*self.get('guest-agent/hosts'))

    def delete_host(self, host: str) -> rest_client.ResponseBody:
        response, body = self.delete(f'guest-agent/hosts/{host}')
        self.expected_success(204, response.status)
        return rest_client.ResponseBody(response, body)

    def _show(self, response: Any, body: bytes) -> rest_client.ResponseBody:
        self.expected_success(200, response.status)
        return rest_client.ResponseBody(response, json.loads(body))


def _commands(server_id: str) -> str:
    return f'servers/{server_id}/guest-agent/commands'


def _with(path: str, query: Mapping[str, Any]) -> str:
    return f'{path}?{urllib.parse.urlencode(query)}' if query else path
