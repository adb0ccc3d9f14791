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


from __future__ import annotations

DOCUMENTATION = r"""
name: server
short_description: Run tasks in OpenStack servers with no network path to them
description:
  - Runs tasks through the guest agent extension of the Compute API. No network
    path to the server is needed, no SSH and no key.
  - A task of a module that needs no files is one request.
  - The processes of a playbook share one session with the cloud, which a
    process of its own holds. It ends when nothing was asked for O(idle)
    seconds.
author:
  - The guest_agent_ext project
requirements:
  - python-guestagentclient
notes:
  - Has to be told nothing in a play whose hosts come from
    P(openstack.cloud.openstack#inventory). A remote address that is an IP
    address is not used; the name of the host is, then.
options:
  remote_addr:
    description: Name or UUID of the server.
    type: str
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_guest_agent_server
  inventory_name:
    description: Name of the host in the inventory.
    type: str
    vars:
      - name: inventory_hostname
  remote_user:
    description:
      - User of the server that tasks run as, by name or number.
      - V(root) stands for the user of the server's agent.
    type: str
    default: root
    keyword:
      - name: remote_user
    ini:
      - section: defaults
        key: remote_user
    env:
      - name: ANSIBLE_REMOTE_USER
    vars:
      - name: ansible_user
      - name: ansible_guest_agent_user
  pipelining:
    description: Whether modules are sent as stdin, within the task's request.
    type: bool
    default: true
    env:
      - name: ANSIBLE_GUEST_AGENT_PIPELINING
    vars:
      - name: ansible_pipelining
      - name: ansible_guest_agent_pipelining
  cloud:
    description:
      - Name of the cloud in C(clouds.yaml). Without it the login is that of
        the C(OS_*) variables of the environment, E(OS_CLOUD) among them.
    type: str
    env:
      - name: ANSIBLE_GUEST_AGENT_CLOUD
    ini:
      - section: guest_agent
        key: cloud
    vars:
      - name: ansible_guest_agent_cloud
  region:
    description: Name of the region, instead of the configured one.
    type: str
    env:
      - name: ANSIBLE_GUEST_AGENT_REGION
    ini:
      - section: guest_agent
        key: region
    vars:
      - name: ansible_guest_agent_region
  start_timeout:
    description:
      - Seconds within which what a task runs has to start in the server. One
        that has not started by then never starts, and the host is unreachable.
    type: int
    default: 60
    env:
      - name: ANSIBLE_GUEST_AGENT_START_TIMEOUT
    ini:
      - section: guest_agent
        key: start_timeout
    vars:
      - name: ansible_guest_agent_start_timeout
  command_timeout:
    description:
      - Seconds after which what a task runs is killed in the server, and the
        task fails. The keyword C(timeout) of a task does that too.
    type: int
    default: 86400
    env:
      - name: ANSIBLE_GUEST_AGENT_COMMAND_TIMEOUT
    ini:
      - section: guest_agent
        key: command_timeout
    vars:
      - name: ansible_guest_agent_command_timeout
  idle:
    description:
      - Seconds for which the session with the cloud is kept when nothing is
        asked. The first task of a session says it.
    type: int
    default: 60
    env:
      - name: ANSIBLE_GUEST_AGENT_IDLE
    ini:
      - section: guest_agent
        key: idle
    vars:
      - name: ansible_guest_agent_idle
  control_path_dir:
    description: Directory of the socket of the session; without it, C(cp) in
      Ansible's home.
    type: path
    env:
      - name: ANSIBLE_GUEST_AGENT_CONTROL_PATH_DIR
    ini:
      - section: guest_agent
        key: control_path_dir
    vars:
      - name: ansible_guest_agent_control_path_dir
"""

import base64
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import ipaddress
import os
import shlex
from typing import Any

from ansible import constants
from ansible import errors
from ansible.module_utils.common.text import converters
from ansible.plugins import connection
from ansible.utils import display

