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

"""The program that a command line names, with arguments of its own."""

import argparse
from collections.abc import Sequence
import pathlib
import shlex
import sys

from osc_lib import exceptions

SEPARATOR = '--'
#: Stands behind the client's own arguments, so that argparse finds a program
#: where the program stands behind ``--`` or comes from a file.
_LAST = '(end of the arguments)'

#: Copies stdin to a file that has no name any longer, and runs it. Nothing is
#: left in the server, whatever ends the script, and the process of the command
#: is the script's own.
_FROM_STDIN = (
    'f=$(mktemp) && cat >"$f" && exec 9<"$f" && rm -f "$f" || exit 126; '
    'exec "$@" </dev/null'
)
_SCRIPT = '/proc/self/fd/9'


class Parser(argparse.ArgumentParser):
    """A parser that leaves a program's arguments alone.

    What stands behind the first ``--`` is the program's. Without ``--`` the
    program begins with the first word behind the server; where an option
    follows, nobody can tell whose it is, and the parser asks for ``--``. A
    ``--`` behind the program's first word is the program's own.
    """

    # Overloaded there, for namespaces of any class; cliff passes argparse's.
    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        words = list(sys.argv[1:] if args is None else args)
        cut = words.index(SEPARATOR) if SEPARATOR in words else len(words)
        options, program = words[:cut], words[cut + 1 :]
        found, unknown = super().parse_known_args([*options, _LAST], namespace)
        is_whole = found.command[-1] == _LAST
        before = found.command[:-1] if is_whole else found.command
        if not is_whole or (before and options[-len(before) :] != before):
            # A run has options for its servers instead.
            server = getattr(found, 'server', None)
            example = [server] if isinstance(server, str) else []
            example += [SEPARATOR, before[0]]
            self.error(
                "an option behind the program's name: put -- before the "
                f'program ({shlex.join(example)} ...) if the option is the '
                "program's"
            )
        found.command = [*before, *words[cut:]] if before else program
        return found, unknown


def parser_like(other: argparse.ArgumentParser) -> Parser:
    """Return a parser with the arguments and texts of another one."""
    made = Parser(
        prog=other.prog,
        description=other.description,
        epilog=other.epilog,
        formatter_class=other.formatter_class,
        parents=[other],
        add_help=False,
    )
    made.add_argument(
        'command',
        metavar='<command>',
        nargs='+',
        help='Program and its arguments; put -- before them if there are '
        'options among them. With --script, arguments of the script',
    )
    return made


def of_script(name: str, arguments: list[str]) -> tuple[list[str], bytes]:
    """Return the command that runs a local script, with the script as stdin.

    :param name: name of the file
    :param arguments: arguments of the script
    :returns: the command, and the bytes of its stdin
    """
    data = pathlib.Path(name).read_bytes()
    interpreter = _interpreter_of(data.partition(b'\n')[0], name)
    run = [*interpreter, _SCRIPT, *arguments]
    return ['/bin/sh', '-c', _FROM_STDIN, pathlib.Path(name).name, *run], data


def _interpreter_of(line: bytes, name: str) -> list[str]:
    """Return what the first line of a script says that it is run by."""
    if not line.startswith(b'#!'):
        return ['/bin/sh']
    try:
        # As a kernel does it: all behind the program is one argument.
        found = line[2:].decode().strip().split(None, 1)
    except UnicodeDecodeError:
        found = []
    if not found:
        raise exceptions.CommandError(
            f'The first line of {name} names no interpreter'
        )
    return found
