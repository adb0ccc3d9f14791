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

"""A network namespace, for a server that is to be cut off."""

import hashlib
import pathlib
import subprocess


class Namespace:
    """A network of two addresses: this machine's, and that of what is in it.

    :param name: name of the namespace, at most eleven characters
    :param subnet: the first three numbers of its addresses
    """

    def __init__(self, name: str, subnet: str) -> None:
        self._name = name
        self._here = f'{subnet}.1'
        self.address = f'{subnet}.2'

    @classmethod
    def of(cls, directory: pathlib.Path) -> 'Namespace':
        """Return the one that belongs to a directory, and to no other."""
        digest = hashlib.sha256(bytes(directory)).digest()
        return cls(
            f'ga-{digest[:4].hex()}', f'10.{128 + digest[4] % 128}.{digest[5]}'
        )

    @property
    def run(self) -> list[str]:
        """Words before the command line of a program that runs there."""
        return ['ip', 'netns', 'exec', self._name]

    def create(self) -> None:
        """Make the namespace, after removing one that was left behind."""
        self.delete()
        inner, outer = f'{self._name}-in', f'{self._name}-out'
        self._ip(f'netns add {self._name}')
        self._ip(
            f'link add {outer} type veth peer name {inner} netns {self._name}'
        )
        self._ip(f'address add {self._here}/30 dev {outer}')
        self._ip(f'link set {outer} up')
        self._ip(f'-n {self._name} address add {self.address}/30 dev {inner}')
        for link in ('lo', inner):
            self._ip(f'-n {self._name} link set {link} up')

    def delete(self) -> None:
        """Remove the namespace; programs in there must have ended."""
        subprocess.run(
            ['ip', 'netns', 'delete', self._name], stderr=subprocess.DEVNULL
        )

    def cut_off(self) -> None:
        """From now on no packet comes back, and nothing says so."""
        self._ip(f'-n {self._name} route add blackhole {self._here}/32')

    def mend(self) -> None:
        """Undo cut_off()."""
        self._ip(f'-n {self._name} route delete blackhole {self._here}/32')

    def _ip(self, arguments: str) -> None:
        subprocess.run(['ip', *arguments.split()], check=True)
