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

"""Who a token belongs to: what stands in for Keystone.

A paste filter takes the place of keystonemiddleware's ``authtoken``. It puts
what that would learn from Keystone into the request, so that everything after
it, Nova's own context filter first, is as it is in a cloud.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import json
import pathlib
import secrets
from typing import Any

_UNAUTHORIZED = json.dumps(
    {
        'error': {
            'code': 401,
            'title': 'Unauthorized',
            'message': 'The request you have made requires authentication.',
        }
    }
).encode()


@dataclasses.dataclass(frozen=True)
class Identity:
    """A user in a project.

    :ivar token: the user's ``X-Auth-Token``
    """

    user_id: str
    project_id: str
    roles: tuple[str, ...]
    token: str = dataclasses.field(
        default_factory=lambda: secrets.token_hex(16)
    )


def make() -> dict[str, Identity]:
    """Invent those that demonstrations and tests need, with new tokens.

    ``member`` and ``reader`` are in the servers' project, ``other`` is in
    another.
    """
    return {
        'member': Identity('demo-user', 'demo', ('member', 'reader')),
        'reader': Identity('demo-reader', 'demo', ('reader',)),
        'other': Identity('other-user', 'other', ('member', 'reader')),
        'admin': Identity('admin', 'admin', ('admin', 'member', 'reader')),
    }


def write(path: pathlib.Path, identities: Mapping[str, Identity]) -> None:
    """Write the table that the filter reads, readable by its owner only."""
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            [dataclasses.asdict(identity) for identity in identities.values()]
        )
    )


def read(path: pathlib.Path) -> dict[str, Identity]:
    """Return the identities by their tokens."""
    return {
        fields['token']: Identity(**fields)
        for fields in json.loads(path.read_text())
    }


class Filter:
    """The WSGI filter: only requests with a known token get through.

    :param application: application behind the filter
    :param identities: identities by token
    """

    def __init__(
        self,
        application: Callable[..., Iterable[bytes]],
        identities: Mapping[str, Identity],
    ) -> None:
        self._application = application
        self._identities = identities

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        identity = self._identities.get(environ.get('HTTP_X_AUTH_TOKEN', ''))
        if identity is None:
            start_response(
                '401 Unauthorized',
                [
                    ('Content-Type', 'application/json'),
                    ('Content-Length', str(len(_UNAUTHORIZED))),
                    ('WWW-Authenticate', 'Keystone uri="http://127.0.0.1/"'),
                ],
            )
            return [_UNAUTHORIZED]
        environ.update(
            {
                'HTTP_X_IDENTITY_STATUS': 'Confirmed',
                'HTTP_X_USER_ID': identity.user_id,
                'HTTP_X_USER_NAME': identity.user_id,
                'HTTP_X_USER_DOMAIN_ID': 'default',
                'HTTP_X_PROJECT_ID': identity.project_id,
                'HTTP_X_PROJECT_NAME': identity.project_id,
                'HTTP_X_PROJECT_DOMAIN_ID': 'default',
                'HTTP_X_ROLES': ','.join(identity.roles),
                'HTTP_X_SERVICE_CATALOG': '[]',
            }
        )
        # A client that sends these speaks of things that no token gave it.
        for claimed in (
            'HTTP_OPENSTACK_SYSTEM_SCOPE',
            'HTTP_X_DOMAIN_ID',
            'HTTP_X_SERVICE_ROLES',
            'HTTP_X_SERVICE_TOKEN',
        ):
            environ.pop(claimed, None)
        return self._application(environ, start_response)


def filter_factory(
    global_conf: Mapping[str, str], tokens: str
) -> Callable[..., Filter]:
    """Make the filter for paste.

    :param tokens: path of the table that :func:`write` wrote
    """
    identities = read(pathlib.Path(tokens))
    return lambda application: Filter(application, identities)
