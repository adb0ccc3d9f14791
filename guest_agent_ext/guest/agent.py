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

"""The calls of the QEMU guest agent that the extension uses.

Names and fields are those of QEMU's ``qga/qapi-schema.json``.
"""

import base64
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import Protocol
from typing import TypeAlias
from typing import TypeVar

from guest_agent_ext import details
from guest_agent_ext import exception
from guest_agent_ext import untrusted

_Answer = TypeVar('_Answer')

#: A request to an agent, its arguments, or most of its answers.
Json: TypeAlias = Mapping[str, Any]

#: Why an agent answers nothing for a while.
FROZEN = "The server's file systems are frozen for a snapshot"
#: Maximum number of file systems whose errors are kept.
MAX_UNTRIMMED = 32


class Caller(Protocol):
    """A means of sending requests to agents."""

    def agent_command(self, uuid: str, request: Json, timeout: int) -> Any:
        """Send a request and wait for its answer.

        :param uuid: UUID of the server
        :param request: object that is sent as JSON
        :param timeout: maximum seconds to wait
        :returns: value of ``return`` in the answer
        :raises exception.GuestError: no answer came, or an error
        """


@dataclasses.dataclass(frozen=True)
class ExecStatus:
    """The state of a process that the agent started.

    :ivar exited: True if the process has ended and no other process holds its
        stdout or stderr; only then the other fields are known
    :ivar exitcode: exit code; None if a signal ended the process
    :ivar signal: number of that signal; None if the process ended by itself
    :ivar out: bytes written to stdout, if they were captured
    :ivar err: bytes written to stderr, if they were captured
    """

    exited: bool
    exitcode: int | None
    signal: int | None
    out: bytes = dataclasses.field(repr=False)
    err: bytes = dataclasses.field(repr=False)


