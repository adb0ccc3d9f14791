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

"""The calls of the API, made with the token of the user of Horizon.

Nothing of them is logged: bodies have what a command is told and what it
answers.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import functools
from typing import Any
from typing import cast
from typing import Protocol
import uuid

from django import http
from django.conf import settings
from django.utils.translation import gettext as _
from horizon import exceptions
from keystoneauth1 import adapter
from keystoneauth1 import exceptions as keystone_exceptions
from keystoneauth1 import session
from keystoneauth1 import token_endpoint
from openstack_dashboard.api import base
import requests

#: Types of services in the catalog that have the calls, the better first.
_SERVICE_TYPES = ('guest-agent', 'compute')

#: Seconds for an answer. A transfer takes its last byte, and then as long as
#: the guest does to store and to verify it.
_TIMEOUT, _TRANSFER_TIMEOUT = 60, 300

#: Maximum number of servers whose names are asked for.
MAX_NAMES = 1000

_RUNS = '/guest-agent/runs'

Json = dict[str, Any]


class Problem(Exception):
    """The API refused, or did not answer.

    :ivar status: status code of the answer
    :ivar message: its text, for the user
    :ivar retry_after: seconds after which to try again, if it says
    """

    def __init__(
        self, status: int, message: str, retry_after: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Body(Protocol):
    """What requests sends as a body of known length."""

    def __len__(self) -> int:
        """Return its length, in bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, none at the end."""


class Client:
    """The API, as one user of Horizon has it.

    :param request: request of that user to Horizon
    """

    def __init__(self, request: http.HttpRequest) -> None:
        self._compute = _adapter(request, _SERVICE_TYPES[1:])
        self._guest_agent = _adapter(request, _SERVICE_TYPES)

    def server(self, server_id: str) -> Json:
        """Return a server, as Nova shows it."""
        return cast(
            Json,
            self._json('GET', f'/servers/{server_id}', nova=True)['server'],
        )

    def server_names(self, all_projects: bool = False) -> Mapping[str, str]:
        """Return the names of servers by their ids, as far as Nova tells."""
        params: dict[str, Any] = {'limit': MAX_NAMES}
        if all_projects:
            params['all_tenants'] = 1
        try:
            found = self._json('GET', '/servers', params=params, nova=True)
        except Problem:
            # The ids are shown then.
            return {}
        return {item['id']: item['name'] for item in found['servers']}

    def agent(self, server_id: str) -> Json:
        """Return whether commands can run in a server."""
        path = f'/servers/{server_id}/guest-agent'
        return cast(Json, self._json('GET', path)['guest_agent'])

    def details(self, server_id: str) -> Json:
        """Return what the guest agent tells of a guest."""
        path = f'/servers/{server_id}/guest-agent/details'
        return cast(Json, self._json('GET', path)['guest_agent_details'])

    def create(
        self, server_id: str, kind: str, arguments: Json, key: str
    ) -> Json:
        """Run a program, or have the guest agent called.

        :param kind: type of the command
        :param key: key under which this is accepted once
        """
        answer = self._json(
            'POST',
            _commands(server_id),
            json={'command': {'type': kind, 'arguments': arguments}},
            headers={'Idempotency-Key': key},
        )
        return cast(Json, answer['command'])

    def commands(self, server_id: str, **filters: str) -> Json:
        """Return a page of the commands of a server, as the API has it."""
        return self._json('GET', _commands(server_id), params=filters)

    def project_commands(self, **filters: str) -> Json:
        """Return a page of the commands of a project, as the API has it."""
        return self._json('GET', '/guest-agent/commands', params=filters)

    def command(self, server_id: str, command_id: str) -> Json:
        """Return a command, with its result."""
        path = _commands(server_id, command_id)
        return cast(Json, self._json('GET', path)['command'])

    def cancel(self, server_id: str, command_id: str) -> None:
        """Ask for the end of a command."""
        self._act(server_id, command_id, {'cancel': None})

    def resize(
        self, server_id: str, command_id: str, columns: int, rows: int
    ) -> None:
        """Set the size of a command's terminal."""
        size = {'columns': columns, 'rows': rows}
        self._act(server_id, command_id, {'resize': size})

    def delete(self, server_id: str, command_id: str) -> None:
        """Delete a command that has ended."""
        self._send('DELETE', _commands(server_id, command_id))

    def output(
        self, server_id: str, command_id: str, **params: str
    ) -> requests.Response:
        """Return what a command has written to one stream."""
        path = _commands(server_id, command_id) + '/output'
        return self._send('GET', path, params=params)

    def send_input(
        self, server_id: str, command_id: str, data: bytes, **params: str
    ) -> Json:
        """Append to the stdin of an attached command."""
        answer = self._send(
            'POST',
            _commands(server_id, command_id) + '/input',
            params=params,
            data=data,
            headers={
                'Content-Type': 'application/octet-stream',
                'Content-Length': str(len(data)),
            },
        )
        return cast(Json, answer.json()['input'])

    def read_file(self, server_id: str, path: str) -> requests.Response:
        """Begin to read a file; the body is still to be read."""
        return self._send(
            'GET',
            f'/servers/{server_id}/guest-agent/file-read',
            params={'path': path},
            stream=True,
            headers={'Accept-Encoding': 'identity'},
            timeout=_TRANSFER_TIMEOUT,
        )

    def write_file(self, server_id: str, body: Body, **params: str) -> None:
        """Write a file."""
        self._send(
            'POST',
            f'/servers/{server_id}/guest-agent/file-write',
            params=params,
            data=body,
            headers={
                'Content-Type': 'application/octet-stream',
                'Content-Length': str(len(body)),
            },
            timeout=_TRANSFER_TIMEOUT,
        )

    def create_run(self, run: Json, key: str) -> Json:
        """Run a command in many servers.

        :param key: key under which this is accepted once
        """
        answer = self._json(
            'POST', _RUNS, json={'run': run}, headers={'Idempotency-Key': key}
        )
        return cast(Json, answer['run'])

    def runs(self, **filters: str) -> Json:
        """Return a page of the runs of a project, as the API has it."""
        return self._json('GET', _RUNS, params=filters)

    def run(self, run_id: str) -> Json:
        """Return a run, with its progress."""
        return cast(Json, self._json('GET', f'{_RUNS}/{run_id}')['run'])

    def run_commands(self, run_id: str, **filters: str) -> Json:
        """Return a page of the commands of a run, as the API has it."""
        return self._json('GET', f'{_RUNS}/{run_id}/commands', params=filters)

    def cancel_run(self, run_id: str) -> None:
        """Ask for the end of a run and of its commands."""
        self._send('POST', f'{_RUNS}/{run_id}/action', json={'cancel': None})

    def delete_run(self, run_id: str) -> None:
        """Delete a run that has ended, with its commands."""
        self._send('DELETE', f'{_RUNS}/{run_id}')

    def hosts(self) -> list[Json]:
        """Return the services that run commands."""
        return cast(
            list[Json], self._json('GET', '/guest-agent/hosts')['hosts']
        )

    def _act(self, server_id: str, command_id: str, action: Json) -> None:
        path = _commands(server_id, command_id) + '/action'
        self._send('POST', path, json=action)

    def _json(self, method: str, path: str, **kwargs: Any) -> Json:
        return cast(Json, self._send(method, path, **kwargs).json())

    def _send(
        self, method: str, path: str, *, nova: bool = False, **kwargs: Any
    ) -> requests.Response:
        with _problems():
            response: requests.Response = (
                self._compute if nova else self._guest_agent
            ).request(
                path,
                method,
                log=False,
                raise_exc=False,
                redirect=False,
                **{'timeout': _TIMEOUT, **kwargs},
            )
            if response.status_code >= 300:
                raise Problem(
                    response.status_code,
                    _message(response),
                    response.headers.get('Retry-After'),
                )
            return response


