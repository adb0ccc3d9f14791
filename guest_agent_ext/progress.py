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

"""Progress bars on a terminal, with rate and time left."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import sys
import time
from types import TracebackType

from rich import console
from rich import progress

Clock = Callable[[], float]


class Bar:
    """A progress bar on stderr, which is shown only on a terminal.

    :ivar done: amount that is done
    :param total: expected amount
    :param columns: columns behind the bar
    :param done: amount that was done before
    :param clock: source of seconds
    """

    def __init__(
        self,
        total: int,
        columns: Sequence[progress.ProgressColumn],
        done: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.done = done
        self._total = total
        self._progress = progress.Progress(
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            *columns,
            progress.TimeRemainingColumn(),
            console=console.Console(stderr=True),
            disable=not sys.stderr.isatty(),
            get_time=clock,
            # Nothing else writes to the terminal, and stdout may be the file.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task('', total=total, completed=done)

    def __enter__(self) -> 'Bar':
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, number: int) -> None:
        """Add a number to the amount that is done."""
        self.done += number
        if self.done > self._total:
            # More may turn up than was expected.
            self._total = self.done
            self._progress.update(self._task, total=self._total)
        self._progress.advance(self._task, number)

    def describe(self, text: str) -> None:
        """Show a text behind the bar."""
        self._progress.update(self._task, description=text)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar off the terminal, so that something can be written."""
        if self._progress.disable:
            yield
            return
        self._progress.live.transient = True
        self._progress.stop()
        yield
        self._progress.live.transient = False
        self._progress.start()


def of_servers(
    total: int, done: int = 0, clock: Clock = time.monotonic
) -> Bar:
    """Return a bar for what is done in many servers.

    :param total: number of servers
    :param done: number of servers that are done before
    :param clock: source of seconds
    """
    return Bar(
        total,
        (
            progress.MofNCompleteColumn(),
            progress.TextColumn('{task.description}', markup=False),
        ),
        done,
        clock,
    )


def of_bytes(total: int, done: int = 0, clock: Clock = time.monotonic) -> Bar:
    """Return a bar for a transfer.

    :param total: size of the whole file in bytes
    :param done: number of bytes transferred before
    :param clock: source of seconds
    """
    return Bar(
        total,
        (progress.DownloadColumn(), progress.TransferSpeedColumn()),
        done,
        clock,
    )
