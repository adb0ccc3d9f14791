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

"""The launcher for guests with Windows PowerShell.

Its scripts are in ``scripts/windows/``. A script and the tenant's data travel
as JSON on stdin: PowerShell's command line is always the same, and the
tenant's data is never inside a script.
"""

import base64
from collections.abc import Iterable
import functools
import json
from typing import Any
from typing import TypeAlias
import uuid

from guest_agent_ext import exception
from guest_agent_ext import untrusted
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import attached
from guest_agent_ext.guest.launchers import base
from guest_agent_ext.guest.launchers import scripted

#: An order, or an answer of a script.
_Json: TypeAlias = dict[str, Any]

POWERSHELL = 'powershell.exe'

#: Maximum bytes of a command's description sent in one call. Encoded twice in
#: base64, and with a script, they stay below the 218 kB of JSON that jam an
#: agent.
PIECE = 96 * 1024

#: Exit code of a process that another one killed.
_KILLED_CODE = -1


class WindowsLauncher(scripted.ScriptLauncher):
    """Runs commands in one guest that has Windows PowerShell."""

    # The first PowerShell after a boot is slow to start.
    timeout = 90.0

    def probe(self) -> base.Probe:
        try:
            answer = json.loads(self._run_probe())
            if answer['says'] == 'unusable':
                raise exception.LauncherUnavailable(
                    'Commands cannot be run in this guest: its guest agent '
                    f'cannot write to {_decoded(answer["error"])}'
                )
            return base.Probe(
                untrusted.boot_id(answer['boot_id']),
                untrusted.uptime(answer['uptime']),
                untrusted.ids(answer['ids']),
            )
        except untrusted.IMPROPER:
            raise exception.LauncherUnavailable(
                'Commands cannot be run in this guest: it has no usable '
                'Windows PowerShell (5.1, in full language mode)'
            ) from None

    def launch(self, launch: base.Launch) -> int:
        if launch.user is not None:
            # Windows would need the user's password.
            raise exception.AgentRefused(
                'A command cannot run as another user on Windows'
            )
        if launch.attach is not None:
            raise exception.AgentRefused(base.NOT_ATTACHABLE)
        order = {
            'id': launch.id,
            'boot_id': launch.boot_id,
            'ticket': launch.ticket,
            'keep': launch.keep,
            'keep_end': launch.keep_end,
        }
        about = {
            'argv': [_encoded(word) for word in launch.argv],
            'env': [
                [_encoded(name), _encoded(value)]
                for name, value in launch.env.items()
            ],
            'cwd': _encoded(launch.cwd or ''),
            'stdin': base64.b64encode(launch.stdin).decode(),
        }
        text = json.dumps(about)
        if len(text) <= PIECE:
            return self._send(
                'launch', {**order, 'about': about, 'pieces': '', 'count': 0}
            )
        name, count = self._stage(launch.id, text)
        return self._send(
            'launch', {**order, 'about': None, 'pieces': name, 'count': count}
        )

    def _stage(self, id: str, text: str) -> tuple[str, int]:
        """Send a description in pieces that each fit into one call.

        :param text: the description, as JSON
        :returns: name of the pieces, and their number
        """
        # A piece that arrives late or twice belongs to no other launch.
        name = uuid.uuid4().hex
        pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
        for number, piece in enumerate(pieces, 1):
            self._put([id, name, str(number), _encoded(piece)])
        return name, len(pieces)

    def _put(self, args: Iterable[str]) -> None:
        try:
            said = json.loads(self._run('stage', *args))['says']
        except exception.AgentCommandDisabled:
            raise
        except (exception.GuestError, *untrusted.IMPROPER) as error:
            # A piece starts nothing: all are sent again by another name.
            raise exception.AgentError(
                str(error), may_have_run=False
            ) from None
        if said != 'kept':
            raise exception.AgentRefused(
                'The guest has no room for the command'
            )

    def signal(self, id: str, name: str) -> bool:
        raise exception.AgentRefused(
            'Commands in this server cannot be sent signals'
        )

    def attached(self, id: str, *, terminal: bool) -> attached.Attached:
        raise exception.LauncherUnavailable(base.NOT_ATTACHABLE)

    def unattachable(self) -> dict[str, str]:
        return dict.fromkeys(base.ATTACHED_KINDS, base.NOT_ATTACHABLE)

    def resize(self, id: str, columns: int, rows: int) -> bool:
        raise exception.LauncherUnavailable(base.NOT_ATTACHABLE)

    def start_file(self, verb: str, *args: str) -> int:
        return self._send(
            'file', {'args': [_encoded(word) for word in (verb, *args)]}
        )

    def _file_answer(
        self, status: guest_agent.ExecStatus
    ) -> scripted.FileAnswer:
        try:
            answer = json.loads(status.out)
            return scripted.FileAnswer(
                untrusted.text(answer['says'], untrusted.MAX_WORD),
                tuple(
                    untrusted.text(word, untrusted.MAX_WORD)
                    for word in answer['details']
                ),
                base64.b64decode(answer['path']).decode(),
                _decoded(answer['error']),
            )
        except untrusted.IMPROPER:
            # The script was killed.
            return scripted.FileAnswer('', (), '', '')

    def _exec(self, script: str, args: Iterable[str]) -> int:
        return self._send(script, {'args': list(args)})

    def _send(self, script: str, order: _Json) -> int:
        # No env, which would replace SystemRoot: no program starts without.
        return self._agent.exec(
            POWERSHELL,
            [
                '-NoProfile',
                '-NonInteractive',
                '-EncodedCommand',
                start_command(),
            ],
            stdin=json.dumps(
                {'script': script_text(script), **order}
            ).encode(),
        )

    def _outcome(self, status: guest_agent.ExecStatus) -> base.Outcome:
        try:
            return _read(json.loads(status.out))
        except untrusted.IMPROPER:
            # The script was killed. recover() will read the files.
            raise exception.AgentError(
                'PowerShell in the guest gave no proper answer'
            ) from None


