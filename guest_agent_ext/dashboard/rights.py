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

"""Which calls of the API a user may make, as the policy has it.

What a user may not do is not shown. The API decides nevertheless.
"""

import dataclasses

from django import http
from openstack_dashboard import policy

from guest_agent_ext.dashboard import apps

_PREFIX = 'os_compute_api:guest-agent:'
#: Rule of each right.
RULES = {
    'show_agent': _PREFIX + 'agent:show',
    'show_details': _PREFIX + 'details',
    'list': _PREFIX + 'commands:index',
    'list_all': _PREFIX + 'commands:index-all',
    'show': _PREFIX + 'commands:show',
    'run': _PREFIX + 'commands:create',
    'set_password': _PREFIX + 'commands:create:set-password',
    'set_keys': _PREFIX + 'commands:create:ssh-keys',
    'read_output': _PREFIX + 'commands:output',
    'send_input': _PREFIX + 'commands:input',
    'resize': _PREFIX + 'commands:signal',
    'cancel': _PREFIX + 'commands:cancel',
    'delete': _PREFIX + 'commands:delete',
    'read_file': _PREFIX + 'file-read',
    'write_file': _PREFIX + 'file-write',
    'list_hosts': _PREFIX + 'hosts:index',
    'create_run': _PREFIX + 'runs:create',
    'list_runs': _PREFIX + 'runs:index',
    'show_run': _PREFIX + 'runs:show',
    'cancel_run': _PREFIX + 'runs:cancel',
    'delete_run': _PREFIX + 'runs:delete',
}
#: Rights that a terminal takes.
_TERMINAL = ('run', 'read_output', 'send_input', 'resize', 'cancel')


@dataclasses.dataclass(frozen=True)
class Rights:
    """What a user may do with the servers of a project."""

    show_agent: bool
    show_details: bool
    list: bool
    list_all: bool
    show: bool
    run: bool
    set_password: bool
    set_keys: bool
    read_output: bool
    send_input: bool
    resize: bool
    cancel: bool
    delete: bool
    read_file: bool
    write_file: bool
    list_hosts: bool
    create_run: bool
    list_runs: bool
    show_run: bool
    cancel_run: bool
    delete_run: bool

    @property
    def open_terminal(self) -> bool:
        """Return whether all is allowed that a terminal takes."""
        return all(getattr(self, name) for name in _TERMINAL)

    @property
    def start_run(self) -> bool:
        """Return whether programs may be run in many servers at once."""
        return self.create_run and self.run

    @property
    def any_of_server(self) -> bool:
        """Return whether the tab of a server has anything to show."""
        shown = (self.show_agent, self.list, self.run)
        return any((*shown, self.set_password, self.set_keys))


def of(request: http.HttpRequest, project_id: str | None = None) -> Rights:
    """Return what a user may do.

    :param project_id: project of the server; None for that of the user
    """
    return Rights(
        **{
            name: policy.check(
                ((apps.POLICY_SCOPE, rule),),
                request,
                {'project_id': project_id},
            )
            for name, rule in RULES.items()
        }
    )