class Agent:
    """The agent of one guest.

    Every method raises exception.GuestError if no answer comes. A ``pid`` or
    ``handle`` is one that the agent returned.

    :param caller: means of sending requests
    :param uuid: UUID of the server
    :param timeout: maximum seconds of one call
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
            'guest-info', {}, lambda answer: untrusted.text(answer['version'])
        )

    def info(self) -> dict[str, bool]:
        """Return the calls that the agent knows, and which are enabled.

        :returns: name of each call, with True if it is enabled
        """
        return self._call(
            'guest-info',
            {},
            lambda answer: {
                str(call['name']): bool(call['enabled'])
                for call in answer['supported_commands']
            },
        )

    def osinfo(self) -> dict[str, str]:
        """Return the guest's description of its operating system.

        :returns: fields of guest-get-osinfo; ``id`` is ``mswindows`` or that
            of the guest's os-release file
        """
        return self._call(
            'guest-get-osinfo',
            {},
            lambda answer: {
                str(name): untrusted.text(value)
                for name, value in answer.items()
            },
        )

    def fsfreeze_status(self) -> str:
        """Return the state of the file systems, ``frozen`` or ``thawed``."""
        return self._call('guest-fsfreeze-status', {}, str)

    def is_frozen(self) -> bool:
        """Return whether the file systems are frozen for a snapshot.

        The agent then answers little more than a ping, and says of every
        other call that it is disabled.
        """
        try:
            return self.fsfreeze_status() == 'frozen'
        except exception.AgentRefused:
            return False

    def check_enabled(self, name: str) -> None:
        """Return if the guest lets its agent answer a call.

        :param name: name of the call
        :raises exception.AgentBusy: the file systems are frozen
        :raises exception.AgentCommandDisabled: the call is disabled, or the
            agent does not know it
        """
        refusal = refusal_of(self.info(), name)
        if refusal is None:
            return
        if self.is_frozen():
            raise exception.AgentBusy(FROZEN)
        raise exception.AgentCommandDisabled(refusal)

    def set_user_password(
        self, user: str, password: str, *, is_crypted: bool
    ) -> None:
        """Set the password of a user.

        :param is_crypted: whether the password is the hash that the guest's
            system stores
        """
        self._call(
            'guest-set-user-password',
            {
                'username': user,
                'password': base64.b64encode(password.encode()).decode(),
                'crypted': is_crypted,
            },
            lambda answer: None,
        )

    def add_authorized_keys(
        self, user: str, keys: Sequence[str], *, reset: bool
    ) -> None:
        """Add ssh keys to those that a user may log in with.

        :param keys: public keys; those that are there are not added again
        :param reset: whether to remove all others
        """
        self._call(
            'guest-ssh-add-authorized-keys',
            {'username': user, 'keys': list(keys), 'reset': reset},
            lambda answer: None,
        )

    def remove_authorized_keys(self, user: str, keys: Sequence[str]) -> None:
        """Remove ssh keys from those that a user may log in with.

        :param keys: public keys; those that are not there are ignored
        """
        self._call(
            'guest-ssh-remove-authorized-keys',
            {'username': user, 'keys': list(keys)},
            lambda answer: None,
        )

    def fstrim(self, minimum: int, timeout: int) -> tuple[str, ...]:
        """Discard the unused blocks of all mounted file systems.

        :param minimum: size in bytes of the smallest free range to discard
        :param timeout: maximum seconds of the call
        :returns: errors of the file systems that were not trimmed, with
            their paths
        """
        return self._call(
            'guest-fstrim', {'minimum': minimum}, _untrimmed, timeout=timeout
        )

    def tell(
        self, part: details.Part, arguments: Json | None = None
    ) -> details.Value:
        """Return a part of the details of the guest, checked and bounded.

        :param part: part to ask for
        :param arguments: arguments of the call that answers it
        """
        return self._call(part.call, arguments or {}, part.read)

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

        :param path: path or name of the program
        :param args: arguments of the program
        :param env: the whole environment, as ``NAME=value``; empty for that of
            the agent
        :param stdin: bytes for the process to read
        :param capture: True if the agent keeps the output
        :returns: PID of the process
        """
        arguments: dict[str, object] = {
            'path': path,
            'arg': list(args),
            'capture-output': capture,
        }
        if env:
            arguments['env'] = list(env)
        if stdin:
            # Without input-data, stdin is at EOF.
            arguments['input-data'] = base64.b64encode(stdin).decode()
        return self._call(
            'guest-exec',
            arguments,
            lambda answer: untrusted.natural(answer['pid']),
        )

    def exec_status(self, pid: int) -> ExecStatus:
        """Poll a process, which the agent forgets after its end.

        :raises exception.AgentRefused: the agent does not know the PID
        """
        return self._call('guest-exec-status', {'pid': pid}, _exec_status)

    def file_open(self, path: str, mode: str) -> int:
        """Open a file.

        :param path: path in the guest
        :param mode: mode of fopen(3)
        :returns: the agent's handle of the file
        """
        return self._file_call(
            'open', {'path': path, 'mode': mode}, untrusted.integer
        )

    def file_close(self, handle: int) -> None:
        """Close a file."""
        self._file_call('close', {'handle': handle}, lambda answer: None)

    def file_flush(self, handle: int) -> None:
        """Write the agent's buffer of a file to the guest's system."""
        self._file_call('flush', {'handle': handle}, lambda answer: None)

    def file_seek(self, handle: int, offset: int, whence: str) -> int:
        """Change the position in a file.

        :param offset: number of bytes, counted from ``whence``
        :param whence: ``set``, ``cur`` or ``end``
        :returns: the position, in bytes from the beginning
        """
        return self._file_call(
            'seek',
            {'handle': handle, 'offset': offset, 'whence': whence},
            lambda answer: untrusted.natural(answer['position']),
        )

    def file_read(self, handle: int, count: int) -> bytes:
        """Return the next bytes of a file, none at its end.

        :param count: maximum number of bytes
        """

        def read(answer: Mapping[str, str]) -> bytes:
            data = base64.b64decode(answer['buf-b64'])
            if len(data) > count:
                raise ValueError
            return data

        return self._file_call(
            'read', {'handle': handle, 'count': count}, read
        )

    def file_write(self, handle: int, data: bytes) -> int:
        """Write bytes at the position in a file.

        :returns: number of bytes written
        """
        return self._file_call(
            'write',
            {'handle': handle, 'buf-b64': base64.b64encode(data).decode()},
            lambda answer: untrusted.integer(answer['count']),
        )

    def _file_call(
        self, name: str, arguments: Json, read: Callable[[Any], _Answer]
    ) -> _Answer:
        try:
            return self._call(f'guest-file-{name}', arguments, read)
        except exception.AgentCommandDisabled:
            raise exception.AgentCommandDisabled(
                'The guest does not allow its agent to access files: all '
                'guest-file commands must be enabled in the configuration of '
                'qemu-guest-agent (allow-rpcs, block-rpcs or BLACKLIST_RPC) '
                'in the server; where SELinux confines the agent '
                '(virt_qemu_ga_t), its policy must permit the access, too'
            ) from None

    def _call(
        self,
        command: str,
        arguments: Json,
        read: Callable[[Any], _Answer],
        timeout: int | None = None,
    ) -> _Answer:
        """Send a request and return the parsed answer.

        :param command: name of the agent's call
        :param read: parser of the answer
        :param timeout: maximum seconds of the call, None for the agent's own
        """
        answer = self._caller.agent_command(
            self._uuid,
            {'execute': command, 'arguments': arguments},
            self._timeout if timeout is None else timeout,
        )
        try:
            return read(answer)
        except untrusted.IMPROPER:
            raise exception.AgentError(
                f'The guest agent gave no proper answer to {command}',
                may_have_run=True,
            ) from None


def refusal_of(enabled: Mapping[str, bool], name: str) -> str | None:
    """Return why a guest does not answer a call, in words for the tenant.

    :param enabled: answer of Agent.info()
    :param name: name of the call
    :returns: None if the guest answers the call
    """
    if enabled.get(name):
        return None
    if name not in enabled:
        return (
            f'The guest agent does not know {name}: a later release of '
            'qemu-guest-agent may'
        )
    return (
        f'The guest does not allow its agent to answer {name}: the call must '
        'be enabled in the configuration of qemu-guest-agent (allow-rpcs, '
        'block-rpcs or BLACKLIST_RPC) in the server'
    )


def _untrimmed(answer: Json) -> tuple[str, ...]:
    return tuple(
        untrusted.text(f'{item["path"]}: {item["error"]}')
        for item in answer.get('paths', ())
        if 'error' in item
    )[:MAX_UNTRIMMED]


def _exec_status(answer: Json) -> ExecStatus:
    return ExecStatus(
        exited=bool(answer['exited']),
        exitcode=_number(answer, 'exitcode'),
        signal=_number(answer, 'signal'),
        out=_bytes(answer, 'out-data'),
        err=_bytes(answer, 'err-data'),
    )


def _number(answer: Json, name: str) -> int | None:
    return untrusted.integer(answer[name]) if name in answer else None


def _bytes(answer: Mapping[str, str], name: str) -> bytes:
    return base64.b64decode(answer.get(name, ''))
