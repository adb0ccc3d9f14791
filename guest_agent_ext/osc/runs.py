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

"""``openstack guest run``: one program in many servers."""

import abc
import argparse
import collections
from collections.abc import Collection
from collections.abc import Sequence
import contextlib
import itertools
import time
from typing import Any
import uuid

from keystoneauth1 import adapter
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.command import command

from guest_agent_ext import progress
from guest_agent_ext.osc import arguments
from guest_agent_ext.osc import base
from guest_agent_ext.osc import commands
from guest_agent_ext.osc import gathered
from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import program
from guest_agent_ext.osc import resources
from guest_agent_ext.sdk import retries

#: Exit code of a run that was waited for, if not every server ended with 0.
NOT_ALL = 3
#: Minimum and maximum seconds between two polls, and the backoff factor.
MIN_GAP, MAX_GAP, GROWTH = 0.3, 3.0, 1.3
#: Number of commands to ask for where mostly few are new.
PAGE = 50

_PATH = '/guest-agent/runs'
_LISTED = (
    'id',
    'name',
    'status',
    'targets',
    'counts',
    'errors',
    'created_at',
    'finished_at',
)
_MORE = ('command_line', 'error', 'project_id', 'user_id')
_SHOWN = (
    'id',
    'name',
    'status',
    'error',
    'targets',
    'counts',
    'errors',
    'refused',
    'max_concurrency',
    'max_errors',
    'type',
    'arguments',
    'created_at',
    'updated_at',
    'finished_at',
    'project_id',
    'user_id',
    'request_id',
)
_CREATED = ('id', 'name', 'status', 'targets', 'created_at')

#: What became of a server, in words for the summary, by the state of its
#: command.
_OUTCOMES = {
    'COMPLETED': 'succeeded',
    'FAILED': 'could not run it',
    'TIMED_OUT': 'timed out',
    'CANCELLED': 'cancelled',
    'LOST': 'lost',
    'REFUSED': 'refused',
    'WAITING': 'not started',
}
_FAILED = 'exited with another code'
_ORDER = ('succeeded', _FAILED, *list(_OUTCOMES.values())[1:])
_UNFINISHED = ('PENDING', 'RUNNING')
_DONE = (*resources.Command.ENDED, 'REFUSED')


