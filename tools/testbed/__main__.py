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

"""``make up``, ``make demo`` and ``make down``."""

import argparse
import pathlib
import sys

from tools.testbed import client
from tools.testbed import demo
from tools.testbed import processes
from tools.testbed import tour
from tools.testbed.parts import libvirtd

_ROOT = pathlib.Path(__file__).parents[2]
_DIRECTORY = _ROOT / '.demo'

_NEXT = """
The guest and the API go on in the background. Try:

    . {env}
    openstack server guest exec demo -- uname -a
    openstack server guest exec --stdin Makefile demo -- wc -l
    openstack server guest file put demo README.rst /root/README.rst
    openstack server guest command list demo
    curl -H "X-Auth-Token: $TOKEN" \\
        $COMPUTE_URL/servers/$SERVER_ID/guest-agent

Logs are under {logs}. `make demo VERBOSE=1` shows whole answers, `make down`
stops everything. `make stack-up` has Horizon too, with a panel for all this.
"""


def main() -> int:
    processes.take_ignored_signals()
    parser = argparse.ArgumentParser(prog='python -m tools.testbed')
    parser.add_argument('action', choices=_ACTIONS)
    parser.add_argument('--distro', choices=libvirtd.DISTROS, default='tiny')
    parser.add_argument(
        '--verbose', action='store_true', help='show whole answers in the tour'
    )
    arguments = parser.parse_args()
    cloud = demo.Demo(_DIRECTORY, _ROOT / '.cache')
    try:
        _ACTIONS[arguments.action](cloud, arguments)
    except processes.StartError as error:
        print(f'{error}; see the logs under {_DIRECTORY}', file=sys.stderr)
        return 1
    return 0


def up(cloud: demo.Demo, arguments: argparse.Namespace) -> None:
    _start(cloud, arguments)
    _print_next(cloud)


def show(cloud: demo.Demo, arguments: argparse.Namespace) -> None:
    _start(cloud, arguments)
    settings = cloud.settings()
    tour.show(
        {
            variable: client.Client(
                settings['COMPUTE_URL'],
                settings[variable],
                settings['SERVER_ID'],
            )
            for variable in demo.TOKENS
        },
        verbose=arguments.verbose,
    )
    _print_next(cloud)


def _start(cloud: demo.Demo, arguments: argparse.Namespace) -> None:
    if cloud.is_up():
        print('It is up already.\n')
        return
    print('Starting libvirtd, a guest and Nova ...\n', flush=True)
    cloud.up(demo.PORT, libvirtd.DISTROS[arguments.distro]())


def _print_next(cloud: demo.Demo) -> None:
    print(
        _NEXT.format(
            env=cloud.env.relative_to(_ROOT),
            logs=_DIRECTORY.relative_to(_ROOT),
        )
    )


def down(cloud: demo.Demo, _arguments: argparse.Namespace) -> None:
    cloud.down()
    print('Stopped.')


_ACTIONS = {'up': up, 'demo': show, 'down': down}


if __name__ == '__main__':
    sys.exit(main())
