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

"""Direct capture: ``guest-exec`` alone, with the weakest promises.

For guests that have neither ``/bin/sh`` and ``/proc`` nor PowerShell. What is
known of a command is known to this process only: it is never sent again, and
after a restart its end is unknown. Nothing in the guest bounds its output.
"""

from collections.abc import Sequence
import dataclasses
import time

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import launcher

#: The guest tells no boot of its own.
BOOT_ID = 'direct'

UNKNOWN = (
    'Its end is unknown: this guest has no launcher, which alone could '
    'tell it, or kill the command'
)
TOO_LARGE = (
    'Its output was too large for the guest agent, and was lost with '
    'its exit code'
)


@dataclasses.dataclass(frozen=True)
class _Sent:
    """A command that was sent; its pid is None where no answer came."""

    launch: launcher.Launch
    started: int
    pid: int | None = None


class DirectLauncher:
    """Runs commands in one guest; see launcher.Launcher.

    :param agent: of the guest
    """

    execution: launcher.Execution = 'direct'

    def __init__(self, agent: guest_agent.Agent) -> None:
        self._agent = agent
        self._sent: dict[str, _Sent] = {}

    def probe(self) -> launcher.Probe:
        return launcher.Probe(BOOT_ID, _uptime(), ())

    def launch(self, launch: launcher.Launch) -> int:
        """Send a command, once.

        :raises exception.AgentRefused: it was sent before, or asks for what
            ``guest-exec`` cannot do
        """
        if launch.id in self._sent:
            raise exception.AgentRefused()
        if launch.cwd is not None or launch.env:
            # guest-exec has no directory, and env would replace the whole.
            raise exception.AgentRefused(
                'This guest is without a launcher: cwd and env cannot be set'
            )
        self._sent[launch.id] = _Sent(launch, _uptime())
        try:
            pid = self._agent.exec(
                launch.argv[0], launch.argv[1:], stdin=launch.stdin
            )
        except exception.GuestError as error:
            if not error.may_have_run:
                del self._sent[launch.id]
            raise
        self._sent[launch.id] = _Sent(launch, _uptime(), pid)
        return pid

    def poll(self, pid: int) -> launcher.Outcome | None:
        sent = self._by_pid(pid)
        if sent is None:
            return launcher.Died(UNKNOWN)
        try:
            status = self._agent.exec_status(pid)
        except exception.AgentReplyTooLarge:
            return self._lost(sent, TOO_LARGE)
        except exception.AgentRefused:
            return self._lost(sent, UNKNOWN)
        if not status.exited:
            return None
        del self._sent[sent.launch.id]
        return _ended(sent, status)

    def recover(self, id: str) -> launcher.Outcome:
        sent = self._sent.get(id)
        if sent is None or sent.pid is None:
            return launcher.Died(UNKNOWN)
        return launcher.Running(sent.pid, sent.started, _uptime())

    def fence(self, id: str) -> launcher.Outcome:
        return self.recover(id) if id in self._sent else launcher.Fenced()

    def signal_tree(self, id: str, signal: str, status: str) -> int:
        """Kill nothing; after ``KILL`` it is waited for no longer."""
        if signal == 'KILL':
            self._sent.pop(id, None)
        return 0

    def unhold(self, id: str) -> None:
        """Nothing tells that only its children run."""

    def release(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._sent.pop(id, None)

    def _by_pid(self, pid: int) -> _Sent | None:
        return next(
            (sent for sent in self._sent.values() if sent.pid == pid), None
        )

    def _lost(self, sent: _Sent, reason: str) -> launcher.Died:
        del self._sent[sent.launch.id]
        return launcher.Died(reason)


def _uptime() -> int:
    """Return centiseconds of the host's uptime: its guest tells none."""
    return int(time.monotonic() * 100)


def _ended(sent: _Sent, status: guest_agent.ExecStatus) -> launcher.Ended:
    # An answer that arrives is whole: libvirt carries none that was cut.
    assert sent.pid is not None
    return launcher.Ended(
        pid=sent.pid,
        start_ticks=sent.started,
        exitcode=status.exitcode,
        signal=status.signal,
        never_ran=False,
        error=None,
        out=_kept(sent.launch, status.out),
        err=_kept(sent.launch, status.err),
        out_bytes=len(status.out),
        err_bytes=len(status.err),
    )


def _kept(launch: launcher.Launch, output: bytes) -> bytes:
    if launch.keep_end == 'head':
        return output[: launch.keep]
    return output[-launch.keep :]
