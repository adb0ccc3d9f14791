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

"""The embedded default: all of it in one process, beside one real guest."""

import contextlib
import pathlib
import shlex
import shutil
import sys

from tools.testbed import identity
from tools.testbed import processes
from tools.testbed.parts import libvirtd
from tools.testbed.parts import nova

_HOST = 'controller'

#: The identities' names by those of their tokens in ``env``.
TOKENS = {
    'TOKEN': 'member',
    'READER_TOKEN': 'reader',
    'OTHER_TOKEN': 'other',
    'ADMIN_TOKEN': 'admin',
}

#: Where nova-api listens, if that port is free.
PORT = 8774

#: The server's name.
SERVER = 'demo'

#: What another cloud's openrc may have set, which the ``openstack`` command
#: would heed beside a token and an endpoint.
_OF_OTHER_CLOUDS = (
    'OS_AUTH_URL',
    'OS_CLIENT_CONFIG_FILE',
    'OS_CLOUD',
    'OS_PASSWORD',
    'OS_PROJECT_DOMAIN_ID',
    'OS_PROJECT_DOMAIN_NAME',
    'OS_PROJECT_ID',
    'OS_PROJECT_NAME',
    'OS_SYSTEM_SCOPE',
    'OS_TENANT_NAME',
    'OS_USERNAME',
    'OS_USER_DOMAIN_ID',
    'OS_USER_DOMAIN_NAME',
    'OS_USER_ID',
)
_EXPORT = 'export '


class Demo:
    """Nova's API with the extension, and one server.

    :param directory: directory of its state, kept between runs
    :param cache: directory of the guest's image
    """

    def __init__(self, directory: pathlib.Path, cache: pathlib.Path) -> None:
        self._directory = directory
        self._libvirtd = libvirtd.Libvirtd(directory / 'libvirt', cache)
        self._ledger = processes.Ledger(directory / 'processes.json')

    @property
    def env(self) -> pathlib.Path:
        """File that sets what a client has to know, to be sourced."""
        return self._directory / 'env'

    @property
    def libvirt_uri(self) -> str:
        """Where the guest's libvirtd is."""
        return self._libvirtd.uri

    def settings(self) -> dict[str, str]:
        """Return the variables that ``env`` exports."""
        return dict(
            line.removeprefix(_EXPORT).split('=', 1)
            for line in self.env.read_text().splitlines()
            if line.startswith(_EXPORT)
        )

    def is_up(self) -> bool:
        return self._ledger.is_up()

    def up(
        self, port: int | None = None, guest: libvirtd.BaseGuest | None = None
    ) -> None:
        """Start everything from nothing; on failure stop everything again.

        :param port: preferred port of the API; another one if it is not free
        :param guest: the guest behind the server; None for a tiny one
        :raises: processes.StartError
        """
        self.down()
        for stale in ('nova', 'libvirt/run', 'libvirt/lib'):
            shutil.rmtree(self._directory / stale, ignore_errors=True)
        with contextlib.ExitStack() as failed:
            failed.callback(self.down)
            self._start(processes.free_port(port), guest or libvirtd.Guest())
            failed.pop_all()

    def down(self) -> None:
        """Stop what up() started, in this run or an earlier one."""
        self._ledger.stop()
        self._libvirtd.end_guests()

    def _start(self, port: int, guest: libvirtd.BaseGuest) -> None:
        self._ledger.note(self._libvirtd.start())
        self._libvirtd.boot(guest)
        directory = self._directory / 'nova'
        cloud = nova.Nova(
            directory,
            nova.Databases.on_sqlite(directory),
            'fake:///',
            port,
            identity.make(),
            {
                'guest_agent': {
                    'connection_uri': self._libvirtd.uri,
                    # wsgiref denies that it has threads.
                    'max_waiters': 8,
                }
            },
        )
        cloud.configure()
        cloud.prepare([nova.Server(guest.uuid, _HOST, SERVER)])
        self._ledger.note(cloud.start_api(embedded=True))
        self._libvirtd.wait(guest)
        cloud.wait_for_host(_HOST, 'up')
        self._write_env(cloud, guest.uuid)

    def _write_env(self, cloud: nova.Nova, server_id: str) -> None:
        tokens = {
            variable: cloud.identities[name].token
            for variable, name in TOKENS.items()
        }
        settings = {
            'COMPUTE_URL': cloud.url,
            **tokens,
            'SERVER_ID': server_id,
            # A token and an endpoint are all there is: no Keystone is asked.
            'OS_AUTH_TYPE': 'admin_token',
            'OS_ENDPOINT': cloud.url,
            'OS_TOKEN': tokens['TOKEN'],
        }
        programs = shlex.quote(str(pathlib.Path(sys.executable).parent))
        self.env.touch(mode=0o600)
        self.env.write_text(
            f'unset {" ".join(_OF_OTHER_CLOUDS)}\n'
            + ''.join(
                f'{_EXPORT}{name}={value}\n'
                for name, value in settings.items()
            )
            + f'PATH={programs}:$PATH\n'
        )
