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


"""What is done with a guest's files beside reading and writing them.

A file is written to a temporary one beside it, and takes its place when all of
it is there: the whole new file, or the old one as it was.
"""

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NoReturn

from guest_agent_ext import exception
from guest_agent_ext.guest import answers
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import scripts

#: Characters of a path that a message shows.
MAX_SHOWN = 255
#: What a guest, whose root may answer anything, may make a row hold.
MAX_PATH, MAX_INODE, STRAYS = 8192, 64, 100


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a file is written to.

    :ivar path: of the file itself, where symbolic links lead to
    :ivar temporary: what is written before it takes its place; None where
        something is appended to the file itself
    :ivar inode: of that, by which it is known again
    :ivar mode: octal digits that the file is to have; None for those of the
        file that it replaces
    :ivar strays: ids of transfers whose temporary files are there too
    """

    path: str
    temporary: str | None
    inode: str
    mode: str | None
    strays: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what from_dict needs, fit for JSON."""
        return dataclasses.asdict(dataclasses.replace(self, strays=()))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'Target':
        return cls(**values)


class Files:
    """The files of one guest.

    Every method raises exception.GuestError if the guest did not answer, and
    exception.FileError if it answered that it cannot be done.

    :param guest: the guest's launcher
    :raises exception.LauncherUnavailable: it has none that runs scripts
    """

    def __init__(self, guest: launcher.Launcher) -> None:
        if not isinstance(guest, scripts.ScriptLauncher):
            raise exception.LauncherUnavailable(
                'Files cannot be read or written in this guest: it has '
                'neither /bin/sh and /proc nor Windows PowerShell'
            )
        self._guest = guest

    def look(self, path: str) -> None:
        """Return if a path is that of a file that can be read.

        To be asked before the agent opens it: it would hang with a FIFO.
        """
        self._ask('file', path, 'look', path)

    def create(
        self, path: str, id: str, *, mode: str | None, append: bool
    ) -> Target:
        """Make what is to be written, and find out where.

        :param id: uuid of the command
        :param mode: octal digits
        :param append: write to the file itself
        """
        answer = self._ask(
            'created',
            path,
            'create',
            path,
            id,
            mode or '',
            'yes' if append else 'no',
        )
        inode, *strays = answer.details or ['']
        if len(answer.path) > MAX_PATH or len(inode) > MAX_INODE:
            raise exception.AgentError(scripts.IMPROPER)
        directory = _directory_of(answer.path)
        return Target(
            answer.path,
            None if append else f'{directory}.ga-{id}',
            inode,
            mode,
            answers.ids(strays)[:STRAYS],
        )

    def remove_strays(self, target: Target, ids: Collection[str]) -> None:
        """Remove what ended transfers have left beside a file."""
        if ids:
            self._ask('cleaned', target.path, 'clean', target.path, *ids)

    def start_commit(self, target: Target, size: int, sha256: str) -> int:
        """Have the file verified, and put in its place.

        It may be asked for again: it is done once. A large file takes the
        guest its time.

        :param size: bytes that the file is to have
        :param sha256: in hexadecimal; empty if not known
        :returns: pid to poll for
        """
        return self._guest.start_file(
            'commit',
            target.path,
            target.temporary or '',
            target.inode,
            str(size),
            sha256,
            target.mode or '',
        )

    def poll_commit(self, target: Target, pid: int) -> bool:
        """Tell whether the file is in its place.

        :raises exception.FileError: it is not, and the old file as it was
        :raises exception.AgentRefused: the agent does not know this pid
        """
        answer = self._guest.poll_file(pid)
        if answer is None:
            return False
        _check(answer, 'committed', target.path)
        return True

    def discard(self, target: Target) -> bool:
        """Remove what is not in its place, and tell whether the file is.

        After this it does not come there any more.
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
    ) -> scripts.FileAnswer:
        answer = self._guest.ask_file(verb, *args)
        _check(answer, expected, path)
        return answer


def _directory_of(path: str) -> str:
    """Return what stands before a file's name, with the separator."""
    end = path.rfind('/')
    if not path.startswith('/'):
        # On Windows both separate.
        end = max(end, path.rfind('\\'))
    return path[: end + 1]


def _check(answer: scripts.FileAnswer, expected: str, path: str) -> None:
    if answer.word != expected:
        _refuse(answer, path)


def _refuse(answer: scripts.FileAnswer, path: str) -> NoReturn:
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
                + (answer.error[: MAX_SHOWN * 2] or 'it did not say why')
            )
    raise exception.AgentError(scripts.IMPROPER)
