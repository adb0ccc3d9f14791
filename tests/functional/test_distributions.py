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

"""The distributions of this repository: server side, client and dashboard."""

from collections.abc import Iterable
import dataclasses
from importlib import metadata
import itertools
import os
import pathlib
import subprocess
import sys

from packaging import requirements
from packaging import utils
import pytest

_ROOT = pathlib.Path(__file__).parents[2]

#: What nobody who types ``openstack`` should have to install.
_SERVER_SIDE = ('alembic', 'nova', 'oslo.db', 'oslo.messaging', 'sqlalchemy')

#: Imports modules as on a machine where some packages are not installed, and
#: of ours only what was built.
_IMPORT = """
from importlib import machinery
import importlib
import sys

built, missing, *names = sys.argv[1:]

class Finder:
    def find_spec(self, name, path=None, target=None):
        first = name.partition('.')[0]
        if first in missing.split():
            raise ImportError(name + ' is not installed here')
        if first != 'guest_agent_ext':
            return None
        spec = machinery.PathFinder.find_spec(name, path or [built])
        if spec is None:
            raise ImportError(name + ' was not built')
        return spec

sys.meta_path.insert(0, Finder())
for name in names:
    module, _, attribute = name.partition(':')
    found = importlib.import_module(module)
    assert not attribute or getattr(found, attribute)
"""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What was built of a distribution.

    :ivar built: directory of what an installation copies
    :ivar info: directory of the metadata
    """

    built: pathlib.Path
    info: pathlib.Path

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.built))
            for path in self.built.rglob('*')
            if path.is_file()
        }

    def modules(self) -> set[str]:
        return {
            name.removesuffix('.py')
            .removesuffix('/__init__')
            .replace('/', '.')
            for name in self.files()
            if name.endswith('.py')
        }


def _import(
    distribution: Distribution, missing: str, names: Iterable[str]
) -> None:
    """Import modules of a distribution, each with an attribute behind ":".

    :param missing: packages that are not installed, with spaces between them
    """
    subprocess.run(
        [sys.executable, '-c', _IMPORT, distribution.built, missing, *names],
        cwd=distribution.built,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
        check=True,
    )


def _build(source: pathlib.Path, directory: pathlib.Path) -> Distribution:
    directory.mkdir()
    subprocess.run(
        [
            sys.executable,
            'setup.py',
            '--quiet',
            'egg_info',
            f'--egg-base={directory}',
            'build',
            f'--build-base={directory}',
        ],
        cwd=source,
        env={**os.environ, 'PBR_VERSION': '1.2.3'},
        check=True,
        capture_output=True,
    )
    (info,) = directory.glob('*.egg-info')
    return Distribution(directory / 'lib', info)


@pytest.fixture(scope='module')
def client(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return _build(_ROOT / 'client', tmp_path_factory.mktemp('b') / 'client')


@pytest.fixture(scope='module')
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return _build(
        _ROOT / 'dashboard', tmp_path_factory.mktemp('b') / 'dashboard'
    )


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return _build(_ROOT, tmp_path_factory.mktemp('b') / 'server')


def test_client_is_imported_where_nothing_of_the_server_is(
    client: Distribution,
) -> None:
    # A module of the client's that imports a module of the server's, or a
    # library that only servers have; a package that was forgotten.
    entries = metadata.PathDistribution(client.info).entry_points
    commands = [
        entry.value for entry in entries.select(group='openstack.compute.v2')
    ]
    assert len(commands) > 10
    _import(
        client,
        ' '.join(_SERVER_SIDE).replace('.', '_'),
        [*sorted(client.modules()), *commands],
    )


def test_client_has_all_of_its_source(client: Distribution) -> None:
    # A package of the client's that setup.py does not name.
    source = _ROOT / 'guest_agent_ext'
    expected = {'guest_agent_ext.progress'}
    for package in ('osc', 'sdk'):
        for path in (source / package).rglob('*.py'):
            name = str(path.relative_to(_ROOT).with_suffix(''))
            expected.add(name.removesuffix('/__init__').replace('/', '.'))
    assert client.modules() == expected


def test_dashboard_has_all_of_its_source(dashboard: Distribution) -> None:
    # A template or a script that setup.py does not name.
    source = _ROOT / 'guest_agent_ext/dashboard'
    expected = {
        str(path.relative_to(_ROOT))
        for path in source.rglob('*')
        if path.is_file() and path.suffix != '.pyc'
    }
    assert dashboard.files() == expected
    assert len(expected) > 40


def test_no_file_is_in_two(
    client: Distribution, server: Distribution, dashboard: Distribution
) -> None:
    # An uninstallation of one that breaks another, and packages of a
    # distribution that cannot be installed beside each other.
    built = (client, server, dashboard)
    for one, other in itertools.combinations(built, 2):
        assert not one.files() & other.files()
    modules = set().union(*(each.modules() for each in built))
    assert {
        'guest_agent_ext.osc.exec',
        'guest_agent_ext.api.filter',
        'guest_agent_ext.dashboard.tabs',
    } <= modules
    # With such a file in one directory, Python sees the modules of no other.
    assert 'guest_agent_ext' not in modules


def test_server_is_imported_without_the_client(server: Distribution) -> None:
    # A program of the server's that imports what only the client has.
    programs = ('compute', 'conductor', 'manage', 'status')
    _import(
        server,
        'openstackclient osc_lib',
        [f'guest_agent_ext.cmd.{name}' for name in programs],
    )


def test_client_requires_nothing_of_the_server(client: Distribution) -> None:
    # A requirement that brings along half of Nova's, however indirectly.
    found = _closure(
        metadata.PathDistribution(client.info).requires or [], set()
    )
    assert {'openstacksdk', 'rich', 'keystoneauth1'} <= found
    assert not found & {utils.canonicalize_name(x) for x in _SERVER_SIDE}


def test_dashboard_requires_what_horizon_has(dashboard: Distribution) -> None:
    # What pip would install into Horizon's environment beside it.
    wanted = metadata.PathDistribution(dashboard.info).requires or []
    assert {requirements.Requirement(each).name for each in wanted} == {
        'horizon',
        'keystoneauth1',
        'requests',
    }


def _closure(wanted: list[str], found: set[str]) -> set[str]:
    """Add what is installed of requirements and of theirs, without extras."""
    for requirement in map(requirements.Requirement, wanted):
        name = utils.canonicalize_name(requirement.name)
        marker = requirement.marker
        if name in found or (marker and not marker.evaluate({'extra': ''})):
            continue
        found.add(name)
        _closure(metadata.requires(name) or [], found)
    return found