try:
    from guest_agent_ext.sdk import hub_client
except ImportError:
    HAS_CLIENT = False
else:
    HAS_CLIENT = True

#: The become plugin that has no program in the server.
GUEST_USER = 'guest_agent_ext.guest_agent.guest_user'
#: What Ansible appends for the sake of ssh, which may lose output without it.
_FOR_SSH = ' && sleep 0'

_display = display.Display()


class Connection(connection.ConnectionBase):
    """A server, reached through the Compute API."""

    transport = 'guest_agent_ext.guest_agent.server'
    has_pipelining = True
    has_tty = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_windows = bool(getattr(self._shell, '_IS_WINDOWS', False))
        if self._is_windows:
            # As of winrm, whose tasks these are.
            self.always_pipeline_modules = True
            self.module_implementation_preferences = ('.ps1', '.exe', '')
            self.allow_executable = False

    def _connect(self) -> Connection:
        if not HAS_CLIENT:
            raise errors.AnsibleError(
                'The client of the guest agent extension is missing. '
                'Install python-guestagentclient into the Python that '
                'runs Ansible'
            )
        # Each call connects, and the first of all logs in.
        self._connected = True
        return self

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run a command; return its exit code, stdout and stderr."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        escalation = self._escalation() if sudoable else None
        code, out, err = self.run_program(
            self._argv_of(converters.to_text(cmd)),
            stdin=converters.to_bytes(in_data or b''),
            user=self._user(sudoable),
            answer=escalation,
            # Others are Ansible's own, which print a path at most.
            is_whole=sudoable,
        )
        return code, out, escalation.without_prompt(err) if escalation else err

    def run_program(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b'',
        user: str | None = None,
        timeout: int | None = None,
        is_whole: bool = True,
        answer: Callable[[bytes, bytes], tuple[bytes, bool]] | None = None,
        **options: Any,
    ) -> tuple[int, bytes, bytes]:
        """Run a program; return its exit code, stdout and stderr.

        :param argv: the program and its arguments
        :param stdin: bytes for the program
        :param user: user of the server; None for that of its agent
        :param timeout: seconds after which it is killed; None for the
            configured ones
        :param is_whole: True if stdin or output may be long
        :param answer: function that answers what it asks
        :param options: ``env`` and ``cwd``
        """
        done = self._call(
            'run',
            answer=answer,
            command=list(argv),
            stdin=base64.b64encode(stdin).decode(),
            user=user,
            is_whole=is_whole and not self._is_windows,
            timeout=timeout or self.get_option('command_timeout'),
            start_timeout=self.get_option('start_timeout'),
            **options,
        )
        code = int(done['code'])
        return (
            # As a shell tells of a signal.
            code if code >= 0 or self._is_windows else 128 - code,
            base64.b64decode(done['out']),
            base64.b64decode(done['err']),
        )

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the server."""
        super().put_file(in_path, out_path)
        source = os.path.abspath(converters.to_text(in_path))
        if not os.path.exists(source):
            raise errors.AnsibleFileNotFound(f'No such file: {source}')
        self._call('put', source=source, path=out_path, user=self._user())

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the server."""
        super().fetch_file(in_path, out_path)
        to = os.path.abspath(converters.to_text(out_path))
        self._call('get', path=in_path, to=to, user=self._user())

    def reset(self) -> None:
        """Forget the server, which may be another of the same name now."""
        self._connect()
        self._call('forget')

    def close(self) -> None:
        """Leave the session to others."""
        self._connected = False

    def transport_test(self, connect_timeout: float) -> None:
        """Ask the agent; ``wait_for_connection`` does until it answers.

        :param connect_timeout: ignored, the cloud's own is shorter
        :raises errors.AnsibleConnectionFailure: it runs no commands yet
        """
        self._connect()
        agent = self.show('')
        if agent['status'] != 'available':
            raise errors.AnsibleConnectionFailure(
                f'The guest agent is unavailable: {agent["reason"]}'
            )

    def show(self, call: str) -> dict[str, Any]:
        """Return what is told of the agent.

        :param call: ``details``, or nothing for the agent itself
        """
        return self._call('show', call=call)

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Have the hub do something for this server."""
        hub = hub_client.HubClient(
            self.get_option('control_path_dir')
            or os.path.join(_ansible_home(), 'cp'),
            self.get_option('cloud'),
            self.get_option('region'),
            self.get_option('idle'),
        )
        server = self._server()
        # Nothing of what is sent or told stands here.
        _display.vvv(f'GUEST AGENT {name} IN {server}', host=server)
        with _as_ansible_means_them(server):
            return hub.call(name, server=server, **arguments)

    def _server(self) -> str:
        """Return the name or the UUID of the server."""
        address = str(self.get_option('remote_addr'))
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(address)
            return str(self.get_option('inventory_name'))
        return address

    def _user(self, sudoable: bool = False) -> str | None:
        """Return the user of a command; None for that of the agent."""
        user = self.get_option('remote_user')
        become = self.become
        if sudoable and become is not None and become.name == GUEST_USER:
            user = become.get_option('become_user')
        return None if user in (None, '', 'root') else str(user)

    def _escalation(self) -> Escalation | None:
        """Return who answers the become plugin's questions, if it has any."""
        become = self.become
        if become is None or self._is_windows or not become.expect_prompt():
            return None
        return Escalation(
            become, become.get_option('become_pass', self._play_context)
        )

    def _argv_of(self, cmd: str) -> list[str]:
        """Return the program that runs a command line."""
        if self._is_windows:
            argv: list[str] = self._shell._encode_script(
                cmd, as_list=True, strict_mode=False, preserve_rc=False
            )
            return argv
        with contextlib.suppress(ValueError):
            words = shlex.split(cmd)
            # As Ansible writes it, for a shell that need not be started twice.
            if (
                len(words) == 3
                and cmd == f'{words[0]} -c {shlex.quote(words[2])}'
            ):
                return [words[0], '-c', words[2].removesuffix(_FOR_SSH)]
        return ['/bin/sh', '-c', cmd]


