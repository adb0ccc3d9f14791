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


"""The bases of the client's commands."""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
from typing import TypeAlias

from keystoneauth1 import adapter
from osc_lib.command import command

from guest_agent_ext.sdk import endpoints

#: Column titles, and the rows of a list or the values of one object.
Table: TypeAlias = tuple[Sequence[str], Iterable[Sequence[object]]]
Row: TypeAlias = tuple[Sequence[str], Sequence[object]]


class ComputeCommand(command.Command):
    """A command that sends requests about guests."""

    def compute(self) -> adapter.Adapter:
        """Return the adapter for the calls below ``guest-agent``.

        It is the SDK's proxy of the compute service, and sends to
        guest-agent-api where the cloud has that.
        """
        return endpoints.compute(self.app.client_manager.sdk_connection)


class ServerCommand(ComputeCommand):
    """A command whose first argument is a server."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'server', metavar='<server>', help='Server (name or ID)'
        )
        return parser

    def server_id(self, parsed_args: argparse.Namespace) -> str:
        """Return the ID of the server that the user named.

        :raises openstack.exceptions.NotFoundException: no server has the name
        """
        found = self.app.client_manager.sdk_connection.compute.find_server(
            parsed_args.server, ignore_missing=False, details=False
        )
        return str(found.id)


def path_of(server_id: str, call: str) -> str:
    """Return the path of an endpoint below a server.

    :param call: last part of the path
    """
    return f'/servers/{server_id}/guest-agent/{call}'
