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


"""What ``guest_command`` does, here on the controller."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.module_utils.common.text import converters
from ansible.plugins import action

TRANSPORT = 'guest_agent_ext.guest_agent.server'

_ARGUMENTS = {
    'cmd': {'type': 'str'},
    'shell': {'type': 'str'},
    'argv': {'type': 'list', 'elements': 'str'},
    'stdin': {'type': 'str'},
    'chdir': {'type': 'str'},
    'env': {'type': 'dict'},
    'user': {'type': 'str'},
    'timeout': {'type': 'int'},
}
_PROGRAMS = ('cmd', 'shell', 'argv')


class ActionModule(action.ActionBase):
    """Runs a program in a server."""

    _supports_check_mode = True
    _requires_connection = True
    TRANSFERS_FILES = False

    def run(
        self, tmp: None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what came of the program."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            argument_spec=_ARGUMENTS,
            mutually_exclusive=[_PROGRAMS],
            required_one_of=[_PROGRAMS],
        )
        if self._connection.transport != TRANSPORT:
            return dict(
                result,
                failed=True,
                msg=f'ansible_connection must be {TRANSPORT}, not '
                f'{self._connection.transport}',
            )
        if self._task.check_mode:
            return dict(
                result,
                skipped=True,
                msg='Nobody knows what the program would do',
            )
        user = given['user'] or self._user()
        code, out, err = self._connection.run_program(
            _argv_of(given),
            stdin=converters.to_bytes(given['stdin'] or ''),
            user=None if user == 'root' else user,
            timeout=given['timeout'],
            cwd=given['chdir'],
            env={
                name: str(value)
                for name, value in (given['env'] or {}).items()
            },
        )
        stdout, stderr = converters.to_text(out), converters.to_text(err)
        return dict(
            result,
            changed=True,
            rc=code,
            stdout=stdout.rstrip('\r\n'),
            stdout_lines=stdout.splitlines(),
            stderr=stderr.rstrip('\r\n'),
            stderr_lines=stderr.splitlines(),
            **(
                {'failed': True, 'msg': 'non-zero return code'} if code else {}
            ),
        )

    def _user(self) -> str:
        """Return the user of the task, who needs no become program here."""
        become = self._connection.become
        if become is not None:
            return str(become.get_option('become_user'))
        return str(self._connection.get_option('remote_user'))


def _argv_of(given: dict[str, Any]) -> list[str]:
    """Return the program and its arguments."""
    if given['shell']:
        return ['/bin/sh', '-c', given['shell']]
    return list(given['argv'] or shlex.split(given['cmd']))
