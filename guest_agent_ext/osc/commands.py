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


"""The commands of servers, and the agents that run them."""

import abc
from collections.abc import Iterable
from collections.abc import Sequence
import json
from typing import Any

from cliff import columns
from osc_lib.command import command

from guest_agent_ext.osc import base
from guest_agent_ext.osc import resources

_LISTED = ('id', 'type', 'status', 'created_at', 'finished_at', 'error')
_LONG = (*_LISTED[:-1], 'started_at', 'user_id', 'request_id', 'error')
_OF_PROJECT = ('id', 'instance_uuid', *_LISTED[1:])
_SHOWN = (
    'id',
    'type',
    'status',
    'error',
    'instance_uuid',
    'created_at',
    'started_at',
    'finished_at',
    'arguments',
    'result',
    'project_id',
    'user_id',
    'request_id',
    'host',
)
_AGENT = (
    'status',
    'reason',
    'version',
    'os',
    'execution',
    'supported_commands',
)
_HOSTS = (
    'host',
    'cell',
    'state',
    'version',
    'last_seen_at',
    'running',
    'pending',
)


class _Json(columns.FormattableColumn[Any]):
    """An object that a table shows as JSON."""

    def human_readable(self) -> str:
        return '' if self._value is None else json.dumps(self._value, indent=1)


_OBJECTS = ('arguments', 'result', 'supported_commands')


def _titles(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.replace('_', ' ').title() for name in names)


def _row(item: Any, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        _Json(getattr(item, name)) if name in _OBJECTS else getattr(item, name)
        for name in names
    )


class List(base.ServerCommand, command.Lister):
    """List the commands of a server, newest first"""

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        _add_filters(parser)
        parser.add_argument(
            '--type',
            action='append',
            metavar='<type>',
            help='Only commands of this type (repeat for more)',
        )
        parser.add_argument(
            '--long', action='store_true', help='List additional fields'
        )
        return parser

    def take_action(
        self, parsed_args: Any
    ) -> tuple[Sequence[str], Iterable[Any]]:
        names = _LONG if parsed_args.long else _LISTED
        found = resources.Command.list(
            self.compute(),
            server_id=self.server_id(parsed_args),
            **_filters(parsed_args, 'status', 'type'),
        )
        return _titles(names), _first(parsed_args, found, names)


class ListOfProject(base.ComputeCommand, command.Lister):
    """List the commands of all servers of a project, newest first"""

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        _add_filters(parser)
        parser.add_argument(
            '--all-projects',
            action='store_true',
            help='Those of all projects (admin only)',
        )
        parser.add_argument(
            '--project',
            metavar='<project-id>',
            dest='project_id',
            help='Those of this project (admin only)',
        )
        parser.add_argument(
            '--host',
            metavar='<host>',
            help='Those of servers on this host (admin only)',
        )
        parser.add_argument(
            '--since', metavar='<time>', help='Those accepted since (ISO 8601)'
        )
        return parser

    def take_action(
        self, parsed_args: Any
    ) -> tuple[Sequence[str], Iterable[Any]]:
        query = _filters(parsed_args, 'status', 'project_id', 'host', 'since')
        if parsed_args.all_projects:
            query['all_projects'] = 'true'
        found = resources.ProjectCommand.list(self.compute(), **query)
        return _titles(_OF_PROJECT), _first(parsed_args, found, _OF_PROJECT)


class Show(base.ServerCommand, command.ShowOne):
    """Show a command of a server, with its output"""

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        _add_command(parser)
        return parser

    def take_action(
        self, parsed_args: Any
    ) -> tuple[Sequence[str], Sequence[Any]]:
        found = _new(self, parsed_args, parsed_args.command)
        found.fetch(self.compute())
        return _SHOWN, _row(found, _SHOWN)


class _Several(base.ServerCommand):
    """Something that is done with each of some commands."""

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        _add_command(parser, nargs='+')
        return parser

    def take_action(self, parsed_args: Any) -> None:
        for uuid in parsed_args.command:
            self.do(_new(self, parsed_args, uuid))

    @abc.abstractmethod
    def do(self, found: resources.Command) -> None:
        """Do it with one."""


class Cancel(_Several):
    """Cancel commands of a server: they never start, or are killed"""

    def do(self, found: resources.Command) -> None:
        found.cancel(self.compute())


class Delete(_Several):
    """Delete commands of a server that have ended, with their output"""

    def do(self, found: resources.Command) -> None:
        found.delete(self.compute())


class ShowAgent(base.ServerCommand, command.ShowOne):
    """Show whether commands can be run in a server, or why not"""

    def take_action(
        self, parsed_args: Any
    ) -> tuple[Sequence[str], Sequence[Any]]:
        found = resources.GuestAgent.new(
            server_id=self.server_id(parsed_args)
        ).fetch(self.compute(), requires_id=False)
        return _AGENT, _row(found, _AGENT)


class ListHosts(base.ComputeCommand, command.Lister):
    """List the guest-agent-compute services (admin only)"""

    def take_action(
        self, parsed_args: Any
    ) -> tuple[Sequence[str], Iterable[Any]]:
        found = resources.Host.list(self.compute(), paginated=False)
        return _titles(_HOSTS), (_row(item, _HOSTS) for item in found)


def _add_command(parser: Any, nargs: str | None = None) -> None:
    parser.add_argument(
        'command', metavar='<command>', nargs=nargs, help='UUID of the command'
    )


def _add_filters(parser: Any) -> None:
    parser.add_argument(
        '--status',
        action='append',
        metavar='<status>',
        help='Only commands in this state (repeat for more)',
    )
    parser.add_argument(
        '--limit', type=int, metavar='<limit>', help='At most so many'
    )
    parser.add_argument(
        '--marker', metavar='<command>', help='Only those older than this one'
    )


def _filters(parsed_args: Any, *names: str) -> dict[str, Any]:
    query = {
        name: getattr(parsed_args, name)
        for name in names
        if getattr(parsed_args, name)
    }
    if parsed_args.marker:
        query['marker'] = parsed_args.marker
    if parsed_args.limit:
        query['limit'] = parsed_args.limit
    return query


def _first(
    parsed_args: Any, found: Iterable[Any], names: Sequence[str]
) -> Iterable[tuple[Any, ...]]:
    for number, item in enumerate(found):
        # The SDK goes on from page to page.
        if number == parsed_args.limit:
            return
        yield _row(item, names)


def _new(
    self: base.ServerCommand, parsed_args: Any, uuid: str
) -> resources.Command:
    found: resources.Command = resources.Command.new(
        id=uuid, server_id=self.server_id(parsed_args)
    )
    return found
