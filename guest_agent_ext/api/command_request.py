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

"""Reads the body of a request for a command, beyond what its schema checks."""

import base64
import binascii
import dataclasses
from typing import Any
from typing import cast
from typing import TypedDict

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.api import validation

CONF = conf.CONF

#: Arguments that are recorded and shown as the request has them.
_SHOWN = (
    'command',
    'cwd',
    'user',
    'timeout',
    'start_timeout',
    'output_keep',
    'attach',
    'detach',
)
#: Value of TERM in a terminal whose request names none.
DEFAULT_TERM = 'xterm'
#: Arguments of agent calls that are never shown, and erased at the end.
_SECRET = ('password',)


class _Required(TypedDict):
    command: list[str]


class _TerminalSize(TypedDict):
    columns: int
    rows: int


class Terminal(_TerminalSize, total=False):
    """A terminal, as in schemas.create."""

    term: str


class Arguments(_Required, total=False):
    """The arguments of an exec, as in schemas.create."""

    input_data: str
    input_encoding: str
    env: dict[str, str]
    cwd: str
    user: str
    #: Seconds from start.
    timeout: int
    #: Seconds from now.
    start_timeout: int
    output_keep: str
    attach: bool
    detach: bool
    terminal: Terminal


class Command(TypedDict):
    """A command, as in schemas.create."""

    type: str
    arguments: Arguments


class Body(TypedDict):
    """A body, as in schemas.create."""

    command: Command


@dataclasses.dataclass(frozen=True, repr=False)
class Order:
    """A command to record. There is no repr, because of the secrets.

    :ivar type: one of command.TYPES
    :ivar arguments: arguments, without those that are secret
    :ivar inputs: values of the environment, and stdin in base64
    :ivar timeout: seconds from start
    :ivar start_timeout: seconds from now
    :ivar is_attached: whether clients stream stdin and output
    """

    type: str
    arguments: dict[str, object]
    inputs: dict[str, object] | None
    timeout: int
    start_timeout: int
    is_attached: bool = False

    @property
    def changes(self) -> bool:
        """Whether the command may change the server."""
        return self.type != command.FILE_READ

    @property
    def may_wait(self) -> bool:
        """Whether the command may wait for a server that starts.

        Nobody opens the file of a transfer later.
        """
        return self.type not in command.TRANSFERS


def order_of(asked: Command, field: str = 'command') -> Order:
    """Return the command that a body asks for, of any type.

    :param asked: command, as in schemas.create
    :param field: field of the body that has the command, for messages
    :raises webob.exc.HTTPBadRequest: the arguments do not fit together, or
        are too large
    """
    if asked['type'] == command.EXEC:
        return exec_of(asked['arguments'], field)
    return _call_of(
        asked['type'], cast(dict[str, Any], asked['arguments']), field
    )


def _call_of(kind: str, asked: dict[str, Any], field: str) -> Order:
    """Return a command that is a call of the guest agent.

    :param kind: one of command.AGENT_CALLS
    :param asked: arguments, which fit the schema of the type
    """
    size = sum(len(key.encode()) for key in asked.get('keys', ()))
    if size > command.MAX_KEY_BYTES:
        validation.bad_request(
            '%s.arguments.keys must have together at most %d bytes, not %d'
            % (field, command.MAX_KEY_BYTES, size)
        )
    secrets: dict[str, object] = {
        name: value for name, value in asked.items() if name in _SECRET
    }
    return Order(
        kind,
        {name: value for name, value in asked.items() if name not in _SECRET},
        secrets or None,
        command.CALL_TIMEOUT,
        asked.get('start_timeout', CONF.guest_agent.default_start_timeout),
    )


def exec_of(asked: Arguments, field: str = 'command') -> Order:
    """Return the exec that a body asks for.

    :param field: field of the body that has the command, for messages
    :raises webob.exc.HTTPBadRequest: stdin does not fit its encoding, the
        command is too large, or how it is attached contradicts itself
    """
    is_attached = _is_attached(asked)
    stdin = _stdin_of(asked, field)
    env = asked.get('env')
    _check_size(asked['command'], env or {}, stdin or b'', field)
    arguments: dict[str, object] = {
        name: value for name, value in asked.items() if name in _SHOWN
    }
    if 'terminal' in asked:
        arguments['attach'] = True
        arguments['terminal'] = {'term': DEFAULT_TERM, **asked['terminal']}
    inputs: dict[str, object] = {}
    if env is not None:
        arguments['env'] = sorted(env)
        inputs['env'] = env
    if stdin is not None:
        arguments['input_bytes'] = len(stdin)
        inputs['stdin'] = base64.b64encode(stdin).decode()
    return Order(
        command.EXEC,
        arguments,
        inputs or None,
        asked.get('timeout', CONF.guest_agent.default_timeout),
        asked.get('start_timeout', CONF.guest_agent.default_start_timeout),
        is_attached,
    )


def _is_attached(asked: Arguments) -> bool:
    is_attached = asked.get('attach', 'terminal' in asked)
    if not is_attached and 'terminal' in asked:
        validation.bad_request(
            'command.arguments.terminal attaches the command: '
            'command.arguments.attach must be true or absent, not false'
        )
    if is_attached and 'input_data' in asked:
        validation.bad_request(
            'command.arguments.input_data must be absent where the command is '
            'attached: its stdin is what is sent to .../input'
        )
    if asked.get('detach') and not is_attached:
        validation.bad_request(
            'command.arguments.detach must be absent or false where the '
            'command is not attached'
        )
    return is_attached


def _stdin_of(asked: Arguments, field: str) -> bytes | None:
    data = asked.get('input_data')
    if data is None:
        return None
    if asked.get('input_encoding') != 'base64':
        return data.encode()
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        validation.bad_request(
            '%s.arguments.input_data must be base64, as '
            '%s.arguments.input_encoding says' % (field, field)
        )


def _check_size(
    argv: list[str], env: dict[str, str], stdin: bytes, field: str
) -> None:
    texts = [*argv, *env, *env.values()]
    size = sum(len(text.encode()) for text in texts)
    if size > command.MAX_ARGUMENT_BYTES:
        validation.bad_request(
            'command and env of %s.arguments must have together at most '
            '%d bytes, not %d' % (field, command.MAX_ARGUMENT_BYTES, size)
        )
    if len(stdin) > command.MAX_INPUT_BYTES:
        validation.bad_request(
            '%s.arguments.input_data must stand for at most %d bytes, '
            'not %d' % (field, command.MAX_INPUT_BYTES, len(stdin))
        )
