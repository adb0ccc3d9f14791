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

"""A Horizon with the panel, on this machine."""

from collections.abc import Mapping
import http.client
import os
import pathlib
import secrets

from tools.testbed import processes

_ROOT = pathlib.Path(__file__).parents[2]

#: What the Makefile has made: Horizon's environment, and its static files.
_PREFIX = _ROOT / '.stack/horizon'
STATIC = _PREFIX / 'static'

_SITE = pathlib.Path(__file__).parent / 'site'


def environment(state: pathlib.Path, keystone: str) -> Mapping[str, str]:
    """Return the variables that the settings of Horizon read.

    :param state: directory of the sessions
    :param keystone: URL of the identity API
    """
    path = [str(_SITE), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {
        'PYTHONPATH': ':'.join(path),
        'HORIZON_STATIC': str(STATIC),
        'HORIZON_STATE': str(state),
        'HORIZON_KEYSTONE': keystone,
        'HORIZON_SECRET': secrets.token_hex(32),
        'DJANGO_SETTINGS_MODULE': 'openstack_dashboard.settings',
    }


def start(
    state: pathlib.Path, keystone: str, port: int, log: pathlib.Path
) -> processes.Process:
    """Start Horizon, and wait for its first answer.

    :param state: directory of the sessions
    :param keystone: URL of the identity API
    :param port: port of 127.0.0.1 that it listens on
    """
    process = processes.start(
        'horizon',
        [
            _PREFIX / 'bin/gunicorn',
            '--bind',
            f'127.0.0.1:{port}',
            '--workers',
            '1',
            '--threads',
            '8',
            '--no-control-socket',
            'horizon_site:application',
        ],
        log,
        environment(state, keystone),
    )
    processes.wait_for(
        lambda: _answers(port), 120, 'Horizon', process, gap=0.2
    )
    return process


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    try:
        connection.request('GET', '/auth/login/')
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
