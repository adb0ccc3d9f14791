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

"""What the agent of a server tells and does without a program of ours."""

from typing import Any

from tempest.lib import decorators
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils

from guest_agent_ext.tempest_plugin.tests import base

KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI tempest@example.org'


class AgentCallsTest(base.GuestAgentTest):
    """What a member asks of the agent of a server.

    Which calls it answers is up to the image; a test of one that it does not
    is skipped.
    """

    def _needs(self, kind: str) -> None:
        agent = self.client.show_agent(self.server_id)['guest_agent']
        if kind not in agent['command_types']:
            raise self.skipException(f'The image does not allow {kind}')

    def _run(self, kind: str, **arguments: Any) -> dict[str, Any]:
        self._needs(kind)
        made = self.client.create_agent_call(
            self.server_id, kind, **arguments
        )['command']
        return self.wait_for_command(made['uuid'])

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('b1c53c7e-5a0f-4e4a-9a43-2f6d1c7e8a01')
    def test_details(self) -> None:
        told = self.client.show_details(self.server_id)['guest_agent_details']
        missing = told.pop('unavailable')
        self.assertNotEmpty(told)
        # Each part is there, or the reason that it is not.
        self.assertEqual(set(), told.keys() & missing.keys())
        some = self.client.show_details(
            self.server_id, fields='host_name,vcpus'
        )['guest_agent_details']
        self.assertEqual(
            {'host_name', 'vcpus'},
            (some.keys() | some['unavailable'].keys()) - {'unavailable'},
        )

    @decorators.idempotent_id('b1c53c7e-5a0f-4e4a-9a43-2f6d1c7e8a02')
    def test_password_is_not_shown(self) -> None:
        password = data_utils.rand_password(20)
        ended = self._run('set-password', user='root', password=password)
        self.assertIn(ended['status'], ('COMPLETED', 'FAILED'))
        self.assertIsNone(ended['result'])
        self.assertEqual({'user': 'root'}, ended['arguments'])
        self.assertNotIn(password, str(ended))

    @decorators.idempotent_id('b1c53c7e-5a0f-4e4a-9a43-2f6d1c7e8a03')
    def test_user_who_is_not_there(self) -> None:
        ended = self._run(
            'ssh-keys-add', user=data_utils.rand_name('user'), keys=[KEY]
        )
        self.assertEqual('FAILED', ended['status'])
        self.assertTrue(ended['error'])

    @decorators.idempotent_id('b1c53c7e-5a0f-4e4a-9a43-2f6d1c7e8a04')
    def test_trim_ends(self) -> None:
        ended = self._run('fstrim')
        self.assertIn(ended['status'], ('COMPLETED', 'FAILED'))

    @decorators.attr(type='negative')
    @decorators.idempotent_id('b1c53c7e-5a0f-4e4a-9a43-2f6d1c7e8a05')
    def test_arguments_of_another_type(self) -> None:
        self.assertRaises(
            exceptions.BadRequest,
            self.client.create_agent_call,
            self.server_id,
            'fstrim',
            command=['id'],
        )
