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

"""What the table of routes must be like."""

from typing import Any

import pytest

from guest_agent_ext.api import routes
from guest_agent_ext.api import sizelimit

MATCHES = routes.mapper().matchlist
#: Routes that answer bytes.
RAW = [
    prefix + '/servers/{server_id}/guest-agent/' + path
    for prefix in ('', '/{project_id:[0-9a-f-]+}')
    for path in ('commands/{command_id}/output', 'file-read', 'file-write')
] + ['/guest-agent/metrics', '/{project_id:[0-9a-f-]+}/guest-agent/metrics']

#: The end of the path of a route that takes bytes, and answers JSON.
TAKES_BYTES = '/input'


@pytest.mark.parametrize('route', MATCHES, ids=lambda route: route.routepath)
def test_every_method_has_its_schemas(route: Any) -> None:
    controller = route.defaults['controller'].controller
    method = getattr(controller, route.defaults['action'])
    wanted = ['request_query_schemas']
    if route.routepath not in RAW:
        wanted.append('response_body_schemas')
    takes_json = (
        route.conditions['method'] == ['POST']
        and route.routepath not in RAW
        and not route.routepath.endswith(TAKES_BYTES)
    )
    if takes_json:
        wanted.append('request_body_schemas')
    for attribute in wanted:
        assert len(getattr(method, attribute)._schemas) == 1


@pytest.mark.parametrize('route', routes.ROUTES, ids=str)
def test_every_route_is_there_with_and_without_project(
    route: routes.Route,
) -> None:
    paths = [
        match.routepath
        for match in MATCHES
        if match.conditions['method'] == [route.method]
    ]
    assert route.path in paths
    assert '/{project_id:[0-9a-f-]+}' + route.path in paths


def test_larger_bodies_are_for_routes_of_ours() -> None:
    for method, path in sizelimit.LIMITS:
        assert any(
            path.fullmatch(route.path) and route.method == method
            for route in routes.ROUTES
        )


@pytest.mark.parametrize('prefix', ['', '/0a1b2c'])
def test_lengths_are_checked_on_every_route(prefix: str) -> None:
    for route in routes.ROUTES:
        assert sizelimit._OURS.fullmatch(prefix + route.path)
