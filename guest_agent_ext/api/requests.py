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

"""What a request for a command asks for, beyond what its schema says."""

import base64
import binascii
import dataclasses
from typing import Any

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.api import validation

CONF = conf.CONF

#: Arguments that are recorded, and shown, as they were asked for.
_SHOWN = ('command', 'cwd', 'timeout', 'start_timeout', 'output_keep')


@dataclasses.dataclass(frozen=True, repr=False)
class Order:
    """A request for a command. It has no repr: it holds secrets."""

    #: command.TYPES
    type: str
    #: What was asked, without what is secret.
    arguments: dict[str, Any]
    #: The environment's values, and stdin in base64.
    inputs: dict[str, Any] | None
    #: Seconds from start.
    timeout: int
    #: Seconds from now.
    start_timeout: int

    @property
    def changes(self) -> bool:
        """Whether it may change the server."""
        return self.type != command.FILE_READ


def exec_of(body: dict[str, Any]) -> Order:
    """Return what a body asks for.

    :param body: it fits schemas.create
    :raises webob.exc.HTTPBadRequest: stdin is not what its encoding says, or
        all of it is too large
    """
    asked = body['command']['arguments']
    stdin = _stdin_of(asked)
    env = asked.get('env')
    _check_size(asked['command'], env or {}, stdin or b'')
    arguments = {name: asked[name] for name in _SHOWN if name in asked}
    inputs: dict[str, Any] = {}
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
    )


def _stdin_of(asked: dict[str, Any]) -> bytes | None:
    data: str | None = asked.get('input_data')
    if data is None:
        return None
    if asked.get('input_encoding') != 'base64':
        return data.encode()
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        validation.bad_request(
            'command.arguments.input_data must be base64, as '
            'command.arguments.input_encoding says'
        )


def _check_size(argv: list[str], env: dict[str, str], stdin: bytes) -> None:
    texts = [*argv, *env, *env.values()]
    size = len(stdin) + sum(len(text.encode()) for text in texts)
    if size > command.MAX_INPUT_BYTES:
        validation.bad_request(
            'command, env and input_data of command.arguments must have '
            'together at most %d bytes, not %d'
            % (command.MAX_INPUT_BYTES, size)
        )
