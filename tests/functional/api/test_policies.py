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

"""Every policy rule against every kind of caller: tests/functional/gabbits.

A file whose name begins with a key of POLICIES is tried with that policy.
"""

from collections.abc import Iterator
import pathlib
from typing import Any
import unittest
from unittest import mock

from gabbi import handlers
from gabbi import suitemaker
from gabbi import utils
from nova import policy as nova_policy
import pytest

from guest_agent_ext import policies
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.db import runs
from tests.functional.api import base

GABBITS = pathlib.Path(__file__).parents[1] / 'gabbits'

#: What the operator says of policies.USE: as documented, and forgetful.
POLICIES = {
    'restricted': '(role:guest_exec and project_id:%(project_id)s) or '
    'rule:context_is_admin',
    'careless': 'role:guest_exec',
}


@pytest.fixture
def policy_file(
    cloud: base.Cloud, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[None]:
    """The policy file that goes with a file of tests."""
    kind = request.getfixturevalue('file').stem.split('-')[0]
    path = tmp_path / 'policy.yaml'
    path.write_text(
        '"%s": "%s"' % (policies.USE, POLICIES[kind])
        if kind in POLICIES
        else '{}'
    )
    nova_policy.reset()
    base.CONF.set_override('policy_file', str(path), group='oslo_policy')
    yield
    base.CONF.clear_override('policy_file', group='oslo_policy')
    nova_policy.reset()


@pytest.fixture
def environment(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What the files call by name: a server with two commands, two runs."""
    # Nobody works on the runs of the other files.
    base.CONF.set_override('max_runs_per_project', -1, group='guest_agent')
    ended, pending = (cloud.post().json()['command']['uuid'] for _ in range(2))
    cloud.end(ended, out_data=b'output', out_bytes=6, err_bytes=0)
    ended_run, running = _make_run(cloud), _make_run(cloud)
    runs.cancel(ended_run)
    runs.settle(ended_run)
    cloud.make_silent_host('gone.example.org')
    path = f'/v2.1/servers/{cloud.instance.uuid}/guest-agent'
    for name, value in {
        'PROJECT': base.PROJECT,
        'OTHER_PROJECT': base.OTHER_PROJECT,
        'AGENT': path,
        'COMMANDS': path + '/commands',
        'ENDED': ended,
        'PENDING': pending,
        'SERVER': cloud.instance.uuid,
        'RUN': running,
        'ENDED_RUN': ended_run,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        rpcapi.ComputeAPI,
        'agent_status',
        mock.Mock(return_value=rpcapi.unavailable('It is asleep')),
    )
    for name, answer in {
        'agent_details': {'reason': None, 'details': {}, 'unavailable': {}},
        'open_file': rpcapi.OpenedFile(0, b''),
        'write_chunk': None,
        'commit': True,
    }.items():
        monkeypatch.setattr(
            rpcapi.ComputeAPI, name, mock.Mock(return_value=answer)
        )
    yield
    base.CONF.clear_override('max_runs_per_project', group='guest_agent')


def _make_run(cloud: base.Cloud) -> str:
    asked = {
        'targets': {'servers': [cloud.instance.uuid]},
        'type': 'exec',
        'arguments': {'command': ['id']},
    }
    answer = cloud.request('POST', '/guest-agent/runs', {'run': asked})
    uuid: str = answer.json()['run']['uuid']
    return uuid


@pytest.mark.parametrize(
    'file', sorted(GABBITS.glob('*.yaml')), ids=lambda file: file.stem
)
def test_matrix(
    cloud: base.Cloud, environment: None, policy_file: None, file: pathlib.Path
) -> None:
    suite: Any = suitemaker.test_suite_from_dict(
        unittest.defaultTestLoader,
        file.stem,
        utils.load_yaml(yaml_file=str(file)),
        str(GABBITS),
        'nova',
        80,
        None,
        cloud.app,
        handlers=[kind() for kind in handlers.RESPONSE_HANDLERS],
    )
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun == suite.countTestCases() > 0
    assert [
        f'{test}: {trace}' for test, trace in result.failures + result.errors
    ] == []
    assert not result.skipped


def test_every_rule_is_in_the_matrix() -> None:
    calls = {
        test['name']
        for test in utils.load_yaml(yaml_file=str(GABBITS / 'admin.yaml'))[
            'tests'
        ]
    }
    assert len(calls) == len(policies.list_rules()) - 1
