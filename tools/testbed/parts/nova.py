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

"""A Nova with the extension: its configuration, its databases, its programs.

Nova's code, schema, policies and paste pipeline are the installed ones; what
is ours is only what an operator would write.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import copy
import dataclasses
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from typing import Any

from tools.testbed import client as http
from tools.testbed import identity
from tools.testbed import ini
from tools.testbed import processes
from tools.testbed.parts import mariadb

_PREFIX = pathlib.Path(sys.prefix)

#: The database of the cell that has the servers.
CELL = 'nova_cell1'

_DATABASES = ('nova_api', 'nova_cell0', CELL)


@dataclasses.dataclass(frozen=True)
class Databases:
    """URLs of the databases, for SQLAlchemy."""

    api: str
    cell0: str
    cell1: str

    @classmethod
    def on_sqlite(cls, directory: pathlib.Path) -> 'Databases':
        """Make empty SQLite files, replacing what was there."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls(
            *(_sqlite(directory / f'{name}.sqlite') for name in _DATABASES)
        )

    @classmethod
    def on_mariadb(cls, server: mariadb.MariaDB) -> 'Databases':
        """Make empty databases on a server, replacing what was there."""
        server.create(*_DATABASES)
        return cls(*(server.url(name) for name in _DATABASES))


def _sqlite(path: pathlib.Path) -> str:
    for suffix in ('', '-wal', '-shm'):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        # Readers do not wait for the writer then; the file remembers it.
        connection.execute('PRAGMA journal_mode = WAL')
    return f'sqlite:///{path}?timeout=30'


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that Nova is to know.

    :ivar uuid: its domain's too
    :ivar host: the compute host that it is on
    """

    uuid: str
    host: str
    name: str = 'guest'


class Nova:
    """One Nova, in one cell beside cell0.

    :param directory: directory of its configuration and logs
    :param databases: databases of its tables
    :param transport_url: the cell's message queue
    :param port: the loopback port of its API
    :param identities: its users, by their purpose; what stands in for
        Keystone knows them, unless there is one
    :param options: more for nova.conf, by section; with
        ``keystone_authtoken`` that Keystone is asked who a token belongs to
    :param environment: variables of its programs
    """

    def __init__(
        self,
        directory: pathlib.Path,
        databases: Databases,
        transport_url: str,
        port: int,
        identities: Mapping[str, identity.Identity],
        options: ini.Sections,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.identities = identities
        self._databases = databases
        self._transport_url = transport_url
        self._port = port
        self._options = options
        self._environment = dict(environment or {})

    @property
    def url(self) -> str:
        """The API's, ending in /v2.1."""
        return f'http://127.0.0.1:{self._port}/v2.1'

    def client(
        self, name: str, server_id: str, port: int | None = None
    ) -> http.Client:
        """Return a client.

        :param name: ``member``, ``reader``, ``other`` or ``admin``
        :param server_id: the server that it is about
        :param port: port of another API than the one that start_api() starts
        """
        url = self.url.replace(f':{self._port}/', f':{port or self._port}/')
        return http.Client(url, self.identities[name].token, server_id)

    def wait_for_host(
        self, host: str, state: str, timeout: float = 60
    ) -> None:
        """Wait until a compute host is ``up`` or ``down``."""
        processes.wait_for(
            lambda: (
                (host, state)
                in [(item['host'], item['state']) for item in self._hosts()]
            ),
            timeout,
            f'host {host} {state}',
            gap=0.2,
        )

    def reports(self) -> dict[str, str]:
        """Return when each host that is up was heard last, to the second."""
        return {
            item['host']: item['last_seen_at']
            for item in self._hosts()
            if item['state'] == 'up'
        }

    def _hosts(self) -> list[dict[str, Any]]:
        status, body = self.client('admin', '').request(
            'GET', '/guest-agent/hosts'
        )
        return list(body['hosts']) if status == 200 else []

    def with_environment(self, environment: Mapping[str, str]) -> 'Nova':
        """Return the same Nova, its programs started with more variables."""
        other = copy.copy(self)
        other._environment = {**self._environment, **environment}
        return other

    def configure(self) -> None:
        """Write nova.conf, api-paste.ini and the table of tokens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        identity.write(self.directory / 'tokens.json', self.identities)
        ini.write(self.directory / 'nova.conf', self._sections())
        ini.write(
            self.directory / 'api-paste.ini',
            ini.merge(
                ini.paste(_PREFIX),
                {}
                if 'keystone_authtoken' in self._options
                else _stand_in(self.directory / 'tokens.json'),
            ),
        )

    def configure_compute(self, host: str, libvirt_uri: str) -> None:
        """Write the configuration of a compute host, which has no database.

        :param host: its name
        :param libvirt_uri: URI of its libvirtd
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        ini.write(
            self.directory / f'{host}.conf',
            ini.merge(
                self._options,
                {
                    'DEFAULT': {'host': host, **self._default()},
                    'guest_agent': {'connection_uri': libvirt_uri},
                },
            ),
        )

    def prepare(self, servers: Sequence[Server]) -> None:
        """Make the tables, the cells and these servers of the member's."""
        self._run(
            'tools.testbed.prepare',
            json.dumps(
                {
                    'cell0': self._databases.cell0,
                    'project_id': self.identities['member'].project_id,
                    'user_id': self.identities['member'].user_id,
                    'servers': [dataclasses.asdict(item) for item in servers],
                }
            ),
        )

    def start_api(self, *, embedded: bool = False) -> processes.Process:
        """Start the API, and wait until connections are accepted.

        :param embedded: whether the conductor and the compute service run in
            the same process
        """
        return self._serve(
            'nova-api',
            'nova.wsgi.osapi_compute',
            self._port,
            *(['--embedded'] if embedded else []),
        )

    def start_guest_agent_api(self, port: int) -> processes.Process:
        """Start guest-agent-api, and wait until connections are accepted.

        :param port: its loopback port
        """
        shutil.copy(ini.GUEST_AGENT_API_PASTE, self.directory)
        return self._serve('guest-agent-api', 'guest_agent_ext.wsgi.api', port)

    def _serve(
        self, name: str, module: str, port: int, *arguments: str
    ) -> processes.Process:
        process = processes.start(
            name,
            [
                sys.executable,
                '-m',
                'tools.testbed.serve',
                module,
                str(port),
                *arguments,
            ],
            self.directory / f'{name}.log',
            {**self._environment, 'OS_NOVA_CONFIG_DIR': str(self.directory)},
        )
        processes.wait_for(
            lambda: processes.listening(port),
            60,
            f'the port of {name}',
            process,
        )
        return process

    def start_conductor(self) -> processes.Process:
        """Start guest-agent-conductor without waiting until it is up."""
        return self._start('guest-agent-conductor', 'nova')

    def start_compute(self, host: str) -> processes.Process:
        """Start guest-agent-compute on a host without waiting until it is up.

        :param host: one that configure_compute() was called for
        """
        return self._start('guest-agent-compute', host)

    def _start(self, program: str, configuration: str) -> processes.Process:
        return processes.start(
            program,
            [
                _PREFIX / 'bin' / program,
                '--config-file',
                self.directory / f'{configuration}.conf',
            ],
            self.directory / f'{program}-{configuration}.log',
            self._environment,
        )

    def sync(self) -> None:
        """Bring the extension's tables forward."""
        self._finish(
            'guest-agent-manage',
            [
                _PREFIX / 'bin/guest-agent-manage',
                '--config-file',
                self.directory / 'nova.conf',
                'db',
                'sync',
            ],
        )

    def _run(self, module: str, argument: str) -> None:
        self._finish(
            module.rpartition('.')[2],
            [
                sys.executable,
                '-m',
                module,
                self.directory / 'nova.conf',
                argument,
            ],
        )

    def _finish(self, name: str, argv: Sequence[str | pathlib.Path]) -> None:
        log = self.directory / f'{name}.log'
        with log.open('ab') as output:
            ended = subprocess.run(
                argv,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._environment},
            )
        if ended.returncode:
            raise processes.StartError(f'{name} failed, see {log}')

    def _default(self) -> dict[str, object]:
        # Without use_stderr, oslo.log writes to stdout.
        return {
            'transport_url': self._transport_url,
            'use_stderr': True,
            'state_path': self.directory,
        }

    def _sections(self) -> dict[str, dict[str, object]]:
        here = f'http://127.0.0.1:{self._port}'
        return ini.merge(
            {
                'DEFAULT': {'host': 'controller', **self._default()},
                'api': {'response_validation': 'error'},
                'api_database': {'connection': self._databases.api},
                'database': {'connection': self._databases.cell1},
                'oslo_concurrency': {'lock_path': self.directory / 'locks'},
                # Nova asks it for the networks of a server that it shows.
                'neutron': {
                    'auth_type': 'noauth',
                    'endpoint_override': f'{here}/networking',
                },
            },
            self._options,
        )


def _stand_in(tokens: pathlib.Path) -> ini.Sections:
    return {
        'filter:authtoken': {
            'paste.filter_factory': 'tools.testbed.identity:filter_factory',
            'tokens': tokens,
        }
    }
