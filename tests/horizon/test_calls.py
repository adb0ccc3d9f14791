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

"""The calls of the script and of the API, with Horizon's own helpers."""

import io
import json
import logging
import pathlib
import tempfile
from typing import Any
from unittest import mock

from django import urls
from django.conf import settings
from django.test import override_settings
from openstack_auth import policy
from openstack_auth import utils as auth_utils
from openstack_dashboard.test import helpers
import requests

from guest_agent_ext.dashboard import apps
from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import rights
from guest_agent_ext.dashboard import slots

SERVER = '11111111-2222-3333-4444-555555555555'
COMMAND = '66666666-7777-8888-9999-000000000000'


def answer(
    status: int, body: bytes = b'{}', **headers: str
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = body
    response.raw = io.BytesIO(body)
    response.headers.update(headers)
    return response


class ApiTest(helpers.TestCase):
    """The API is what a test says that ``requests`` is answered."""

    def setUp(self) -> None:
        super().setUp()
        client._session.cache_clear()
        patcher = mock.patch.object(requests.Session, 'request', autospec=True)
        self.api = patcher.start()
        self.addCleanup(patcher.stop)
        self.addCleanup(client._session.cache_clear)

    def url(self, name: str, *ids: str) -> str:
        return str(
            urls.reverse(f'horizon:project:guest_commands:{name}', args=ids)
        )

    def post(self, name: str, body: Any, *ids: str) -> Any:
        return self.client.post(
            self.url(name, *ids),
            json.dumps(body),
            content_type='application/json',
            HTTP_X_REQUESTED_WITH='XMLHttpRequest',
        )


class CallsTest(ApiTest):
    def test_the_token_and_the_endpoint_are_the_user_s(self) -> None:
        self.api.return_value = answer(
            200, b'{"guest_agent": {"reason": null}}'
        )
        assert self.client.get(self.url('server', SERVER)).status_code == 200
        _, method, url = self.api.call_args.args
        assert (method, url) == (
            'GET',
            f'http://public.nova.example.com:8774/v2/servers/{SERVER}'
            '/guest-agent',
        )
        headers = self.api.call_args.kwargs['headers']
        assert headers['X-Auth-Token'] == self.token.id

    def test_a_key_has_a_command_run_once(self) -> None:
        self.api.return_value = answer(
            200,
            json.dumps(
                {
                    'command': {
                        'uuid': COMMAND,
                        'instance_uuid': SERVER,
                        'type': 'exec',
                        'status': 'PENDING',
                    }
                }
            ).encode(),
        )
        body = {'arguments': {'command': ['true']}, 'key': 'k'}
        shown = self.post('commands', body, SERVER)
        assert shown.status_code == 200, shown.content
        assert shown.json()['url'].endswith(f'/{SERVER}/{COMMAND}/')
        sent = self.api.call_args.kwargs
        assert sent['headers']['Idempotency-Key'] == 'k'
        assert json.loads(sent['data']) == {
            'command': {'type': 'exec', 'arguments': {'command': ['true']}}
        }
        self.post('commands', {**body, 'type': 'fstrim'}, SERVER)
        sent = json.loads(self.api.call_args.kwargs['data'])
        assert sent['command']['type'] == 'fstrim'

    def test_refusals_are_handed_on(self) -> None:
        for status in (400, 403, 404, 409, 413, 429, 503):
            self.api.return_value = answer(
                status,
                b'{"x": {"code": 1, "message": "Why {$ not $}"}}',
                **{'Retry-After': '7'},
            )
            shown = self.post('commands', {'arguments': {}}, SERVER)
            assert shown.status_code == status
            assert shown.json() == {'message': 'Why {$ not $}'}
            assert shown['Retry-After'] == '7'

    def test_what_is_not_nova_s(self) -> None:
        """A proxy that is in between, and answers HTML."""
        for body in (b'<html>', b'[]', b'{"x": 1}', b'{}', b'{"a":1,"b":2}'):
            self.api.return_value = answer(504, body)
            shown = self.client.get(self.url('server', SERVER))
            assert shown.status_code == 504
            assert '504' in shown.json()['message']

    def test_an_api_that_is_not_there(self) -> None:
        self.api.side_effect = requests.ConnectionError('http://secret')
        shown = self.client.get(self.url('server', SERVER))
        assert shown.status_code == 502
        assert 'secret' not in shown.json()['message']

    def test_redirects_are_no_answers(self) -> None:
        """They would take the token to wherever they say."""
        self.api.return_value = answer(302, b'', Location='http://evil/')
        shown = self.client.get(self.url('server', SERVER))
        assert shown.status_code == 302
        assert 'Location' not in shown.headers
        assert self.api.call_count == 1

    def test_bodies_that_are_no_object(self) -> None:
        for body in ([], 'x', None, {'arguments': 'x'}, {}):
            shown = self.post('commands', body, SERVER)
            assert shown.status_code == 400, body
        shown = self.client.post(
            self.url('commands', SERVER), b'\xff', content_type='text/plain'
        )
        assert shown.status_code == 400
        assert not self.api.called

    def test_other_methods(self) -> None:
        shown = self.client.put(self.url('commands', SERVER))
        assert shown.status_code == 405
        assert shown.json()['message']

    def test_nothing_is_logged(self) -> None:
        self.api.return_value = answer(400, b'{"x": {"message": "sesame"}}')
        with self.assertLogs(level=logging.DEBUG) as logs:
            logging.getLogger().debug('one line at least')
            self.post(
                'commands', {'arguments': {'env': {'A': 'sesame'}}}, SERVER
            )
            self.client.get(self.url('command', SERVER, COMMAND) + '?out=0')
        assert 'sesame' not in ' '.join(logs.output)


class TransfersTest(ApiTest):
    def upload(self, **headers: Any) -> Any:
        return self.client.post(
            self.url('file', SERVER) + '?path=/x&mode=0600&other=1',
            b'content',
            content_type='application/octet-stream',
            **headers,
        )

    def test_a_body_goes_on_with_its_length(self) -> None:
        read = []

        def take(
            session: Any, method: str, url: str, **kwargs: Any
        ) -> requests.Response:
            read.append((url, kwargs['data'].read(100), kwargs))
            return answer(204, b'')

        self.api.side_effect = take
        assert self.upload().status_code == 200
        ((url, data, sent),) = read
        assert url.endswith('/guest-agent/file-write')
        assert sent['params'] == {'path': '/x', 'mode': '0600'}
        assert data == b'content'
        assert sent['headers']['Content-Length'] == '7'

    def test_slots_come_back(self) -> None:
        self.api.return_value = answer(409, b'{"x": {"message": "full"}}')
        for _ in range(slots.transfers.number * 2):
            assert self.upload().status_code == 409
        self.api.return_value = answer(200, b'y')
        for _ in range(slots.transfers.number * 2):
            shown = self.client.get(self.url('file', SERVER) + '?path=/x')
            # As a server does when all was sent, or nobody reads on.
            shown.close()
            assert shown.status_code == 200

    def test_no_slot_is_free(self) -> None:
        taken = [slots.transfers.take() for _ in range(slots.transfers.number)]
        shown = self.upload()
        assert (shown.status_code, shown['Retry-After']) == (429, '5')
        for give_back in taken:
            assert give_back is not None
            give_back()
            give_back()
        assert slots.transfers._taken == 0

    def test_a_file_cannot_be_a_page(self) -> None:
        self.api.return_value = answer(
            200, b'<script>', **{'Content-Length': '8'}
        )
        shown = self.client.get(self.url('file', SERVER) + '?path=/x.html')
        assert b''.join(shown.streaming_content) == b'<script>'
        assert shown['Content-Type'] == 'application/octet-stream'
        assert shown['X-Content-Type-Options'] == 'nosniff'
        assert shown['Content-Disposition'].startswith('attachment')
        assert shown['Content-Length'] == '8'
        shown.close()


class RightsTest(helpers.TestCase):
    def setUp(self) -> None:
        super().setUp()
        # Horizon's settings for tests allow everything.
        patcher = override_settings(POLICY_CHECK_FUNCTION=policy.check)
        patcher.enable()
        self.addCleanup(patcher.disable)

    def of(self, *roles: str) -> rights.Rights:
        self.setActiveUser(
            id=self.user.id,
            token=self.token,
            username=self.user.name,
            tenant_id=self.tenant.id,
            service_catalog=self.service_catalog,
            roles=[{'name': role} for role in roles],
        )
        self.request.user = auth_utils.get_user(self.request)
        return rights.of(self.request, self.tenant.id)

    def test_a_member(self) -> None:
        can = self.of('member', 'reader')
        assert can.run and can.open_terminal and can.write_file
        assert can.list_all and not can.list_hosts
        assert can.set_password and can.set_keys
        assert can.start_run and can.list_runs and can.cancel_run

    def test_a_reader(self) -> None:
        can = self.of('reader')
        assert can.list and can.show and can.show_details
        for name in ('run', 'read_output', 'cancel', 'delete', 'read_file'):
            assert not getattr(can, name), name
        assert not can.open_terminal and can.any_of_server
        for name in (
            'set_password',
            'start_run',
            'list_runs',
            'show_run',
            'delete_run',
        ):
            assert not getattr(can, name), name

    def test_somebody_with_another_role(self) -> None:
        assert not self.of('other').any_of_server

    def test_an_admin(self) -> None:
        can = self.of('admin')
        assert can.list_hosts and can.run

    def test_every_rule_is_known(self) -> None:
        """One that is not is nobody's, whatever the API allows."""
        known = policy._get_enforcer()[apps.POLICY_SCOPE].rules
        assert set(rights.RULES.values()) <= set(known)

    def test_an_operator_s_policy_file(self) -> None:
        """The documented line that requires a role holds here, too."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = pathlib.Path(directory.name, 'policy.yaml')
        path.write_text(
            '"os_compute_api:guest-agent:use": "(role:guest_exec and '
            'project_id:%(project_id)s) or rule:context_is_admin"\n'
        )
        policy.reset()
        self.addCleanup(policy.reset)
        with mock.patch.dict(
            settings.POLICY_FILES, {apps.POLICY_SCOPE: str(path)}
        ):
            assert not self.of('member', 'reader').run
            policy.reset()
            assert self.of('member', 'guest_exec').run
