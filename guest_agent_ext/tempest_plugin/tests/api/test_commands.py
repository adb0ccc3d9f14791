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

import base64

from tempest.lib import decorators
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils

from guest_agent_ext.tempest_plugin.tests import base


class CommandsTest(base.GuestAgentTest):
    """What a member does with the commands of a server."""

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c01')
    def test_run(self) -> None:
        ended = self.run_command('sh', '-c', 'echo out; echo err >&2; exit 3')
        self.assertEqual('COMPLETED', ended['status'])
        self.assertEqual('exec', ended['type'])
        self.assertEqual(self.server_id, ended['instance_uuid'])
        self.assertIsNone(ended['error'])
        result = ended['result']
        self.assertEqual(3, result['exitcode'])
        self.assertEqual(
            ('out\n', 'err\n'), (result['out_data'], result['err_data'])
        )
        self.assertEqual(
            (False, False), (result['out_truncated'], result['err_truncated'])
        )

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c02')
    def test_input_environment_and_directory(self) -> None:
        data = bytes(range(256))
        ended = self.run_command(
            'sh',
            '-c',
            'cat; printf %s "$NAME" >&2; pwd >&2',
            cwd='/tmp',
            env={'NAME': 'a "b" $c '},
            input_data=base64.b64encode(data).decode(),
            input_encoding='base64',
        )
        result = ended['result']
        self.assertEqual('base64', result['out_encoding'])
        self.assertEqual(data, base64.b64decode(result['out_data']))
        self.assertEqual('a "b" $c /tmp\n', result['err_data'])

    @decorators.idempotent_id('6c1f0b52-3f7e-4a0c-9d55-0e2b7a8c4d10')
    def test_input_that_is_a_program(self) -> None:
        data = b'x' * 300000
        ended = self.run_command('wc', '-c', input_data=data.decode())
        self.assertEqual(['300000'], ended['result']['out_data'].split())

    @decorators.idempotent_id('6c1f0b52-3f7e-4a0c-9d55-0e2b7a8c4d11')
    def test_user_of_the_guest(self) -> None:
        ended = self.run_command('sh', '-c', 'id -u; echo "$USER"', user='0')
        self.assertEqual('0\nroot\n', ended['result']['out_data'])
        ended = self.run_command('id', user='no-such-user-here')
        self.assertEqual('FAILED', ended['status'])

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c03')
    def test_what_cannot_be_run_has_failed(self) -> None:
        ended = self.run_command('/no/such/program')
        self.assertEqual('FAILED', ended['status'])
        self.assertIsNotNone(ended['error'])
        self.assertIsNone(ended['result'])

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c04')
    def test_timeout(self) -> None:
        ended = self.run_command('sh', '-c', 'echo kept; sleep 600', timeout=1)
        self.assertEqual('TIMED_OUT', ended['status'])
        self.assertEqual('kept\n', ended['result']['out_data'])

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c05')
    def test_cancel_and_delete(self) -> None:
        command_id = self.start_sleeping()
        self.client.cancel_command(self.server_id, command_id)
        ended = self.wait_for_command(command_id)
        self.assertEqual('CANCELLED', ended['status'])
        self.client.delete_command(self.server_id, command_id)
        self.assertRaises(
            exceptions.NotFound,
            self.client.show_command,
            self.server_id,
            command_id,
        )

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c06')
    def test_list(self) -> None:
        made = [self.run_command('true')['uuid'] for _ in range(3)]
        listed = self.client.list_commands(
            self.server_id, limit=2, status='COMPLETED', type='exec'
        )
        self.assertEqual(
            made[:0:-1], [item['uuid'] for item in listed['commands']]
        )
        self.assertEqual('next', listed['commands_links'][0]['rel'])
        rest = self.client.list_commands(
            self.server_id, marker=made[1], limit=1
        )
        self.assertEqual(
            [made[0]], [item['uuid'] for item in rest['commands']]
        )
        project = self.client.list_project_commands(limit=1)
        self.assertEqual(made[-1], project['commands'][0]['uuid'])

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c07')
    def test_prefer_wait(self) -> None:
        answer = self.client.create_command(
            self.server_id, ['echo', 'done'], headers={'Prefer': 'wait=30'}
        )
        self.assertEqual('COMPLETED', answer['command']['status'])
        self.assertEqual('done\n', answer['command']['result']['out_data'])
        self.assertIn('wait', answer.response['preference-applied'])

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c08')
    def test_idempotency_key(self) -> None:
        key = {'Idempotency-Key': data_utils.rand_uuid()}
        first, again = (
            self.client.create_command(self.server_id, ['true'], headers=key)[
                'command'
            ]['uuid']
            for _ in range(2)
        )
        self.assertEqual(first, again)
        self.assertRaises(
            exceptions.UnprocessableEntity,
            self.client.create_command,
            self.server_id,
            ['false'],
            headers=key,
        )

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c09')
    def test_output_while_it_runs(self) -> None:
        made = self.client.create_command(
            self.server_id, ['sh', '-c', 'echo early; sleep 600']
        )['command']
        self.wait_for_command(made['uuid'], 'RUNNING')
        self.addCleanup(
            self.client.cancel_command, self.server_id, made['uuid']
        )
        output = b''
        while not output:
            headers, output = self.client.show_output(
                self.server_id, made['uuid'], stream='out', offset=0
            )
        self.assertEqual(b'early\n', output)
        self.assertEqual('false', headers['openstack-guest-agent-complete'])

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c0a')
    def test_more_output_than_is_kept(self) -> None:
        ended = self.run_command(
            'sh',
            '-c',
            'head -c 1000000 /dev/zero; echo end',
            output_keep='tail',
        )
        result = ended['result']
        self.assertEqual(
            (0, 1000004, True),
            (result['exitcode'], result['out_bytes'], result['out_truncated']),
        )
        self.assertTrue(result['out_data'].endswith('end\n'))

    @decorators.idempotent_id('0d2ae3f4-25a1-4b3f-8d8c-6e1f6b9b4c0b')
    def test_agent(self) -> None:
        agent = self.client.show_agent(self.server_id)['guest_agent']
        self.assertEqual('available', agent['status'])
        self.assertIsNone(agent['reason'])
        self.assertIn('guest-exec', agent['supported_commands'])