def new_key() -> str:
    """Return a new key for create()."""
    return str(uuid.uuid4())


def _commands(server_id: str, command_id: str | None = None) -> str:
    path = f'/servers/{server_id}/guest-agent/commands'
    return path if command_id is None else f'{path}/{command_id}'


def _adapter(
    request: http.HttpRequest, service_types: tuple[str, ...]
) -> adapter.Adapter:
    return adapter.Adapter(
        _session(),
        # Any type: without one there is no endpoint at all.
        service_type='compute',
        auth=token_endpoint.Token(
            _endpoint(request, service_types), request.user.token.id
        ),
        user_agent='guest-agent-dashboard',
    )


@functools.cache
def _session() -> session.Session:
    """Return the session whose connections all users share."""
    if getattr(settings, 'OPENSTACK_SSL_NO_VERIFY', False):
        return session.Session(verify=False)
    return session.Session(
        verify=getattr(settings, 'OPENSTACK_SSL_CACERT', None) or True
    )


def _endpoint(
    request: http.HttpRequest, service_types: tuple[str, ...]
) -> str:
    for service_type in service_types:
        with contextlib.suppress(exceptions.ServiceCatalogException):
            return str(base.url_for(request, service_type))
    raise Problem(503, _('The catalog has no compute service.'))


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """Turn a request that was not answered into a problem."""
    try:
        yield
    except keystone_exceptions.ClientException:
        # Its text has the URL, which is the operator's.
        raise Problem(502, _('The Compute API does not answer.')) from None


def _message(response: requests.Response) -> str:
    """Return the text of an error: Nova's, or that of what is before it."""
    try:
        (fault,) = response.json().values()
        return str(fault['message'])
    except (ValueError, AttributeError, KeyError, TypeError):
        return str(
            _('The Compute API answers: %(status)d %(reason)s')
            % {'status': response.status_code, 'reason': response.reason}
        )
