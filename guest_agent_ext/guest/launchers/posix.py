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

"""The launcher for guests with ``/bin/sh`` and ``/proc``.

Its scripts are in ``scripts/posix/``. The tenant's data travels in the
environment and stdin of ``guest-exec``, never inside a script.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import re
import uuid

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext import untrusted
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import attached
from guest_agent_ext.guest.launchers import base
from guest_agent_ext.guest.launchers import scripted

DIRECTORY = '/run/guest-agent'
#: Control group of the commands' processes, in a guest with cgroup v2.
CONTROL_GROUP = '/sys/fs/cgroup/guest-agent-commands'
SHELL = '/bin/sh'

#: Default environment of every command. For a command that runs as a user of
#: the guest, HOME is that user's.
ENVIRONMENT = {
    'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'HOME': '/root',
    'LANG': 'C.UTF-8',
}
#: The variable that holds the command's UUID. The tenant cannot replace it.
MARK = 'GUEST_AGENT_COMMAND'

NOT_EXECUTED = 'The command could not be executed: %s'
#: Exit codes of a shell that could not execute a command.
_NOT_EXECUTED_CODES = (1, 2, 126, 127)

#: Maximum bytes sent to the guest in one call: an agent jams if the JSON of a
#: request exceeds 218 kB, and base64 turns three bytes into four.
PIECE = 120 * 1024
#: Number of the first piece. All numbers have two digits, as the shell sorts
#: the pieces by name.
FIRST_PIECE = 10

#: Variables that dash, busybox ash or bash sets itself, and those of order.sh.
#: The shell cannot export the tenant's values, so env(1) sets them on its
#: command line.
_SHELLS_OWN = re.compile(
    '_|BASH.*|COMP_.*|DIRSTACK|EPOCH.*|EUID|EXECIGNORE|FUNC.*|GROUPS|HIST.*'
    '|IFS|LINENO|OPT.*|PIPESTATUS|PPID|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM'
    '|TMOUT|UID|fields|line|newline|value'
)
_ENV = '/usr/bin/env'
#: Name of the script and line number in a shell's error message, which mean
#: nothing to the tenant. The name of the builtin stays.
_SHELL_PREFIX = re.compile(
    r'^(?:guest-agent: )?([a-z]+: )?(?:(?:line )?\d+: )?'
)
_STAT = re.compile(rb'(\d+) \(.*\) (\w(?: \S+){17})', re.DOTALL)
_ENDED_STATES = (b'Z', b'X')


class PosixLauncher(scripted.ScriptLauncher):
    """Runs commands in one guest that has ``/bin/sh`` and ``/proc``.

    :param agent: the guest's agent
    :param directory: path of the guest's directory for the files of commands
    :param control_group: path of the control group of the commands' processes
    :param shell: path of a POSIX shell in the guest
    """

    def __init__(
        self,
        agent: guest_agent.Agent,
        directory: str = DIRECTORY,
        control_group: str = CONTROL_GROUP,
        shell: str = SHELL,
    ) -> None:
        super().__init__(agent)
        self._directory = directory
        self._control_group = control_group
        self._shell = shell

    def probe(self) -> base.Probe:
        """Ask the guest for its boot and uptime.

        :raises exception.LauncherUnavailable: the guest has no ``/bin/sh``, no
            ``/proc``, or no directory that can be written
        """
        words = self._run_probe(self._control_group).split()
        if words == ['unusable']:
            raise exception.LauncherUnavailable(
                'Commands cannot be run in this guest: its guest agent cannot '
                f'write to {self._directory}, which needs root and some room'
            )
        try:
            return _probe(words)
        except ValueError:
            raise exception.LauncherUnavailable(
                'Commands cannot be run in this guest: it has no usable '
                '/bin/sh or no /proc'
            ) from None

    def launch(self, launch: base.Launch) -> int:
        """Send a command to the guest without waiting for its start.

        :returns: PID of the launcher, to poll
        :raises exception.AgentRefused: the guest has no room for the command
        """
        stdin = _order(launch)
        if launch.attach is None:
            stdin += launch.stdin
        name, count = '-', 0
        if len(stdin) > PIECE:
            name, count = self._stage(launch.id, stdin)
            stdin = b''
        return self._exec(
            'launch' if launch.attach is None else 'attach launch',
            [
                launch.id,
                launch.boot_id,
                str(launch.ticket),
                self._control_group,
                str(launch.keep),
                launch.keep_end,
                name,
                str(count),
                self._shell,
                launch.user or '',
                scripted.text('posix/order.sh'),
                *_attachment(launch.attach),
            ],
            stdin=stdin,
        )

    def _stage(self, id: str, data: bytes) -> tuple[str, int]:
        """Send an order in pieces that each fit into one call.

        :param data: the order
        :returns: name of the pieces, and their number
        """
        # A piece that arrives late or twice belongs to no other launch.
        name = uuid.uuid4().hex
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        for number, piece in enumerate(pieces, FIRST_PIECE):
            if not self._put(id, name, number, piece):
                raise exception.AgentRefused(
                    f'{self._directory} in the guest has no room for the '
                    'command'
                )
        return name, len(pieces)

    def _put(self, id: str, name: str, number: int, piece: bytes) -> bool:
        try:
            status = self._wait(
                self._exec('stage', [id, name, str(number)], stdin=piece)
            )
        except exception.AgentCommandDisabled:
            raise
        except exception.GuestError as error:
            # A piece starts nothing: all are sent again by another name.
            raise exception.AgentError(
                str(error), may_have_run=False
            ) from None
        return status.exitcode == 0

    def signal(self, id: str, name: str) -> bool:
        if name not in base.SIGNALS:
            raise ValueError(name)
        return self._run('send', id, name).strip() == 'sent'

    def attached(self, id: str, *, terminal: bool) -> attached.Attached:
        return attached.Attached(
            self._agent, f'{self._directory}/{id}', terminal=terminal
        )

    def unattachable(self) -> dict[str, str]:
        said = self._run('attach attachable').split()
        if len(said) != len(base.ATTACHED_KINDS):
            return dict.fromkeys(base.ATTACHED_KINDS, base.NOT_ATTACHABLE)
        return {
            kind: base.LACKS % untrusted.text(tool, untrusted.MAX_WORD)
            for kind, tool in zip(base.ATTACHED_KINDS, said, strict=True)
            if tool != '-'
        }

    def resize(self, id: str, columns: int, rows: int) -> bool:
        return (
            self._run('resize', id, str(columns), str(rows)).strip()
            == 'resized'
        )

    def output(self, id: str, stream: str, offset: int) -> bytes:
        """Return the output of a running command that is kept so far.

        :param stream: ``stdout`` or ``stderr``
        :param offset: number of bytes to leave out
        """
        return self._ask(
            lambda: self._exec('output', [id, stream, str(offset)])
        ).out[: command.MAX_OUTPUT_BYTES]

    def watch(self, pid: int) -> base.Watch | None:
        """Start watching a process.

        :param pid: PID of a command's process
        :returns: None if the agent may not open files, or if the process is
            gone
        """
        try:
            handle = self._agent.file_open(f'/proc/{pid}/stat', 'r')
        except exception.AgentRefused:
            return None
        return _Watch(self._agent, handle, pid)

    def _exec(
        self, script: str, args: Iterable[str], *, stdin: bytes = b''
    ) -> int:
        """Start a script, or several in a row, and return the PID.

        The script and its arguments travel in the environment: a command line
        can be read by everybody in the guest, is kept in its journal, and is
        matched by ``pkill -f``.
        """
        words = [self._directory, *args]
        return self._agent.exec(
            self._shell,
            ['-c', 'eval "$GUEST_AGENT_SCRIPT"', 'guest-agent'],
            env=[
                f'GUEST_AGENT_SCRIPT={_text(script, len(words))}',
                *(
                    f'GUEST_AGENT_{number}={word}'
                    for number, word in enumerate(words)
                ),
            ],
            stdin=stdin,
        )

    def _file_answer(
        self, status: guest_agent.ExecStatus
    ) -> scripted.FileAnswer:
        line, _, path = status.out.partition(b'\n')
        word, *details = line.decode(errors='replace').split() or ['']
        try:
            return scripted.FileAnswer(
                word, details, path.decode(), _complaint(status.err)
            )
        except UnicodeDecodeError:
            return scripted.FileAnswer(
                'refused',
                (),
                '',
                'the path that a symbolic link leads to is not UTF-8',
            )

    def _outcome(self, status: guest_agent.ExecStatus) -> base.Outcome:
        """Parse the output of launch.sh or recover.sh."""
        try:
            return self._read(status)
        except ValueError:
            return base.Died()

    def _read(self, status: guest_agent.ExecStatus) -> base.Outcome:
        line, _, out = status.out.partition(b'\n')
        match line.decode(errors='replace').split():
            case ['refused', reason]:
                return base.Refused(untrusted.text(reason, untrusted.MAX_WORD))
            case ['taken']:
                return base.Taken()
            case ['none']:
                return base.NotStarted()
            case ['fenced']:
                return base.Fenced()
            case ['running', *words]:
                return _running(words)
            case ['ended', *words]:
                return _ended(words, out, status.err)
            case _:
                # "died", or a launcher that was killed before it answered.
                return base.Died()


class _Watch:
    """Polls ``/proc/PID/stat``, which stays open.

    :param agent: the guest's agent
    :param handle: the agent's handle of that file
    :param pid: PID of the process
    """

    def __init__(
        self, agent: guest_agent.Agent, handle: int, pid: int
    ) -> None:
        self._agent = agent
        self._handle = handle
        self._pid = pid

    def has_exited(self) -> bool:
        try:
            self._agent.file_seek(self._handle, 0, 'set')
            # The whole file: the agent would buffer the rest and return that
            # the next time.
            stat = _STAT.match(self._agent.file_read(self._handle, 4096))
        except exception.AgentCommandDisabled:
            # The guest's file systems are frozen: the answer is not known.
            raise exception.AgentBusy() from None
        except exception.AgentRefused:
            # The process is gone, or the agent that held the handle.
            return True
        if stat is None or int(stat[1]) != self._pid:
            return True
        state, *_, threads = stat[2].split()
        # The first thread may have ended before the others.
        return state in _ENDED_STATES and threads in (b'0', b'1')

    def close(self) -> None:
        self._agent.file_close(self._handle)


@functools.cache
def _text(script: str, count: int) -> str:
    """Return a script that reads its arguments from the environment.

    :param script: name without the suffix
    :param count: number of arguments
    """
    names = [f'GUEST_AGENT_{number}' for number in range(count)]
    words = ' '.join(f'"${name}"' for name in names)
    return '\n'.join(
        (
            f'set -- {words}',
            f'unset GUEST_AGENT_SCRIPT {" ".join(names)}',
            *(
                scripted.text(f'posix/{name}.sh')
                for name in ('common', *script.split())
            ),
        )
    )


@functools.cache
def _terminal_program() -> str:
    """Return what makes a terminal, without its comments."""
    lines = scripted.raw_text('posix/terminal.py').splitlines()
    return '\n'.join(
        line for line in lines if line and not line.startswith('#')
    )


def _attachment(attach: base.Attach | None) -> Sequence[str]:
    """Return what attach.sh reads of a command."""
    if attach is None:
        return ()
    sizes = str(attached.SEGMENT), str(attached.RING)
    if attach.terminal is None:
        return 'pipes', *sizes
    return (
        'terminal',
        *sizes,
        str(attach.terminal.columns),
        str(attach.terminal.rows),
        _terminal_program(),
    )


def _order(launch: base.Launch) -> bytes:
    """Return a command in the format of order.sh."""
    variables = {
        **ENVIRONMENT,
        **_terminal_variables(launch.attach),
        **launch.env,
        MARK: launch.id,
    }
    if launch.user is not None and 'HOME' not in launch.env:
        del variables['HOME']
    by_env = [
        f'{name}={value}'
        for name, value in variables.items()
        if _SHELLS_OWN.fullmatch(name)
    ]
    exported = [
        f'{name}={value}'
        for name, value in variables.items()
        if not _SHELLS_OWN.fullmatch(name)
    ]
    argv = [*([_ENV, *by_env] if by_env else []), *launch.argv]
    return ''.join(
        map(
            _field,
            [_directory(launch.cwd), *exported, '', str(len(argv)), *argv],
        )
    ).encode()


def _terminal_variables(attach: base.Attach | None) -> Mapping[str, str]:
    if attach is None or attach.terminal is None:
        return {}
    return {'TERM': attach.terminal.term}


def _directory(cwd: str | None) -> str:
    # cd would take "-x" for an option, and "-" for the directory before.
    if cwd is None or cwd.startswith('/'):
        return cwd or '/'
    return f'./{cwd}'


def _field(text: str) -> str:
    *lines, last = text.split('\n')
    return ''.join(f'+{line}\n' for line in lines) + f'.{last}\n'


def _probe(words: Sequence[str]) -> base.Probe:
    greeting, boot_id, uptime, *ids = words
    if greeting != 'guest':
        raise ValueError
    return base.Probe(
        untrusted.boot_id(boot_id),
        untrusted.uptime(uptime),
        untrusted.ids(ids),
    )


def _running(words: Sequence[str]) -> base.Running:
    pid, start, uptime, state = words
    now = untrusted.uptime(uptime)
    started = now if start == '-' else min(now, untrusted.uptime(start))
    if pid == '-':
        return base.Running(None, started, now)
    return base.Running(
        untrusted.natural(pid), started, now, has_exited=state == 'Z'
    )


def _ended(words: Sequence[str], out: bytes, err: bytes) -> base.Ended:
    """Parse the output of tell_end in common.sh."""
    (pid, start, wait_status, end, out_written, err_written, killed, token) = (
        words
    )
    exitcode, signal = _decoded(wait_status)
    # A keeper of the head writes each byte that it keeps twice.
    times = 2 if end == 'head' else 1
    # Children that hold the streams may have written since the count.
    out = out[: _most(out_written, times)]
    err = err[: _most(err_written, times)]
    last = f'{token}\n'.encode()
    # The command could read the token and print it, but gains nothing by that.
    # In a terminal the token may be the end of stdout, with the terminal's CR.
    for stream in (err, out.replace(b'\r\n', b'\n')):
        if stream.endswith(last) and exitcode in _NOT_EXECUTED_CODES:
            return _never_ran(pid, start, stream.removesuffix(last))
    return base.Ended(
        pid=untrusted.natural(pid),
        start_ticks=untrusted.uptime(start),
        exitcode=exitcode,
        signal=signal,
        never_ran=False,
        error=None,
        out=untrusted.output(out),
        err=untrusted.output(err),
        out_bytes=_written(out_written, out, times),
        err_bytes=_written(err_written, err, times),
        killed=None if killed == '-' else killed,
        is_torn=_is_torn(out_written, out, times)
        or _is_torn(err_written, err, times),
    )


def _most(word: str, times: int) -> int | None:
    """Return the maximum size of a stream's head, None if not bounded.

    :param word: number of bytes that the keeper wrote, or ``-``
    :param times: number of times that the keeper writes a byte
    """
    return (
        None
        if word == '-' or times == 1
        else (untrusted.natural(word) // times)
    )


def _never_ran(pid: str, start: str, err: bytes) -> base.Ended:
    return base.Ended(
        pid=untrusted.natural(pid),
        start_ticks=untrusted.uptime(start),
        exitcode=None,
        signal=None,
        never_ran=True,
        error=NOT_EXECUTED % _complaint(err),
        out=b'',
        err=b'',
        out_bytes=0,
        err_bytes=0,
    )


def _written(word: str, kept: bytes, times: int) -> int | None:
    """Return the number of bytes that the command wrote to a stream.

    :param word: number of bytes that the keeper wrote, or ``-``
    :param kept: bytes that were kept
    :param times: number of times that the keeper writes a byte that it keeps
    """
    if word == '-':
        return None
    written = untrusted.natural(word) - len(kept) * (times - 1)
    # A full file system keeps less than was counted, never more.
    if written < len(kept):
        raise ValueError
    return written


def _is_torn(word: str, kept: bytes, times: int) -> bool:
    return word != '-' and len(kept) < min(
        command.MAX_OUTPUT_BYTES, untrusted.natural(word) // times
    )


def _decoded(wait_status: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of a raw wait status, None if not known."""
    if wait_status == '-':
        return None, None
    value = untrusted.natural(wait_status)
    signal = value & 0x7F
    return (None, signal) if signal else (value >> 8 & 0xFF, None)


def _complaint(err: bytes) -> str:
    """Return the complaint of a shell or a tool, fit to be shown."""
    text = err.decode(errors='replace').strip()
    return untrusted.text(_SHELL_PREFIX.sub(r'\1', text, count=1))
