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

"""Where the stack's files, ports and passwords are."""

import json
import os
import pathlib
import secrets
import threading
from typing import Any

from tools.testbed import processes

#: Where the virtual environments are, whichever stack uses them.
_ENVIRONMENTS = pathlib.Path(__file__).parents[2] / '.stack'


def default_directory() -> pathlib.Path:
    """Return where the stack's state is: ``STACK_DIRECTORY`` has another."""
    return pathlib.Path(os.environ.get('STACK_DIRECTORY', _ENVIRONMENTS))


class Layout:
    """The directory of a stack, and what is chosen once and then kept.

    :param directory: absolute path of the stack's directory
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.prefix = _ENVIRONMENTS / 'openstack'
        self.bin = self.prefix / 'bin'
        self.client_bin = _ENVIRONMENTS / 'client/bin'
        self.log = directory / 'log'
        self._settings = directory / 'settings.json'
        self._lock = threading.Lock()

    @property
    def password(self) -> str:
        """Every account's: nothing here is worth a second one."""
        with self._lock:
            settings = self._read()
            if 'password' not in settings:
                settings['password'] = secrets.token_hex(16)
                self._write(settings)
            return str(settings['password'])

    def port(self, name: str) -> int:
        """Return the port of a service, the same in every run."""
        with self._lock:
            settings = self._read()
            ports = settings.setdefault('ports', {})
            if name not in ports:
                ports[name] = processes.free_port()
                self._write(settings)
            return int(ports[name])

    def url(self, name: str, path: str = '') -> str:
        """Return the URL of an API."""
        return f'http://127.0.0.1:{self.port(name)}{path}'

    def etc(self, name: str) -> pathlib.Path:
        """Return the directory of a service's configuration."""
        path = self.directory / 'etc' / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def state(self, name: str) -> pathlib.Path:
        """Return the directory of a service's state."""
        path = self.directory / 'state' / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _read(self) -> dict[str, Any]:
        if not self._settings.exists():
            return {}
        return dict(json.loads(self._settings.read_text()))

    def _write(self, settings: dict[str, Any]) -> None:
        self._settings.parent.mkdir(parents=True, exist_ok=True)
        self._settings.touch(mode=0o600)
        self._settings.write_text(json.dumps(settings, indent=2))
