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

"""guest-agent-api: our calls through a paste pipeline of their own."""

from collections.abc import Callable
import json
import pathlib
from typing import Any

from paste import deploy
import pytest
import webob

from guest_agent_ext.api import routes
from tests.functional.api import base

PIPELINE = (
    pathlib.Path(__file__).parents[3]
    / 'etc/guest_agent_ext/guest-agent-api-paste.ini'
)
MEMBER = {
    'X-Auth-User': 'fake',
    'X-Auth-Project-Id': base.PROJECT,
    'X-Roles': 'reader,member',
}

Send = Callable[..., Any]


@pytest.fixture(scope='module')
def application(shared_cloud: base.Cloud) -> Any:
    """The application of the published file, on the module's Nova."""
    return deploy.loadapp(f'config:{PIPELINE}', name='guest_agent_api')


@pytest.fixture
def send(application: Any) -> Send:
    """Sends a request of a member, or of another caller."""

    def to(
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Any:
        request = webob.Request.blank(
            path,
            method=method,
            headers=MEMBER if headers is None else headers,
            body=b'' if body is None else json.dumps(body).encode(),
            content_type='application/json',
            **more,
        )
        return request.get_response(application)

    return to


@pytest.mark.parametrize(
    'prefix', ['/v2.1', '/v2', f'/v2.1/{base.PROJECT}', f'/v2/{base.PROJECT}']
)
def test_calls_are_those_of_nova_s_endpoint(
    cloud: base.Cloud, send: Send, prefix: str
) -> None:
    # A prefix that is not mapped, or a pipeline without Nova's context.
    created = send(
        'POST', prefix + cloud.path, base.body_of({'command': ['id']})
    )
    assert created.status_int == 200, created.text
    uuid = created.json['command']['uuid']
    shown = send('GET', f'{prefix}{cloud.path}/{uuid}')
    assert shown.json == cloud.get(f'{cloud.path}/{uuid}').json()
    assert cloud.rung == [(cloud.cell.uuid, base.HOST)]


def test_every_route_is_there(cloud: base.Cloud, send: Send) -> None:
    # A route that only nova-api's filter has: what a member may not or what
    # is not complete is refused by the call itself, never as "has no".
    for route in routes.ROUTES:
        path = route.path.replace('{server_id}', cloud.instance.uuid)
        path = path.replace('{command_id}', cloud.instance.uuid)
        answer = send(route.method, '/v2.1' + path.replace('{host}', 'host'))
        assert answer.status_int < 500, (route, answer.text)
        assert 'guest-agent-api has no' not in answer.text, route


@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('GET', '/'),
        ('GET', '/v2.1'),
        ('GET', '/v2.1/'),
        ('GET', '/v3/servers'),
        ('GET', '/v2.1/servers/detail'),
        ('POST', '/v2.1/servers'),
        ('GET', '/v2/flavors'),
        ('PUT', '/v2.1/guest-agent/commands'),
        ('GET', '/v2.1/%ff%0a'),
    ],
)
def test_everything_else_is_nova_s_404(
    cloud: base.Cloud, send: Send, method: str, path: str
) -> None:
    # Nova's own router and paste's map of URLs answer 404 with HTML.
    answer = send(method, path)
    fault = answer.json['itemNotFound']
    assert (answer.status_int, fault['code']) == (404, 404)
    assert fault['message'].startswith(f'guest-agent-api has no {method} /')
    assert answer.headers['x-compute-request-id'].startswith('req-')


def test_long_path_is_cut(cloud: base.Cloud, send: Send) -> None:
    # A message that repeats whatever length a client sends.
    answer = send('GET', '/v2.1/' + 'x' * 10000)
    assert len(answer.json['itemNotFound']['message']) < 400


def test_sizes_are_limited_as_in_nova_s_pipeline(
    cloud: base.Cloud, send: Send
) -> None:
    # oslo's limiter in place of ours, which refuses large commands; or none.
    large = {'command': ['cat'], 'input_data': 'x' * 500_000}
    path = '/v2.1' + cloud.path
    assert send('POST', path, base.body_of(large)).status_int == 200
    too_large = send(
        'POST', f'{path}/{cloud.instance.uuid}/action', 'x' * 65_536
    )
    assert too_large.status_int == 413
    assert 'at most 65536 bytes' in too_large.json['overLimit']['message']


def test_other_project_s_server_is_hidden(
    cloud: base.Cloud, send: Send
) -> None:
    # A pipeline whose context is not of the caller.
    stranger = {**MEMBER, 'X-Auth-Project-Id': base.OTHER_PROJECT}
    answer = send('GET', '/v2.1' + cloud.path, headers=stranger)
    assert answer.status_int == 404
    assert 'could not be found' in answer.json['itemNotFound']['message']
