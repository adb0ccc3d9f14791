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

"""Child processes that are started, found again and stopped by pid."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

#: Below those that Linux gives to connections: a server that is started again
#: finds its port free.
_PORTS = range(10240, 32768)


class StartError(Exception):
    """Something of the test bed did not come up."""


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot.

    With the pid it names a process for good: pids are used again.

    :returns: None if there is no such process, or only its zombie.
    """
    process = pathlib.Path(f'/proc/{pid}')
    try:
        stat = (process / 'stat').read_text()
        threads = len(list((process / 'task').iterdir()))
    except OSError:
        return None
    # The second field, the name, may hold spaces and parentheses.
    fields = stat.rpartition(')')[2].split()
    # A zombie whose threads still end still holds its sockets.
    if fields[0] == 'Z' and threads == 1:
        return None
    return int(fields[19])


@dataclasses.dataclass(frozen=True)
class Process:
    """A process of ours, which need not be a child of this one.

    :ivar log: the file that its output goes to, if that is known
    """

    name: str
    pid: int
    start_time: int
    log: str | None = None

    @classmethod
    def of(cls, name: str, pid: int, log: str | None = None) -> 'Process':
        """Name a process that is running now.

        :raises: StartError if it is not
        """
        start_time = _start_time(pid)
        if start_time is None:
            raise StartError(f'{name} (pid {pid}) is not running')
        return cls(name, pid, start_time, log)

    def last_words(self) -> str:
        """Return the end of its log."""
        if self.log is None:
            return ''
        return pathlib.Path(self.log).read_text(errors='replace')[-3000:]

    @property
    def alive(self) -> bool:
        _reap(self.pid)
        return _start_time(self.pid) == self.start_time

    def memory(self, name: str) -> int:
        """Return bytes of memory.

        :param name: ``VmRSS`` for what it has, ``VmHWM`` for the most that it
            had; see proc(5)
        """
        status = pathlib.Path(f'/proc/{self.pid}/status').read_text()
        (line,) = [line for line in status.splitlines() if name in line]
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        """Reset ``VmHWM`` to the memory that the process has now."""
        pathlib.Path(f'/proc/{self.pid}/clear_refs').write_text('5')

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def pause(self) -> None:
        """Suspend the process, as if hung."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process, as a power cut would, and wait for its end."""
        self.signal(signal.SIGKILL)
        wait_for(lambda: not self.alive, 10, f'the end of {self.name}')

    def stop(self, timeout: float = 20.0) -> None:
        """Ask the process to end, and kill it after ``timeout`` seconds."""
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            wait_for(lambda: not self.alive, timeout, self.name)
        except StartError:
            self.kill()


class Log:
    """What a process logs from now on.

    :param process: one with a log
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._path = pathlib.Path(str(process.log))
        self._read = self._path.stat().st_size
        self._text = ''

    def wait_for(self, pattern: str, timeout: float = 90) -> None:
        """Wait for a line that matches.

        :param pattern: a regular expression
        :param timeout: seconds
        :raises: StartError when the time is over
        """
        wait_for(
            lambda: re.search(pattern, self._grown()),
            timeout,
            f'{pattern!r} of {self._process.name}',
            gap=0.2,
        )

    def _grown(self) -> str:
        with self._path.open('rb') as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        self._text += new.decode(errors='replace')
        return self._text


class Ledger:
    """What runs, written down for a later run of this program.

    :param path: path of its file
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def note(self, process: Process) -> Process:
        """Write down what runs, before anything else can fail.

        It takes the place of what had its name and has ended.
        """
        with self._lock:
            self._write(
                [
                    *(
                        other
                        for other in self.processes()
                        if other.name != process.name or other.alive
                    ),
                    process,
                ]
            )
        return process

    def processes(self) -> list[Process]:
        """Return what was written down, oldest first."""
        if not self._path.exists():
            return []
        return [
            Process(**fields) for fields in json.loads(self._path.read_text())
        ]

    def is_up(self) -> bool:
        """Tell whether all noted processes run."""
        noted = self.processes()
        return bool(noted) and all(process.alive for process in noted)

    def stop(self) -> None:
        """Stop all noted processes, newest first, and forget them."""
        for process in reversed(self.processes()):
            process.stop()
        self._path.unlink(missing_ok=True)

    def _write(self, noted: Sequence[Process]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(
            json.dumps([dataclasses.asdict(process) for process in noted])
        )


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def start(
    name: str,
    argv: Sequence[str | os.PathLike[str]],
    log: pathlib.Path,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a process that outlives this one, its output in a log.

    :param name: its name in messages
    :param argv: the program and its arguments
    :param log: the file that its stdout and stderr are appended to
    :param env: variables in addition to those of this process
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('ab') as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    # It ends by Process.stop(), often from another run of this program.
    child.returncode = 0
    return Process.of(name, child.pid, str(log))


def take_ignored_signals() -> None:
    """Have children take the signals that this process was told to ignore.

    Under nohup, from cron and in a shell's background those of a terminal are
    ignored, and a child inherits that. One that is caught is not ignored by
    children; caught to do nothing it does as little here.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda signum, frame: None)


def wait_for(
    condition: Callable[[], object],
    timeout: float,
    what: str,
    process: Process | None = None,
    gap: float = 0.05,
) -> None:
    """Wait until a condition holds.

    :param condition: called until what it returns is true
    :param timeout: seconds to wait at most
    :param what: name of the condition, for the message
    :param process: whose end makes waiting pointless
    :param gap: seconds between two calls
    :raises: StartError when the time is over or the process has ended
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if process is not None and not process.alive:
            raise StartError(
                f'{process.name} ended before {what} was there; '
                f'its last words:\n{process.last_words()}'
            )
        if time.monotonic() > deadline:
            raise StartError(f'{what}: not within {timeout:g} seconds')
        time.sleep(gap)


def listening(port: int, address: str = '127.0.0.1') -> bool:
    """Tell whether something accepts connections on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def free_port(preferred: int | None = None) -> int:
    """Return a loopback port that nobody listens on, nor is about to.

    None is returned again, to any run on this machine, until all others were:
    who was given it may not listen yet, or not at the moment.

    :param preferred: the port to return if it is free
    """
    if preferred is not None and _is_free(preferred):
        return preferred
    for _ in _PORTS:
        port = _take_port()
        if _is_free(port):
            return port
    raise StartError('there is no free loopback port')


def _take_port() -> int:
    """Return the next port, whether or not it is free."""
    last = pathlib.Path(tempfile.gettempdir(), 'guest-agent-ext-port')
    with last.open('a+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = int(file.read() or _PORTS[-1])
        port = number + 1 if number + 1 in _PORTS else _PORTS[0]
        file.truncate(0)
        file.write(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return False
        return True
