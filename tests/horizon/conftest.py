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

"""Horizon as Django sees it in a test: no server, no network."""

from collections.abc import Iterator
import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.horizon.settings')

# E402: Django is to know its settings before.
import django  # noqa: E402
from django.test import runner  # noqa: E402
from django.test import utils  # noqa: E402
import pytest  # noqa: E402

django.setup()


def pytest_configure(config: pytest.Config) -> None:
    # Of classes in Horizon's helpers, which tests import.
    for marker in ('selenium', 'integration', 'plugin_test'):
        config.addinivalue_line('markers', f'{marker}: of Horizon')


@pytest.fixture(scope='session', autouse=True)
def _django() -> Iterator[None]:
    utils.setup_test_environment()
    tests = runner.DiscoverRunner(verbosity=0, interactive=False)
    databases = tests.setup_databases()
    yield
    tests.teardown_databases(databases)
    utils.teardown_test_environment()
