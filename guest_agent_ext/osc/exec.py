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


"""``openstack server guest exec``: like ssh, without a network."""

import argparse
from collections.abc import Sequence
import json
import sys
import time
from typing import BinaryIO
import uuid

from keystoneauth1 import adapter
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from guest_agent_ext.osc import arguments
from guest_agent_ext.osc import attached
from guest_agent_ext.osc import base
from guest_agent_ext.osc import commands
from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import program
from guest_agent_ext.osc import resources
from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import retries

#: Exit codes for commands that end without one: those of timeout(1), of a
#: shell after Ctrl-C, and of ssh.
CODES = {'TIMED_OUT': 124, 'CANCELLED': 130}
FAILED = 255
#: Exit code, instead of 0, of a command whose output was not kept whole.
CUT = 120
#: Minimum and maximum seconds between two polls, and the backoff factor.
MIN_GAP, MAX_GAP, GROWTH = 0.1, 1.0, 1.3
#: Seconds that the server waits for the command's end before its first answer.
#: A short command has ended by then; the output of a long one is shown after.
WAIT = 1

_COLUMNS = ('id', 'status', 'created_at')
#: Options that an attached command does not take.
_NOT_ATTACHED = ('stdin', 'script', 'no_wait', 'format', 'keep')
_LOGIN_SHELL = ('/bin/sh', '-c', 'exec "${SHELL:-/bin/sh}" -l')


