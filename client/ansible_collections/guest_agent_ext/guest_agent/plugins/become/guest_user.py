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
name: guest_user
short_description: Become a user without a program in the server
description:
  - Tasks run as the user from the beginning, because the guest agent extension
    starts them as that user. The server needs no sudo, and no rule for it.
  - Works with the connection P(guest_agent_ext.guest_agent.server#connection)
    only.
author:
  - The guest_agent_ext project
options:
  become_user:
    description: User of the server, by name or number.
    type: str
    default: root
    keyword:
      - name: become_user
    ini:
      - section: privilege_escalation
        key: become_user
    env:
      - name: ANSIBLE_BECOME_USER
    vars:
      - name: ansible_become_user
  become_pass:
    description: Not used, because nobody asks for one.
    type: str
    vars:
      - name: ansible_become_password
      - name: ansible_become_pass
"""

from typing import Any

from ansible.plugins import become


class BecomeModule(become.BecomeBase):
    """Leaves it to the connection."""

    name = 'guest_agent_ext.guest_agent.guest_user'

    def build_become_command(self, cmd: str, shell: Any) -> str:
        """Return a command line as it is."""
        super().build_become_command(cmd, shell)
        return cmd
