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

"""An SSH server in a guest, and its client here: what tenants use today."""

from collections.abc import Sequence
import pathlib
import subprocess

from tools.testbed import image
from tools.testbed import processes
from tools.testbed.parts import libvirtd

#: Options of both programs.
OPTIONS = (
    '-F',
    'none',
    '-o',
    'StrictHostKeyChecking=no',
    '-o',
    'UserKnownHostsFile=/dev/null',
    '-o',
    'LogLevel=ERROR',
    '-o',
    'BatchMode=yes',
)


#: Debian's packages of the server, without what every Debian has.
_SERVER = (
    'dropbear-bin',
    'libgmp10',
    'libtomcrypt1',
    'libtommath1',
    'openssh-sftp-server',
)


def server_packages(cache: pathlib.Path) -> list[pathlib.Path]:
    """Return the packages of the server, fetched if need be.

    :param cache: directory of the guests' images
    """
    # That of the tiny guest.
    image.build(cache, ssh=True)
    return [
        package
        for package in (cache / 'packages-ssh').glob('*.deb')
        if package.name.partition('_')[0] in _SERVER
    ]


class Ssh:
    """The way into one guest, with a new key.

    :ivar key: file of the private key
    :param directory: directory of the key
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.key = directory / 'key'
        subprocess.run(
            ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', self.key],
            check=True,
        )
        self._port = processes.free_port()

    @property
    def guest(self) -> libvirtd.Ssh:
        """What the guest has to be told."""
        public = self.key.with_suffix('.pub').read_text().split()
        return libvirtd.Ssh(self._port, public[1])

    def run(self, *argv: str) -> None:
        """Run a command in the guest."""
        self._call('ssh', '-p', str(self._port), 'root@127.0.0.1', *argv)

    def terminal(self, *argv: str) -> list[str]:
        """Return the command that runs one in the guest, with a terminal."""
        return self._argv(
            'ssh', ['-tt', '-p', str(self._port), 'root@127.0.0.1', *argv]
        )

    def get(self, path: str, to: pathlib.Path) -> None:
        """Copy a file out of the guest."""
        self._call(
            'scp',
            '-q',
            '-P',
            str(self._port),
            f'root@127.0.0.1:{path}',
            str(to),
        )

    def put(self, source: pathlib.Path, path: str) -> None:
        """Copy a file into the guest."""
        self._call(
            'scp',
            '-q',
            '-P',
            str(self._port),
            str(source),
            f'root@127.0.0.1:{path}',
        )

    def wait(self) -> None:
        """Wait until the guest's server answers."""

        def answers() -> bool:
            try:
                self.run('true')
            except subprocess.CalledProcessError:
                return False
            return True

        processes.wait_for(answers, 60, 'the SSH server of a guest')

    def _call(self, program: str, *argv: str) -> None:
        subprocess.run(
            self._argv(program, argv),
            check=True,
            capture_output=True,
            timeout=300,
        )

    def _argv(self, program: str, argv: Sequence[str]) -> list[str]:
        return [program, '-i', str(self.key), *OPTIONS, *argv]
