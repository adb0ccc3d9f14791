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

"""What runs in a guest without the extension: the loops that all is held to.

A loop waits for the end of what it started by asking again every GAP seconds.
"""

import time
import uuid

from guest_agent_ext import command
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import posix

#: Seconds between two questions.
GAP = 0.01


def raw(agent: guest_agent.Agent) -> None:
    """guest-exec and guest-exec-status, without a launcher."""
    pid = agent.exec('/bin/true', [])
    while not agent.exec_status(pid).exited:
        time.sleep(GAP)


def launched(guest: posix.PosixLauncher) -> None:
    """The launcher, without a service around it."""
    probe = guest.probe()
    order = launcher.Launch(
        id=str(uuid.uuid4()),
        argv=['/bin/true'],
        env={},
        stdin=b'',
        cwd=None,
        user=None,
        boot_id=probe.boot_id,
        ticket=probe.uptime + 6000,
        keep=command.MAX_OUTPUT_BYTES,
        keep_end='head',
    )
    pid = guest.launch(order)
    while guest.poll(pid) is None:
        time.sleep(GAP)
    guest.release([order.id])