class Create(base.ComputeCommand):
    """Run a program in many servers

    The servers are those that are named, and those of your project that have
    all of the tags and properties. With --wait, the output of each is shown
    when it has ended, and this command exits with 0 if all exited with 0, and
    with 3 if not. Ctrl-C, SIGTERM, SIGHUP and the closed end of a pipe cancel
    the run then.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = program.parser_like(super().get_parser(prog_name))
        _add_targets(parser)
        parser.add_argument(
            '--max-concurrency',
            metavar='<number|percentage>',
            type=_share,
            help='Maximum number of servers, or share of them, that run the '
            'program at once (default: 50)',
        )
        parser.add_argument(
            '--max-errors',
            metavar='<number|percentage>',
            type=_share,
            help='Number of errors, or share of the servers, after which no '
            'more servers start the program (default: none)',
        )
        parser.add_argument('--name', metavar='<name>', help='Name of the run')
        parser.add_argument(
            '--allow-missing-cells',
            action='store_true',
            help='Leave out the servers of a cell that is down and may have '
            'servers with the tags and properties, instead of running nothing',
        )
        arguments.add_to(parser)
        parser.add_argument(
            '--wait',
            action='store_true',
            help='Wait for the end, and show the output of each server',
        )
        _add_group(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        run = _create(self.compute(), self._body(parsed_args))
        if not parsed_args.wait:
            if self.app.stdout is not None:
                for name in _CREATED:
                    self.app.stdout.write(f'{name}: {getattr(run, name)}\n')
            return 0
        following = Following(
            self.compute(),
            run,
            gathered.Names(self.app.client_manager.sdk_connection.compute),
            _gathered_by(parsed_args),
        )
        with interrupts.raised():
            return following.to_the_end()

    def _body(self, parsed_args: argparse.Namespace) -> dict[str, object]:
        body: dict[str, object] = {
            'targets': self._targets(parsed_args),
            'type': 'exec',
            'arguments': arguments.of(parsed_args),
        }
        for name in ('name', 'max_concurrency', 'max_errors'):
            if getattr(parsed_args, name) is not None:
                body[name] = getattr(parsed_args, name)
        if parsed_args.allow_missing_cells:
            body['allow_missing_cells'] = True
        return body

    def _targets(self, parsed_args: argparse.Namespace) -> dict[str, object]:
        nova = self.app.client_manager.sdk_connection.compute
        targets: dict[str, object] = {}
        if parsed_args.server:
            targets['servers'] = [
                _server_id(nova, name) for name in parsed_args.server
            ]
        if parsed_args.tag:
            targets['tags'] = parsed_args.tag
        if parsed_args.property:
            targets['metadata'] = dict(parsed_args.property)
        if not targets:
            raise exceptions.CommandError(
                'No servers to run the program in: use --server, --tag or '
                '--property'
            )
        return targets


class List(base.ComputeCommand, command.Lister):
    """List the runs of a project, newest first"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        commands.add_filters(parser, 'run')
        commands.add_projects(parser, 'run')
        commands.add_long(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        names = (*_LISTED, *_MORE) if parsed_args.long else _LISTED
        query = commands.filters(parsed_args, 'status', 'project_id')
        if parsed_args.all_projects:
            query['all_projects'] = 'true'
        found = resources.Run.list(self.compute(), **query)
        return commands.titles(names), commands.first(
            parsed_args, found, names
        )


class _OneRun(base.ComputeCommand):
    """A command about one run."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('run', metavar='<run>', help='UUID of the run')
        return parser


class Show(_OneRun, command.ShowOne):
    """Show a run"""

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        found = _new(parsed_args.run).fetch(self.compute())
        return _SHOWN, commands.row(found, _SHOWN)


class _ForEach(base.ComputeCommand):
    """An action on each of several runs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'run', metavar='<run>', nargs='+', help='UUID of the run'
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        for name in parsed_args.run:
            self.act_on(_new(name))

    @abc.abstractmethod
    def act_on(self, found: resources.Run) -> None:
        """Act on one run."""


class Cancel(_ForEach):
    """Cancel runs: no more servers start, and what runs is killed"""

    def act_on(self, found: resources.Run) -> None:
        found.cancel(self.compute())


class Delete(_ForEach):
    """Delete runs that have ended, with their commands and output"""

    def act_on(self, found: resources.Run) -> None:
        found.delete(self.compute())


class Output(_OneRun):
    """Show the output of the servers of a run that have ended"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--server',
            metavar='<server>',
            action='append',
            default=[],
            help='Only the output of this server (name or ID; repeat for '
            'more)',
        )
        _add_group(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        compute = self.compute()
        nova = self.app.client_manager.sdk_connection.compute
        query: dict[str, object] = {'status': list(resources.Command.ENDED)}
        if parsed_args.server:
            query['server'] = [
                _server_id(nova, name) for name in parsed_args.server
            ]
        names = gathered.Names(nova)
        to = _gathered_by(parsed_args)
        with interrupts.raised():
            try:
                for item in _new(parsed_args.run).commands(compute, **query):
                    to.add(
                        names.of(item.instance_uuid),
                        gathered.read(compute, item),
                    )
                to.finish()
            except interrupts.Interrupted as error:
                return 128 + error.number
        return 0


class Following:
    """Follows a run, and shows what its commands write as they end.

    :param compute: the compute proxy
    :param run: run that was created
    :param names: names of the servers
    :param to: display of the ends of commands
    """

    def __init__(
        self,
        compute: adapter.Adapter,
        run: resources.Run,
        names: gathered.Names,
        to: gathered.Gathered,
    ) -> None:
        self._compute = compute
        self._run = run
        self._names = names
        self._to = to
        #: Number of servers by what became of them.
        self._outcomes: collections.Counter[str] = collections.Counter()
        #: UUIDs of all commands that were listed, and the commands among them
        #: that had not ended.
        self._known: set[str] = set()
        self._unfinished: dict[str, resources.RunCommand] = {}
        #: Those that have ended and are not shown yet. After an interrupt
        #: they still are.
        self._ended: collections.deque[resources.Command] = collections.deque()

    def to_the_end(self) -> int:
        """Follow the run, cancel it when the client is to end.

        :returns: exit code
        """
        code: int | None = None
        try:
            self._follow()
        except interrupts.Interrupted as error:
            code = 128 + error.number
        if code is not None and not self._cancel():
            return code
        self._to.finish()
        self._tell_end()
        if code is not None and self._run.status == 'CANCELLED':
            return code
        is_all = self._outcomes['succeeded'] == self._run.targets
        return 0 if is_all else NOT_ALL

    def _cancel(self) -> bool:
        """Cancel the run and wait for its end.

        :returns: False if the client is to end before
        """
        try:
            retries.repeated(lambda: self._run.cancel(self._compute))
        except sdk_exceptions.ConflictException:
            # It has just ended.
            pass
        except interrupts.Interrupted:
            interrupts.tell(f'Run {self._run.id} goes on')
            return False
        try:
            self._follow()
        except interrupts.Interrupted:
            interrupts.tell(f'Run {self._run.id} is being cancelled')
            return False
        return True

    def _follow(self) -> None:
        gap = MIN_GAP
        with progress.of_servers(self._run.targets, self._done()) as bar:
            while True:
                began = time.monotonic()
                # In this order: of a run that has ended every command is
                # listed as ended.
                retries.repeated(lambda: self._run.fetch(self._compute))
                self._look()
                has_news = bool(self._ended)
                if has_news:
                    with bar.aside():
                        while self._ended:
                            self._show_next()
                bar.advance(self._done() - bar.done)
                bar.describe(self._state('PENDING', 'RUNNING'))
                if self._run.has_ended:
                    return
                gap = MIN_GAP if has_news else min(gap * GROWTH, MAX_GAP)
                # To ask takes longer where there are many servers.
                time.sleep(max(gap, time.monotonic() - began))

    def _look(self) -> None:
        """Find the commands that have ended since the last call."""
        # Newest first: behind the first known one all are known.
        fresh = self._list(until=self._known)
        if self._unfinished:
            still = {item.id for item in self._list(status=_UNFINISHED)}
            for item in list(self._unfinished.values()):
                if item.id not in still:
                    self._look_at(item)
        for item in fresh:
            self._known.add(item.id)
            if item.has_ended:
                self._ended.append(item)
            else:
                self._unfinished[item.id] = item

    def _look_at(self, item: resources.RunCommand) -> None:
        """Look at a command that is no longer listed as unfinished."""
        found: resources.Command | None = None
        # Somebody may have deleted it.
        with contextlib.suppress(sdk_exceptions.NotFoundException):
            found = retries.repeated(lambda: item.whole(self._compute))
        if found is None or found.has_ended:
            del self._unfinished[item.id]
        if found is not None and found.has_ended:
            self._ended.append(found)

    def _list(
        self, until: Collection[str] = (), status: Sequence[str] = ()
    ) -> list[resources.RunCommand]:
        """List commands of the run, newest first.

        :param until: UUIDs of commands before which the list ends
        :param status: states to list; empty for all
        """
        query: dict[str, object] = (
            {'status': list(status)} if status else {'limit': PAGE}
        )
        return retries.repeated(
            lambda: list(
                itertools.takewhile(
                    lambda item: item.id not in until,
                    self._run.commands(self._compute, **query),
                )
            )
        )

    def _show_next(self) -> None:
        item = self._ended[0]
        try:
            end = retries.repeated(lambda: gathered.read(self._compute, item))
        except sdk_exceptions.NotFoundException:
            end = gathered.End(gathered.verdict_of(item))
        # First, so that nothing is shown twice after a signal.
        self._ended.popleft()
        is_failed = item.status == 'COMPLETED' and end.verdict
        self._outcomes[_FAILED if is_failed else _OUTCOMES[item.status]] += 1
        self._to.add(self._names.of(item.instance_uuid), end)

    def _done(self) -> int:
        counts = self._run.counts or {}
        return sum(counts.get(status, 0) for status in _DONE)

    def _state(self, *unfinished: str) -> str:
        """Return what became of the servers so far, in words.

        :param unfinished: states to count that are no outcome
        """
        counts = self._run.counts or {}
        numbers = collections.Counter(self._outcomes)
        for status in ('REFUSED', 'WAITING'):
            numbers[_OUTCOMES[status]] = counts.get(status, 0)
        for status in unfinished:
            numbers[status.lower()] = counts.get(status, 0)
        return ', '.join(
            f'{numbers[words]} {words}'
            for words in (*_ORDER, *map(str.lower, unfinished))
            if numbers[words]
        )

    def _tell_end(self) -> None:
        for refusal in self._run.refused or ():
            name = self._names.of(refusal['instance_uuid'])
            interrupts.tell(f'{name}: refused: {refusal["error"]}')
        reason = f' ({self._run.error})' if self._run.error else ''
        interrupts.tell(
            f'Run {self._run.id} {self._run.status}{reason}, '
            f'{self._run.targets} servers: {self._state()}'
        )


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--server',
        metavar='<server>',
        action='append',
        help='Server (name or ID; repeat for more)',
    )
    parser.add_argument(
        '--tag',
        metavar='<tag>',
        action='append',
        help='Servers with this tag (repeat for servers with all of them)',
    )
    parser.add_argument(
        '--property',
        metavar='<key=value>',
        type=_property,
        action='append',
        help='Servers with this property (repeat for servers with all of '
        'them)',
    )


def _add_group(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--group',
        action='store_true',
        help='Show servers with the same output together, when all have '
        "ended, instead of each line with its server's name",
    )


def _gathered_by(parsed_args: argparse.Namespace) -> gathered.Gathered:
    return gathered.Grouped() if parsed_args.group else gathered.Prefixed()


def _property(text: str) -> tuple[str, str]:
    key, separator, value = text.partition('=')
    if not separator or not key:
        raise argparse.ArgumentTypeError(f'{text} must be KEY=VALUE')
    return key, value


def _share(text: str) -> int | str:
    """Return a number, or a percentage as the API takes it."""
    digits = text.removesuffix('%')
    if not digits.isdecimal():
        raise argparse.ArgumentTypeError(
            f'{text} must be a number, or a number and %'
        )
    return text if text.endswith('%') else int(text)


def _server_id(nova: Any, name: str) -> str:
    found = nova.find_server(name, ignore_missing=False, details=False)
    return str(found.id)


def _new(run_id: str) -> resources.Run:
    found: resources.Run = resources.Run.new(id=run_id)
    return found


def _create(
    compute: adapter.Adapter, body: dict[str, object]
) -> resources.Run:
    """Create a run, only once even if the answer is lost."""
    key = str(uuid.uuid4())

    def post() -> resources.Run:
        response = compute.post(
            _PATH,
            json={'run': body},
            headers={'Idempotency-Key': key},
            # The log would show stdin and the environment.
            log=False,
        )
        sdk_exceptions.raise_from_response(response)
        found: resources.Run = resources.Run.existing(**response.json()['run'])
        return found

    return retries.repeated(post, retries.FEW)
