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

"""Which requests the filter answers, and which it passes on."""

from unittest import mock

import pytest

from guest_agent_ext.api import filter as api_filter
from guest_agent_ext.api import routes

SERVER = '8f2b0c7e-4d0b-4a57-9a4f-0a4f6f6f3a11'
PATH = f'/servers/{SERVER}/guest-agent/commands'


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Stands in for every controller."""
    resource = mock.Mock(return_value=[b'ours'])
    mapper = routes.mapper()
    match = mapper.match

    def replaced(path: str, environ: dict[str, str]) -> object:
        found = match(path, environ)
        return found and {**found, 'controller': resource}

    monkeypatch.setattr(mapper, 'match', replaced)
    monkeypatch.setattr(routes, 'mapper', lambda: mapper)
    return resource


def ask(method: str, path: str) -> tuple[dict[str, object], list[bytes]]:
    environ = {'REQUEST_METHOD': method, 'PATH_INFO': path}
    answer = api_filter.GuestAgentFilter(lambda *_: [b'novas'])(
        environ, mock.Mock()
    )
    return dict(environ), list(answer)


@pytest.mark.parametrize('prefix', ['', '/' + 'a' * 32])
def test_call_of_ours_is_answered_with_its_match(
    resource: mock.Mock, prefix: str
) -> None:
    environ, answer = ask('POST', prefix + PATH)
    assert answer == [b'ours']
    routing = environ['wsgiorg.routing_args']
    assert isinstance(routing, tuple)
    assert routing[1]['server_id'] == SERVER
    assert routing[1]['action'] == 'create'


@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('GET', f'/servers/{SERVER}'),
        ('GET', f'/servers/{SERVER}/guest-agents'),
        # Nova answers a method that no route has, with 404.
        ('PUT', PATH),
    ],
)
def test_other_calls_are_passed_on_unchanged(
    resource: mock.Mock, method: str, path: str
) -> None:
    environ, answer = ask(method, path)
    assert answer == [b'novas']
    assert environ == {'REQUEST_METHOD': method, 'PATH_INFO': path}
    resource.assert_not_called()
