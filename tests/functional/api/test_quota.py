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

"""How many unfinished commands there may be."""

from collections.abc import Iterator
import concurrent.futures
import threading
from typing import Any
from unittest import mock

import fixtures
from keystoneauth1 import exceptions as ksa_exc
from nova.limit import utils as limit_utils
from oslo_limit import fixture as limit_fixture
from oslo_limit import limit
from oslo_utils import uuidutils
import pytest

from guest_agent_ext import limits as project_limits
from guest_agent_ext.api import checks
from tests.functional.api import base

CONF = base.CONF


@pytest.fixture
def bounds(cloud: base.Cloud) -> Iterator[Any]:
    """Sets options of a group for the time of a test."""
    changed: list[tuple[str, str]] = []

    def change(group: str, **values: Any) -> None:
        for name, value in values.items():
            CONF.set_override(name, value, group=group)
            changed.append((name, group))

    yield change
    for name, group in changed:
        CONF.clear_override(name, group=group)


@pytest.fixture
def project(cloud: base.Cloud) -> dict[str, str]:
    """A project of this test's own, with its server as the cloud's."""
    project_id = uuidutils.generate_uuid(dashed=False)
    cloud.instance = cloud.make_instance(project_id=project_id)
    cloud.path = base.commands_of(cloud.instance.uuid)
    return {'project_id': project_id}


@pytest.fixture
def limits(cloud: base.Cloud, bounds: Any) -> Iterator[dict[str, int]]:
    """Keystone's registered limits, which Nova asks for."""
    bounds('quota', driver=limit_utils.UNIFIED_LIMITS_DRIVER)
    registered: dict[str, int] = {}
    client = mock.Mock()
    client.registered_limits.side_effect = lambda: [
        mock.Mock(resource_name=name) for name in registered
    ]
    project_limits._enforcer.cache_clear()
    with (
        limit_fixture.LimitFixture(registered, {}),
        fixtures.MockPatchObject(
            limit_utils, '_identity_client', return_value=client
        ),
    ):
        yield registered
    project_limits._enforcer.cache_clear()


def numbers_of(cloud: base.Cloud, count: int, **caller: Any) -> list[int]:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        sent = [pool.submit(cloud.post, **caller) for _ in range(count)]
    return sorted(item.result().status_code for item in sent)


def unfinished(cloud: base.Cloud, **caller: Any) -> int:
    return len(cloud.get(cloud.path, **caller).json()['commands'])


def test_server_is_full(cloud: base.Cloud, bounds: Any) -> None:
    bounds('guest_agent', max_unfinished_per_server=2)
    first = cloud.post().json()['command']['uuid']
    assert cloud.post().status_code == 200
    cloud.rung.clear()
    response = cloud.post()
    message = base.message_of(response, 429, 'overLimit')
    assert cloud.instance.uuid in message
    assert '2 unfinished commands' in message
    assert int(response.headers['Retry-After']) > 0
    assert not cloud.rung
    other = base.commands_of(cloud.make_instance().uuid)
    assert cloud.post(path=other).status_code == 200
    cloud.end(first)
    assert cloud.post().status_code == 200


@pytest.mark.parametrize(
    ('option', 'refused'),
    [('max_unfinished_per_server', 429), ('max_unfinished_per_project', 403)],
)
def test_parallel_requests_fill_it_exactly(
    cloud: base.Cloud,
    bounds: Any,
    project: dict[str, str],
    option: str,
    refused: int,
) -> None:
    bounds('guest_agent', **{option: 3})
    with arriving_together(8):
        numbers = numbers_of(cloud, 8, **project)
    assert numbers == [200] * 3 + [refused] * 5
    assert unfinished(cloud, **project) == 3


def test_parallel_requests_fill_a_unified_limit_exactly(
    cloud: base.Cloud, limits: dict[str, int], project: dict[str, str]
) -> None:
    limits[project_limits.RESOURCE] = 2
    assert cloud.post(**project).status_code == 200
    with arriving_together(6):
        numbers = numbers_of(cloud, 6, **project)
    assert numbers == [200] + [403] * 5


