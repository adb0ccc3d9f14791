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

from typing import Any

from tempest.lib import decorators
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils

from guest_agent_ext.tempest_plugin.tests import base


class CommandsNegativeTest(base.GuestAgentTest):
    """Requests that are refused leave no command behind."""

    def _refused(self, body: Any) -> None:
        before = self.client.list_commands(self.server_id)['commands']
        self.assertRaises(
            exceptions.BadRequest, self.client.create_raw, self.server_id, body
        )
        self.assertEqual(
            before, self.client.list_commands(self.server_id)['commands']
        )

    def _refused_arguments(self, **arguments: Any) -> None:
        self._refused({'command': {'type': 'exec', 'arguments': arguments}})

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a01')
    def test_bodies(self) -> None:
        bodies: list[Any] = [
            {},
            [],
            {'command': None},
            {'command': {}},
            {'command': {'type': 'exec'}},
        ]
        for body in bodies:
            self._refused(body)

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a02')
    def test_types(self) -> None:
        for kind in ('shell', 'file-read', None):
            self._refused(
                {'command': {'type': kind, 'arguments': {'command': ['true']}}}
            )

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a03')
    def test_commands(self) -> None:
        for command in ('true', [], [''], ['a\0b'], [1], ['x'] * 1025):
            self._refused_arguments(command=command)

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a04')
    def test_arguments(self) -> None:
        for wrong in (
            {'timeout': 0},
            {'timeout': 86401},
            {'unknown': 1},
            {'env': {'1A': 'x'}},
            {'output_keep': 'middle'},
            {'input_data': '?', 'input_encoding': 'base64'},
            {'input_data': 'x' * (1024 * 1024 + 1)},
        ):
            self._refused_arguments(command=['true'], **wrong)

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a05')
    def test_no_such_server_or_command(self) -> None:
        nowhere = data_utils.rand_uuid()
        self.assertRaises(
            exceptions.NotFound, self.client.create_command, nowhere, ['true']
        )
        self.assertRaises(exceptions.NotFound, self.client.show_agent, nowhere)
        self.assertRaises(
            exceptions.NotFound,
            self.client.show_command,
            self.server_id,
            nowhere,
        )
        self.assertRaises(
            exceptions.NotFound,
            self.client.cancel_command,
            self.server_id,
            nowhere,
        )

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a06')
    def test_cancel_of_what_has_ended(self) -> None:
        ended = self.run_command('true')
        self.assertRaises(
            exceptions.Conflict,
            self.client.cancel_command,
            self.server_id,
            ended['uuid'],
        )

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a07')
    def test_delete_of_what_runs(self) -> None:
        command_id = self.start_sleeping()
        self.assertRaises(
            exceptions.Conflict,
            self.client.delete_command,
            self.server_id,
            command_id,
        )
        self.client.cancel_command(self.server_id, command_id)
        self.wait_for_command(command_id, 'CANCELLED')

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b8f9a10-6a64-4d59-9c5b-2c3d9d0a7a08')
    def test_queries(self) -> None:
        for query in (
            {'limit': -1},
            {'status': 'DONE'},
            {'unknown': '1'},
            {'marker': data_utils.rand_uuid()},
        ):
            self.assertRaises(
                exceptions.BadRequest,
                self.client.list_commands,
                self.server_id,
                **query,
            )
