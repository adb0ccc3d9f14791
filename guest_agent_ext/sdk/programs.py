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


"""Programs that run to their end, used like ``subprocess.run``.

One request is enough for a program that takes seconds::

    from guest_agent_ext.sdk import programs

    done = programs.run(connection.compute, server_id, ['uname', '-a'])
    print(done.returncode, done.stdout)
"""

import base64
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import time
from typing import Any
from typing import cast
from typing import TypeVar
import uuid

from keystoneauth1 import adapter
from openstack import exceptions

from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import retries

#: Maximum number of bytes of stdin.
MAX_STDIN = 1024 * 1024
#: Seconds that the server may hold a request. Between two of them is looked
#: whether somebody still wants the program's end.
WAIT = 10
#: Seconds beyond that within which the answer must have begun.
_ANSWER = 60
#: Seconds between two polls of a server that does not wait, and the maximum
#: number of requests that it may refuse because others were there first.
_GAP, _TURNS = 0.5, 8
_MAX_RETRY_AFTER = 30

_TOO_MANY = 429
_ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')

_Answer = TypeVar('_Answer')


@dataclasses.dataclass(frozen=True)
class Completed:
    """A program that has ended by itself.

    :ivar id: UUID of the command
    :ivar returncode: exit code, or the negative number of the signal that
        ended the program
    :ivar stdout: bytes that were kept
    :ivar stderr: bytes that were kept
    :ivar is_cut: True if bytes of stdout were not kept
    :ivar is_error_cut: True if bytes of stderr were not kept
    """

    id: str
    returncode: int
    stdout: bytes
    stderr: bytes
    is_cut: bool = False
    is_error_cut: bool = False


class Unwanted(Exception):
    """Nobody wanted the end of a command any more; it is being cancelled."""


def run(
    compute: adapter.Adapter,
    server_id: str,
    args: Sequence[str],
    *,
    stdin: bytes = b'',
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    timeout: int | None = None,
    start_timeout: int | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Completed:
    """Run a program to its end, once at most.

    :param compute: adapter of the compute service or of guest-agent-api
    :param server_id: UUID of the server
    :param args: program and arguments
    :param stdin: bytes for the program, at most ``MAX_STDIN``
    :param env: variables added to the environment
    :param cwd: working directory
    :param user: name or number of the user in the server
    :param timeout: seconds after which the program is killed
    :param start_timeout: seconds within which the program must start
    :param is_wanted: function that returns False when the program is to be
        cancelled
    :raises process.NoExitCode: the command ended without an exit code
    :raises Unwanted: ``is_wanted`` returned False
    :raises openstack.exceptions.HttpException: the request was refused
    """
    optional = {
        'input_data': base64.b64encode(stdin).decode() if stdin else None,
        'input_encoding': 'base64' if stdin else None,
        'env': dict(env) if env else None,
        'cwd': cwd,
        'user': user,
        'timeout': timeout,
        'start_timeout': start_timeout,
    }
    arguments: dict[str, object] = {'command': list(args)} | {
        name: value for name, value in optional.items() if value is not None
    }
    url = f'/servers/{server_id}/guest-agent/commands'
    key = str(uuid.uuid4())
    command, has_waited = patiently(
        lambda: retries.repeated(
            lambda: _ask(
                compute,
                'POST',
                url,
                json={'command': {'type': 'exec', 'arguments': arguments}},
                headers={'Idempotency-Key': key},
            ),
            retries.FEW,
        )
    )
    url += '/' + command['uuid']
    while command['status'] not in _ENDED:
        if not is_wanted():
            _cancel(compute, url)
            raise Unwanted
        if not has_waited:
            time.sleep(_GAP)
        command, has_waited = retries.repeated(
            lambda: _ask(compute, 'GET', url)
        )
    return _completed(command)


def patiently(call: Callable[[], _Answer]) -> _Answer:
    """Make a call, and again when the service has too much to do.

    :param call: function that sends a request which is safe to repeat
    :raises openstack.exceptions.HttpException: the service refused
    """
    for _ in range(_TURNS):
        try:
            return call()
        except exceptions.HttpException as error:
            if error.status_code != _TOO_MANY:
                raise
            time.sleep(_retry_after(error))
    return call()


def send(
    compute: adapter.Adapter, method: str, url: str, **kwargs: Any
) -> Any:
    """Send a request whose content no log shows.

    :returns: the answer
    :raises openstack.exceptions.HttpException: the request was refused
    """
    response = compute.request(
        url, method, log=False, raise_exc=False, **kwargs
    )
    exceptions.raise_from_response(response)
    return response


def _ask(
    compute: adapter.Adapter,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> tuple[dict[str, Any], bool]:
    """Return a command, and True if the server has waited for the end."""
    response = send(
        compute,
        method,
        url,
        headers={'Prefer': f'wait={WAIT}', **(headers or {})},
        timeout=WAIT + _ANSWER,
        **kwargs,
    )
    return (
        cast(dict[str, Any], response.json()['command']),
        'Preference-Applied' in response.headers,
    )


def _cancel(compute: adapter.Adapter, url: str) -> None:
    # One that has ended meanwhile need not be cancelled.
    with contextlib.suppress(exceptions.ConflictException):
        retries.repeated(
            lambda: send(
                compute, 'POST', url + '/action', json={'cancel': None}
            ),
            retries.FEW,
        )


def _retry_after(error: exceptions.HttpException) -> float:
    response = getattr(error, 'response', None)
    value = response.headers.get('Retry-After', '') if response else ''
    return min(int(value) if value.isdigit() else 1, _MAX_RETRY_AFTER)


def _completed(command: Mapping[str, Any]) -> Completed:
    if command['status'] != 'COMPLETED':
        raise process.NoExitCode(command['status'], command['error'] or '')
    result = command['result']
    code = result['exitcode']
    return Completed(
        command['uuid'],
        -int(result['signal'] or 0) if code is None else int(code),
        _decoded(result, 'out'),
        _decoded(result, 'err'),
        bool(result['out_truncated']),
        bool(result['err_truncated']),
    )


def _decoded(result: Mapping[str, Any], stream: str) -> bytes:
    data = str(result[stream + '_data'])
    if result[stream + '_encoding'] == 'base64':
        return base64.b64decode(data)
    return data.encode()
