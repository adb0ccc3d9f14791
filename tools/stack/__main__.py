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

"""``make stack-up`` and ``make stack-down``."""

import argparse
import pathlib
import sys
import time

from tools.stack import layout
from tools.stack import seed
from tools.stack import stack
from tools.testbed import processes
from tools.testbed.parts import libvirtd

_CACHE = pathlib.Path(__file__).parents[2] / '.cache'

_USAGE = """
OpenStack is running ({seconds:.0f} s):

    . {directory}/openrc
    openstack server create --flavor {flavor} --image {image} --no-network \\
        --wait first
    openstack server guest exec first -- uname -a

Horizon, with the panel Guest commands: {horizon}
    user demo (or reader, admin, ...), password {password}

Logs are under {directory}/log. `make stack-down` stops it, and its servers.
"""


def main() -> int:
    processes.take_ignored_signals()
    parser = argparse.ArgumentParser(prog='python -m tools.stack')
    parser.add_argument('action', choices=('up', 'down'))
    parser.add_argument('--cells', type=int, choices=(1, 2), default=1)
    parser.add_argument('--distro', choices=libvirtd.DISTROS, default='tiny')
    arguments = parser.parse_args()
    directory = layout.default_directory()
    cloud = stack.Stack(directory, _CACHE)
    try:
        if arguments.action == 'up':
            up(cloud, arguments.cells, arguments.distro)
        else:
            cloud.down()
            print('Stopped.')
    except processes.StartError as error:
        print(
            f'{error}\nThe logs are under {directory}/log. Without '
            f'{directory}, the next start begins anew.',
            file=sys.stderr,
        )
        return 1
    return 0


def up(cloud: stack.Stack, cells: int, distro: str) -> None:
    began = time.monotonic()
    if cloud.ledger.is_up():
        print('It is up already.')
    else:
        cloud.up()
    if cells == 2:
        cloud.add_cell()
    flavor, image = seed.FLAVOR, seed.IMAGE
    if distro == 'debian':
        seed.debian_image(cloud.as_admin(), _CACHE)
        flavor = image = seed.DEBIAN
    print(
        _USAGE.format(
            seconds=time.monotonic() - began,
            flavor=flavor,
            image=image,
            directory=_shown(cloud.place.directory),
            horizon=cloud.place.url('horizon', '/'),
            password=cloud.place.password,
        )
    )


def _shown(directory: pathlib.Path) -> str:
    """Return a path relative to the current directory."""
    try:
        return str(directory.relative_to(pathlib.Path.cwd()))
    except ValueError:
        return str(directory)


if __name__ == '__main__':
    sys.exit(main())
