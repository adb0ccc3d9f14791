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

import os

from tools.testbed import processes

# Before anything imports eventlet: Nova 34 refuses to run on native threads
# after that, and older ones patch for it where nobody says otherwise.
os.environ['OS_NOVA_DISABLE_EVENTLET_PATCHING'] = '1'

# E402: not at the top, for the line above.
from nova import monkey_patch  # noqa: E402
import pytest  # noqa: E402

monkey_patch.patch()
processes.take_ignored_signals()

#: These run in Horizon's environment: `make panel`.
collect_ignore = ['horizon']


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Report where the gate looks, each run of pytest in a file of its own."""
    if 'TEST_REPORTS' in os.environ and not config.option.xmlpath:
        config.option.xmlpath = os.path.join(
            os.environ['TEST_REPORTS'], f'{os.getpid()}.xml'
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--times',
        type=int,
        default=1,
        help='how often each test function runs',
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    times = metafunc.config.getoption('times')
    if times > 1:
        metafunc.fixturenames.append('_time')
        metafunc.parametrize('_time', range(times))


@pytest.fixture(scope='session', autouse=True)
def _temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fix where pytest's temporary directories are, before any test.

    The base classes of Nova's tests move the temporary directory into one that
    ends with the test.
    """
    tmp_path_factory.getbasetemp()
