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

"""The OpenAPI document and the API, compared by schemathesis.

It sends what the document allows, and what it forbids, in the order that its
links tell, and looks whether each answer is what the document says.
"""

import json
import pathlib
import subprocess
from typing import Any

import pytest

from guest_agent_ext.api import routes
from tests.stack.conftest import OpenStack
from tools.stack import stack as stack_module

#: What is forbidden for reasons that no schema can tell: a path that is a
#: directory, data that is not base64, a marker that is not in the list, a key
#: that was used for something else, targets of which there is none.
_REFUSED_FOR_WHAT_IT_MEANS = {
    'GET /servers/{server_id}/guest-agent/commands': ['400'],
    'GET /guest-agent/commands': ['400'],
    'POST /servers/{server_id}/guest-agent/commands': ['400', '410', '422'],
    'GET /servers/{server_id}/guest-agent/file-read': ['400', '416'],
    'POST /servers/{server_id}/guest-agent/file-write': ['400'],
    'GET /guest-agent/runs': ['400'],
    'POST /guest-agent/runs': ['400', '410', '422'],
    'GET /guest-agent/runs/{run_id}/commands': ['400'],
}

_CONFIGURATION = """\
headers = {{ "X-Auth-Token" = "{token}" }}
[parameters]
server_id = "{server_id}"
[checks]
# A method that a path does not have is 404 in Nova.
unsupported_method.enabled = false
"""

_OPERATION = """\
[[operations]]
include-name = "{name}"
checks.positive_data_acceptance.expected-statuses = {statuses}
"""


@pytest.mark.parametrize('seed', [1, 2])
def test_schemathesis_finds_nothing(
    stack: stack_module.Stack,
    admin: OpenStack,
    boot: Any,
    pytestconfig: pytest.Config,
    tmp_path: pathlib.Path,
    seed: int,
) -> None:
    configuration = tmp_path / 'schemathesis.toml'
    configuration.write_text(
        _CONFIGURATION.format(
            token=admin.json('token', 'issue')['id'], server_id=boot('admin')
        )
        + ''.join(
            _OPERATION.format(
                name=name,
                statuses=json.dumps(
                    ['2xx', '401', '403', '404', '409', '429', *statuses]
                ),
            )
            for name, statuses in _REFUSED_FOR_WHAT_IT_MEANS.items()
        )
    )
    ran = subprocess.run(
        [
            stack.place.client_bin / 'schemathesis',
            '--config-file',
            configuration,
            '--no-color',
            'run',
            pytestconfig.rootpath / 'api-ref/openapi.json',
            '--url',
            stack.place.url('nova', '/v2.1'),
            '--max-examples',
            '30',
            '--phases',
            'examples,coverage,fuzzing,stateful',
            '--request-timeout',
            '60',
            '--seed',
            str(seed),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    print(ran.stdout[-10000:], ran.stderr[-2000:])
    assert ran.returncode == 0
    assert f'Tested: {len(routes.ROUTES)}' in ran.stdout
