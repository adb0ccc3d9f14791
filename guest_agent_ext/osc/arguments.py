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

"""What a program is run with: options, and the arguments of the request."""

import argparse
import base64
import sys

from osc_lib import exceptions

from guest_agent_ext.osc import program


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options of a program that is not attached.

    :param parser: parser of program.parser_like()
    """
    parser.add_argument(
        '--stdin',
        metavar='<file>',
        help="File that becomes the program's stdin; - for the stdin of "
        'this command',
    )
    parser.add_argument(
        '--env',
        metavar='<name=value>',
        action='append',
        default=[],
        help="Variable added to the program's environment (repeat for more)",
    )
    parser.add_argument(
        '--cwd', metavar='<directory>', help='Working directory of the program'
    )
    add_user(parser)
    parser.add_argument(
        '--timeout',
        metavar='<seconds>',
        type=int,
        help='Seconds after which the program is killed',
    )
    parser.add_argument(
        '--start-timeout',
        metavar='<seconds>',
        type=int,
        help='Seconds within which the program must start',
    )
    parser.add_argument(
        '--keep',
        choices=['head', 'tail'],
        help='End of a long output that is kept (default: head)',
    )
    parser.add_argument(
        '--script',
        metavar='<file>',
        help='Local script that is run in the server by the interpreter '
        'that its first line names (default: /bin/sh)',
    )


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a user of the server."""
    parser.add_argument(
        '--user',
        metavar='<user>',
        help='User in the server that the program runs as, by name or number',
    )


def of(parsed_args: argparse.Namespace) -> dict[str, object]:
    """Return the arguments of the request.

    :raises osc_lib.exceptions.CommandError: the options contradict each other,
        or there is no program
    """
    command, stdin = _command_of(parsed_args)
    arguments: dict[str, object] = {'command': command}
    for name in ('cwd', 'user', 'timeout', 'start_timeout'):
        if getattr(parsed_args, name) is not None:
            arguments[name] = getattr(parsed_args, name)
    if parsed_args.keep is not None:
        arguments['output_keep'] = parsed_args.keep
    if parsed_args.env:
        arguments['env'] = env_of(parsed_args)
    if stdin is not None:
        arguments['input_data'] = base64.b64encode(stdin).decode()
        arguments['input_encoding'] = 'base64'
    return arguments


def _command_of(
    parsed_args: argparse.Namespace,
) -> tuple[list[str], bytes | None]:
    """Return the program with its arguments, and its stdin."""
    if parsed_args.script is not None and parsed_args.stdin is not None:
        raise exceptions.CommandError(
            '--stdin cannot be used with --script, which is sent as stdin'
        )
    if parsed_args.script is not None:
        return program.of_script(parsed_args.script, parsed_args.command)
    if not parsed_args.command:
        raise exceptions.CommandError(
            'No program to run: name one after --, or use --script'
        )
    if parsed_args.stdin is None:
        return parsed_args.command, None
    return parsed_args.command, _read(parsed_args.stdin)


def env_of(parsed_args: argparse.Namespace) -> dict[str, str]:
    """Return the variables that are added to the environment."""
    return dict(map(_variable, parsed_args.env))


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
