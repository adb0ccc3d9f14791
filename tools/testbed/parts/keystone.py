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

"""A Keystone of our own, on SQLite, with the users that tests need."""

import pathlib
import secrets
import subprocess
import sys
from typing import Any

from tools.testbed import client
from tools.testbed import identity
from tools.testbed import processes

_CONF = """\
[DEFAULT]
log_file = {directory}/keystone.log
[database]
connection = sqlite:///{directory}/keystone.sqlite?timeout=30
[fernet_tokens]
key_repository = {directory}/keys
[credential]
key_repository = {directory}/credential-keys
[identity]
# The passwords are random: slow hashes would protect nothing.
password_hash_rounds = 4
[token]
expiration = 86400
"""


class Keystone:
    """The identity service, on a loopback port.

    :param directory: directory of its files
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._port = processes.free_port()
        self._password = secrets.token_hex(16)
        self._process: processes.Process | None = None

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self._port}/v3'

    def authtoken(self) -> dict[str, object]:
        """Return Nova's section ``[keystone_authtoken]``."""
        return {
            'auth_type': 'password',
            'auth_url': self.url,
            'www_authenticate_uri': self.url,
            'username': 'admin',
            'password': self._password,
            'user_domain_id': 'default',
            'project_name': 'admin',
            'project_domain_id': 'default',
        }

    def start(self) -> dict[str, identity.Identity]:
        """Start Keystone from nothing.

        :returns: those of identity.make(), known to it
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / 'keystone.conf').write_text(
            _CONF.format(directory=self._directory)
        )
        for arguments in (
            ['db_sync'],
            ['fernet_setup', '--keystone-user=root', '--keystone-group=root'],
            # Nova's middleware looks for Keystone in the catalog.
            [
                'bootstrap',
                '--bootstrap-region-id=testbed',
                f'--bootstrap-internal-url={self.url}',
                f'--bootstrap-password={self._password}',
            ],
        ):
            self._manage(arguments)
        self._process = processes.start(
            'keystone',
            [
                sys.executable,
                '-m',
                'tools.testbed.serve',
                'keystone.wsgi.api',
                str(self._port),
            ],
            self._directory / 'keystone-wsgi.log',
            {'OS_KEYSTONE_CONFIG_DIR': str(self._directory)},
        )
        processes.wait_for(
            lambda: processes.listening(self._port),
            60,
            'Keystone',
            self._process,
        )
        return self._introduce(identity.make())

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def _manage(self, arguments: list[str]) -> None:
        with (self._directory / 'keystone-manage.log').open('ab') as log:
            subprocess.run(
                [
                    pathlib.Path(sys.executable).with_name('keystone-manage'),
                    '--config-file',
                    self._directory / 'keystone.conf',
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                check=True,
            )

    def _introduce(
        self, identities: dict[str, identity.Identity]
    ) -> dict[str, identity.Identity]:
        """Create users and projects, and get a token for each user."""
        admin = client.Client(
            self.url, self._token('admin', self._password, 'admin'), ''
        )
        roles = _by_name(admin, 'roles')
        return {
            name: self._create(admin, roles, who)
            for name, who in identities.items()
        }

    def _create(
        self,
        admin: client.Client,
        roles: dict[str, str],
        who: identity.Identity,
    ) -> identity.Identity:
        projects, users = _by_name(admin, 'projects'), _by_name(admin, 'users')
        project_id = projects.get(who.project_id) or _post(
            admin, 'project', name=who.project_id
        )
        user_id = users.get(who.user_id)
        password = self._password
        if user_id is None:
            user_id = _post(admin, 'user', name=who.user_id, password=password)
        for role in who.roles:
            admin.request(
                'PUT',
                f'/projects/{project_id}/users/{user_id}/roles/{roles[role]}',
            )
        return identity.Identity(
            user_id,
            project_id,
            who.roles,
            self._token(who.user_id, password, who.project_id),
        )

    def _token(self, user: str, password: str, project: str) -> str:
        domain = {'id': 'default'}
        answer = client.Client(self.url, '', '').send(
            'POST',
            '/auth/tokens',
            {
                'auth': {
                    'identity': {
                        'methods': ['password'],
                        'password': {
                            'user': {
                                'name': user,
                                'domain': domain,
                                'password': password,
                            }
                        },
                    },
                    'scope': {'project': {'name': project, 'domain': domain}},
                }
            },
        )
        return answer.headers['X-Subject-Token']


def _by_name(admin: client.Client, resources: str) -> dict[str, str]:
    status, body = admin.request('GET', f'/{resources}')
    return {item['name']: item['id'] for item in body[resources]}


def _post(admin: client.Client, resource: str, **fields: Any) -> str:
    status, body = admin.request(
        'POST', f'/{resource}s', {resource: {'domain_id': 'default', **fields}}
    )
    return str(body[resource]['id'])
