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

"""The types, states and limits of a command, and its state machine.

The database queries, the conductor, the views and the schemas take the states
from here.
"""

from collections.abc import Mapping

EXEC = 'exec'
FILE_READ = 'file-read'
FILE_WRITE = 'file-write'
SET_PASSWORD = 'set-password'
SSH_KEYS_ADD = 'ssh-keys-add'
SSH_KEYS_REMOVE = 'ssh-keys-remove'
FSTRIM = 'fstrim'

#: The types that are one call of the guest agent, and the name of that call.
#: They need no launcher, so they work where guest-exec is blocked. A repeated
#: call changes nothing more, so it may be sent again.
AGENT_CALLS: Mapping[str, str] = {
    SET_PASSWORD: 'guest-set-user-password',
    SSH_KEYS_ADD: 'guest-ssh-add-authorized-keys',
    SSH_KEYS_REMOVE: 'guest-ssh-remove-authorized-keys',
    FSTRIM: 'guest-fstrim',
}
TRANSFERS = (FILE_READ, FILE_WRITE)
TYPES = (EXEC, *TRANSFERS, *AGENT_CALLS)

#: The command is recorded and not known to have started.
PENDING = 'PENDING'
#: A host has claimed the command, which may have started. The API shows
#: PENDING until the start in the guest is confirmed (``started_at``).
RUNNING = 'RUNNING'
#: The process ended by itself, with any exit code.
COMPLETED = 'COMPLETED'
#: The command did not run, and will not.
FAILED = 'FAILED'
#: The timeout passed, and the process tree was killed.
TIMED_OUT = 'TIMED_OUT'
#: The user cancelled the command. If it was running, its process tree was
#: killed.
CANCELLED = 'CANCELLED'
#: The command may have run, and its end cannot be known.
LOST = 'LOST'

#: The state machine: targets by source. A state that is no key is final.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    PENDING: frozenset({RUNNING, FAILED, CANCELLED}),
    RUNNING: frozenset({COMPLETED, FAILED, TIMED_OUT, CANCELLED, LOST}),
}

STATUSES = (PENDING, RUNNING, COMPLETED, FAILED, TIMED_OUT, CANCELLED, LOST)
UNFINISHED = tuple(status for status in STATUSES if status in TRANSITIONS)
ENDED = tuple(status for status in STATUSES if status not in TRANSITIONS)

#: The error of a command that was cancelled in time.
NEVER_STARTED = 'It was cancelled before it started'

#: Results of a change that a host reports: made, now or by an earlier report;
#: too late, as the command has ended otherwise; no such command; the command
#: is unfinished, but belongs to another attempt or host. Only in the last case
#: the guest must keep the command's files.
OK = 'ok'
SUPERSEDED = 'superseded'
GONE = 'gone'
MOVED = 'moved'

#: Maximum bytes of stdout and stderr together in a result, before encoding.
#: The guest keeps as much of each stream, because the sizes of both are known
#: only at the end.
MAX_OUTPUT_BYTES = 102400
#: Maximum bytes of arguments and environment together, and of stdin, before
#: encoding.
MAX_ARGUMENT_BYTES = 65536
MAX_INPUT_BYTES = 1024 * 1024
MAX_ARGUMENTS = 1024
MAX_TIMEOUT = 86400
#: Signals that the process group of a command can be sent.
SIGNALS = ('HUP', 'INT', 'QUIT', 'TERM', 'USR1', 'USR2')
#: Maximum number of columns, or rows, of a terminal.
MAX_TERMINAL_SIZE = 1000
#: Maximum bytes of stdin of an attached command in one request.
MAX_STREAM_BYTES = 256 * 1024
#: Maximum characters of a password, number of ssh keys in one command, and
#: bytes of all of them.
MAX_PASSWORD, MAX_KEYS, MAX_KEY_BYTES = 1024, 64, 32768
#: Maximum minimum of fstrim, in bytes.
MAX_TRIM = 2**62
#: Seconds within which an agent call must be answered, sent again or not.
CALL_TIMEOUT = 300


def sources_of(status: str) -> tuple[str, ...]:
    """Return the states from which a command may change to another.

    :param status: the other state
    """
    return tuple(
        source for source, targets in TRANSITIONS.items() if status in targets
    )


def shown_status(status: str, started: bool) -> str:
    """Return the state that the API shows.

    A RUNNING command is shown as PENDING until the guest has started it.

    :param status: state in the database
    :param started: True if the start in the guest is confirmed
    """
    if status == RUNNING and not started:
        return PENDING
    return status


def share_output(out_size: int, err_size: int) -> tuple[int, int]:
    """Share the bytes that a result may hold between its two streams.

    A stream that needs less than half leaves the rest to the other.

    :param out_size: size of stdout in bytes
    :param err_size: size of stderr in bytes
    :returns: number of bytes to keep of stdout, and of stderr
    """
    half = MAX_OUTPUT_BYTES // 2
    out = min(out_size, max(half, MAX_OUTPUT_BYTES - err_size))
    return out, min(err_size, MAX_OUTPUT_BYTES - out)
