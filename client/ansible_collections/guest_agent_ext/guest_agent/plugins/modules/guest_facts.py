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
module: guest_facts
short_description: Facts that the guest agent tells, without Python
description:
  - Asks the guest agent for what it knows of its guest, which is one request
    and starts nothing in the server.
  - The facts are fewer than those of M(ansible.builtin.setup), by the same
    names, and what the agent told under C(guest_agent).
  - Works with the connection P(guest_agent_ext.guest_agent.server#connection)
    only.
author:
  - The guest_agent_ext project
attributes:
  check_mode:
    support: full
options: {}
"""

EXAMPLES = r"""
- hosts: all
  gather_facts: false
  tasks:
    - guest_agent_ext.guest_agent.guest_facts:
    - ansible.builtin.debug:
        msg: "{{ ansible_facts.hostname }} runs {{ ansible_facts.kernel }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts of the server.
  type: dict
  returned: always
  contains:
    guest_agent:
      description: What the agent told, as C(openstack server guest details)
        shows it.
      type: dict
      returned: always
    hostname:
      description: Name of the host.
      type: str
      returned: if the agent told
    distribution:
      description: Name of the distribution.
      type: str
      returned: if the agent told
    distribution_version:
      description: Version of the distribution.
      type: str
      returned: if the agent told
    kernel:
      description: Release of the kernel.
      type: str
      returned: if the agent told
    architecture:
      description: Architecture of the processor.
      type: str
      returned: if the agent told
    interfaces:
      description: Names of the network interfaces.
      type: list
      returned: if the agent told
    all_ipv4_addresses:
      description: IPv4 addresses, but those of the loopback.
      type: list
      returned: if the agent told
    all_ipv6_addresses:
      description: IPv6 addresses, but those of the loopback and of links.
      type: list
      returned: if the agent told
    processor_vcpus:
      description: Number of processors.
      type: int
      returned: if the agent told
    mounts:
      description: File systems with C(mount), C(device),
        C(fstype), C(size_total) and C(size_available).
      type: list
      returned: if the agent told
"""
