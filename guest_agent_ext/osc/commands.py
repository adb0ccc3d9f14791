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


"""The client's commands that list, show and change resources."""

import abc
import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import json
from typing import Any

from cliff import columns
from openstack import resource
from osc_lib.command import command

from guest_agent_ext.osc import base
from guest_agent_ext.osc import resources
from guest_agent_ext.osc import times

_LISTED = (
    'id',
    'type',
    'status',
    'command_line',
    'exit_code',
    'created_at',
    'finished_at',
    'error',
)
_MORE = ('started_at', 'user_id', 'request_id')
_LISTED_OF_PROJECT = ('id', 'instance_uuid', *_LISTED[1:])
_MORE_OF_PROJECT = (*_MORE, 'project_id', 'host')
#: Columns of one command.
SHOWN = (
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
    'command_types',
    'unavailable',
    'supported_commands',
)
_HOSTS = ('host', 'cell', 'state', 'last_seen_at', 'running', 'pending')
_MORE_OF_HOSTS = ('version',)

#: Maximum number of characters of a command line in a table.
_WIDTH = 48

#: Columns whose values are objects or lists.
_OBJECTS = (
    'arguments',
    'refused',
    'result',
    'command_types',
    'unavailable',
    'supported_commands',
)


class _Json(columns.FormattableColumn[object]):
    """An object or list that a table shows as JSON."""

    def human_readable(self) -> str:
        return '' if self._value is None else json.dumps(self._value, indent=1)


class _Counts(columns.FormattableColumn[dict[str, int] | None]):
    """Numbers by name, which a table shows on one line."""

    def human_readable(self) -> str:
        counts = self._value or {}
        return ', '.join(
            f'{number} {name}' for name, number in counts.items() if number
        )


class _Line(columns.FormattableColumn[str | None]):
    """A command line, which a table shows short and without control codes."""

    def human_readable(self) -> str:
        # It may be another user's.
        text = ''.join(
            char
            if char.isprintable()
            else char.encode('unicode_escape').decode()
            for char in self._value or ''
        )
        return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + '...'


#: How a table shows values that are no plain strings or numbers.
_FORMATS: dict[str, type[columns.FormattableColumn[Any]]] = {
    **dict.fromkeys(_OBJECTS, _Json),
    'command_line': _Line,
    'counts': _Counts,
}


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """Return the titles of columns."""
    return tuple(name.replace('_', ' ').title() for name in names)


def row(item: resource.Resource, names: Sequence[str]) -> tuple[object, ...]:
    """Return columns of a resource, as a table shows them."""
    return tuple(
        _FORMATS[name](getattr(item, name))
        if name in _FORMATS
        else getattr(item, name)
        for name in names
    )