@functools.cache
def start_command() -> str:
    """Return the value of ``-EncodedCommand``, which runs every script."""
    text = scripted.text('windows/start.ps1')
    return base64.b64encode(text.encode('utf-16-le')).decode()


@functools.cache
def script_text(script: str) -> str:
    """Return a script preceded by common.ps1."""
    return '\n'.join(
        scripted.text(f'windows/{name}.ps1') for name in ('common', script)
    )


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return untrusted.text(base64.b64decode(text).decode(errors='replace'))


def _read(answer: _Json) -> base.Outcome:
    match answer['says']:
        case 'refused':
            return base.Refused(
                untrusted.text(answer['reason'], untrusted.MAX_WORD)
            )
        case 'taken':
            return base.Taken()
        case 'none':
            return base.NotStarted()
        case 'fenced':
            return base.Fenced()
        case 'running':
            return _running(answer)
        case 'ended':
            return _ended(answer)
        case 'failed':
            return _failed(answer)
        case 'died':
            return base.Died()
    raise ValueError


def _running(answer: _Json) -> base.Running:
    now = untrusted.uptime(answer['uptime'])
    # A launcher that prepares the command may not have recorded its start.
    started = min(now, untrusted.uptime(answer.get('start', now)))
    if 'pid' not in answer:
        return base.Running(None, started, now)
    return base.Running(
        untrusted.natural(answer['pid']),
        started,
        now,
        has_exited=bool(answer['has_exited']),
    )


def _ended(answer: _Json) -> base.Ended:
    exitcode: int | None = untrusted.integer(answer['exitcode'])
    if answer.get('killed') and exitcode == _KILLED_CODE:
        # Set by the killer, not by the command.
        exitcode = None
    return base.Ended(
        pid=untrusted.natural(answer['pid']),
        start_ticks=untrusted.uptime(answer['start']),
        exitcode=exitcode,
        signal=None,
        never_ran=False,
        error=None,
        out=untrusted.output(base64.b64decode(answer['out'])),
        err=untrusted.output(base64.b64decode(answer['err'])),
        out_bytes=untrusted.natural(answer['out_bytes']),
        err_bytes=untrusted.natural(answer['err_bytes']),
        killed=str(answer['killed']) if answer.get('killed') else None,
    )


def _failed(answer: _Json) -> base.Ended:
    why = _decoded(answer['error'])
    return base.Ended(
        pid=0,
        start_ticks=untrusted.uptime(answer['uptime']),
        exitcode=None,
        signal=None,
        never_ran=True,
        error=f'The command could not be executed: {why}',
        out=b'',
        err=b'',
        out_bytes=0,
        err_bytes=0,
    )
