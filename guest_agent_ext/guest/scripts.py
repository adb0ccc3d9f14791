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

"""Launchers that have the guest run scripts of ours."""

import abc
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import functools
from importlib import resources
import time

from guest_agent_ext import exception
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import answers
from guest_agent_ext.guest import launcher

#: Seconds that a script other than a launch may take, and between two looks at
#: whether it has ended.
TIMEOUT = 20.0
GAP = 0.01

IMPROPER = 'What was run in the guest gave no proper answer'


@functools.cache
def text(name: str) -> str:
    """Return a script without its comments: guests get no prose."""
    lines = (
        line.strip()
        for line in resources.files(__package__)
        .joinpath(name)
        .read_text()
        .splitlines()
    )
    return '\n'.join(
        line for line in lines if line and not line.startswith('#')
    )


@dataclasses.dataclass(frozen=True)
class FileAnswer:
    """What the script for files said; files.py knows what it means.

    :ivar path: of a file, if the answer is about one
    :ivar error: what the guest's tools complained of
    """

    word: str
    details: Sequence[str]
    path: str
    error: str


class ScriptLauncher(abc.ABC):
    """What launchers share that work by scripts; see launcher.Launcher.

    :param agent: of the guest
    """

    execution: launcher.Execution = 'guarded'

    def __init__(self, agent: guest_agent.Agent) -> None:
        self._agent = agent

    def poll(self, pid: int) -> launcher.Outcome | None:
        status = self._agent.exec_status(pid)
        return self._outcome(status) if status.exited else None

    def recover(self, id: str) -> launcher.Outcome:
        return self._outcome(self._wait(self._exec('recover', [id, 'look'])))

    def fence(self, id: str) -> launcher.Outcome:
        return self._outcome(self._wait(self._exec('recover', [id, 'fence'])))

    def signal_tree(self, id: str, signal: str, status: str) -> int:
        try:
            return answers.natural(self._run('signal', id, signal, status))
        except ValueError:
            raise exception.AgentError(IMPROPER) from None

    def unhold(self, id: str) -> None:
        self._run('unhold', id)

    def release(self, ids: Sequence[str]) -> None:
        self._run('release', *ids)

    def start_file(self, verb: str, *args: str) -> int:
        """Have something done with a file.

        :returns: pid to poll for
        """
        return self._exec('file', [verb, *args])

    def poll_file(self, pid: int) -> FileAnswer | None:
        """Return what came of it, None while it is under way.

        :raises exception.AgentRefused: the agent does not know this pid
        """
        status = self._agent.exec_status(pid)
        return self._file_answer(status) if status.exited else None

    def ask_file(self, verb: str, *args: str) -> FileAnswer:
        """Have something done with a file, and wait for it."""
        return self._file_answer(self._wait(self.start_file(verb, *args)))

    @abc.abstractmethod
    def _file_answer(self, status: guest_agent.ExecStatus) -> FileAnswer:
        """Read what the script for files printed."""

    @abc.abstractmethod
    def _exec(self, script: str, args: Iterable[str]) -> int:
        """Start a script and return its pid."""

    @abc.abstractmethod
    def _outcome(self, status: guest_agent.ExecStatus) -> launcher.Outcome:
        """Read what the launch or recover script printed."""

    def _run_probe(self) -> str:
        """Return what the probe printed; nothing if it cannot be executed."""
        try:
            return self._run('probe')
        except exception.AgentCommandDisabled:
            raise
        except exception.AgentRefused:
            return ''

    def _run(self, script: str, *args: str) -> str:
        """Run a short script and return what it printed."""
        return self._wait(self._exec(script, args)).out.decode(
            errors='replace'
        )

    def _wait(self, pid: int) -> guest_agent.ExecStatus:
        deadline = time.monotonic() + TIMEOUT
        while True:
            time.sleep(GAP)
            status = self._agent.exec_status(pid)
            if status.exited:
                return status
            if time.monotonic() > deadline:
                raise exception.AgentUnresponsive()