class Escalation:
    """Answers the question of a become plugin's program for the password.

    :param become: the become plugin
    :param password: password
    """

    def __init__(self, become: Any, password: str) -> None:
        self._become = become
        self._password = password
        self._out = self._err = b''
        self._is_answered = False

    def __call__(self, out: bytes, err: bytes) -> tuple[bytes, bool]:
        """Take what it says; return what to write, and whether that is all."""
        self._out += out
        self._err += err
        # Plugins look at lines.
        said = self._out + b'\n' + self._err
        if self._become.check_success(said):
            return b'', True
        if self._become.check_incorrect_password(said):
            raise errors.AnsibleError(
                f'Incorrect {self._become.name} password'
            )
        if self._become.check_missing_password(said):
            raise errors.AnsibleError(f'Missing {self._become.name} password')
        if self._is_answered or not self._become.check_password_prompt(said):
            return b'', False
        self._is_answered = True
        return converters.to_bytes(self._password) + b'\n', False

    def without_prompt(self, err: bytes) -> bytes:
        """Return what was written to stderr beside the question."""
        return err.replace(converters.to_bytes(self._become.prompt), b'', 1)


def _ansible_home() -> str:
    return str(constants.config.get_config_value('ANSIBLE_HOME'))


@contextlib.contextmanager
def _as_ansible_means_them(server: str) -> Iterator[None]:
    """Raise errors of the hub as Ansible tells failed from unreachable."""
    try:
        yield
    except hub_client.HubError as error:
        text = f'{server}: {error.text}'
        if error.kind == hub_client.FAILED:
            raise errors.AnsibleError(text) from error
        raise errors.AnsibleConnectionFailure(text) from error
