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
from collections.abc import Sequence
import re

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import answers
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import scripts

DIRECTORY = '/run/guest-agent'
SHELL = '/bin/sh'

#: What every command finds in its environment; the tenant's own may replace
#: it.
ENVIRONMENT = {
    'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'HOME': '/root',
    'LANG': 'C.UTF-8',
}

NOT_EXECUTED = 'The command could not be executed: %s'

_NEVER_EXECUTED = 64
#: Who complains and in which of its lines, which only we know; what builtin it
#: was stays.
_SHELL_PREFIX = re.compile(
    r'^(?:guest-agent: |/?[\w/]*setsid: )?([a-z]+: )?(?:(?:line )?\d+: )?'
)


class PosixLauncher(scripts.ScriptLauncher):
    """Runs commands in one guest that has ``/bin/sh`` and ``/proc``.

    :param agent: of the guest
    :param directory: where the guest keeps what belongs to commands
    """

    def __init__(
        self, agent: guest_agent.Agent, directory: str = DIRECTORY
    ) -> None:
        super().__init__(agent)
        self._directory = directory

    def probe(self) -> launcher.Probe:
        """Ask for the guest's boot and uptime.

        :raises exception.LauncherUnavailable: it has no ``/bin/sh`` or no
            ``/proc``
        """
        try:
            return _probe(self._run_probe().split())
        except ValueError:
            raise exception.LauncherUnavailable(
                'Commands cannot be run in this guest: it has no usable '
                '/bin/sh or no /proc'
            ) from None

    def launch(self, launch: launcher.Launch) -> int:
        """Send a command, and do not wait for it.

        :returns: pid of the launcher, to poll for
        """
        variables = list(launch.env.items())
        return self._exec(
            'launch',
            [
                launch.id,
                launch.boot_id,
                str(launch.ticket),
                str(launch.keep),
                launch.keep_end,
                launch.cwd or '/',
                str(len(variables)),
                *launch.argv,
            ],
            env=[
                f'GA_{number}={name}={value}'
                for number, (name, value) in enumerate(variables, 1)
            ],
            stdin=launch.stdin,
        )

    def output(self, id: str, stream: str, offset: int) -> bytes:
        """Return what is kept so far of a running command's stream.

        :param stream: ``stdout`` or ``stderr``
        :param offset: bytes to leave out
        """
        return self._wait(self._exec('output', [id, stream, str(offset)])).out[
            : command.MAX_OUTPUT_BYTES
        ]

    def _exec(
        self,
        script: str,
        args: Iterable[str],
        *,
        env: Iterable[str] = (),
        stdin: bytes = b'',
    ) -> int:
        environment = [
            f'{name}={value}' for name, value in ENVIRONMENT.items()
        ]
        return self._agent.exec(
            SHELL,
            [
                '-c',
                scripts.text(f'posix/{script}.sh'),
                'guest-agent',
                self._directory,
                *args,
            ],
            env=[*environment, *env],
            stdin=stdin,
        )

    def _file_answer(
        self, status: guest_agent.ExecStatus
    ) -> scripts.FileAnswer:
        line, _, path = status.out.partition(b'\n')
        word, *details = line.decode(errors='replace').split() or ['']
        try:
            return scripts.FileAnswer(
                word, details, path.decode(), _complaint(status.err)
            )
        except UnicodeDecodeError:
            return scripts.FileAnswer(
                'refused',
                (),
                '',
                'the path that a symbolic link leads to is not UTF-8',
            )

    def _outcome(self, status: guest_agent.ExecStatus) -> launcher.Outcome:
        """Read what launch.sh or recover.sh printed."""
        try:
            return self._read(status)
        except ValueError:
            return launcher.Died()

    def _read(self, status: guest_agent.ExecStatus) -> launcher.Outcome:
        line, _, out = status.out.partition(b'\n')
        match line.decode(errors='replace').split():
            case ['refused', reason]:
                return launcher.Refused(answers.text(reason, answers.MAX_WORD))
            case ['taken']:
                return launcher.Taken()
            case ['none']:
                return launcher.NotStarted()
            case ['fenced']:
                return launcher.Fenced()
            case ['running', *words]:
                return _running(words)
            case ['ended', *words]:
                return _ended(words, out, status.err)
            case _:
                # Among others "died", and a launcher that was itself killed.
                return launcher.Died()


def _probe(words: Sequence[str]) -> launcher.Probe:
    greeting, boot_id, uptime, *ids = words
    if greeting != 'guest':
        raise ValueError
    return launcher.Probe(
        answers.boot_id(boot_id), answers.natural(uptime), answers.ids(ids)
    )


def _running(words: Sequence[str]) -> launcher.Running:
    pid, start, uptime, state = words
    now = answers.natural(uptime)
    if pid == '-':
        return launcher.Running(None, now, now)
    return launcher.Running(
        answers.natural(pid),
        answers.natural(start),
        now,
        has_exited=state == 'Z',
    )


def _ended(words: Sequence[str], out: bytes, err: bytes) -> launcher.Ended:
    """Read ID.result: see the end of launch.sh's witness."""
    (pid, start, wait_status, never, end, out_written, err_written, killed) = (
        words
    )
    exitcode, signal = _decoded(wait_status)
    never_ran = int(never) == _NEVER_EXECUTED
    # A keeper of the head writes what it keeps twice.
    twice = end == 'head'
    return launcher.Ended(
        pid=answers.natural(pid),
        start_ticks=answers.natural(start),
        exitcode=exitcode,
        signal=signal,
        never_ran=never_ran,
        error=NOT_EXECUTED % _complaint(err) if never_ran else None,
        out=answers.output(out),
        err=answers.output(err),
        out_bytes=_written(out_written, out, twice),
        err_bytes=_written(err_written, err, twice),
        killed=None if killed == '-' else killed,
    )


def _written(word: str, kept: bytes, twice: bool) -> int:
    written = answers.natural(word) - (len(kept) if twice else 0)
    # A file system that was full kept less than was counted; never more.
    if written < len(kept):
        raise ValueError
    return written


def _decoded(wait_status: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of a raw wait status, if it is known."""
    if wait_status == '-':
        return None, None
    value = answers.natural(wait_status)
    signal = value & 0x7F
    return (None, signal) if signal else (value >> 8 & 0xFF, None)


def _complaint(err: bytes) -> str:
    """Return what a shell or a tool complained of."""
    text = err.decode(errors='replace').strip()
    return answers.text(_SHELL_PREFIX.sub(r'\1', text, count=1))
