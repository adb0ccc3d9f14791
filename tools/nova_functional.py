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

"""Nova's own functional tests, without the extension and with it.

Run as ``python -m tools.nova_functional [MODULE ...]``; MODULE is below
``nova.tests.functional``. It fails when a test gives another result with the
paste filter than without it. Tests that fail both ways lack something here,
such as the files of Nova's repository that its wheel leaves out.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any
import unittest

from tools.testbed import ini

#: Those of Nova's compute API. What is about schedulers, hypervisors or other
#: services does not go through paste.
_MODULES = (
    'api',
    'wsgi',
    'test_servers',
    'test_server_group',
    'test_server_faults',
    'test_server_rescue',
    'test_instance_actions',
    'test_aggregates',
    'test_availability_zones',
    'test_images',
    'test_legacy_v2_compatible_wrapper',
    'test_middleware',
    'test_policy',
    'test_flavor_extraspecs',
    'test_list_servers_ip_filter',
    'test_external_networks',
    'test_unified_limits',
    'test_service',
)

_PACKAGE = 'nova.tests.functional'
_PREFIX = pathlib.Path(sys.prefix)

Results = dict[str, str]


def main() -> int:
    if sys.argv[1:2] == ['--run']:
        return _run_here(*sys.argv[2:])
    modules = sys.argv[1:] or _MODULES
    with tempfile.TemporaryDirectory() as directory:
        paste = pathlib.Path(directory, 'api-paste.ini')
        ini.write(paste, ini.paste(_PREFIX))
        without, with_filter = (
            _run(pathlib.Path(directory, 'results.json'), path, *modules)
            for path in (_PREFIX / 'etc/nova/api-paste.ini', paste)
        )
    for name, results in (('without', without), ('with', with_filter)):
        print(name, dict(collections.Counter(results.values())))
    different = {
        name
        for name in without.keys() | with_filter.keys()
        if without.get(name) != with_filter.get(name)
    }
    for name in sorted(different):
        print(
            f'{name}: {without.get(name)}, with the filter '
            f'{with_filter.get(name)}'
        )
    # Where none has passed, nothing was compared.
    return 1 if different or 'passed' not in without.values() else 0


def _run(report: pathlib.Path, paste: pathlib.Path, *modules: str) -> Results:
    subprocess.run(
        [
            sys.executable,
            '-m',
            'tools.nova_functional',
            '--run',
            report,
            paste,
            *modules,
        ],
        check=True,
        env={**os.environ, 'OS_NOVA_DISABLE_EVENTLET_PATCHING': '1'},
    )
    return dict(json.loads(report.read_text()))


def _run_here(report: str, paste: str, *modules: str) -> int:
    # Before anything else of Nova's, as Nova's own runner does.
    from nova import monkey_patch

    monkey_patch.patch()
    _use(paste)
    suite = unittest.TestSuite(_tests(modules))
    outcome = _Outcome()
    suite.run(outcome)
    pathlib.Path(report).write_text(json.dumps(outcome.results))
    return 0


def _use(paste: str) -> None:
    """Have Nova's tests use a paste file, not that of Nova's repository."""
    from nova.tests.fixtures import conf

    set_up = conf.ConfFixture.setUp

    def set_up_with_paste(self: Any) -> None:
        set_up(self)
        self.conf.set_default('api_paste_config', paste, group='wsgi')

    conf.ConfFixture.setUp = set_up_with_paste


def _tests(modules: tuple[str, ...]) -> list[Any]:
    package = pathlib.Path(sys.modules['nova'].__path__[0]).parent.joinpath(
        *_PACKAGE.split('.')
    )
    loader = unittest.defaultTestLoader
    return [
        loader.loadTestsFromName(f'{_PACKAGE}.{path}')
        for module in modules
        for path in _below(package, module)
    ]


def _below(package: pathlib.Path, module: str) -> list[str]:
    """Name the modules of a package, or the one module."""
    if not (package / module).is_dir():
        return [module]
    return [
        f'{module}.{path.stem}'
        for path in sorted((package / module).glob('test_*.py'))
    ]


class _Outcome(unittest.TestResult):
    """What came of each test.

    :ivar results: ``passed``, ``failed`` or ``skipped``, by the test's name
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: Results = {}

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self.results.setdefault(test.id(), 'passed')

    def addFailure(self, test: Any, err: Any) -> None:
        self.results[test.id()] = 'failed'

    def addError(self, test: Any, err: Any) -> None:
        self.results[test.id()] = 'failed'

    def addSkip(self, test: Any, reason: str) -> None:
        self.results[test.id()] = 'skipped'


if __name__ == '__main__':
    sys.exit(main())
