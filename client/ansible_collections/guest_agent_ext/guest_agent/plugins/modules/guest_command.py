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
module: guest_command
short_description: Run a program in a server that needs no Python
description:
  - Runs a program in a server through the guest agent extension, as
    C(openstack server guest exec) does.
  - It is one request. Nothing but a C(/bin/sh) is needed in the server.
  - Works with the connection P(guest_agent_ext.guest_agent.server#connection)
    only.
author:
  - The guest_agent_ext project
attributes:
  check_mode:
    support: full
    description: The program is not run, and the task is skipped.
options:
  cmd:
    description: The program and its arguments, quoted as for a shell, which
      does not run it. One of O(cmd), O(shell) and O(argv) is required.
    type: str
  shell:
    description: A line for C(/bin/sh) in the server.
    type: str
  argv:
    description: The program and its arguments.
    type: list
    elements: str
  stdin:
    description: Input of the program.
    type: str
  chdir:
    description: Directory in which the program starts.
    type: str
  env:
    description: Variables to add to the environment of the program.
    type: dict
  user:
    description: User of the server, by name or number, instead of that of the
      play. It is started as that user, also where the play says C(become), and
      needs no sudo.
    type: str
  timeout:
    description: Seconds after which the program is killed.
    type: int
"""

EXAMPLES = r"""
- name: Ask the kernel
  guest_agent_ext.guest_agent.guest_command:
    cmd: uname -r
  register: kernel
  changed_when: false

- name: Fill a table
  guest_agent_ext.guest_agent.guest_command:
    argv: [psql, shop]
    stdin: "{{ lookup('file', 'tables.sql') }}"
    user: postgres
"""

RETURN = r"""
rc:
  description: Exit code of the program; 128 and more for a signal.
  type: int
  returned: always
stdout:
  description: Output of the program.
  type: str
  returned: always
stderr:
  description: What the program wrote to stderr.
  type: str
  returned: always
"""
