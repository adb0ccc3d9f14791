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

"""The Windows launcher: how a command is run in a guest with PowerShell.

The scripts stand in ``windows/``. What a tenant sent travels as JSON on stdin,
never inside a script and never on a command line of ours.
"""

import base64
from collections.abc import Iterable
import functools
import json
from typing import Any

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import answers
from guest_agent_ext.guest import launcher
from guest_agent_ext.guest import scripts

POWERSHELL = 'powershell.exe'


class WindowsLauncher(scripts.ScriptLauncher):
    """Runs commands in one guest that has Windows PowerShell."""

    def probe(self) -> launcher.Probe:
        try:
            answer = json.loads(self._run_probe())
            return launcher.Probe(
                answers.boot_id(answer['boot_id']),
                answers.natural(answer['uptime']),
                answers.ids(answer['ids']),
            )
        except answers.IMPROPER:
            raise exception.LauncherUnavailable(
                'Commands cannot be run in this guest: it has no usable '
                'Windows PowerShell (5.1, in full language mode)'
            ) from None

    def launch(self, launch: launcher.Launch) -> int:
        return self._send(
            'launch',
            {
                'id': launch.id,
                'boot_id': launch.boot_id,
                'ticket': launch.ticket,
                'keep': launch.keep,
                'keep_end': launch.keep_end,
                'argv': [_encoded(word) for word in launch.argv],
                'env': [
                    [_encoded(name), _encoded(value)]
                    for name, value in launch.env.items()
                ],
                'cwd': _encoded(launch.cwd or ''),
                'stdin': base64.b64encode(launch.stdin).decode(),
            },
        )

    def start_file(self, verb: str, *args: str) -> int:
        return self._send(
            'file', {'args': [_encoded(word) for word in (verb, *args)]}
        )

    def _file_answer(
        self, status: guest_agent.ExecStatus
    ) -> scripts.FileAnswer:
        try:
            answer = json.loads(status.out)
            return scripts.FileAnswer(
                answers.text(answer['says'], answers.MAX_WORD),
                tuple(
                    answers.text(word, answers.MAX_WORD)
                    for word in answer['details']
                ),
                base64.b64decode(answer['path']).decode(),
                _decoded(answer['error']),
            )
        except answers.IMPROPER:
            # A script that was killed.
            return scripts.FileAnswer('', (), '', '')

    def _exec(self, script: str, args: Iterable[str]) -> int:
        return self._send(script, {'args': list(args)})

    def _send(self, script: str, order: dict[str, Any]) -> int:
        # No env: without SystemRoot no program starts.
        return self._agent.exec(
            POWERSHELL,
            [
                '-NoProfile',
                '-NonInteractive',
                '-EncodedCommand',
                encoded_command(script),
            ],
            stdin=json.dumps(order).encode(),
        )

    def _outcome(self, status: guest_agent.ExecStatus) -> launcher.Outcome:
        try:
            return _read(json.loads(status.out))
        except answers.IMPROPER:
            # A script that was killed. Asked again, the files will tell.
            raise exception.AgentError(
                'PowerShell in the guest gave no proper answer'
            ) from None


@functools.cache
def encoded_command(script: str) -> str:
    """Return a script as ``-EncodedCommand`` takes it."""
    text = '\n'.join(
        scripts.text(f'windows/{name}.ps1') for name in ('common', script)
    )
    return base64.b64encode(text.encode('utf-16-le')).decode()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return answers.text(base64.b64decode(text).decode(errors='replace'))


def _read(answer: dict[str, Any]) -> launcher.Outcome:
    match answer['says']:
        case 'refused':
            return launcher.Refused(
                answers.text(answer['reason'], answers.MAX_WORD)
            )
        case 'taken':
            return launcher.Taken()
        case 'none':
            return launcher.NotStarted()
        case 'fenced':
            return launcher.Fenced()
        case 'running':
            return _running(answer)
        case 'ended':
            return _ended(answer)
        case 'failed':
            return _failed(answer)
        case 'died':
            return launcher.Died()
    raise ValueError


def _running(answer: dict[str, Any]) -> launcher.Running:
    uptime = answers.natural(answer['uptime'])
    if 'pid' not in answer:
        return launcher.Running(None, uptime, uptime)
    return launcher.Running(
        answers.natural(answer['pid']),
        answers.natural(answer['start']),
        uptime,
        has_exited=bool(answer['has_exited']),
    )


def _ended(answer: dict[str, Any]) -> launcher.Ended:
    return launcher.Ended(
        pid=answers.natural(answer['pid']),
        start_ticks=answers.natural(answer['start']),
        exitcode=answers.integer(answer['exitcode']),
        signal=None,
        never_ran=False,
        error=None,
        out=answers.output(base64.b64decode(answer['out'])),
        err=answers.output(base64.b64decode(answer['err'])),
        out_bytes=answers.natural(answer['out_bytes']),
        err_bytes=answers.natural(answer['err_bytes']),
        killed=str(answer['killed']) if answer.get('killed') else None,
    )


def _failed(answer: dict[str, Any]) -> launcher.Ended:
    why = _decoded(answer['error'])
    return launcher.Ended(
        pid=0,
        start_ticks=answers.natural(answer['uptime']),
        exitcode=None,
        signal=None,
        never_ran=True,
        error=f'The command could not be executed: {why}',
        out=b'',
        err=b'',
        out_bytes=0,
        err_bytes=0,
    )
