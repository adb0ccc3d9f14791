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

"""What is told of a server's guest agent."""

from typing import Any
from unittest import mock

from nova.compute import power_state
import pytest

from guest_agent_ext import exception
from guest_agent_ext.api import servers
from guest_agent_ext.compute import rpcapi
from tests.functional.api import base

STATUS: rpcapi.AgentStatus = {
    'reason': None,
    'version': '7.2',
    'os': 'Debian',
    'execution': 'guarded',
    'supported_commands': ['guest-exec'],
    'command_types': ['exec', 'fstrim'],
    'unavailable': {'terminal': 'no script'},
}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Answers in the place of the compute service."""
    call = mock.create_autospec(
        rpcapi.ComputeAPI.agent_status, return_value=STATUS
    )
    monkeypatch.setattr(rpcapi.ComputeAPI, 'agent_status', call)
    return call


def path_of(instance: Any) -> str:
    return f'/servers/{instance.uuid}/guest-agent'


def shown(cloud: base.Cloud, instance: Any = None) -> dict[str, Any]:
    response = cloud.get(path_of(instance or cloud.instance))
    assert response.status_code == 200, response.text
    return dict(response.json()['guest_agent'])


def test_available(cloud: base.Cloud, host: mock.Mock) -> None:
    assert shown(cloud) == {'status': 'available', **STATUS}
    host.assert_called_once_with(mock.ANY, base.HOST, cloud.instance.uuid)


def test_unavailable(cloud: base.Cloud, host: mock.Mock) -> None:
    host.return_value = dict(STATUS, reason='It is frozen', execution=None)
    answer = shown(cloud)
    assert (answer['status'], answer['reason']) == (
        'unavailable',
        'It is frozen',
    )
    assert answer['version'] == '7.2'


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'channel': 'no'}, 'hw_qemu_guest_agent=yes'),
        ({'power_state': power_state.SHUTDOWN}, 'power_state shutdown'),
        ({'host': 'elsewhere'}, 'guest agent service is down'),
        ({'locked': True}, 'unlock it first'),
    ],
)
def test_what_refuses_a_command_is_the_reason(
    cloud: base.Cloud, host: mock.Mock, values: dict[str, Any], words: str
) -> None:
    answer = shown(cloud, cloud.make_instance(**values))
    assert answer['status'] == 'unavailable'
    assert words in answer['reason']
    assert answer['execution'] is None
    host.assert_not_called()


def test_cell_is_down(cloud: base.Cloud, host: mock.Mock) -> None:
    servers._breaker.failed(cloud.cell.uuid)
    assert 'cell' in shown(cloud)['reason']


@pytest.mark.parametrize(
    ('cause', 'words'),
    [
        ('no answer', 'does not answer'),
        ('failed', 'does not answer'),
        ('not offered', 'of a release that cannot do this'),
    ],
)
def test_host_does_not_answer(
    cloud: base.Cloud, host: mock.Mock, cause: exception.Cause, words: str
) -> None:
    host.side_effect = exception.HostUnreachable('away', cause)
    assert words in shown(cloud)['reason']


def test_who_may_ask(cloud: base.Cloud, host: mock.Mock) -> None:
    path = path_of(cloud.instance)
    assert cloud.get(path, roles='reader').status_code == 200
    assert cloud.get(path, roles='other').status_code == 403
    assert cloud.get(path, project_id=base.OTHER_PROJECT).status_code == 404
    assert cloud.get(path + '?x=1').status_code == 400