def test_repetitions_at_once_are_one_command(
    cloud: base.Cloud, bounds: Any, project: dict[str, str]
) -> None:
    """All of them are answered with what takes the last place."""
    bounds('guest_agent', max_unfinished_per_project=1)
    with arriving_together(6):
        numbers = numbers_of(
            cloud, 6, headers={'Idempotency-Key': 'key'}, **project
        )
    assert numbers == [200] * 6
    assert unfinished(cloud, **project) == 1


def arriving_together(count: int) -> Any:
    """Have requests wait for each other before any of them is recorded."""
    barrier = threading.Barrier(count, timeout=30)
    return mock.patch.object(
        checks, 'check', lambda *args, **kwargs: barrier.wait()
    )


def test_project_is_full(
    cloud: base.Cloud, bounds: Any, project: dict[str, str]
) -> None:
    bounds('guest_agent', max_unfinished_per_project=1)
    assert cloud.post(**project).status_code == 200
    other = cloud.make_instance(**project)
    response = cloud.post(path=base.commands_of(other.uuid), **project)
    message = base.message_of(response, 403, 'forbidden')
    assert project['project_id'] in message
    assert 'may have 1 unfinished' in message


def test_who_asks_is_not_charged(
    cloud: base.Cloud, bounds: Any, project: dict[str, str]
) -> None:
    bounds('guest_agent', max_unfinished_per_project=1)
    admin = {'user': 'admin', 'roles': 'admin,member,reader'}
    assert cloud.post(**admin).status_code == 200
    assert cloud.post(**project).status_code == 403


def test_project_without_bound(cloud: base.Cloud, bounds: Any) -> None:
    bounds('guest_agent', max_unfinished_per_project=-1)
    assert [cloud.post().status_code for _ in range(3)] == [200] * 3


def test_unified_limit(
    cloud: base.Cloud, limits: dict[str, int], project: dict[str, str]
) -> None:
    limits[project_limits.RESOURCE] = 2
    assert [cloud.post(**project).status_code for _ in range(3)] == [
        200,
        200,
        403,
    ]


def test_unified_limit_of_none(
    cloud: base.Cloud, limits: dict[str, int]
) -> None:
    limits[project_limits.RESOURCE] = 0
    message = base.message_of(cloud.post(), 403, 'forbidden')
    assert 'may have 0 unfinished' in message


@pytest.mark.parametrize(
    ('strategy', 'status'), [('require', 200), ('ignore', 403)]
)
def test_limit_that_is_not_registered(
    cloud: base.Cloud,
    bounds: Any,
    limits: dict[str, int],
    strategy: str,
    status: int,
) -> None:
    bounds('quota', unified_limits_resource_strategy=strategy)
    assert cloud.post().status_code == status


def test_keystone_is_not_configured(cloud: base.Cloud, bounds: Any) -> None:
    bounds('quota', driver=limit_utils.UNIFIED_LIMITS_DRIVER)
    response = cloud.post()
    message = base.message_of(response, 503, 'serviceUnavailable')
    assert 'limits of project' in message
    assert response.headers['Retry-After'] == '5'
    assert unfinished(cloud) == 0


def test_keystone_goes_away(cloud: base.Cloud, limits: dict[str, int]) -> None:
    with mock.patch.object(
        limit.Enforcer,
        'get_project_limits',
        autospec=True,
        side_effect=ksa_exc.ConnectFailure(),
    ):
        assert cloud.post().status_code == 503
    assert unfinished(cloud) == 0


def test_keystone_is_asked_for_the_limits_only(
    cloud: base.Cloud, limits: dict[str, int]
) -> None:
    """Once per request; what is the cloud's, never again."""
    limits[project_limits.RESOURCE] = 1000
    cloud.post()
    keystone = project_limits._enforcer().connection
    for call in (keystone.get, keystone.limits, keystone.registered_limits):
        call.reset_mock()
    assert cloud.post().status_code == 200
    assert keystone.get.call_count == 0
    assert keystone.limits.call_count == 1
    assert keystone.registered_limits.call_count == 1


def test_limit_is_changed(
    cloud: base.Cloud, limits: dict[str, int], project: dict[str, str]
) -> None:
    limits[project_limits.RESOURCE] = 0
    assert cloud.post(**project).status_code == 403
    limits[project_limits.RESOURCE] = 1
    assert cloud.post(**project).status_code == 200
