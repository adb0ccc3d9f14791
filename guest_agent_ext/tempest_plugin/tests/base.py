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

"""A base class for the tests: a server whose guest agent answers."""

from typing import Any

from tempest import config
from tempest import test
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils
from tempest.lib.common.utils import test_utils

CONF = config.CONF

ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')


class GuestAgentTest(test.BaseTestCase):
    """Boots a server of the primary user's project for each class.

    :cvar server_id: uuid of the server
    """

    credentials = ['primary']
    server_id: str

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        if not CONF.service_available.guest_agent:
            raise cls.skipException('There is no guest agent extension')

    @classmethod
    def setup_credentials(cls) -> None:
        # No test needs a network.
        cls.set_network_resources()
        super().setup_credentials()

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        cls.servers = cls.os_primary.compute.ServersClient()
        cls.client = cls.os_primary.guest_agent.GuestAgentClient()

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.server_id = cls.boot()

    @classmethod
    def boot(cls) -> str:
        """Boot a server, which is deleted after the class; return its uuid."""
        server_id = cls.ask_for_server()
        cls.wait_for_agent(server_id)
        return server_id

    @classmethod
    def ask_for_server(cls) -> str:
        """Have a server built without waiting for it; return its uuid."""
        server = cls.servers.create_server(
            name=data_utils.rand_name(cls.__name__),
            imageRef=CONF.guest_agent.image_ref or CONF.compute.image_ref,
            flavorRef=CONF.compute.flavor_ref,
        )['server']
        cls.addClassResourceCleanup(cls.remove, server['id'])
        return str(server['id'])

    @classmethod
    def remove(cls, server_id: str) -> None:
        """Delete a server, and wait for its end."""
        ignored = test_utils.call_and_ignore_notfound_exc
        ignored(cls.servers.delete_server, server_id)
        cls._until(
            lambda: cls._status(server_id) is None, 'the server is deleted'
        )

    @classmethod
    def wait_for_server(cls, server_id: str, status: str) -> None:
        """Wait until a server has a status."""
        cls._until(
            lambda: cls._status(server_id) == status, f'the server is {status}'
        )

    @classmethod
    def wait_for_agent(cls, server_id: str) -> None:
        """Wait until a server's agent answers."""
        cls.wait_for_server(server_id, 'ACTIVE')
        cls._until(
            lambda: (
                cls.client.show_agent(server_id)['guest_agent']['status']
                == 'available'
            ),
            'the agent answers',
        )

    @classmethod
    def _status(cls, server_id: str) -> str | None:
        try:
            server = cls.servers.show_server(server_id)['server']
        except exceptions.NotFound:
            return None
        if server['status'] == 'ERROR':
            raise exceptions.TempestException(
                'Server %s: %s' % (server_id, server.get('fault'))
            )
        return str(server['status'])

    @classmethod
    def _until(cls, condition: Any, what: str) -> None:
        if not test_utils.call_until_true(
            condition, CONF.guest_agent.boot_timeout, 1
        ):
            raise exceptions.TimeoutException(
                'Not within boot_timeout: %s' % what
            )

    def wait_for_command(
        self, command_id: str, *statuses: str, server_id: str | None = None
    ) -> dict[str, Any]:
        """Wait until a command has one of several statuses.

        :param statuses: statuses to wait for; by default those of an end
        """
        shown: dict[str, Any] = {}

        def is_so() -> bool:
            shown.update(
                self.client.show_command(
                    server_id or self.server_id, command_id
                )['command']
            )
            return shown['status'] in (statuses or ENDED)

        if not test_utils.call_until_true(
            is_so, CONF.guest_agent.command_timeout, 0.5
        ):
            self.fail(
                'Command %s is %s, not %s'
                % (command_id, shown['status'], statuses or 'ended')
            )
        return shown

    def run_command(self, *command: str, **arguments: Any) -> dict[str, Any]:
        """Run a command to its end."""
        made = self.client.create_command(
            self.server_id, list(command), **arguments
        )['command']
        return self.wait_for_command(made['uuid'])

    def start_sleeping(self) -> str:
        """Start a command that does not end by itself; return its id."""
        made = self.client.create_command(self.server_id, ['sleep', '600'])[
            'command'
        ]
        self.wait_for_command(made['uuid'], 'RUNNING')
        return str(made['uuid'])
