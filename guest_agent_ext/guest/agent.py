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
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import Protocol
from typing import TypeVar

from guest_agent_ext import exception
from guest_agent_ext.guest import answers

_Answer = TypeVar('_Answer')


class Caller(Protocol):
    """What takes requests to agents."""

    def agent_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
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
        self._call('guest-ping', {}, lambda answer: None)

    def version(self) -> str:
        """Return the agent's version, for example ``7.2.22``."""
        return self._call(
            'guest-info', {}, lambda answer: answers.text(answer['version'])
        )

    def info(self) -> dict[str, bool]:
        """Return for each call that the agent knows whether it is enabled."""
        return self._call('guest-info', {}, _enabled)

    def osinfo(self) -> dict[str, str]:
        """Return what the guest says of its operating system.

        ``id`` is ``mswindows``, or that of its os-release.
        """
        return self._call('guest-get-osinfo', {}, _names)

    def fsfreeze_status(self) -> str:
        """Return ``frozen`` or ``thawed``."""
        return self._call('guest-fsfreeze-status', {}, str)

    def exec(
        self,
        path: str,
        args: Sequence[str],
        *,
        env: Sequence[str] = (),
        stdin: bytes = b'',
        capture: bool = True,
    ) -> int:
        """Start a process.

        :param env: its whole environment, as ``NAME=value``; empty for that
            of the agent
        :param capture: have the agent keep its output
        :returns: its pid
        """
        arguments: dict[str, Any] = {
            'path': path,
            'arg': list(args),
            'capture-output': capture,
        }
        if env:
            arguments['env'] = list(env)
        if stdin:
            # Without it stdin is at EOF.
            arguments['input-data'] = base64.b64encode(stdin).decode()
        return self._call(
            'guest-exec',
            arguments,
            lambda answer: answers.natural(answer['pid']),
        )

    def exec_status(self, pid: int) -> ExecStatus:
        """Ask after a process; the agent forgets it once it told its end.

        :raises exception.AgentRefused: the agent does not know the pid
        """
        return self._call('guest-exec-status', {'pid': pid}, _exec_status)

    def file_open(self, path: str, mode: str) -> int:
        """Open a file.

        :param mode: as of fopen(3)
        :returns: its handle
        """
        return self._file_call(
            'open', {'path': path, 'mode': mode}, answers.integer
        )

    def file_close(self, handle: int) -> None:
        """Close a file."""
        self._file_call('close', {'handle': handle}, lambda answer: None)

    def file_flush(self, handle: int) -> None:
        """Hand what was written to the guest's system."""
        self._file_call('flush', {'handle': handle}, lambda answer: None)

    def file_seek(self, handle: int, offset: int, whence: str) -> int:
        """Go to a place in a file.

        :param whence: ``set``, ``cur`` or ``end``
        :returns: the place, from the beginning
        """
        return self._file_call(
            'seek',
            {'handle': handle, 'offset': offset, 'whence': whence},
            lambda answer: answers.natural(answer['position']),
        )

    def file_read(self, handle: int, count: int) -> bytes:
        """Return the bytes that come next, nothing at the end of a file."""

        def read(answer: Mapping[str, str]) -> bytes:
            data = base64.b64decode(answer['buf-b64'])
            if len(data) > count:
                raise ValueError
            return data

        return self._file_call(
            'read', {'handle': handle, 'count': count}, read
        )

    def file_write(self, handle: int, data: bytes) -> int:
        """Write bytes where the file is.

        :returns: how many were written
        """
        return self._file_call(
            'write',
            {'handle': handle, 'buf-b64': base64.b64encode(data).decode()},
            lambda answer: answers.integer(answer['count']),
        )

    def _file_call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        read: Callable[[Any], _Answer],
    ) -> _Answer:
        try:
            return self._call(f'guest-file-{name}', arguments, read)
        except exception.AgentCommandDisabled:
            raise exception.AgentCommandDisabled(
                'The guest does not allow its agent to access files: all '
                'guest-file commands must be enabled in the configuration of '
                'qemu-guest-agent (allow-rpcs, block-rpcs or BLACKLIST_RPC) '
                'in the server'
            ) from None

    def _call(
        self,
        command: str,
        arguments: Mapping[str, Any],
        read: Callable[[Any], _Answer],
    ) -> _Answer:
        """Send a request.

        :param read: makes of the answer what the caller wants
        """
        answer = self._caller.agent_command(
            self._uuid,
            {'execute': command, 'arguments': arguments},
            self._timeout,
        )
        try:
            return read(answer)
        except answers.IMPROPER:
            raise exception.AgentError(
                f'The guest agent gave no proper answer to {command}',
                may_have_run=True,
            ) from None


def _enabled(answer: Mapping[str, Any]) -> dict[str, bool]:
    return {
        str(command['name']): bool(command['enabled'])
        for command in answer['supported_commands']
    }


def _names(answer: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): answers.text(value) for name, value in answer.items()}


def _exec_status(answer: Mapping[str, Any]) -> ExecStatus:
    return ExecStatus(
        exited=bool(answer['exited']),
        exitcode=_number(answer, 'exitcode'),
        signal=_number(answer, 'signal'),
        out=_bytes(answer, 'out-data'),
        err=_bytes(answer, 'err-data'),
    )


def _number(answer: Mapping[str, Any], name: str) -> int | None:
    return answers.integer(answer[name]) if name in answer else None


def _bytes(answer: Mapping[str, str], name: str) -> bytes:
    return base64.b64decode(answer.get(name, ''))
