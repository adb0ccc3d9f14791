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

from tempest import config
from tempest.lib import decorators
from tempest.lib import exceptions

from guest_agent_ext.tempest_plugin.tests import base

CONF = config.CONF


class ServerLifecycleTest(base.GuestAgentTest):
    """A server's commands while Nova does something to the server."""

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('3f0d4a1e-8c39-4f5d-b0b7-70b1f2d6c801')
    def test_reboot_with_a_command_running(self) -> None:
        running = self.start_sleeping()
        self.servers.reboot_server(self.server_id, type='HARD')
        # Only the next boot tells that it is another one.
        self.wait_for_agent(self.server_id)
        ended = self.wait_for_command(running)
        self.assertEqual('LOST', ended['status'])
        self.assertIsNotNone(ended['error'])
        self.assertEqual(0, self.run_command('true')['result']['exitcode'])

    @decorators.idempotent_id('3f0d4a1e-8c39-4f5d-b0b7-70b1f2d6c805')
    def test_command_before_the_server_is_built(self) -> None:
        server_id = self.ask_for_server()
        made = self.client.create_command(
            server_id, ['true'], start_timeout=CONF.guest_agent.boot_timeout
        )['command']
        self.wait_for_agent(server_id)
        ended = self.wait_for_command(made['uuid'], server_id=server_id)
        self.assertEqual('COMPLETED', ended['status'])

    @decorators.idempotent_id('3f0d4a1e-8c39-4f5d-b0b7-70b1f2d6c802')
    def test_stop_and_start(self) -> None:
        self.servers.stop_server(self.server_id)
        self.wait_for_server(self.server_id, 'SHUTOFF')
        self.assertRaises(
            exceptions.Conflict,
            self.client.create_command,
            self.server_id,
            ['true'],
        )
        agent = self.client.show_agent(self.server_id)['guest_agent']
        self.assertEqual('unavailable', agent['status'])
        self.servers.start_server(self.server_id)
        self.wait_for_agent(self.server_id)
        self.assertEqual(0, self.run_command('true')['result']['exitcode'])

    @decorators.idempotent_id('3f0d4a1e-8c39-4f5d-b0b7-70b1f2d6c803')
    def test_pause_with_a_command_running(self) -> None:
        made = self.client.create_command(
            self.server_id,
            [
                'sh',
                '-c',
                'while [ ! -e /tmp/woken ]; do sleep 1; done; echo woken',
            ],
        )['command']
        self.wait_for_command(made['uuid'], 'RUNNING')
        self.servers.pause_server(self.server_id)
        self.wait_for_server(self.server_id, 'PAUSED')
        self.assertRaises(
            exceptions.Conflict,
            self.client.create_command,
            self.server_id,
            ['true'],
        )
        self.servers.unpause_server(self.server_id)
        self.wait_for_agent(self.server_id)
        self.run_command('touch', '/tmp/woken')
        ended = self.wait_for_command(made['uuid'])
        self.assertEqual('COMPLETED', ended['status'])
        self.assertEqual('woken\n', ended['result']['out_data'])

    @decorators.idempotent_id('3f0d4a1e-8c39-4f5d-b0b7-70b1f2d6c804')
    def test_delete_with_a_command_running(self) -> None:
        server_id = self.boot()
        made = self.client.create_command(server_id, ['sleep', '600'])[
            'command'
        ]
        self.wait_for_command(made['uuid'], 'RUNNING', server_id=server_id)
        self.remove(server_id)
        ended = self.wait_for_command(made['uuid'], server_id=server_id)
        self.assertEqual('LOST', ended['status'])
        self.assertIn('deleted', ended['error'])
        self.assertRaises(
            exceptions.NotFound,
            self.client.create_command,
            server_id,
            ['true'],
        )
