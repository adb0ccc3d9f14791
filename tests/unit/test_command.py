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

import pytest

from guest_agent_ext import command


def test_every_state_is_reached_and_known() -> None:
    targets = set().union(*command.TRANSITIONS.values())
    assert targets | {command.PENDING} == set(command.STATUSES)
    assert set(command.TRANSITIONS) == set(command.UNFINISHED)
    assert set(command.UNFINISHED) | set(command.ENDED) == set(
        command.STATUSES
    )


def test_nothing_becomes_lost_that_was_handed_to_nobody() -> None:
    assert command.sources_of(command.LOST) == (command.RUNNING,)
    assert command.sources_of(command.FAILED) == (
        command.PENDING,
        command.RUNNING,
    )


@pytest.mark.parametrize(
    ('status', 'started', 'shown'),
    [
        (command.PENDING, False, command.PENDING),
        (command.RUNNING, False, command.PENDING),
        (command.RUNNING, True, command.RUNNING),
        (command.FAILED, False, command.FAILED),
        (command.COMPLETED, True, command.COMPLETED),
    ],
)
def test_running_is_shown_once_it_has_started(
    status: str, started: bool, shown: str
) -> None:
    assert command.shown_status(status, started) == shown


@pytest.mark.parametrize(
    ('sizes', 'shares'),
    [
        ((0, 0), (0, 0)),
        ((102400, 0), (102400, 0)),
        ((0, 200000), (0, 102400)),
        ((1000, 200000), (1000, 101400)),
        ((200000, 1000), (101400, 1000)),
        ((200000, 200000), (51200, 51200)),
        ((51200, 51200), (51200, 51200)),
        ((51201, 51200), (51200, 51200)),
        ((60000, 40000), (60000, 40000)),
        ((60000, 50000), (52400, 50000)),
    ],
)
def test_streams_share_the_bytes_of_a_result(
    sizes: tuple[int, int], shares: tuple[int, int]
) -> None:
    assert command.share_output(*sizes) == shares
