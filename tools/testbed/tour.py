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

"""The guided tour: real requests, real answers, and what each one proves."""

from collections.abc import Mapping
import dataclasses
import json
import time
from typing import Any

from tools.testbed import client

#: Characters of one string that are shown.
_SHOWN = 200

_COMMANDS = '{server}/guest-agent/commands'


@dataclasses.dataclass(frozen=True)
class Stop:
    """One stop of the tour.

    :ivar title: what is asked
    :ivar proves: what the answer shows
    :ivar arguments: of a command that is run; without them it is a GET
    :ivar path: of the GET; ``{server}`` stands for ``/servers/SERVER_ID``
    :ivar variable: whose request it is, by the name in ``.demo/env``
    """

    title: str
    proves: str
    arguments: Mapping[str, Any] | None = None
    path: str = _COMMANDS
    variable: str = 'TOKEN'


def _sh(script: str, **more: Any) -> dict[str, Any]:
    return {'command': ['/bin/sh', '-c', script], **more}


STOPS = (
    Stop(
        'A server, as Nova shows it.',
        "Nova's own API serves it: the extension is a filter inside.",
        path='{server}',
    ),
    Stop(
        'Run a command in it.',
        'Both streams, the exit code, and the pid that $$ prints are the '
        "command's own.",
        _sh('echo "out, from pid $$"; echo err >&2; exit 3'),
    ),
    Stop(
        'Give a command stdin, a variable and a directory.',
        'They reach the command and nothing else; of the variable only its '
        'name is shown.',
        _sh(
            'pwd; echo "$GREETING"; wc -c',
            input_data='hello',
            env={'GREETING': 'good day'},
            cwd='/tmp',
        ),
    ),
    Stop(
        'Let a command kill itself.',
        'A signal is told from an exit code.',
        _sh('kill -9 $$'),
    ),
    Stop(
        'Write 5 MB, then fail.',
        'The first 102,400 bytes come back, the count and the exit code are '
        'exact; the surplus never left the guest.',
        _sh('yes | head -c 5000000; exit 7'),
    ),
    Stop(
        'Run what is not there.',
        'FAILED means that it did not run; the error names the file.',
        {'command': ['/no/such/program']},
    ),
    Stop(
        'Ask for what cannot be.',
        'The answer names the field.',
        {'command': []},
    ),
    Stop(
        'Ask as somebody of another project.',
        'To them there is no such server.',
        variable='OTHER_TOKEN',
    ),
    Stop(
        'List what was run.',
        'Newest first; a reader of the project may see it, without output.',
        path=f'{_COMMANDS}?limit=2',
        variable='READER_TOKEN',
    ),
    Stop(
        'See which hosts serve guests.',
        'The compute service reports to the conductor; only admins may see '
        'it.',
        path='/guest-agent/hosts',
        variable='ADMIN_TOKEN',
    ),
)


def show(clients: Mapping[str, client.Client]) -> None:
    """Walk the tour.

    :param clients: who asks, by the name of the token in ``.demo/env``
    """
    for number, stop in enumerate(STOPS, 1):
        print(f'\n--- {number}. {stop.title}')
        who = clients[stop.variable]
        if stop.arguments is None:
            _get(who, stop)
        else:
            _run(who, stop)
        print(f'    => {stop.proves}')


def _get(who: client.Client, stop: Stop) -> None:
    path = stop.path.format(server=f'/servers/{who.server_id}')
    print(f'GET {path}   (${stop.variable})')
    _answer(*who.request('GET', path))


def _run(who: client.Client, stop: Stop) -> None:
    body = {'command': {'type': 'exec', 'arguments': stop.arguments}}
    print(f'POST {who.commands}   (${stop.variable})\n{_pretty(body)}')
    began = time.monotonic()
    status, answer = who.request('POST', who.commands, body)
    if status != 200:
        _answer(status, answer)
        return
    uuid = answer['command']['uuid']
    print(f'{status}: command {uuid} is {answer["command"]["status"]}')
    command = who.wait(uuid)
    print(
        f'GET .../commands/{uuid}, '
        f'{time.monotonic() - began:.2f} s after the POST'
    )
    print(_pretty({'command': command}))


def _answer(status: int, body: Any) -> None:
    print(f'{status}\n{_pretty(body)}')


def _pretty(value: Any) -> str:
    return json.dumps(_shortened(value), indent=2)


def _shortened(value: Any) -> Any:
    """Cut long strings, for the eye only."""
    if isinstance(value, str) and len(value) > _SHOWN:
        return f'{value[:20]} ... ({len(value):,} characters)'
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return value
