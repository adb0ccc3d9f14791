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

"""What the pages name is there."""

import ast
from collections.abc import Iterator
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_PAGES = (
    *sorted((_ROOT / 'doc').rglob('*.rst')),
    _ROOT / 'README.rst',
    _ROOT / 'CONTRIBUTING.rst',
)
_FILE = re.compile(r'\b(?:tests|tools|benchmarks)/[\w/.-]*\w')
_TEST = re.compile(r'\b(tests/[\w/]+\.py)::(?:\w+::)?(\w+)')


def _found(pattern: re.Pattern[str]) -> Iterator[tuple[str, ...]]:
    for page in _PAGES:
        for match in pattern.finditer(page.read_text()):
            yield (page.name, *(match.groups() or (match[0],)))


@pytest.mark.parametrize('page, name', sorted(set(_found(_FILE))))
def test_file_exists(page: str, name: str) -> None:
    assert (_ROOT / name).exists()


@pytest.mark.parametrize('page, path, name', sorted(set(_found(_TEST))))
def test_test_exists(page: str, path: str, name: str) -> None:
    tree = ast.parse((_ROOT / path).read_text())
    assert name in {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


def test_promises_are_shown() -> None:
    assert sum(page == 'promises.rst' for page, *_ in _found(_TEST)) > 50
