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

import base64
import sys
import time
from typing import Any
from typing import BinaryIO
import uuid

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from guest_agent_ext.osc import base
from guest_agent_ext.osc import resources

#: Exit codes of what has none of its own: those of timeout(1), of a shell
#: after Ctrl-C, and of ssh.
CODES = {'TIMED_OUT': 124, 'CANCELLED': 130}
FAILED = 255
#: Seconds between two looks: the first, the last, and how the gap grows.
MIN_GAP, MAX_GAP, GROWTH = 0.1, 1.0, 1.3
#: Seconds that the server may keep the first answer back for the command's
#: end: a short one has ended then, and of a long one nothing is shown before.
WAIT = 1
#: How often the same request is sent when no answer came, and seconds between.
TRIES, RETRY_GAP = 3, 1.0

_STREAMS = ('out', 'err')
_COLUMNS = ('id', 'status', 'created_at')


class Exec(base.ServerCommand):
    """Run a program in a server

    What it writes is shown while it runs. Its exit code becomes that of this
    command: 124 if its timeout passed, 130 if it was cancelled, 255 if it
    could not be run or its end is unknown. Ctrl-C cancels it.
    """

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--stdin',
            metavar='<file>',
            help='What the program reads from its stdin; - for that of this '
            'command',
        )
        parser.add_argument(
            '--env',
            metavar='<name=value>',
            action='append',
            default=[],
            help='Variable added to its environment (repeat for more)',
        )
        parser.add_argument(
            '--cwd', metavar='<directory>', help='Directory in which it starts'
        )
        parser.add_argument(
            '--timeout',
            metavar='<seconds>',
            type=int,
            help='Seconds after which it is killed',
        )
        parser.add_argument(
            '--start-timeout',
            metavar='<seconds>',
            type=int,
            help='Seconds within which it must have started',
        )
        parser.add_argument(
            '--keep',
            choices=['head', 'tail'],
            help='Which end of a long output is kept (default: head)',
        )
        parser.add_argument(
            '--no-wait',
            action='store_true',
            help='Print the command instead of waiting for it',
        )
        parser.add_argument(
            'command',
            metavar='<command>',
            nargs='+',
            help='Program and arguments, after --',
        )
        return parser

    def take_action(self, parsed_args: Any) -> int:
        compute = self.compute()
        server_id = self.server_id(parsed_args)
        found = _create(compute, server_id, _arguments_of(parsed_args))
        if parsed_args.no_wait:
            self._print(found)
            return 0
        try:
            _follow(compute, found)
        except KeyboardInterrupt:
            _cancel(compute, found)
        return _end(found)

    def _print(self, found: resources.Command) -> None:
        for name in _COLUMNS:
            self.app.stdout.write(f'{name}: {getattr(found, name)}\n')


class Follower:
    """Writes a stream of a command as it grows.

    :param name: ``out`` or ``err``
    """

    def __init__(self, name: str, to: BinaryIO) -> None:
        self._name = name
        self._to = to
        self._offset = 0
        self.shown = 0

    def show(self, compute: Any, found: resources.Command) -> bool:
        """Write what there is of it.

        :returns: whether there was anything
        """
        try:
            data, self._offset, _ = found.output(
                compute, self._name, self._offset
            )
        except sdk_exceptions.ConflictException:
            # The guest does not tell just now. Its end is told without it.
            return False
        self._to.write(data)
        self._to.flush()
        self.shown += len(data)
        return bool(data)

    def missing(self, found: resources.Command) -> int:
        """Return how many bytes the server did not keep."""
        written = (found.result or {}).get(f'{self._name}_bytes')
        return 0 if written is None else max(0, written - self.shown)


def _arguments_of(parsed_args: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {'command': parsed_args.command}
    for name in ('cwd', 'timeout', 'start_timeout'):
        if getattr(parsed_args, name) is not None:
            arguments[name] = getattr(parsed_args, name)
    if parsed_args.keep is not None:
        arguments['output_keep'] = parsed_args.keep
    if parsed_args.env:
        arguments['env'] = dict(map(_variable, parsed_args.env))
    if parsed_args.stdin is not None:
        arguments['input_data'] = base64.b64encode(
            _read(parsed_args.stdin)
        ).decode()
        arguments['input_encoding'] = 'base64'
    return arguments


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition('=')
    if not separator:
        raise exceptions.CommandError(
            f'--env must be given as NAME=VALUE, not {name}'
        )
    return name, value


def _read(name: str) -> bytes:
    if name == '-':
        return sys.stdin.buffer.read()
    with open(name, 'rb') as file:
        return file.read()


def _create(
    compute: Any, server_id: str, arguments: dict[str, Any]
) -> resources.Command:
    """Have a command run, once, also where the answer is lost."""
    key = {'Idempotency-Key': str(uuid.uuid4())}
    body = {'command': {'type': 'exec', 'arguments': arguments}}
    for left in reversed(range(TRIES)):
        try:
            response = compute.post(
                base.path_of(server_id, 'commands'),
                json=body,
                headers=key,
                # It would log stdin and the environment.
                log=False,
            )
            sdk_exceptions.raise_from_response(response)
            found: resources.Command = resources.Command.existing(
                server_id=server_id, **response.json()['command']
            )
            return found
        except (sdk_exceptions.HttpException, OSError) as error:
            if not left or getattr(error, 'status_code', 503) != 503:
                raise
            time.sleep(RETRY_GAP)
    raise AssertionError('It is tried at least once')


def _follow(compute: Any, found: resources.Command) -> None:
    """Show what a command writes until it has ended."""
    followers = [
        Follower(name, stream)
        for name, stream in zip(
            _STREAMS, (sys.stdout.buffer, sys.stderr.buffer), strict=True
        )
    ]
    found.wait(compute, WAIT)
    gap = MIN_GAP
    while not found.has_ended:
        grown = [
            item.show(compute, found)
            for item in followers
            if found.started_at is not None
        ]
        gap = MIN_GAP if any(grown) else min(gap * GROWTH, MAX_GAP)
        time.sleep(gap)
        found.fetch(compute)
    if not found.result:
        return
    for item in followers:
        item.show(compute, found)
    missing = sum(item.missing(found) for item in followers)
    if missing:
        sys.stderr.write(f'({missing} bytes of output were not kept)\n')


def _cancel(compute: Any, found: resources.Command) -> None:
    """Cancel a command, and wait for its end unless interrupted again."""
    try:
        found.cancel(compute)
        _follow(compute, found)
    except sdk_exceptions.ConflictException:
        # It ended a moment ago.
        found.fetch(compute)
    except KeyboardInterrupt:
        sys.stderr.write(f'Command {found.id} is being cancelled\n')


def _end(found: resources.Command) -> int:
    """Return the exit code that this command ends with."""
    result = found.result or {}
    if found.status == 'COMPLETED' and result.get('exitcode') is not None:
        return int(result['exitcode'])
    if found.status == 'COMPLETED':
        return 128 + int(result.get('signal') or 0)
    if found.error:
        sys.stderr.write(f'{found.error}\n')
    return CODES.get(str(found.status), FAILED)
