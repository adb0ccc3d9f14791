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

"""The list of all servers' commands."""

import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from guest_agent_ext import policies
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from tests.functional.api import base

PATH = '/guest-agent/commands'
ADMIN = {'user': 'admin', 'roles': 'admin,member,reader'}


@pytest.fixture
def uuids(cloud: base.Cloud) -> dict[str, str]:
    """The only commands there are, by whose they are."""
    with session.writer() as db:
        db.execute(sa.delete(models.Command))
    other = cloud.make_instance(base.OTHER_PROJECT)
    return {
        'mine': new(cloud, cloud.instance),
        'other': new(cloud, other, **ADMIN),
        'admin': new(cloud, cloud.instance, **ADMIN),
    }


def new(cloud: base.Cloud, instance: Any, **caller: Any) -> str:
    response = cloud.post(path=base.commands_of(instance.uuid), **caller)
    uuid: str = response.json()['command']['uuid']
    return uuid


def listed(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [shown['uuid'] for shown in response.json()['commands']]


def test_own_project_s_servers(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    own = [uuids['admin'], uuids['mine']]
    assert listed(cloud.get(PATH)) == own
    assert listed(cloud.admin_get(PATH)) == own
    assert listed(cloud.admin_get(PATH + '?all_projects=false')) == own
    assert listed(cloud.get(PATH, project_id=base.OTHER_PROJECT)) == [
        uuids['other']
    ]


def test_admin_sees_all_projects(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    response = cloud.admin_get(PATH + '?all_projects=true')
    assert listed(response) == list(uuids.values())[::-1]
    assert {shown['host'] for shown in response.json()['commands']} == {
        base.HOST
    }


def test_admin_s_filters(cloud: base.Cloud, uuids: dict[str, str]) -> None:
    def found(query: str) -> list[str]:
        return listed(cloud.admin_get(f'{PATH}?all_projects=true&{query}'))

    cloud.end(uuids['mine'])
    assert listed(
        cloud.admin_get(f'{PATH}?project_id={base.OTHER_PROJECT}')
    ) == [uuids['other']]
    assert found('status=COMPLETED') == [uuids['mine']]
    assert len(found('host=' + base.HOST)) == 3
    assert found('host=another') == []


def test_project_narrows_all_projects(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    query = f'all_projects=true&project_id={base.OTHER_PROJECT}'
    assert listed(cloud.admin_get(f'{PATH}?{query}')) == [uuids['other']]


def test_host_alone_stays_with_the_own_project(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    assert listed(cloud.admin_get(f'{PATH}?host={base.HOST}')) == [
        uuids['admin'],
        uuids['mine'],
    ]


@pytest.mark.parametrize(
    'query', ['', '?all_projects=false', '?host=x', '?status=PENDING']
)
def test_token_without_a_project_is_not_asked_for_all(
    cloud: base.Cloud, uuids: dict[str, str], query: str
) -> None:
    response = cloud.admin_get(PATH + query, project_id=base.NO_PROJECT)
    assert 'no project' in base.message_of(response, 403, 'forbidden')


def test_token_without_a_project_says_which(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    def found(query: str) -> list[str]:
        return listed(
            cloud.admin_get(f'{PATH}?{query}', project_id=base.NO_PROJECT)
        )

    assert found(f'project_id={base.OTHER_PROJECT}') == [uuids['other']]
    assert found('all_projects=true') == list(uuids.values())[::-1]


def test_careless_policy_shows_nothing_without_a_project(
    cloud: base.Cloud, uuids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, 'authorize', lambda *args: None)
    for query in ('', '?all_projects=true', f'?marker={uuids["mine"]}'):
        response = cloud.get(PATH + query, project_id=base.NO_PROJECT)
        base.message_of(response, 403, 'forbidden')


def test_since(cloud: base.Cloud, uuids: dict[str, str]) -> None:
    with session.writer() as db:
        for uuid, day in zip(uuids.values(), (1, 2, 3), strict=True):
            db.execute(
                sa.update(models.Command)
                .values(created_at=datetime.datetime(2026, 3, day))
                .where(models.Command.uuid == uuid)
            )
    query = '?all_projects=true&since=2026-03-02T00:00:00Z'
    assert listed(cloud.admin_get(PATH + query)) == [
        uuids['admin'],
        uuids['other'],
    ]


@pytest.mark.parametrize(
    'query',
    [
        'all_projects=true',
        'all_projects=false',
        'host=x',
        'project_id=' + base.OTHER_PROJECT,
    ],
)
def test_others_are_for_admins(cloud: base.Cloud, query: str) -> None:
    message = base.message_of(cloud.get(f'{PATH}?{query}'), 403, 'forbidden')
    assert query.split('=')[0] in message


@pytest.mark.parametrize(
    ('query', 'message'),
    [
        ('since=yesterday', 'since must match'),
        ('since=2026-13-01T00:00:00Z', 'since must be a time'),
        ('all_projects=yes', 'all_projects must be one of'),
        ('user_id=x', 'user_id is not known'),
        ('marker=' + 'a' * 36, 'marker must be a command of this list'),
    ],
)
def test_malformed(cloud: base.Cloud, query: str, message: str) -> None:
    response = cloud.admin_get(f'{PATH}?{query}')
    assert message in base.message_of(response, 400, 'badRequest')


def test_pages_follow_their_links(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    answer = cloud.admin_get(PATH + '?all_projects=true&limit=2').json()
    (link,) = answer['commands_links']
    url = link['href'].removeprefix(cloud.endpoint + '/v2.1')
    assert url.startswith(PATH + '?')
    assert listed(cloud.admin_get(url)) == [uuids['mine']]


def test_marker_of_another_project(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    response = cloud.get(f'{PATH}?marker={uuids["other"]}')
    base.message_of(response, 400, 'badRequest')


def test_reader_sees_no_arguments(
    cloud: base.Cloud, uuids: dict[str, str]
) -> None:
    for shown in cloud.get(PATH, roles='reader').json()['commands']:
        assert 'arguments' not in shown
    for shown in cloud.get(PATH).json()['commands']:
        assert shown['arguments'] == {'command': ['id']}


def test_policy(cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    base.message_of(cloud.get(PATH, roles='other'), 403, 'forbidden')
    monkeypatch.setattr(policies, 'authorize', lambda *args: None)
    # A careless policy shows nobody another project.
    response = cloud.get(PATH + '?all_projects=true', roles='other')
    base.message_of(response, 403, 'forbidden')
