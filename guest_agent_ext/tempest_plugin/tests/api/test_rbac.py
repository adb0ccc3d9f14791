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

from tempest.lib import decorators
from tempest.lib import exceptions

from guest_agent_ext.tempest_plugin.tests import base


class RolesTest(base.GuestAgentTest):
    """Who may do what, with the default policies."""

    credentials = ['primary', 'project_reader', 'project_alt_member', 'admin']

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        # The server is to be of the project that the reader is in.
        member = cls.os_primary
        cls.reader = cls.os_project_reader.guest_agent.GuestAgentClient()
        cls.other = cls.os_project_alt_member.guest_agent.GuestAgentClient()
        cls.admin = cls.os_admin.guest_agent.GuestAgentClient()
        cls.same_project = (
            member.credentials.project_id
            == cls.os_project_reader.credentials.project_id
        )

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        made = cls.client.create_command(cls.server_id, ['echo', 'secret'])
        cls.command_id = made['command']['uuid']
        cls._until(
            lambda: (
                cls.client.show_command(cls.server_id, cls.command_id)[
                    'command'
                ]['status']
                == 'COMPLETED'
            ),
            'the command has ended',
        )

    @decorators.idempotent_id('c2f6d7de-3d86-4f0e-8a3e-9f4c1a6b5d01')
    def test_reader_sees_metadata_only(self) -> None:
        if not self.same_project:
            raise self.skipException('The reader is in another project')
        shown = self.reader.show_command(self.server_id, self.command_id)[
            'command'
        ]
        self.assertEqual('COMPLETED', shown['status'])
        self.assertEqual(0, shown['result']['exitcode'])
        self.assertNotIn('arguments', shown)
        self.assertNotIn('out_data', shown['result'])
        listed = self.reader.list_commands(self.server_id)['commands']
        self.assertIn(self.command_id, [item['uuid'] for item in listed])

    @decorators.attr(type='negative')
    @decorators.idempotent_id('c2f6d7de-3d86-4f0e-8a3e-9f4c1a6b5d02')
    def test_reader_changes_nothing(self) -> None:
        if not self.same_project:
            raise self.skipException('The reader is in another project')
        for call, *arguments in (
            (self.reader.create_command, ['true']),
            (self.reader.cancel_command, self.command_id),
            (self.reader.delete_command, self.command_id),
            (self.reader.show_output, self.command_id),
            (self.reader.read_file, '/etc/passwd'),
            (self.reader.write_file, '/tmp/x', b'x'),
        ):
            self.assertRaises(
                exceptions.Forbidden, call, self.server_id, *arguments
            )

    @decorators.attr(type='negative')
    @decorators.idempotent_id('c2f6d7de-3d86-4f0e-8a3e-9f4c1a6b5d03')
    def test_another_project_finds_nothing(self) -> None:
        for call, *arguments in (
            (self.other.create_command, ['true']),
            (self.other.list_commands,),
            (self.other.show_command, self.command_id),
            (self.other.cancel_command, self.command_id),
            (self.other.delete_command, self.command_id),
            (self.other.show_output, self.command_id),
            (self.other.show_agent,),
            (self.other.read_file, '/etc/passwd'),
            (self.other.write_file, '/tmp/x', b'x'),
        ):
            self.assertRaises(
                exceptions.NotFound, call, self.server_id, *arguments
            )
        self.assertEqual([], self.other.list_project_commands()['commands'])

    @decorators.idempotent_id('c2f6d7de-3d86-4f0e-8a3e-9f4c1a6b5d04')
    def test_admin_sees_hosts_and_all_projects(self) -> None:
        shown = self.admin.show_command(self.server_id, self.command_id)[
            'command'
        ]
        hosts = {
            host['host']: host['state']
            for host in self.admin.list_hosts()['hosts']
        }
        self.assertEqual('up', hosts[shown['host']])
        found = self.admin.list_project_commands(
            all_projects='true', host=shown['host']
        )['commands']
        self.assertIn(self.command_id, [item['uuid'] for item in found])

    @decorators.attr(type='negative')
    @decorators.idempotent_id('c2f6d7de-3d86-4f0e-8a3e-9f4c1a6b5d06')
    def test_admin_removes_no_host_that_is_up_or_unknown(self) -> None:
        shown = self.admin.show_command(self.server_id, self.command_id)[
            'command'
        ]
        self.assertRaises(
            exceptions.Conflict, self.admin.delete_host, shown['host']
        )
        self.assertRaises(
            exceptions.NotFound, self.admin.delete_host, 'no-such-host'
        )

    @decorators.attr(type='negative')
    @decorators.idempotent_id('c2f6d7de-3d86-4f0e-8a3e-9f4c1a6b5d05')
    def test_others_do_not(self) -> None:
        self.assertRaises(exceptions.Forbidden, self.client.list_hosts)
        self.assertRaises(
            exceptions.Forbidden, self.client.delete_host, 'no-such-host'
        )
        self.assertRaises(
            exceptions.Forbidden,
            self.client.list_project_commands,
            all_projects='true',
        )
        shown = self.client.show_command(self.server_id, self.command_id)[
            'command'
        ]
        self.assertNotIn('host', shown)
