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

"""Write the files that are generated from the declarations in the code.

Run as ``python -m tools.samples``; with ``--check`` nothing is written, and it
fails when a file is not what would be written.
"""

import json
import pathlib
import subprocess
import sys

from tools import dashboard
from tools import metrics
from tools import openapi
from tools import policies

_ROOT = pathlib.Path(__file__).parents[1]
_BIN = pathlib.Path(sys.executable).parent

#: What writes each file. The width leaves the lines of our help as they are.
_GENERATORS = {
    'etc/guest_agent_ext/guest-agent.conf.sample': (
        'oslo-config-generator',
        '--wrap-width',
        '82',
    ),
    'etc/guest_agent_ext/policy.yaml.sample': ('oslopolicy-sample-generator',),
}


def main() -> int:
    if '--check' in sys.argv[1:]:
        return _check()
    for name, content in _generate().items():
        (_ROOT / name).write_text(content)
    return 0


def _check() -> int:
    stale = [
        name
        for name, content in _generate().items()
        if not (_ROOT / name).exists() or (_ROOT / name).read_text() != content
    ]
    for name in stale:
        print(f'{name} is not current: run `make samples`')
    return 1 if stale else 0


def _generate() -> dict[str, str]:
    generated = {
        name: subprocess.run(
            [_BIN / program, '--namespace', 'guest_agent_ext', *options],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name, (program, *options) in _GENERATORS.items()
    }
    generated['api-ref/openapi.json'] = (
        json.dumps(openapi.document(), indent=1) + '\n'
    )
    generated['doc/source/admin/metrics.inc'] = metrics.document()
    generated['guest_agent_ext/dashboard/conf/default_policies.yaml'] = (
        policies.document()
    )
    generated['etc/guest_agent_ext/grafana-dashboard.json'] = (
        dashboard.document()
    )
    return generated


if __name__ == '__main__':
    sys.exit(main())
