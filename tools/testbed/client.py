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

"""A tenant with nothing but HTTP."""

from collections.abc import Mapping
import contextlib
import dataclasses
import http.client
import json
import time
from typing import Any
import urllib.parse

#: Seconds that a request may take: a large file takes as long as the machine
#: has little time.
TIMEOUT = 1200

ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Requests for one server with one token.

    :param compute_url: ends in ``/v2.1``
    """

    def __init__(self, compute_url: str, token: str, server_id: str) -> None:
        self._compute_url = compute_url
        self.token = token
        self.server_id = server_id

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request for a path below ``compute_url``.

        :param body: bytes go as they are, anything else as JSON
        """
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        with contextlib.closing(self.connect()) as connection:
            try:
                connection.request(
                    method,
                    self.base_path + path,
                    body=data,
                    headers={
                        'X-Auth-Token': self.token,
                        'Content-Type': 'application/json',
                        **(headers or {}),
                    },
                )
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a body may not read all of it.
                if connection.sock is None:
                    raise
            response = connection.getresponse()
            answer = Answer(
                response.status, dict(response.headers), response.read()
            )
            # A server that is killed may leave only a part of the headers.
            if response.length is None and not response.chunked:
                raise http.client.IncompleteRead(answer.body)
            return answer

    def request(
        self, method: str, path: str, body: Any = None
    ) -> tuple[int, Any]:
        """Send a request for a path below ``compute_url``.

        :returns: status and decoded body
        """
        answer = self.send(method, path, body)
        return answer.status, json.loads(answer.body) if answer.body else None

    @property
    def base_path(self) -> str:
        return urllib.parse.urlsplit(self._compute_url).path

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection, to send and read piece by piece."""
        address = urllib.parse.urlsplit(self._compute_url)
        return http.client.HTTPConnection(
            str(address.hostname), address.port, timeout=TIMEOUT
        )

    @property
    def commands(self) -> str:
        return f'/servers/{self.server_id}/guest-agent/commands'

    def post(self, *argv: str, **arguments: Any) -> tuple[int, Any]:
        """POST a command and return status and decoded body."""
        return self.request(
            'POST',
            self.commands,
            {
                'command': {
                    'type': 'exec',
                    'arguments': {'command': list(argv), **arguments},
                }
            },
        )

    def start(self, *argv: str, **arguments: Any) -> str:
        """POST a command that is accepted; return its uuid."""
        status, body = self.post(*argv, **arguments)
        assert status == 200, body
        return str(body['command']['uuid'])

    def get_file(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Read a file of the server."""
        return self.send('GET', self._file('read', path=path), headers=headers)

    def put_file(
        self,
        path: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> Answer:
        """Write a file of the server.

        :param query: ``mode`` and ``append``
        """
        return self.send(
            'POST', self._file('write', path=path, **query), data, headers
        )

    def file_url(self, call: str, **query: str) -> str:
        """Return the whole URL of a call for files."""
        return self._compute_url + self._file(call, **query)

    def _file(self, call: str, **query: str) -> str:
        return (
            f'/servers/{self.server_id}/guest-agent/file-{call}?'
            + urllib.parse.urlencode(query)
        )

    def show(self, uuid: str) -> dict[str, Any]:
        status, body = self.request('GET', f'{self.commands}/{uuid}')
        assert status == 200, body
        return dict(body['command'])

    def wait(
        self, uuid: str, *statuses: str, timeout: float = 180
    ) -> dict[str, Any]:
        """Poll a command until one of these states is reached.

        :param statuses: those of a command that has ended if none is named
        """
        began = time.monotonic()
        while True:
            shown = self.show(uuid)
            if shown['status'] in (statuses or ENDED):
                return shown
            waited = time.monotonic() - began
            assert waited < timeout, shown
            # A share of what it has waited: a poll takes time of the API's.
            time.sleep(min(0.05 + 0.05 * waited, 0.3))

    def cancel(self, uuid: str) -> int:
        """Ask for a command to be cancelled; return the status."""
        return self.request(
            'POST', f'{self.commands}/{uuid}/action', {'cancel': None}
        )[0]

    def run(self, *argv: str, **arguments: Any) -> dict[str, Any]:
        """POST a command and wait for its end."""
        return self.wait(self.start(*argv, **arguments))

    def sh(self, script: str, **arguments: Any) -> dict[str, Any]:
        return self.run('/bin/sh', '-c', script, **arguments)
