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


"""A guest's files: checks, creation, commit and removal.

A new file is written under a temporary name in the directory of its
destination and renamed when it is complete: the destination is the whole new
file, or the old one unchanged.
"""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
from typing import Any

from guest_agent_ext import exception
from guest_agent_ext import untrusted
from guest_agent_ext.guest.launchers import base
from guest_agent_ext.guest.launchers import scripted

#: Maximum characters of a path in an error message.
MAX_SHOWN = 255
#: Maximum characters of a path and of an inode, and number of strays, accepted
#: from a guest, whose root may answer anything.
MAX_PATH, MAX_INODE, MAX_STRAYS = 8192, 64, 100


@dataclasses.dataclass(frozen=True)
class Target:
    """The destination of a file that is written.

    :ivar path: path of the file, with symbolic links resolved
    :ivar temporary: path of the temporary file; None if the transfer appends
        to the file itself
    :ivar inode: inode of the temporary file, which identifies the file after
        its rename
    :ivar mode: octal digits of the file's mode; None for the mode of the file
        that is replaced
    :ivar owner: owner and group of the file, in the words of chown; empty for
        those of the file that is replaced
    :ivar strays: ids of other transfers that left temporary files in the
        directory
    """

    path: str
    temporary: str | None
    inode: str
    mode: str | None
    owner: str = ''
    strays: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in the form of from_dict(), fit for JSON."""
        return dataclasses.asdict(dataclasses.replace(self, strays=()))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'Target':
        return cls(**values)


class Files:
    """The files of one guest.

    Every method raises exception.GuestError if the guest did not answer, and
    exception.FileError if the guest refused.

    :param guest: the guest's launcher
    :raises exception.LauncherUnavailable: the launcher runs no scripts
    """

    def __init__(self, guest: base.Launcher) -> None:
        if not isinstance(guest, scripted.ScriptLauncher):
            raise exception.LauncherUnavailable(
                'Files cannot be read or written in this guest: it has '
                'neither /bin/sh and /proc nor Windows PowerShell'
            )
        self._guest = guest

    def check_readable(self, path: str) -> None:
        """Return if a path names a regular file that can be read.

        Call this before the agent opens the path: opening a FIFO would hang
        the agent.
        """
        self._ask('file', path, 'look', path)

    def create(
        self,
        path: str,
        id: str,
        *,
        mode: str | None,
        append: bool,
        owner: str | None = None,
        group: str | None = None,
    ) -> Target:
        """Create the temporary file and find the destination.

        :param path: path of the file; may be a symbolic link
        :param id: UUID of the transfer's command
        :param mode: octal digits of the file's mode; None for the default
        :param append: True to write to the file itself
        :param owner: name or number of the file's user; None for the default
        :param group: name or number of the file's group; None for the default
        """
        ownership = (owner or '') + (f':{group}' if group else '')
        answer = self._ask(
            'created',
            path,
            'create',
            path,
            id,
            mode or '',
            'yes' if append else 'no',
            ownership,
        )
        inode, *strays = answer.details or ['']
        if len(answer.path) > MAX_PATH or len(inode) > MAX_INODE:
            raise exception.AgentError(scripted.IMPROPER)
        directory = _directory_of(answer.path)
        return Target(
            answer.path,
            None if append else f'{directory}.ga-{id}',
            inode,
            mode,
            ownership,
            untrusted.ids(strays)[:MAX_STRAYS],
        )

    def remove_strays(self, target: Target, ids: Collection[str]) -> None:
        """Remove the temporary files of transfers that have ended.

        :param target: destination in the same directory
        :param ids: UUIDs of the transfers' commands
        """
        if ids:
            self._ask('cleaned', target.path, 'clean', target.path, *ids)

    def forget(self, path: str, id: str) -> None:
        """Remove the file of a create() whose answer was lost.

        :param path: path that was passed to create()
        :param id: UUID of the transfer's command
        """
        self._ask('cleaned', path, 'forget', path, id)

    def start_commit(self, target: Target, size: int, sha256: str) -> int:
        """Start verification of the file and its move to the destination.

        May be repeated: a file that was moved stays. The guest needs time to
        verify a large file.

        :param size: expected size in bytes
        :param sha256: hash in hexadecimal; empty if not known
        :returns: PID to poll
        """
        return self._guest.start_file(
            'commit',
            target.path,
            target.temporary or '',
            target.inode,
            str(size),
            sha256,
            target.mode or '',
            target.owner,
        )

    def poll_commit(self, target: Target, pid: int) -> bool:
        """Tell whether the file has been moved to its destination.

        :param pid: PID that start_commit() returned
        :returns: False while the commit is under way
        :raises exception.FileError: the commit failed, and the old file is
            unchanged
        :raises exception.AgentRefused: the agent does not know the PID
        """
        answer = self._guest.poll_file(pid)
        if answer is None:
            return False
        _check(answer, 'committed', target.path)
        return True

    def discard(self, target: Target) -> bool:
        """Remove the temporary file and tell whether a commit was made.

        No commit of the transfer can succeed after this.

        :returns: True if the file is at its destination
        """
        if target.temporary is None:
            return False
        answer = self._guest.ask_file(
            'discard', target.path, target.temporary, target.inode
        )
        if answer.word == 'committed':
            return True
        _check(answer, 'discarded', target.path)
        return False

    def _ask(
        self, expected: str, path: str, verb: str, *args: str
    ) -> scripted.FileAnswer:
        answer = self._guest.ask_file(verb, *args)
        _check(answer, expected, path)
        return answer


def _directory_of(path: str) -> str:
    """Return the directory of a path, with the separator."""
    end = path.rfind('/')
    if not path.startswith('/'):
        # Windows has two separators.
        end = max(end, path.rfind('\\'))
    return path[: end + 1]


def _check(answer: scripted.FileAnswer, expected: str, path: str) -> None:
    """Raise the error that an answer stands for.

    :param expected: word of the only answer that is no error
    :param path: path that the message shows
    """
    if answer.word == expected:
        return
    shown = path[:MAX_SHOWN]
    match answer.word, *answer.details:
        case ['missing', *_]:
            raise exception.FileMissing(f'The server has no file {shown}')
        case ['unsuitable', 'directory']:
            raise exception.FileUnsuitable(f'{shown} is a directory')
        case ['unsuitable', *_]:
            raise exception.FileUnsuitable(
                f'{shown} is not a regular file but a special one'
            )
        case ['refused', *_]:
            raise exception.FileRefused(
                'The system of the server refuses: '
                + (answer.error[: MAX_SHOWN * 2] or 'no reason given')
            )
    raise exception.AgentError(scripted.IMPROPER)
