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

"""Roles of a real Keystone, and limits of one."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from tools.testbed import processes

RUN = {'command': {'type': 'exec', 'arguments': {'command': ['true']}}}
SLEEP = {
    'command': {'type': 'exec', 'arguments': {'command': ['sleep', '600']}}
}


@pytest.fixture
def commands(server: str) -> str:
    return f'/servers/{server}/guest-agent/commands'


# Create, list, hosts: what each role of the server's project, and others, get.
@pytest.mark.parametrize(
    'user, statuses',
    [
        ('demo', (200, 200, 403)),
        ('second', (200, 200, 403)),
        ('manager', (200, 200, 403)),
        ('reader', (403, 200, 403)),
        ('other', (404, 404, 403)),
        ('admin', (200, 200, 200)),
    ],
)
def test_roles(
    sdk: Callable[[str], Any],
    commands: str,
    user: str,
    statuses: tuple[int, int, int],
) -> None:
    compute = sdk(user).compute
    assert (
        compute.post(commands, json=RUN).status_code,
        compute.get(commands).status_code,
        compute.get('/guest-agent/hosts').status_code,
    ) == statuses


def test_bad_token(sdk: Callable[[str], Any], commands: str) -> None:
    answer = sdk('demo').session.get(
        commands,
        endpoint_filter={'service_type': 'compute'},
        headers={'X-Auth-Token': 'bad'},
        authenticated=False,
        raise_exc=False,
    )
    assert answer.status_code == 401


@pytest.fixture
def limit(sdk: Callable[[str], Any]) -> Iterator[int]:
    """A limit of two commands for the servers' project, which has none."""
    compute = sdk('demo').compute
    processes.wait_for(
        lambda: all(
            command['finished_at']
            for command in compute.get('/guest-agent/commands').json()[
                'commands'
            ]
        ),
        120,
        'the end of what other tests began',
        gap=0.5,
    )
    identity = sdk('admin').identity
    made = identity.create_limit(
        service_id=identity.find_service('nova').id,
        region_id='RegionOne',
        resource_name='guest_agent_commands',
        resource_limit=2,
        project_id=identity.find_project('demo').id,
    )
    yield 2
    identity.delete_limit(made)


def test_unified_limit(
    sdk: Callable[[str], Any], commands: str, limit: int, server: str
) -> None:
    """Keystone's limit of the server's project holds, for an admin too."""
    compute = sdk('demo').compute
    accepted = [compute.post(commands, json=SLEEP) for _ in range(limit)]
    assert [answer.status_code for answer in accepted] == [200] * limit
    for user in ('demo', 'second', 'admin'):
        refused = sdk(user).compute.post(commands, json=SLEEP)
        assert refused.status_code == 403, refused.text
        assert 'may have 2 unfinished commands' in refused.text
    for answer in accepted:
        url = f'{commands}/{answer.json()["command"]["uuid"]}'
        compute.post(f'{url}/action', json={'cancel': None})
        ended = compute.get(url, headers={'Prefer': 'wait=20'}).json()
        assert ended['command']['status'] == 'CANCELLED'
    assert compute.post(commands, json=RUN).status_code == 200
