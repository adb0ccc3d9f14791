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

"""The base of launchers that run scripts of this project in the guest."""

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
from importlib import resources
import time

from guest_agent_ext import exception
from guest_agent_ext import untrusted
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest.launchers import base

#: Seconds until a script is first polled whether it has ended, and the share
#: of the time that it has taken so far after which it is polled again.
GAP, GAP_SHARE = 0.01, 0.1
#: The same where nobody waits for the answer, and each question leaves a line
#: in the guest's journal. The first one comes after a share of the seconds
#: that the script took the last time, within bounds: a slow guest would have
#: most of them.
IDLE_GAP, MAX_IDLE_GAP, IDLE_GAP_SHARE = 0.05, 0.5, 1.0
TIME_SHARE = 0.75
#: How often a script is run that somebody in the guest kills (killall sh).
ATTEMPTS = 3

_DIRECTORY = resources.files('guest_agent_ext.guest') / 'scripts'

IMPROPER = 'What was run in the guest gave no proper answer'


def raw_text(name: str) -> str:
    """Return a script with its comments.

    :param name: path below ``scripts/``
    """
    return _DIRECTORY.joinpath(name).read_text()


@functools.cache
def text(name: str) -> str:
    """Return a script without its comments, ready to be sent.

    :param name: path below ``scripts/``
    """
    lines = map(str.strip, raw_text(name).splitlines())
    return '\n'.join(
        line for line in lines if line and not line.startswith('#')
    )


@dataclasses.dataclass(frozen=True)
class FileAnswer:
    """The answer of the script for files, which files.py interprets.

    :ivar word: kind of answer
    :ivar details: further words, by kind
    :ivar path: path of the file that the answer is about; empty if none
    :ivar error: complaint of the guest's tools
    """

    word: str
    details: Sequence[str]
    path: str
    error: str


class ScriptLauncher(abc.ABC):
    """A launcher that works by scripts; see base.Launcher.

    :param agent: the guest's agent
    """

    execution: base.Execution = 'guarded'
    #: Maximum seconds that a script other than a launch may take.
    timeout = 20.0

    def __init__(self, agent: guest_agent.Agent) -> None:
        self._agent = agent
        # Seconds that a script took the last time.
        self._took: dict[str, float] = {}

    def poll(self, pid: int) -> base.Outcome | None:
        status = self._agent.exec_status(pid)
        return self._outcome(status) if status.exited else None

    def recover(self, id: str) -> base.Outcome:
        return self._found(self._run_idly('recover', [id, 'look']))

    def fence(self, id: str) -> base.Outcome:
        return self._found(
            self._ask(lambda: self._exec('recover', [id, 'fence']))
        )

    def _found(self, status: guest_agent.ExecStatus) -> base.Outcome:
        if not status.out:
            # It always says something. Windows tells of no signal.
            raise exception.ScriptKilled()
        return self._outcome(status)

    def signal_tree(self, id: str, signal: str, status: str) -> int:
        try:
            return untrusted.natural(self._run('signal', id, signal, status))
        except ValueError:
            raise exception.AgentError(IMPROPER) from None

    def unhold(self, id: str) -> None:
        self._run('unhold', id)

    def watch(self, pid: int) -> base.Watch | None:
        return None

    def release(self, ids: Sequence[str]) -> None:
        self._run_idly('release', ids)

    def start_file(self, verb: str, *args: str) -> int:
        """Start the script for files.

        :param verb: one of the script's functions
        :param args: arguments of that function
        :returns: PID to poll
        """
        return self._exec('file', [verb, *args])

    def poll_file(self, pid: int) -> FileAnswer | None:
        """Poll the script for files.

        :param pid: PID that start_file() returned
        :returns: the answer; None while the script runs
        :raises exception.AgentRefused: the agent does not know the PID
        """
        status = self._agent.exec_status(pid)
        if status.signal is not None:
            raise exception.ScriptKilled()
        return self._file_answer(status) if status.exited else None

    def ask_file(self, verb: str, *args: str) -> FileAnswer:
        """Run the script for files and return its answer.

        :param verb: one of the script's functions
        :param args: arguments of that function
        """
        return self._file_answer(
            self._ask(lambda: self.start_file(verb, *args))
        )

    @abc.abstractmethod
    def _file_answer(self, status: guest_agent.ExecStatus) -> FileAnswer:
        """Parse the output of the script for files."""

    @abc.abstractmethod
    def _exec(self, script: str, args: Iterable[str]) -> int:
        """Start a script and return its PID."""

    @abc.abstractmethod
    def _outcome(self, status: guest_agent.ExecStatus) -> base.Outcome:
        """Parse the output of the launch or recover script."""

    def _run_probe(self, *args: str) -> str:
        """Return the output of the probe, empty if no script can run."""
        try:
            return self._run('probe', *args)
        except exception.AgentCommandDisabled:
            raise
        except exception.AgentRefused:
            return ''

    def _run(self, script: str, *args: str) -> str:
        """Run a short script and return its output."""
        return self._ask(lambda: self._exec(script, args)).out.decode(
            errors='replace'
        )

    def _ask(
        self,
        start: Callable[[], int],
        gap: float = 0.0,
        share: float = GAP_SHARE,
    ) -> guest_agent.ExecStatus:
        """Run a script, again if it is killed: any may be run twice.

        :param start: function that starts the script and returns its PID
        :param gap: minimum seconds until the first poll, and between two polls
        :param share: share of the script's age between two polls
        """
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(exception.ScriptKilled):
                return self._wait(start(), gap, share)
        return self._wait(start(), gap, share)

    def _run_idly(
        self, script: str, args: Iterable[str]
    ) -> guest_agent.ExecStatus:
        """Run a script for whose answer nobody waits."""
        began = time.monotonic()
        gap = max(
            IDLE_GAP,
            min(MAX_IDLE_GAP, self._took.get(script, 0.0) * TIME_SHARE),
        )
        status = self._ask(
            lambda: self._exec(script, args), gap, IDLE_GAP_SHARE
        )
        self._took[script] = time.monotonic() - began
        return status

    def _wait(
        self, pid: int, gap: float = 0.0, share: float = GAP_SHARE
    ) -> guest_agent.ExecStatus:
        """Return what a script printed, once it has ended.

        :param pid: PID of the script
        :param gap: minimum seconds until the first poll, and between two polls
        :param share: share of the script's age between two polls
        :raises exception.ScriptKilled: a signal ended it
        """
        began = time.monotonic()
        waited = 0.0
        while True:
            time.sleep(max(GAP, gap, waited * share))
            status = self._agent.exec_status(pid)
            if status.signal is not None:
                raise exception.ScriptKilled()
            if status.exited:
                return status
            waited = time.monotonic() - began
            if waited > self.timeout:
                raise exception.AgentUnresponsive()
