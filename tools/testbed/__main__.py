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

_ROOT = pathlib.Path(__file__).parents[2]
_DIRECTORY = _ROOT / '.demo'

_USAGE = """
A real guest is running, and Nova's API for it, in the background:

    . {env}
    curl -H "X-Auth-Token: $TOKEN" -H 'Content-Type: application/json' \\
        $COMPUTE_URL/servers/$SERVER_ID/guest-agent/commands -d \\
        '{{"command": {{"type": "exec", "arguments": {{"command": ["id"]}}}}}}'
    curl -H "X-Auth-Token: $TOKEN" \\
        $COMPUTE_URL/servers/$SERVER_ID/guest-agent/commands

There are ADMIN_TOKEN, READER_TOKEN and OTHER_TOKEN (of another project) too.
Logs are under {logs}. `make down` stops it.
"""


def main() -> int:
    processes.take_ignored_signals()
    parser = argparse.ArgumentParser(prog='python -m tools.testbed')
    parser.add_argument('action', choices=_ACTIONS)
    cloud = demo.Demo(_DIRECTORY, _ROOT / '.cache')
    try:
        _ACTIONS[parser.parse_args().action](cloud)
    except processes.StartError as error:
        print(f'{error}; see the logs under {_DIRECTORY}', file=sys.stderr)
        return 1
    return 0


def up(cloud: demo.Demo) -> None:
    if cloud.is_up():
        print('It is up already.')
    else:
        print('Starting libvirtd, a guest and Nova ...', flush=True)
        cloud.up(demo.PORT)
    print(
        _USAGE.format(
            env=cloud.env.relative_to(_ROOT),
            logs=_DIRECTORY.relative_to(_ROOT),
        )
    )


def show(cloud: demo.Demo) -> None:
    up(cloud)
    settings = cloud.settings()
    tour.show(
        {
            variable: client.Client(
                settings['COMPUTE_URL'],
                settings[variable],
                settings['SERVER_ID'],
            )
            for variable in demo.TOKENS
        }
    )


def down(cloud: demo.Demo) -> None:
    cloud.down()
    print('Stopped.')


_ACTIONS = {'up': up, 'demo': show, 'down': down}


if __name__ == '__main__':
    sys.exit(main())
