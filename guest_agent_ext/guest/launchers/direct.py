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

For guests that have neither ``/bin/sh`` and ``/proc`` nor PowerShell. Only
this process knows of a command: it is never sent again, and after a restart of
the service its end is unknown. Nothing in the guest bounds its output.
"""

from collections.abc import Sequence
import dataclasses
import time

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import attached
from guest_agent_ext.guest.launchers import base

#: Name of every boot, as the guest does not report one.
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
    """A command that was sent.

    :ivar started: uptime (centiseconds) at the start
    :ivar pid: PID of the command; None if the agent did not answer
    """

    launch: base.Launch
    started: int
    pid: int | None = None


class DirectLauncher:
    """Runs commands in one guest; see base.Launcher.

    :param agent: the guest's agent
    """

    execution: base.Execution = 'direct'

    def __init__(self, agent: guest_agent.Agent) -> None:
        self._agent = agent
        self._sent: dict[str, _Sent] = {}

    def probe(self) -> base.Probe:
        return base.Probe(BOOT_ID, _uptime(), ())

    def launch(self, launch: base.Launch) -> int:
        """Send a command to the guest, once.

        :raises exception.AgentRefused: the command was sent before, or needs
            more than ``guest-exec`` offers
        """
        if launch.id in self._sent:
            raise exception.AgentRefused()
        if launch.cwd is not None or launch.env or launch.user is not None:
            # guest-exec takes no directory, and env would replace all
            # variables.
            raise exception.AgentRefused(
                'This guest is without a launcher: cwd, env and user cannot '
                'be set'
            )
        if launch.attach is not None:
            raise exception.AgentRefused(base.NOT_ATTACHABLE)
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

    def poll(self, pid: int) -> base.Outcome | None:
        sent = next(
            (sent for sent in self._sent.values() if sent.pid == pid), None
        )
        if sent is None:
            return base.Died(UNKNOWN)
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

    def recover(self, id: str) -> base.Outcome:
        sent = self._sent.get(id)
        if sent is None or sent.pid is None:
            return base.Died(UNKNOWN)
        return base.Running(sent.pid, sent.started, _uptime())

    def fence(self, id: str) -> base.Outcome:
        return self.recover(id) if id in self._sent else base.Fenced()

    def signal_tree(self, id: str, signal: str, status: str) -> int:
        """Kill nothing; ``KILL`` ends the wait for the command."""
        if signal == 'KILL':
            self._sent.pop(id, None)
        return 0

    def signal(self, id: str, name: str) -> bool:
        raise exception.AgentRefused(
            'Commands in this server cannot be sent signals'
        )

    def attached(self, id: str, *, terminal: bool) -> attached.Attached:
        raise exception.LauncherUnavailable(base.NOT_ATTACHABLE)

    def unattachable(self) -> dict[str, str]:
        return dict.fromkeys(base.ATTACHED_KINDS, base.NOT_ATTACHABLE)

    def resize(self, id: str, columns: int, rows: int) -> bool:
        raise exception.LauncherUnavailable(base.NOT_ATTACHABLE)

    def unhold(self, id: str) -> None:
        """Do nothing: the guest does not tell that only children run."""

    def watch(self, pid: int) -> base.Watch | None:
        return None

    def release(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._sent.pop(id, None)

    def _lost(self, sent: _Sent, reason: str) -> base.Died:
        del self._sent[sent.launch.id]
        return base.Died(reason)


def _uptime() -> int:
    """Return the host's uptime (centiseconds): the guest reports none."""
    return int(time.monotonic() * 100)


def _ended(sent: _Sent, status: guest_agent.ExecStatus) -> base.Ended:
    # An answer that arrives is whole: libvirt drops those that are too large.
    assert sent.pid is not None
    return base.Ended(
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


def _kept(launch: base.Launch, output: bytes) -> bytes:
    if launch.keep_end == 'head':
        return output[: launch.keep]
    return output[-launch.keep :]
