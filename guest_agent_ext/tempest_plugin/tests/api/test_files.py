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

import os

from tempest import config
from tempest.lib import decorators
from tempest.lib import exceptions

from guest_agent_ext.tempest_plugin.tests import base

CONF = config.CONF


class FilesTest(base.GuestAgentTest):
    """Files of a server, and what is none."""

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        if not CONF.guest_agent.files:
            raise cls.skipException('The image does not let files through')

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('9d1c7d52-0f0e-4f6c-a9a9-3b7d0e5f1b01')
    def test_write_and_read(self) -> None:
        content = os.urandom(1024 * 1024 + 1)
        headers, _ = self.client.write_file(
            self.server_id, '/tmp/a file', content, mode='0640'
        )
        written = self.client.show_command(
            self.server_id, headers['x-guest-agent-command-uuid']
        )['command']
        self.assertEqual(
            ('file-write', 'COMPLETED'), (written['type'], written['status'])
        )
        _, read = self.client.read_file(self.server_id, '/tmp/a file')
        self.assertEqual(content, read)
        listed = self.run_command('ls', '-l', '/tmp/a file')
        self.assertTrue(listed['result']['out_data'].startswith('-rw-r-----'))

    @decorators.idempotent_id('9d1c7d52-0f0e-4f6c-a9a9-3b7d0e5f1b02')
    def test_append_and_range(self) -> None:
        for part in (b'one ', b'two'):
            self.client.write_file(
                self.server_id, '/tmp/appended', part, append='true'
            )
        headers, read = self.client.read_file(
            self.server_id, '/tmp/appended', {'Range': 'bytes=2-5'}
        )
        self.assertEqual(b'e tw', read)
        self.assertEqual('bytes 2-5/7', headers['content-range'])

    @decorators.attr(type='negative')
    @decorators.idempotent_id('9d1c7d52-0f0e-4f6c-a9a9-3b7d0e5f1b03')
    def test_what_is_no_file(self) -> None:
        for path in ('relative', '/tmp', '/dev/null', ''):
            self.assertRaises(
                exceptions.BadRequest,
                self.client.read_file,
                self.server_id,
                path,
            )
            self.assertRaises(
                exceptions.BadRequest,
                self.client.write_file,
                self.server_id,
                path,
                b'x',
            )
        self.assertRaises(
            exceptions.NotFound,
            self.client.read_file,
            self.server_id,
            '/no/such/file',
        )
        self.assertRaises(
            exceptions.Conflict,
            self.client.write_file,
            self.server_id,
            '/no/such/file',
            b'x',
        )
