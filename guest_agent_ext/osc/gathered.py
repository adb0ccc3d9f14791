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

"""What the commands of a run have written, as a user reads it.

Each server's output has the server's name before each line, or the servers
with the same output stand together.
"""

import abc
import collections
from concurrent import futures
import dataclasses
import sys
import threading
from typing import Any
from typing import BinaryIO

from keystoneauth1 import adapter

from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import resources

#: Line above and below the names of servers with the same output.
_RULE = '-' * 15
#: Seconds to wait for the names of servers.
NAMES_TIMEOUT = 15.0


@dataclasses.dataclass(frozen=True)
class End:
    """How a command has ended.

    :ivar verdict: words for everything but exit code 0
    :ivar out: what is kept of stdout
    :ivar err: what is kept of stderr
    :ivar missing: number of bytes that were not kept
    """

    verdict: str | None
    out: bytes = b''
    err: bytes = b''
    missing: int = 0


def read(compute: adapter.Adapter, item: resources.Command) -> End:
    """Return how a command has ended, with its output.

    :param compute: the compute proxy
    :param item: command that has ended, as it was listed or fetched
    """
    verdict = verdict_of(item)
    result = item.result or resources.Result()
    written = [result.get('out_bytes'), result.get('err_bytes')]
    if not item.result or written == [0, 0]:
        # Nothing is left that a list does not have.
        return End(verdict)
    found = (
        item.whole(compute) if isinstance(item, resources.RunCommand) else item
    )
    out, err = _kept(compute, found, 'out'), _kept(compute, found, 'err')
    missing = sum(size or 0 for size in written) - len(out) - len(err)
    return End(verdict, out, err, max(0, missing))


def verdict_of(found: resources.Command) -> str | None:
    """Return how a command has ended, in words; None for exit code 0."""
    if found.status != 'COMPLETED':
        error = f': {found.error}' if found.error else ''
        return f'{found.status}{error}'
    if found.exit_code is None:
        number = (found.result or resources.Result()).get('signal')
        return f'signal {number}'
    return f'exit code {found.exit_code}' if found.exit_code else None


def _kept(
    compute: adapter.Adapter, found: resources.Command, stream: str
) -> bytes:
    kept = found.kept(stream)
    return found.output(compute, stream, 0)[0] if kept is None else kept


class Names:
    """The names of the project's servers, read when one is asked for.

    :param nova: proxy of Nova's own calls
    """

    def __init__(self, nova: Any) -> None:
        self._nova = nova
        self._names: dict[str, str] | None = None

    def of(self, server_id: str) -> str:
        """Return the name of a server; its ID if no other server may have it.

        :param server_id: UUID of the server
        """
        if self._names is None:
            self._names = self._read()
        return self._names.get(server_id, server_id)

    def _read(self) -> dict[str, str]:
        """Return the names, or none if Nova does not list them in time.

        Nova waits for the database of each cell, and may wait for ever.
        """
        names: futures.Future[dict[str, str]] = futures.Future()

        def read() -> None:
            try:
                names.set_result(self._listed())
            except Exception as error:
                names.set_exception(error)

        threading.Thread(target=read, daemon=True).start()
        try:
            return names.result(NAMES_TIMEOUT)
        except futures.TimeoutError:
            interrupts.tell(
                'Nova does not list the servers; they are shown by their IDs'
            )
            return {}

    def _listed(self) -> dict[str, str]:
        names = {
            server.id: server.name
            for server in self._nova.servers(details=False)
        }
        number = collections.Counter(names.values())
        return {
            server_id: name
            for server_id, name in names.items()
            if name and number[name] == 1
        }


class Gathered(abc.ABC):
    """Shows the ends of commands."""

    @abc.abstractmethod
    def add(self, name: str, end: End) -> None:
        """Take the end of a command.

        :param name: name of the server
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Show what was not shown yet."""


class Prefixed(Gathered):
    """Shows each end at once, with the server's name before each line."""

    def finish(self) -> None:
        """Do nothing: all was shown."""

    def add(self, name: str, end: End) -> None:
        prefix = f'{name}: '
        _write(_stdout(), _lines(prefix, end.out))
        _write(getattr(sys.stderr, 'buffer', None), _lines(prefix, end.err))
        for text in _remarks(end):
            interrupts.tell(prefix + text)


class Grouped(Gathered):
    """Shows servers with the same end together, when all have ended."""

    def __init__(self) -> None:
        self._names: dict[End, list[str]] = {}

    def add(self, name: str, end: End) -> None:
        self._names.setdefault(end, []).append(name)

    def finish(self) -> None:
        for end, names in sorted(
            self._names.items(), key=lambda item: (-len(item[1]), item[1])
        ):
            remarks = ''.join(f', {text}' for text in _remarks(end))
            title = f'{", ".join(sorted(names))} ({len(names)}){remarks}'
            _write(
                _stdout(),
                f'{_RULE}\n{title}\n{_RULE}\n'.encode()
                + _lines('', end.out)
                + _lines('', end.err),
            )
        self._names.clear()


def _remarks(end: End) -> list[str]:
    remarks = [end.verdict] if end.verdict else []
    if end.missing:
        remarks.append(f'{end.missing} bytes of output were not kept')
    return remarks


def _lines(prefix: str, data: bytes) -> bytes:
    """Return the lines of a text, each with a prefix and a newline."""
    lines = data.removesuffix(b'\n').split(b'\n') if data else []
    return b''.join(prefix.encode() + line + b'\n' for line in lines)


def _stdout() -> BinaryIO | None:
    # It is None where stdout is closed.
    return getattr(sys.stdout, 'buffer', None)


def _write(to: BinaryIO | None, data: bytes) -> None:
    if to is not None and data:
        interrupts.write(to, data)