class List(base.ServerCommand, command.Lister):
    """List the commands of a server, newest first"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_filters(parser)
        parser.add_argument(
            '--type',
            action='append',
            metavar='<type>',
            help='Only commands of this type (repeat for more)',
        )
        add_long(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        names = (*_LISTED, *_MORE) if parsed_args.long else _LISTED
        found = resources.Command.list(
            self.compute(),
            server_id=self.server_id(parsed_args),
            **filters(parsed_args, 'status', 'type'),
        )
        return titles(names), first(parsed_args, found, names)


class ListProjectCommands(base.ComputeCommand, command.Lister):
    """List the commands of all servers of a project, newest first"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_filters(parser)
        add_projects(parser)
        parser.add_argument(
            '--host',
            metavar='<host>',
            help='Only commands of servers on this host; with '
            '--all-projects from all projects (admin '
            'only)',
        )
        parser.add_argument(
            '--since',
            metavar='<time>',
            help='Only commands accepted at this time or later (ISO 8601: '
            '2026-03-09T12:13:22Z, 2026-03-09T14:13+02:00, 20260309T1213, '
            '2026-03-09); local time where no zone is given',
        )
        add_long(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        query = filters(parsed_args, 'status', 'project_id', 'host')
        if parsed_args.since:
            query['since'] = times.in_utc(parsed_args.since)
        if parsed_args.all_projects:
            query['all_projects'] = 'true'
        found = resources.ProjectCommand.list(self.compute(), **query)
        names: tuple[str, ...] = _LISTED_OF_PROJECT
        if parsed_args.long:
            names = (*names, *_MORE_OF_PROJECT)
        return titles(names), first(parsed_args, found, names)


class Show(base.ServerCommand, command.ShowOne):
    """Show a command of a server, with its output"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_command(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        found = _new(self, parsed_args, parsed_args.command)
        found.fetch(self.compute())
        return SHOWN, row(found, SHOWN)


class _ForEach(base.ServerCommand):
    """An action on each of several commands of a server."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_command(parser, nargs='+')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        for uuid in parsed_args.command:
            self.act_on(_new(self, parsed_args, uuid))

    @abc.abstractmethod
    def act_on(self, found: resources.Command) -> None:
        """Act on one command."""


class Cancel(_ForEach):
    """Cancel commands of a server: they never start, or are killed"""

    def act_on(self, found: resources.Command) -> None:
        found.cancel(self.compute())


class Delete(_ForEach):
    """Delete commands of a server that have ended, with their output"""

    def act_on(self, found: resources.Command) -> None:
        found.delete(self.compute())


class ShowAgent(base.ServerCommand, command.ShowOne):
    """Show whether commands can be run in a server, and why not"""

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        found = resources.GuestAgent.new(
            server_id=self.server_id(parsed_args)
        ).fetch(self.compute(), requires_id=False)
        return _AGENT, row(found, _AGENT)


class ListHosts(base.ComputeCommand, command.Lister):
    """List the guest-agent-compute services (admin only)"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_long(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        found = resources.Host.list(self.compute(), paginated=False)
        names = (*_HOSTS, *_MORE_OF_HOSTS) if parsed_args.long else _HOSTS
        return titles(names), (row(item, names) for item in found)


class DeleteHosts(base.ComputeCommand):
    """Remove the services of hosts that are gone (admin only)"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'host',
            metavar='<host>',
            nargs='+',
            help='Name of the compute host',
        )
        parser.add_argument(
            '--cell',
            metavar='<cell>',
            help='UUID of the cell, if several cells have a host of this name',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        for host in parsed_args.host:
            resources.Host.remove(self.compute(), host, parsed_args.cell)


def _add_command(
    parser: argparse.ArgumentParser, nargs: str | None = None
) -> None:
    parser.add_argument(
        'command', metavar='<command>', nargs=nargs, help='UUID of the command'
    )


def add_long(parser: argparse.ArgumentParser) -> None:
    """Add the option of lists for more columns."""
    parser.add_argument(
        '--long', action='store_true', help='List additional fields'
    )


def add_filters(
    parser: argparse.ArgumentParser, kind: str = 'command'
) -> None:
    """Add the options of lists that choose what to list.

    :param kind: word for an item of the list
    """
    parser.add_argument(
        '--status',
        action='append',
        metavar='<status>',
        help=f'Only {kind}s in this state (repeat for more)',
    )
    parser.add_argument(
        '--limit',
        type=int,
        metavar='<limit>',
        help=f'Maximum number of {kind}s to list',
    )
    parser.add_argument(
        '--marker',
        metavar=f'<{kind}>',
        help=f'UUID of a {kind}: list only older ones',
    )


def add_projects(
    parser: argparse.ArgumentParser, kind: str = 'command'
) -> None:
    """Add the options of lists that choose projects.

    :param kind: word for an item of the list
    """
    parser.add_argument(
        '--all-projects',
        action='store_true',
        help=f'List the {kind}s of all projects (admin only)',
    )
    parser.add_argument(
        '--project',
        metavar='<project-id>',
        dest='project_id',
        help=f'List the {kind}s of this project instead '
        'of your own (admin only)',
    )


def filters(parsed_args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the query that a list asks with.

    :param names: names of parameters of which the options have the same names
    """
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


def first(
    parsed_args: argparse.Namespace,
    found: Iterable[resource.Resource],
    names: Sequence[str],
) -> Iterable[tuple[object, ...]]:
    """Yield the rows of a list up to its limit.

    :param names: names of the columns
    """
    for number, item in enumerate(found):
        # The SDK fetches page after page.
        if number == parsed_args.limit:
            return
        yield row(item, names)


def _new(
    self: base.ServerCommand, parsed_args: argparse.Namespace, uuid: str
) -> resources.Command:
    found: resources.Command = resources.Command.new(
        id=uuid, server_id=self.server_id(parsed_args)
    )
    return found
