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

"""The POSIX launcher: how a command is run in a guest with ``/bin/sh``.

The scripts stand in ``posix/``. What a tenant sent travels as arguments,
environment and stdin of ``guest-exec``, never inside a script.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from importlib import resources
import re
import time

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent

DIRECTORY = '/run/guest-agent'
SHELL = '/bin/sh'

#: What every command finds in its environment; the tenant's own may replace
#: it.
ENVIRONMENT = {
    'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'HOME': '/root',
    'LANG': 'C.UTF-8',
}

#: Seconds that a script of ours other than the launch may take, and between
#: two looks at whether it has ended.
SCRIPT_TIMEOUT = 20.0
SCRIPT_GAP = 0.01

_NEVER_EXECUTED = 64
_SHELL_PREFIX = re.compile(r'^(?:/?[\w/.-]+: )?(?:(?:line )?\d+: )?')


@dataclasses.dataclass(frozen=True)
class Launch:
    """A command to run.

    :ivar id: its uuid
    :ivar boot_id: the only boot of the guest that it may run in
    :ivar ticket: guest uptime (centiseconds) after which it may not start
    :ivar keep: bytes to keep of each stream
    :ivar keep_end: ``head`` or ``tail``
    """

    id: str
    argv: Sequence[str] = dataclasses.field(repr=False)
    env: Mapping[str, str] = dataclasses.field(repr=False)
    stdin: bytes = dataclasses.field(repr=False)
    cwd: str | None = dataclasses.field(repr=False)
    boot_id: str
    ticket: int
    keep: int
    keep_end: str


@dataclasses.dataclass(frozen=True)
class Probe:
    """A guest's boot, its uptime (centiseconds), and ids left in it."""

    boot_id: str
    uptime: int
    ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Refused:
    """The launcher ran nothing, and left the lock alone.

    :ivar reason: ``boot``, ``ticket``, or what it lacks
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """Another launcher has or had the lock."""


@dataclasses.dataclass(frozen=True)
class NotStarted:
    """No launcher has come yet."""


@dataclasses.dataclass(frozen=True)
class Fenced:
    """The lock is ours: no launcher will run the command."""


@dataclasses.dataclass(frozen=True)
class Running:
    """It runs.

    :ivar pid: of the command, None while its launcher prepares it
    :ivar started: guest uptime (centiseconds) when it started
    :ivar uptime: guest uptime (centiseconds) now
    :ivar has_exited: its own process has ended, but a child of it still has
        its stdout or stderr
    """

    pid: int | None
    started: int
    uptime: int
    has_exited: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
    """It has ended.

    :ivar start_ticks: guest uptime (centiseconds) when it started
    :ivar exitcode: None if a signal ended it; then ``signal`` is set. Both are
        None if nobody saw how it ended.
    :ivar never_ran: proven: nothing was executed; ``error`` says why
    :ivar out_bytes: bytes that it wrote, kept or not
    """

    pid: int
    start_ticks: int
    exitcode: int | None
    signal: int | None
    never_ran: bool
    error: str | None
    out: bytes = dataclasses.field(repr=False)
    err: bytes = dataclasses.field(repr=False)
    out_bytes: int
    err_bytes: int


@dataclasses.dataclass(frozen=True)
class Died:
    """Its launcher was killed before it could record the end."""


Outcome = Refused | Taken | NotStarted | Fenced | Running | Ended | Died


class PosixLauncher:
    """Runs commands in one guest.

    Every method raises exception.GuestError if the guest did not answer.

    :param agent: of the guest
    :param directory: where the guest keeps what belongs to commands
    """

    def __init__(self, agent: guest_agent.Agent,
                 directory: str = DIRECTORY) -> None:
        self._agent = agent
        self._directory = directory

    def probe(self) -> Probe:
        """Ask for the guest's boot and uptime.

        :raises exception.LauncherUnavailable: it has no ``/bin/sh`` or no
            ``/proc``
        """
        words = self._run('probe').split()
        if len(words) < 3 or words[0] != 'guest':
            raise exception.LauncherUnavailable(
                'Commands cannot be run in this guest: it has no usable '
                '/bin/sh or no /proc')
        return Probe(words[1], int(words[2]), tuple(words[3:]))

    def launch(self, launch: Launch) -> int:
        """Send a command, and do not wait for it.

        :returns: pid of the launcher, to poll for
        """
        variables = list(launch.env.items())
        return self._exec(
            'launch', [launch.id, launch.boot_id, str(launch.ticket),
                       str(launch.keep), launch.keep_end, launch.cwd or '/',
                       str(len(variables)), *launch.argv],
            env=[f'GA_{number}={name}={value}' for number, (name, value)
                 in enumerate(variables, 1)],
            stdin=launch.stdin)

    def poll(self, pid: int) -> Outcome | None:
        """Look whether a launcher has ended.

        The agent forgets it with the answer.

        :returns: None while it has not
        :raises exception.AgentRefused: the agent does not know this pid
        """
        status = self._agent.exec_status(pid)
        return _outcome(status) if status.exited else None

    def recover(self, id: str) -> Outcome:  # noqa: A002 - guest's own word
        """Find out what became of a command."""
        return _outcome(self._wait(self._exec('recover', [id, 'look'])))

    def fence(self, id: str) -> Outcome:  # noqa: A002
        """Take a command's lock, unless a launcher has it already."""
        return _outcome(self._wait(self._exec('recover', [id, 'fence'])))

    def signal_tree(self, id: str, signal: str) -> int:  # noqa: A002
        """Send ``TERM`` or ``KILL`` to a command and all its descendants.

        :returns: how many of them were alive
        """
        return int(self._run('signal', id, signal) or 0)

    def unhold(self, id: str) -> None:  # noqa: A002
        """Have a command end whose children still have its streams."""
        self._run('unhold', id)

    def release(self, ids: Sequence[str]) -> None:
        """Remove what the guest keeps of these commands."""
        self._run('release', *ids)

    def _run(self, script: str, *args: str) -> str:
        """Run a short script and return what it printed."""
        return self._wait(self._exec(script, args)).out.decode()

    def _exec(self, script: str, args: Iterable[str], *,
              env: Iterable[str] = (), stdin: bytes = b'') -> int:
        environment = [f'{name}={value}'
                       for name, value in ENVIRONMENT.items()]
        return self._agent.exec(
            SHELL, ['-c', _script(script), 'guest-agent', self._directory,
                    *args],
            env=[*environment, *env], stdin=stdin)

    def _wait(self, pid: int) -> guest_agent.ExecStatus:
        deadline = time.monotonic() + SCRIPT_TIMEOUT
        while True:
            time.sleep(SCRIPT_GAP)
            status = self._agent.exec_status(pid)
            if status.exited:
                return status
            if time.monotonic() > deadline:
                raise exception.AgentUnresponsive()


