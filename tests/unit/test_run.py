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

from typing import Any

import pytest

from guest_agent_ext import command
from guest_agent_ext import run


@pytest.mark.parametrize(
    ('value', 'targets', 'number'),
    [
        (7, 3, 7),
        ('25%', 8, 2),
        ('25%', 7, 1),
        ('1%', 7, 1),
        ('100%', 7, 7),
        ('33%', 1000, 330),
    ],
)
def test_share(value: int | str, targets: int, number: int) -> None:
    assert run.share(value, targets) == number


@pytest.mark.parametrize(
    ('end', 'is_error'),
    [
        ((command.COMPLETED, 0), False),
        ((command.COMPLETED, 1), True),
        ((command.COMPLETED, None, 9), True),
        # A call of the agent has neither.
        ((command.COMPLETED, None, None), False),
        ((command.FAILED,), True),
        ((command.TIMED_OUT, None, 15), True),
        ((command.LOST,), True),
        ((command.CANCELLED, None, 15), False),
    ],
)
def test_errors(end: Any, is_error: bool) -> None:
    assert run.is_error(*end) == is_error


@pytest.mark.parametrize(
    ('counts', 'is_cancelled', 'is_stopped', 'end'),
    [
        ({run.WAITING: 1}, False, False, None),
        ({run.WAITING: 1, run.RELEASED: 1}, True, True, None),
        ({run.RELEASED: 1}, False, False, None),
        ({command.COMPLETED: 1}, False, False, run.COMPLETED),
        ({command.FAILED: 1}, False, True, run.COMPLETED),
        ({run.WAITING: 1, command.FAILED: 1}, False, True, run.STOPPED),
        ({run.WAITING: 1}, True, True, run.CANCELLED),
        ({command.CANCELLED: 1}, True, False, run.CANCELLED),
    ],
)
def test_end(
    counts: dict[str, int],
    is_cancelled: bool,
    is_stopped: bool,
    end: str | None,
) -> None:
    assert (
        run.end_of(counts, is_cancelled=is_cancelled, is_stopped=is_stopped)
        == end
    )


def test_every_status_of_a_target_is_counted() -> None:
    """RELEASED is no more than the command that users see."""
    assert set(run.TARGET_STATUSES) - {run.RELEASED} < run.COUNTED.keys()
    assert set(command.STATUSES) < run.COUNTED.keys()