class Exec(base.ServerCommand):
    """Run a program in a server

    The program's output is shown while the program runs. This command exits
    with the program's exit code, or with 124 if the timeout passed, 130 if the
    program was cancelled, and 255 if it could not be run or its end is
    unknown; with 120 if the program succeeded but its output was too long to
    be kept. Ctrl-C, SIGTERM, SIGHUP and the closed end of a pipe cancel the
    program.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = program.parser_like(super().get_parser(prog_name))
        parser.add_argument(
            '-i',
            '--interactive',
            action='store_true',
            help='Pass stdin on as it comes, and output of any size',
        )
        parser.add_argument(
            '-t',
            '--terminal',
            action='store_true',
            help='Give the program a terminal. Ctrl-C goes to the program; '
            '~. at the beginning of a line cancels it',
        )
        arguments.add_to(parser)
        parser.add_argument(
            '--detach',
            action='store_true',
            help='Leave the program running and print its ID on stderr where '
            'Ctrl-C or a signal would cancel it',
        )
        parser.add_argument(
            '--no-wait',
            action='store_true',
            help="Print the command's ID instead of waiting for its end",
        )
        parser.add_argument(
            '-f',
            '--format',
            choices=['json'],
            help='Print the ended command as a JSON object, with its result, '
            'instead of the output as it comes',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        if parsed_args.interactive or parsed_args.terminal:
            return self._attach(parsed_args)
        run = Execution(
            self.compute(),
            self.server_id(parsed_args),
            arguments.of(parsed_args),
        )
        as_json = parsed_args.format == 'json'
        if parsed_args.no_wait:
            self._print(run.create(), _COLUMNS, as_json)
            return 0
        if as_json:
            run.followers = []
        with interrupts.raised():
            code = interruptible(run, parsed_args.detach)
        if as_json and run.found is not None and run.found.has_ended:
            self._print(run.found, commands.SHOWN, as_json)
        if code == 0 and run.is_cut() and parsed_args.keep is None:
            return CUT
        return code

    def _attach(self, parsed_args: argparse.Namespace) -> int:
        for name in _NOT_ATTACHED:
            if getattr(parsed_args, name):
                raise exceptions.CommandError(
                    f'--{name.replace("_", "-")} cannot be used with -i and '
                    '-t, which attach the program to the streams of this '
                    'command'
                )
        if not parsed_args.command:
            raise exceptions.CommandError(
                'No program to run: name it after --'
            )
        compute = process.best_endpoint(self.compute())
        server_id = self.server_id(parsed_args)
        return attached.run(
            lambda size: process.Process(
                compute,
                server_id,
                parsed_args.command,
                terminal=size,
                env=arguments.env_of(parsed_args),
                cwd=parsed_args.cwd,
                user=parsed_args.user,
                timeout=parsed_args.timeout,
                start_timeout=parsed_args.start_timeout,
                detach=parsed_args.detach,
            ),
            parsed_args.terminal,
            parsed_args.detach,
        )

    def _print(
        self, found: resources.Command, names: Sequence[str], as_json: bool
    ) -> None:
        values = {name: getattr(found, name) for name in names}
        text = ''.join(f'{name}: {values[name]}\n' for name in names)
        if as_json:
            text = json.dumps(values, indent=2) + '\n'
        # It is None where stdout is closed.
        if self.app.stdout is not None:
            self.app.stdout.write(text)


class Shell(base.ServerCommand):
    """Open a shell with a terminal in a server

    The shell is that of the user, as a login shell. ~. at the beginning of a
    line cancels it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        arguments.add_user(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        compute = process.best_endpoint(self.compute())
        server_id = self.server_id(parsed_args)
        return attached.run(
            lambda size: process.Process(
                compute,
                server_id,
                _LOGIN_SHELL,
                terminal=size,
                user=parsed_args.user,
            ),
            True,
            False,
        )


class Execution:
    """A program in a server, from the request to the end.

    :ivar found: the command; None until the server has answered
    :ivar followers: copiers of the output
    :param compute: the compute proxy
    :param server_id: UUID of the server
    :param arguments: arguments of the request
    """

    def __init__(
        self,
        compute: adapter.Adapter,
        server_id: str,
        arguments: dict[str, object],
    ) -> None:
        self._compute = compute
        self._server_id = server_id
        self._arguments = arguments
        self._key = str(uuid.uuid4())
        self.found: resources.Command | None = None
        self.followers = [
            Follower('out', getattr(sys.stdout, 'buffer', None)),
            Follower('err', getattr(sys.stderr, 'buffer', None)),
        ]

    def create(self, wait: int = 0) -> resources.Command:
        """Create the command, only once even if the answer is lost.

        :param wait: seconds that the server waits for the command's end
        """
        headers = {'Idempotency-Key': self._key}
        if wait:
            headers['Prefer'] = f'wait={wait}'
        found = retries.repeated(lambda: self._post(headers), retries.FEW)
        self.found = found
        return found

    def _post(self, headers: dict[str, str]) -> resources.Command:
        response = self._compute.post(
            base.path_of(self._server_id, 'commands'),
            json={'command': {'type': 'exec', 'arguments': self._arguments}},
            headers=headers,
            # The log would show stdin and the environment.
            log=False,
        )
        sdk_exceptions.raise_from_response(response)
        found: resources.Command = resources.Command.existing(
            server_id=self._server_id, **response.json()['command']
        )
        return found

    def follow(self) -> int:
        """Copy the output until the command's end; return the exit code."""
        found = self.found or self.create(WAIT)
        gap = MIN_GAP
        while not found.has_ended:
            grown = [
                item.show(self._compute, found)
                for item in self.followers
                if found.started_at is not None
            ]
            gap = MIN_GAP if any(grown) else min(gap * GROWTH, MAX_GAP)
            time.sleep(gap)
            retries.repeated(lambda: found.fetch(self._compute))
        if found.result:
            for item in self.followers:
                item.show_rest(self._compute, found)
        if self.is_cut():
            missing = sum(item.missing(found) for item in self.followers)
            interrupts.tell(
                f'({missing or "Some"} bytes of output were not kept)'
            )
        return _code_of(found)

    def cancel(self) -> int:
        """Cancel the command, wait for the end, and return the exit code."""
        # The answer to the request may not have come yet.
        found = self.found or self.create()
        try:
            retries.repeated(lambda: found.cancel(self._compute))
        except sdk_exceptions.ConflictException:
            # The command has just ended.
            retries.repeated(lambda: found.fetch(self._compute))
        return self.follow()

    def is_cut(self) -> bool:
        """Return True if the server did not keep all of the output."""
        if self.found is None or not self.found.has_ended:
            return False
        if self.followers:
            return any(item.missing(self.found) for item in self.followers)
        result = self.found.result or resources.Result()
        return bool(result.get('out_truncated') or result.get('err_truncated'))


def interruptible(run: Execution, detach: bool) -> int:
    """Follow an execution; cancel the program when the client is to end.

    :param detach: True if the program is left running instead
    :returns: exit code
    """
    try:
        return run.follow()
    except interrupts.Interrupted as error:
        code = 128 + error.number
    try:
        if detach:
            found = run.found or run.create()
            interrupts.tell(f'Command {found.id} goes on')
            return code
        ended = run.cancel()
    except interrupts.Interrupted:
        if run.found is not None:
            interrupts.tell(f'Command {run.found.id} is being cancelled')
        return code
    is_cancelled = run.found is not None and run.found.status == 'CANCELLED'
    return code if is_cancelled else ended


class Follower:
    """Copies a growing stream of a command.

    :ivar shown: number of bytes copied
    :param name: ``out`` or ``err``
    :param to: destination of the bytes; None if they are dropped
    """

    def __init__(self, name: str, to: BinaryIO | None) -> None:
        self._name = name
        self._to = to
        self._offset = 0
        self.shown = 0

    def show(self, compute: adapter.Adapter, found: resources.Command) -> bool:
        """Copy the bytes that are new.

        :returns: True if there were any
        """
        try:
            data, offset, _ = retries.repeated(
                lambda: found.output(compute, self._name, self._offset)
            )
        except sdk_exceptions.ConflictException:
            # The guest does not answer now. The result has all output.
            return False
        # First, so that nothing is copied twice after a signal.
        self._offset = offset
        self._write(data)
        return bool(data)

    def show_rest(
        self, compute: adapter.Adapter, found: resources.Command
    ) -> None:
        """Copy what is left of an ended command's output."""
        kept = found.kept(self._name)
        if kept is None:
            self.show(compute, found)
            return
        offset, self._offset = self._offset, len(kept)
        self._write(kept[offset:])

    def _write(self, data: bytes) -> None:
        self.shown += len(data)
        if self._to is None:
            return
        try:
            interrupts.write(self._to, data)
        except interrupts.Interrupted as error:
            if error.number == interrupts.PIPE:
                self._to = None
            raise

    def missing(self, found: resources.Command) -> int:
        """Return the number of bytes that the server did not keep."""
        result = found.result or resources.Result()
        written = (
            result.get('out_bytes')
            if self._name == 'out'
            else result.get('err_bytes')
        )
        return 0 if written is None else max(0, written - self.shown)


def _code_of(found: resources.Command) -> int:
    """Print the error of a command that failed, and return the exit code."""
    result = found.result or resources.Result()
    exitcode = result.get('exitcode')
    if found.status == 'COMPLETED' and exitcode is not None:
        return exitcode
    if found.status == 'COMPLETED':
        return 128 + (result.get('signal') or 0)
    if found.error:
        interrupts.tell(str(found.error))
    return CODES.get(str(found.status), FAILED)
