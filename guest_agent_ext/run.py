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

"""The states of a run and of its targets, and its limits.

A run is one command in many servers, its targets.
"""

from collections.abc import Mapping

from guest_agent_ext import command

#: Commands are released, or released ones have not ended.
RUNNING = 'RUNNING'
#: Every target was released or refused, and every command has ended.
COMPLETED = 'COMPLETED'
#: There were as many errors as there may be, so that some targets were not
#: released; every command has ended.
STOPPED = 'STOPPED'
#: The user cancelled the run, and every command has ended.
CANCELLED = 'CANCELLED'

STATUSES = (RUNNING, COMPLETED, STOPPED, CANCELLED)
ENDED = (COMPLETED, STOPPED, CANCELLED)

#: The target has not got its command.
WAITING = 'WAITING'
#: The target has its command, whose end is not counted yet.
RELEASED = 'RELEASED'
#: The server could not take a command, and gets none.
REFUSED = 'REFUSED'

#: A target whose command has ended has the state of the command.
TARGET_STATUSES = (WAITING, RELEASED, REFUSED, *command.ENDED)
#: What the API counts, commands by their states and targets without one, in
#: words for users.
COUNTED: Mapping[str, str] = {
    WAITING: 'whose command was not released',
    command.PENDING: 'whose command has not started',
    command.RUNNING: 'whose command runs',
    command.COMPLETED: 'whose command ended by itself, with any exit code',
    command.FAILED: 'whose command did not run',
    command.TIMED_OUT: 'whose command was killed when its timeout passed',
    command.CANCELLED: 'whose command was cancelled',
    command.LOST: 'whose command has an end that is not known',
    REFUSED: 'whose server could not take a command',
}

#: Number of unfinished commands of a run whose request does not say.
DEFAULT_CONCURRENCY = 50
MAX_CONCURRENCY = 1000
MAX_ERRORS = 1_000_000
MAX_NAME = 255
#: Maximum number of servers that a request lists; an option may say less.
MAX_LISTED = 100_000
#: Maximum number of servers whose commands a request lists by their uuids.
MAX_FILTERED = 100
#: Maximum number of refused servers that the API shows.
MAX_REFUSED = 1000
#: Maximum number of tags, and of metadata, that choose the targets.
MAX_TAGS = 50

_ERRORS = (command.FAILED, command.TIMED_OUT, command.LOST)


def is_error(
    status: str, exitcode: int | None = None, signal: int | None = None
) -> bool:
    """Return whether the end of a command counts as an error.

    :param status: state that the command ended in
    :param exitcode: exit code, None if there is none
    :param signal: signal that ended it, None if none did
    """
    if status in _ERRORS:
        return True
    return status == command.COMPLETED and bool(exitcode or signal)


def share(value: int | str, targets: int) -> int:
    """Return a number that may be given as a percentage of the targets.

    :param value: number, or digits and a percent sign
    :param targets: number of targets
    :returns: at least 1; a part of a target is left out
    """
    if isinstance(value, str):
        value = targets * int(value.rstrip('%')) // 100
    return max(1, value)


def end_of(
    counts: Mapping[str, int], *, is_cancelled: bool, is_stopped: bool
) -> str | None:
    """Return the state that a run ends in now, None if it goes on.

    :param counts: number of targets by their status
    :param is_cancelled: whether the user has cancelled the run
    :param is_stopped: whether there were as many errors as there may be
    """
    if counts.get(RELEASED):
        return None
    if is_cancelled:
        return CANCELLED
    if not counts.get(WAITING):
        return COMPLETED
    return STOPPED if is_stopped else None
