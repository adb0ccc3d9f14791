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


"""A compute service that is played, and commands run against it."""

import argparse
import json
from typing import Any
from unittest import mock

from requests import structures

SERVER = 'server-id'


class Response:
    """An answer of the service, as requests returns them."""

    def __init__(
        self,
        status: int = 200,
        body: Any = None,
        content: bytes = b'',
        headers: Any = None,
    ) -> None:
        self.status_code = status
        self._body = body
        self.content = content or (json.dumps(body).encode() if body else b'')
        self.headers = structures.CaseInsensitiveDict(
            {'Content-Type': 'application/json', **(headers or {})}
        )
        self.url = 'http://nova'
        self.links: dict[str, Any] = {}
        self.reason = 'because'
        self.request = mock.Mock(method='GET', url=self.url)
        self.text = str(body)

    def json(self) -> Any:
        return self._body

    def iter_content(self, size: int) -> Any:
        yield from [self.content] if self.content else []


def shown(status: str, **values: Any) -> dict[str, Any]:
    return {
        'command': dict(
            {
                'uuid': 'command-id',
                'status': status,
                'error': None,
                'started_at': '2026-01-01T00:00:00Z',
                'result': None,
            },
            **values,
        )
    }


def output(data: bytes, offset: int, is_complete: bool) -> Response:
    prefix = 'OpenStack-Guest-Agent-'
    return Response(
        content=data,
        headers={
            prefix + 'Next-Offset': str(offset + len(data)),
            prefix + 'Complete': str(is_complete).lower(),
        },
    )


def run(kind: Any, compute: mock.Mock, *argv: str) -> Any:
    """Run a command about the server ``name``."""
    return run_without_server(kind, compute, 'name', *argv)


def run_without_server(kind: Any, compute: mock.Mock, *argv: str) -> Any:
    app = mock.Mock()
    connection = app.client_manager.sdk_connection
    connection.compute = compute
    # The cloud has no guest-agent-api.
    connection.config.get_endpoint.return_value = None
    compute.session.get_endpoint.return_value = None
    found = kind(app, argparse.Namespace())
    return found.take_action(found.get_parser('test').parse_args(argv))
