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

"""The command: its types, its states, and the ways between them.

Everything else that speaks of a command's state (the database queries, the
conductor, the views, the schemas) reads it from here.
"""

from collections.abc import Mapping

EXEC = 'exec'
FILE_READ = 'file-read'
FILE_WRITE = 'file-write'

TYPES = (EXEC, FILE_READ, FILE_WRITE)

#: Recorded, not known to have started.
PENDING = 'PENDING'
#: Handed to a host; it may have started from here on. The API shows it as
#: PENDING until the guest is known to have started it (``started_at``).
RUNNING = 'RUNNING'
#: The process ended by itself, whatever its exit code.
COMPLETED = 'COMPLETED'
#: It did not run, and will not.
FAILED = 'FAILED'
#: Its timeout passed; its process tree was killed.
TIMED_OUT = 'TIMED_OUT'
#: Cancelled; if it was running, its process tree was killed.
CANCELLED = 'CANCELLED'
#: It may have run, and its end cannot be known.
LOST = 'LOST'

#: The arrows of the state machine. A state that is no key here is final.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    PENDING: frozenset({RUNNING, FAILED, CANCELLED}),
    RUNNING: frozenset({COMPLETED, FAILED, TIMED_OUT, CANCELLED, LOST}),
}

STATUSES = (PENDING, RUNNING, COMPLETED, FAILED, TIMED_OUT, CANCELLED, LOST)
UNFINISHED = tuple(status for status in STATUSES if status in TRANSITIONS)
ENDED = tuple(status for status in STATUSES if status not in TRANSITIONS)

#: The error of a command that was cancelled in time.
NEVER_STARTED = 'It was cancelled before it started'

#: What becomes of a change that a host reports: made (now or by an earlier
#: report); too late, the command has ended otherwise; no such command;
#: unfinished, but not this attempt's or not this host's. Only in the last case
#: does the guest still need what it keeps of the command.
OK = 'ok'
SUPERSEDED = 'superseded'
GONE = 'gone'
MOVED = 'moved'

#: Bytes of stdout and stderr together that a result holds, before encoding.
#: It is also what the guest keeps of each stream: which stream needs how
#: much is known only at the end.
MAX_OUTPUT_BYTES = 102400
#: Bytes of arguments, environment and stdin together, counted raw.
MAX_INPUT_BYTES = 65536
MAX_ARGUMENTS = 1024
MAX_TIMEOUT = 86400


def sources_of(status: str) -> tuple[str, ...]:
    """Return the states from which a command may become ``status``."""
    return tuple(
        source for source, targets in TRANSITIONS.items() if status in targets
    )


def shown_status(status: str, started: bool) -> str:
    """Return the state that a user sees.

    A row that was handed to a host is PENDING to its user until the guest is
    known to have started it.
    """
    if status == RUNNING and not started:
        return PENDING
    return status


def share_output(out_size: int, err_size: int) -> tuple[int, int]:
    """Share the bytes that a result may hold between its two streams.

    A stream that needs less than half leaves the rest to the other.

    :param out_size: bytes there are of stdout
    :param err_size: bytes there are of stderr
    :returns: bytes to keep of stdout and of stderr
    """
    half = MAX_OUTPUT_BYTES // 2
    out = min(out_size, max(half, MAX_OUTPUT_BYTES - err_size))
    return out, min(err_size, MAX_OUTPUT_BYTES - out)
