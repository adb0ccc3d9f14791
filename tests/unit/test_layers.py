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

"""Who imports whom: the table of the contributor guide's architecture page."""

import ast
from collections.abc import Iterator
import pathlib
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2] / 'guest_agent_ext'
_OURS = 'guest_agent_ext'

#: What each package may import of ours beside itself. Every package but the
#: clients may import modules that are in no package.
_COMMON = 'a module that is in no package'
_MAY_IMPORT: dict[str, set[str]] = {
    _COMMON: {_COMMON, 'conf'},
    'conf': {_COMMON},
    'db': {_COMMON, 'conf'},
    'guest': {_COMMON, 'conf'},
    'compute': {_COMMON, 'conf', 'guest', 'conductor.rpcapi'},
    'conductor': {_COMMON, 'conf', 'db', 'compute.rpcapi'},
    'api': {_COMMON, 'conf', 'db', 'compute.rpcapi'},
    'cmd': {_COMMON, 'conf', 'db', 'guest', 'compute', 'conductor', 'api'},
    'wsgi': {_COMMON, 'conf'},
    'osc': {'progress', 'sdk'},
    'sdk': set(),
    'progress': set(),
    'tempest_plugin': set(),
    'dashboard': set(),
}
#: Who alone may import what others have written.
_ALONE = {
    'nova': {_COMMON, 'api', 'conductor', 'cmd', 'wsgi'},
    'libvirt': {'guest'},
    'libvirt_qemu': {'guest'},
    'sqlalchemy': {'db', 'conductor'},
    'osc_lib': {'osc'},
    'tempest': {'tempest_plugin'},
    'django': {'dashboard'},
    'horizon': {'dashboard'},
}
#: What of others the clients need to be installed: none of the server's.
_CLIENTS_NEED = {
    'sdk': {'keystoneauth1', 'openstack', 'requests'},
    'osc': {
        'cliff',
        'iso8601',
        'keystoneauth1',
        'openstack',
        'osc_lib',
        'requests',
    },
    # What Horizon has.
    'dashboard': {
        'django',
        'horizon',
        'keystoneauth1',
        'openstack_auth',
        'openstack_dashboard',
        'requests',
    },
}


def _imports(path: pathlib.Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'a relative import'
            yield from (f'{node.module}.{item.name}' for item in node.names)


def _package(name: str) -> str:
    # A module, but of the client's distribution: no server has it.
    if name in ('progress', 'progress.py'):
        return 'progress'
    return name if (_ROOT / name).is_dir() else _COMMON


@pytest.mark.parametrize(
    'path',
    sorted(_ROOT.rglob('*.py')),
    ids=lambda path: str(path.relative_to(_ROOT)),
)
def test_a_module_imports_what_it_may(path: pathlib.Path) -> None:
    importer = _package(path.relative_to(_ROOT).parts[0])
    for name in _imports(path):
        first, *rest = name.split('.')
        if first != _OURS:
            assert (
                importer not in _CLIENTS_NEED
                or first in _CLIENTS_NEED[importer]
                or first in sys.stdlib_module_names
            ), name
            assert importer in _ALONE.get(first, {importer}), name
            continue
        package = _package(rest[0])
        assert (
            package == importer
            or package in _MAY_IMPORT[importer]
            or '.'.join(rest[:2]) in _MAY_IMPORT[importer]
        ), name
