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


"""What the commands of the client share."""

from typing import Any

from osc_lib.command import command


class ComputeCommand(command.Command):
    """A command that asks the compute service."""

    def compute(self) -> Any:
        """Return the SDK's proxy of it."""
        return self.app.client_manager.sdk_connection.compute


class ServerCommand(ComputeCommand):
    """A command about a server, which is its first argument."""

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'server', metavar='<server>', help='Server (name or ID)'
        )
        return parser

    def server_id(self, parsed_args: Any) -> str:
        """Return the ID of the server.

        :raises openstack.exceptions.NotFoundException: there is none
        """
        found = self.compute().find_server(
            parsed_args.server, ignore_missing=False
        )
        return str(found.id)


def path_of(server_id: str, call: str) -> str:
    """Return the path of a call about a server."""
    return f'/servers/{server_id}/guest-agent/{call}'
