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

"""The calls of the QEMU guest agent that we use.

Names and fields are those of QEMU's ``qga/qapi-schema.json``.
"""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import Protocol


class Caller(Protocol):
    """What takes requests to agents."""

    def agent_command(self, uuid: str, request: Mapping[str, Any],
                      timeout: int) -> Any:
        """Send a request and wait for its answer.

        :param uuid: of the server
        :param request: to be sent as JSON
        :param timeout: seconds
        :returns: the answer's ``return``
        :raises exception.GuestError: there is none
        """


@dataclasses.dataclass(frozen=True)
class ExecStatus:
    """What the agent knows of a process that it started.

    :ivar exited: whether it has ended and nobody has its stdout or stderr
        open any more; what follows is known only then
    :ivar exitcode: None if a signal ended it
    :ivar signal: None if it ended by itself
    """

    exited: bool
    exitcode: int | None
    signal: int | None
    out: bytes = dataclasses.field(repr=False)
    err: bytes = dataclasses.field(repr=False)


class Agent:
    """The agent of one guest.

    Every method raises exception.GuestError if it gets no answer.

    :param caller: takes the requests there
    :param uuid: of the server
    :param timeout: seconds that one call may take
    """

    def __init__(self, caller: Caller, uuid: str, timeout: int = 5) -> None:
        self._caller = caller
        self._uuid = uuid
        self._timeout = timeout

    def ping(self) -> None:
        """Return if the agent answers."""
        self._call('guest-ping')

    def version(self) -> str:
        """Return the agent's version, for example ``7.2.22``."""
        return str(self._call('guest-info')['version'])

    def info(self) -> dict[str, bool]:
        """Return for each call that the agent knows whether it is enabled."""
        return {command['name']: command['enabled']
                for command in self._call('guest-info')['supported_commands']}

    def osinfo(self) -> dict[str, str]:
        """Return what the guest says of its operating system.

        ``id`` is ``mswindows``, or that of its os-release.
        """
        return dict(self._call('guest-get-osinfo'))

    def fsfreeze_status(self) -> str:
        """Return ``frozen`` or ``thawed``."""
        return str(self._call('guest-fsfreeze-status'))

    def exec(self, path: str, args: Sequence[str], *,
             env: Sequence[str] = (), stdin: bytes = b'',
             capture: bool = True) -> int:
        """Start a process.

        :param env: its whole environment, as ``NAME=value``; empty for that
            of the agent
        :param capture: have the agent keep its output
        :returns: its pid
        """
        arguments: dict[str, Any] = {
            'path': path, 'arg': list(args), 'capture-output': capture}
        if env:
            arguments['env'] = list(env)
        if stdin:
            # Without it stdin is at EOF.
            arguments['input-data'] = base64.b64encode(stdin).decode()
        return int(self._call('guest-exec', arguments)['pid'])

    def exec_status(self, pid: int) -> ExecStatus:
        """Ask after a process; the agent forgets it once it told its end.

        :raises exception.AgentRefused: the agent does not know the pid
        """
        status = self._call('guest-exec-status', {'pid': pid})
        return ExecStatus(
            exited=status['exited'], exitcode=status.get('exitcode'),
            signal=status.get('signal'), out=_bytes(status, 'out-data'),
            err=_bytes(status, 'err-data'))

    def _call(self, command: str,
              arguments: Mapping[str, Any] | None = None) -> Any:
        request: dict[str, Any] = {'execute': command}
        if arguments is not None:
            request['arguments'] = arguments
        return self._caller.agent_command(
            self._uuid, request, self._timeout)


def _bytes(status: Mapping[str, str], name: str) -> bytes:
    return base64.b64decode(status.get(name, ''))
