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

"""``openstack server guest password|ssh-key|trim``: calls of the agent."""

import argparse
from collections.abc import Sequence
import getpass
import sys
import time
import uuid

from keystoneauth1 import adapter
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.command import command

from guest_agent_ext.osc import base
from guest_agent_ext.osc import resources

#: Maximum number of times that a request without an answer is sent, and
#: seconds between.
TRIES, RETRY_GAP = 3, 1.0
#: Seconds that the server waits for the command's end before it answers, and
#: seconds until it is asked again where it does not wait.
WAIT, GAP = 30, 0.5
#: Words of a public key: its type, the key, and a comment that may be absent.
_WORDS = 3


class SetPassword(base.ServerCommand):
    """Set the password of a user of a server

    The password is asked for twice, and not shown. Where stdin is no terminal,
    it is the first line of stdin.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_user(parser)
        parser.add_argument(
            '--crypted',
            action='store_true',
            help="The password is the hash that the server's system stores",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        arguments = {'user': parsed_args.user, 'password': _password()}
        if parsed_args.crypted:
            arguments['crypted'] = True
        _run(
            self.compute(),
            self.server_id(parsed_args),
            'set-password',
            arguments,
        )


class AddSshKeys(base.ServerCommand):
    """Add public ssh keys to those that a user of a server may log in with"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_user(parser)
        _add_files(parser)
        parser.add_argument(
            '--reset',
            action='store_true',
            help='Remove all other keys of the user',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        arguments = {'user': parsed_args.user, 'keys': _keys(parsed_args.file)}
        if parsed_args.reset:
            arguments['reset'] = True
        _run(
            self.compute(),
            self.server_id(parsed_args),
            'ssh-keys-add',
            arguments,
        )


class RemoveSshKeys(base.ServerCommand):
    """Remove public ssh keys from those that a user of a server may use"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_user(parser)
        _add_files(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        _run(
            self.compute(),
            self.server_id(parsed_args),
            'ssh-keys-remove',
            {'user': parsed_args.user, 'keys': _keys(parsed_args.file)},
        )


class ListSshKeys(base.ServerCommand, command.Lister):
    """List the public ssh keys that a user of a server may log in with"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_user(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        response = self.compute().get(
            base.path_of(self.server_id(parsed_args), 'details'),
            params={'fields': 'ssh_keys', 'user': parsed_args.user},
        )
        sdk_exceptions.raise_from_response(response)
        found = response.json()['guest_agent_details']
        if 'ssh_keys' not in found:
            raise exceptions.CommandError(found['unavailable']['ssh_keys'])
        return ('Type', 'Key', 'Comment'), map(_words, found['ssh_keys'])


class Trim(base.ServerCommand):
    """Discard the unused blocks of the file systems of a server"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--minimum',
            metavar='<bytes>',
            type=int,
            help='Size of the smallest free range to discard (default: all)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        arguments: dict[str, object] = {}
        if parsed_args.minimum is not None:
            arguments['minimum'] = parsed_args.minimum
        _run(self.compute(), self.server_id(parsed_args), 'fstrim', arguments)


def _add_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--user',
        metavar='<user>',
        default='root',
        help='User in the server (default: root)',
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'file',
        metavar='<file>',
        nargs='+',
        help='File of public keys, such as ~/.ssh/id_ed25519.pub; - for stdin',
    )


def _password() -> str:
    """Ask for a password, which never stands on a command line.

    :raises osc_lib.exceptions.CommandError: there is none, or the two differ
    """
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip('\r\n')
    else:
        password = getpass.getpass('New password: ')
        if getpass.getpass('Repeat the password: ') != password:
            raise exceptions.CommandError('The two passwords differ')
    if not password:
        raise exceptions.CommandError('The password must not be empty')
    return password


def _keys(names: Sequence[str]) -> list[str]:
    """Read the keys of files; empty lines and comments are left out.

    :raises osc_lib.exceptions.CommandError: a file has no public key
    """
    keys: list[str] = []
    for name in names:
        lines = [line.strip() for line in _read(name).splitlines()]
        found = [line for line in lines if line and not line.startswith('#')]
        # A private key must not leave this machine.
        if not found or any('PRIVATE KEY' in line for line in found):
            raise exceptions.CommandError(f'{name} has no public keys')
        keys += found
    return keys


def _read(name: str) -> str:
    if name == '-':
        return sys.stdin.read()
    with open(name) as file:
        return file.read()


def _words(key: str) -> Sequence[str]:
    words = key.split(maxsplit=_WORDS - 1)
    return [*words, *[''] * (_WORDS - len(words))]


def _run(
    compute: adapter.Adapter,
    server_id: str,
    kind: str,
    arguments: dict[str, object],
) -> None:
    """Have a command carried out, and wait for its end.

    :param kind: type of the command
    :raises osc_lib.exceptions.CommandError: it was not carried out
    """
    found = _create(compute, server_id, kind, arguments)
    while not found.has_ended:
        asked_at = time.monotonic()
        found.wait(compute, WAIT)
        if not found.has_ended and time.monotonic() - asked_at < GAP:
            time.sleep(GAP)
    if found.status != 'COMPLETED':
        raise exceptions.CommandError(
            found.error or f'The command ended as {found.status}'
        )


def _create(
    compute: adapter.Adapter,
    server_id: str,
    kind: str,
    arguments: dict[str, object],
) -> resources.Command:
    """Create a command, only once even if the answer is lost."""
    key = str(uuid.uuid4())
    for left in reversed(range(TRIES)):
        try:
            response = compute.post(
                base.path_of(server_id, 'commands'),
                json={'command': {'type': kind, 'arguments': arguments}},
                headers={'Idempotency-Key': key, 'Prefer': f'wait={WAIT}'},
                # The log would show the password.
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
    raise AssertionError('unreachable: there is at least one try')
