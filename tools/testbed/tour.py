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

"""The guided tour: real requests, and what their answers show."""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import json
import os
import shutil
import sys
import textwrap
import time
from typing import Any

from tools.testbed import client

#: Characters of one string that are shown.
_SHOWN = 200
_MAX_WIDTH = 100
_INDENT = '   '

_BOLD, _DIM, _GREEN, _RED = '1', '2', '32', '31'

_COMMANDS = '{server}/guest-agent/commands'


@dataclasses.dataclass(frozen=True)
class Stop:
    """One stop of the tour.

    :ivar title: a sentence that the answer proves
    :ivar shows: parts of the answer that prove it: ``result.exitcode``
    :ivar arguments: arguments of a command that is run; without them the stop
        is one request
    :ivar path: path of that request; ``{server}`` stands for
        ``/servers/SERVER_ID``
    :ivar data: bytes that are posted to the path; None to get it
    :ivar variable: name in ``.demo/env`` of the token that is used
    """

    title: str
    shows: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None
    path: str = _COMMANDS
    data: bytes | None = None
    variable: str = 'TOKEN'


def _sh(script: str, **more: Any) -> dict[str, Any]:
    return {'command': ['/bin/sh', '-c', script], **more}


STOPS = (
    Stop(
        "Nova's own API shows the server; the extension is a filter in it.",
        ('server.name', 'server.status'),
        path='{server}',
    ),
    Stop(
        'A command answers with its pid, both streams and the exit code.',
        (
            'result.pid',
            'result.exitcode',
            'result.out_data',
            'result.err_data',
        ),
        _sh('echo "I am $$"; echo err >&2; exit 3'),
    ),
    Stop(
        'Stdin, variables and a directory reach it; values stay hidden.',
        ('result.out_data', 'arguments.env'),
        _sh(
            'pwd; echo "$GREETING"; wc -c',
            input_data='hello',
            env={'GREETING': 'good day'},
            cwd='/tmp',
        ),
    ),
    Stop(
        'A signal is told from an exit code.',
        ('result.signal', 'result.exitcode'),
        _sh('kill -9 $$'),
    ),
    Stop(
        'Of much output the beginning is kept; its size and the exit code '
        'are exact.',
        ('result.out_bytes', 'result.out_truncated', 'result.exitcode'),
        _sh('yes | head -c 5000000; exit 7'),
    ),
    Stop(
        'FAILED says that the program never ran, and why.',
        ('error',),
        {'command': ['/no/such/program']},
    ),
    Stop(
        'A request that cannot be met is refused, and the field is named.',
        ('badRequest.message',),
        {'command': []},
    ),
    Stop(
        'A file is checked in the server before it takes its place.',
        path='{server}/guest-agent/file-write?path=/root/motd',
        data=b'Welcome.\n',
    ),
    Stop(
        'For somebody of another project there is no such server.',
        ('itemNotFound.message',),
        variable='OTHER_TOKEN',
    ),
    Stop(
        'A reader of the project sees what was run, newest first.',
        (
            'commands.0.type',
            'commands.0.status',
            'commands.1.type',
            'commands.1.status',
        ),
        path=f'{_COMMANDS}?limit=2',
        variable='READER_TOKEN',
    ),
    Stop(
        'An admin sees which hosts serve guests.',
        ('hosts.0.host', 'hosts.0.state'),
        path='/guest-agent/hosts',
        variable='ADMIN_TOKEN',
    ),
)


def show(
    clients: Mapping[str, client.Client], *, verbose: bool = False
) -> None:
    """Walk the tour.

    :param clients: clients by the name of their token in ``.demo/env``
    :param verbose: whether bodies are shown whole
    """
    for number, stop in enumerate(STOPS, 1):
        print(styled(f'{number:2} {stop.title}', _BOLD))
        who = clients[stop.variable]
        for line in (
            _run(who, stop, verbose)
            if stop.arguments is not None
            else _ask(who, stop, verbose)
        ):
            print(line, flush=True)


def styled(text: str, style: str) -> str:
    """Return text in a style if stdout is a terminal, plain otherwise.

    :param style: number of ECMA-48's SGR
    """
    if not sys.stdout.isatty() or 'NO_COLOR' in os.environ:
        return text
    return f'\033[{style}m{text}\033[0m'


def _ask(who: client.Client, stop: Stop, verbose: bool) -> Iterator[str]:
    path = stop.path.format(server=f'/servers/{who.server_id}')
    method = 'GET' if stop.data is None else 'POST'
    yield _request(method, path, stop, stop.data)
    status, answer = who.request(method, path, stop.data)
    yield from _answer(str(status), status < 300, stop, answer, verbose)


def _run(who: client.Client, stop: Stop, verbose: bool) -> Iterator[str]:
    yield _request('POST', who.commands, stop, stop.arguments)
    began = time.monotonic()
    status, answer = who.request(
        'POST',
        who.commands,
        {'command': {'type': 'exec', 'arguments': stop.arguments}},
    )
    if status != 200:
        yield from _answer(str(status), False, stop, answer, verbose)
        return
    command = who.wait(answer['command']['uuid'])
    took = time.monotonic() - began
    yield from _answer(
        f'{command["status"]} after {took:.2f} s',
        command['status'] == 'COMPLETED',
        stop,
        command,
        verbose,
    )


def _request(method: str, path: str, stop: Stop, body: Any) -> str:
    words = f'{method} {_shortened_path(path)}  ${stop.variable}'
    if body is not None:
        words += '  ' + _on_a_line(
            body.decode() if isinstance(body, bytes) else body
        )
    return styled(_wrapped(words), _DIM)


def _answer(
    outcome: str, is_good: bool, stop: Stop, answer: Any, verbose: bool
) -> Iterator[str]:
    style = _GREEN if is_good else _RED
    if verbose:
        yield _INDENT + styled(outcome, style)
        if answer is not None:
            yield textwrap.indent(
                json.dumps(_shortened(answer), indent=2), _INDENT
            )
        return
    parts = [
        f'{path.rpartition(".")[2]} {_on_a_line(_part(answer, path))}'
        for path in stop.shows
    ]
    # Coloured when it has been wrapped: colours have no width.
    text = _wrapped(f'{outcome}  {", ".join(parts)}'.rstrip())
    yield text.replace(outcome, styled(outcome, style), 1)


def _part(answer: Any, path: str) -> Any:
    """Return a part of an answer.

    :param path: names and indices, separated by points
    """
    for name in path.split('.'):
        answer = answer[int(name) if name.isdigit() else name]
    return answer


def _on_a_line(value: Any) -> str:
    return json.dumps(_shortened(value))


def _wrapped(text: str) -> str:
    width = min(_MAX_WIDTH, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shortened_path(path: str) -> str:
    """Cut the server's id to its first part, for the eye only."""
    before, separator, after = path.partition('/servers/')
    server_id, slash, rest = after.partition('/')
    return (
        f'{before}{separator}{server_id.partition("-")[0]}...{slash}{rest}'
        if separator
        else path
    )


def _shortened(value: Any) -> Any:
    """Cut long strings, for the eye only."""
    if isinstance(value, str) and len(value) > _SHOWN:
        return f'{value[:20]} ... ({len(value):,} characters)'
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return value
