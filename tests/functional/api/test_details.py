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

"""The details of a guest, as users ask for them."""

from typing import Any
from unittest import mock

from nova.compute import power_state
import pytest

from guest_agent_ext import details
from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi
from tests.functional.api import base

DETAILS: rpcapi.Details = {
    'reason': None,
    'details': {
        'host_name': 'web-1',
        'vcpus': [{'logical_id': 0, 'online': True}],
    },
    'unavailable': {'users': 'blocked'},
}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Answers in the place of the compute service."""
    call = mock.create_autospec(
        rpcapi.ComputeAPI.agent_details, return_value=DETAILS
    )
    monkeypatch.setattr(rpcapi.ComputeAPI, 'agent_details', call)
    return call


def ask(cloud: base.Cloud, query: str = '', **kwargs: Any) -> Any:
    instance = kwargs.pop('instance', cloud.instance)
    return cloud.get(
        f'/servers/{instance.uuid}/guest-agent/details{query}', **kwargs
    )


def test_details(cloud: base.Cloud, host: mock.Mock) -> None:
    answer = ask(cloud)
    assert answer.json() == {
        'guest_agent_details': {
            **DETAILS['details'],
            'unavailable': {'users': 'blocked'},
        }
    }
    everything = [name for name in details.PARTS if name != 'ssh_keys']
    host.assert_called_once_with(
        mock.ANY, base.HOST, cloud.instance.uuid, everything, None
    )


@pytest.mark.parametrize(
    ('query', 'fields', 'user'),
    [
        ('?fields=os,users', ['os', 'users'], None),
        ('?fields=ssh_keys&user=root', ['ssh_keys'], 'root'),
        ('?user=root', list(details.PARTS), 'root'),
    ],
)
def test_only_what_is_wanted_is_asked_for(
    cloud: base.Cloud,
    host: mock.Mock,
    query: str,
    fields: list[str],
    user: str | None,
) -> None:
    assert ask(cloud, query).status_code == 200
    assert host.call_args.args[3:] == (fields, user)


@pytest.mark.parametrize(
    'query', ['?fields=', '?fields=os,', '?fields=kernel', '?user=-x', '?x=1']
)
def test_what_is_not_known_is_refused(
    cloud: base.Cloud, host: mock.Mock, query: str
) -> None:
    assert ask(cloud, query).status_code == 400
    host.assert_not_called()


def test_server_that_cannot_be_asked(
    cloud: base.Cloud, host: mock.Mock
) -> None:
    off = cloud.make_instance(power_state=power_state.SHUTDOWN)
    message = base.message_of(
        ask(cloud, instance=off), 409, 'conflictingRequest'
    )
    assert 'power_state shutdown' in message
    # To look at a server that is locked changes nothing.
    locked = cloud.make_instance(locked=True)
    assert ask(cloud, instance=locked).status_code == 200
    host.return_value = dict(DETAILS, reason='It is frozen')
    assert base.message_of(ask(cloud), 409, 'conflictingRequest') == (
        'It is frozen'
    )
    host.side_effect = exception.HostUnreachable('away', 'no answer')
    assert 'does not answer' in base.message_of(
        ask(cloud), 409, 'conflictingRequest'
    )


def test_who_may_ask(cloud: base.Cloud, host: mock.Mock) -> None:
    assert ask(cloud, roles='reader').status_code == 200
    assert ask(cloud, roles='other').status_code == 403
    assert ask(cloud, project_id=base.OTHER_PROJECT).status_code == 404
