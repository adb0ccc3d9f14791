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

"""Guests whose agents answer at once, in the place of libvirt's.

Python imports this when it starts, where PYTHONPATH names this directory. Then
every domain that is asked for runs, and its agent answers as the launcher's
scripts would: a command has ended when it is asked for, or after as many
seconds as it is to ``sleep``. What a command costs the host without its guest
is left, and thousands of guests fit a machine.
"""

import base64
import itertools
import json
import time
from typing import Any
import uuid

import libvirt
import libvirt_qemu

from guest_agent_ext.guest.launchers import scripted

_BOOT_ID = str(uuid.uuid4())
_SCRIPTS = {
    name: scripted.text(f'posix/{name}.sh')
    for name in ('probe', 'launch', 'recover', 'release', 'signal', 'unhold')
}
_CALLS = ('guest-exec', 'guest-exec-status')
_TOKEN = str(uuid.uuid4())

#: Of processes that have not been asked for: when they end, and what they say.
_processes: dict[int, tuple[float, str]] = {}
#: Of commands: when they started, when they end, and the pid.
_commands: dict[str, tuple[int, float, int]] = {}
_pids = itertools.count(1000)


class _Domain:
    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_RUNNING, 0]

    # The name is libvirt's.
    def jobStats(self) -> dict[str, int]:
        return {'type': libvirt.VIR_DOMAIN_JOB_NONE}


class _Connection:
    # The names are libvirt's.

    def lookupByUUIDString(self, uuid: str) -> _Domain:
        return _Domain()

    def setKeepAlive(self, interval: int, count: int) -> None:
        """Nothing is there to die."""

    def isAlive(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing was opened."""


def _uptime() -> int:
    return int(time.monotonic() * 100)


def _answer(request: dict[str, Any]) -> Any:
    arguments = request.get('arguments', {})
    match request['execute']:
        case 'guest-exec':
            return {'pid': _start(arguments)}
        case 'guest-sync':
            return arguments['id']
        case 'guest-exec-status':
            return _status(arguments['pid'])
        case 'guest-info':
            return {
                'version': '7.2.22',
                'supported_commands': [
                    {'name': name, 'enabled': True} for name in _CALLS
                ],
            }
        case _:
            return {}


def _start(arguments: dict[str, Any]) -> int:
    pid = next(_pids)
    ends_at, says = time.monotonic(), ''
    script, _, *args = (item.partition('=')[2] for item in arguments['env'])
    (name,) = (
        name for name, text in _SCRIPTS.items() if script.endswith(text)
    )
    match name:
        case 'probe':
            says = f'guest {_BOOT_ID} {_uptime()}'
        case 'launch':
            ends_at += _seconds(arguments['input-data'])
            _commands[args[0]] = _uptime(), ends_at, pid
            says = f'ended {pid} {_uptime()} 0 head 0 0 - {_TOKEN}'
        case 'recover':
            says = _recovered(args[0])
        case 'release':
            for name in args:
                _commands.pop(name, None)
        case _:
            says = '0'
    _processes[pid] = ends_at, says
    return pid


def _seconds(order: str) -> float:
    """Return how long a command sleeps: fields are lines after a dot."""
    *_, program, argument = base64.b64decode(order).decode().splitlines()
    return float(argument[1:]) if program == '.sleep' else 0.0


def _recovered(name: str) -> str:
    if name not in _commands:
        return 'none'
    started, ends_at, pid = _commands[name]
    if time.monotonic() < ends_at:
        return f'running {pid} {started} {_uptime()} S'
    return f'ended {pid} {started} 0 head 0 0 - {_TOKEN}'


def _status(pid: int) -> dict[str, Any]:
    ends_at, says = _processes[pid]
    if time.monotonic() < ends_at:
        return {'exited': False}
    del _processes[pid]
    said = base64.b64encode(says.encode() + b'\n').decode()
    return {'exited': True, 'exitcode': 0, 'out-data': said}


def _command(domain: _Domain, text: str, timeout: int, flags: int) -> str:
    return json.dumps({'return': _answer(json.loads(text))})


libvirt.open = lambda uri: _Connection()
libvirt_qemu.qemuAgentCommand = _command
