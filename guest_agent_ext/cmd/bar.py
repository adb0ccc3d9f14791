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

"""The progress bar of guest-agent-manage.

The client's, in ``guest_agent_ext/progress.py``, is in another distribution.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import sys
import time

from rich import console
from rich import progress
from rich import text


class _Rate(progress.ProgressColumn):
    """A column with the number of items per second."""

    def render(self, task: progress.Task) -> text.Text:
        speed = task.finished_speed or task.speed
        return text.Text('' if speed is None else f'{speed:.0f}/s')


@contextlib.contextmanager
def of_items(
    total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr, if that is a terminal, while the block runs.

    :param total: expected number of items
    :param clock: source of seconds
    :returns: function that adds a number of items to those that are done
    """
    with progress.Progress(
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.MofNCompleteColumn(),
        _Rate(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
        disable=not sys.stderr.isatty(),
        get_time=clock,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task('', total=total)
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            # More may turn up than was expected.
            bar.update(task, total=max(total, done), completed=done)

        yield advance