@functools.cache
def _script(name: str) -> str:
    """Return a script without its comments: guests get no prose."""
    text = resources.files(__package__).joinpath(f'posix/{name}.sh')
    lines = (line.strip() for line in text.read_text().splitlines())
    return '\n'.join(line for line in lines
                     if line and not line.startswith('#'))


def _outcome(status: guest_agent.ExecStatus) -> Outcome:
    """Read what launch.sh or recover.sh printed."""
    line, _, out = status.out.partition(b'\n')
    match line.decode(errors='replace').split():
        case ['refused', reason]:
            return Refused(reason)
        case ['taken']:
            return Taken()
        case ['none']:
            return NotStarted()
        case ['fenced']:
            return Fenced()
        case ['running', *words]:
            return _running(words)
        case ['ended', *words]:
            return _ended(words, out, status.err)
        case _:
            # Among others "died", and a launcher that was itself killed.
            return Died()


def _running(words: Sequence[str]) -> Running:
    pid, start, uptime, state = words
    if pid == '-':
        return Running(None, int(uptime), int(uptime))
    return Running(int(pid), int(start), int(uptime),
                   has_exited=state == 'Z')


def _ended(words: Sequence[str], out: bytes, err: bytes) -> Ended:
    """Read ID.result: see the end of launch.sh's witness."""
    pid, start, wait_status, never, end, out_written, err_written = words
    exitcode, signal = _decoded(wait_status)
    never_ran = int(never) == _NEVER_EXECUTED
    # A keeper of the head writes what it keeps twice.
    twice = end == 'head'
    return Ended(
        pid=int(pid), start_ticks=int(start), exitcode=exitcode,
        signal=signal, never_ran=never_ran,
        error=_complaint(err) if never_ran else None, out=out, err=err,
        out_bytes=int(out_written) - (len(out) if twice else 0),
        err_bytes=int(err_written) - (len(err) if twice else 0))


def _decoded(wait_status: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of a raw wait status, if it is known."""
    if wait_status == '-':
        return None, None
    value = int(wait_status)
    signal = value & 0x7f
    return (None, signal) if signal else (value >> 8, None)


def _complaint(err: bytes) -> str:
    """Return why a shell or setsid could not execute a command."""
    text = err.decode(errors='replace').strip()
    words = _SHELL_PREFIX.sub('', text, count=1)
    return f'The command could not be executed: {words}'
