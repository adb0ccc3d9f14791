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

"""What the gate runs when, and what it says in the end."""

from collections.abc import Mapping
from collections.abc import Sequence
from unittest import mock

import pytest

from tools import gate

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" tests="3">
<testcase classname="tests.a" name="test_well[x]" time="1.5" />
<testcase classname="tests.a" name="test_ill" time="0.2">
<failure message="assert 1 == 2&#10;  where 1">...</failure></testcase>
<testcase classname="tests.b" name="test_unprepared" time="3.0">
<error message="no server">...</error></testcase>
</testsuite></testsuites>"""

FIRST, SECOND = gate.Part('first', 1.0), gate.Part('second', 0.6)
THIRD = gate.Part('third', 0.2, after='first')


class Runs:
    """Plays the runs of parts.

    :param statuses: the exit codes of parts, by their names
    """

    def __init__(self, statuses: Mapping[str, int]) -> None:
        self._statuses = statuses
        self.running: list[str] = []
        self.most = 0
        self.ended: list[str] = []

    def start(self, part: gate.Part) -> mock.Mock:
        self.running.append(part.name)
        self.most = max(self.most, len(self.running))
        run = mock.Mock(spec=gate.Run, part=part)
        run.result.side_effect = lambda: self._result(part)
        run.end.side_effect = lambda: self.ended.append(part.name)
        return run

    def _result(self, part: gate.Part) -> gate.Result:
        self.running.remove(part.name)
        return gate.Result(part, self._statuses.get(part.name, 0))


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, '_POLL', 0)


def outcomes(
    runs: Runs, parts: Sequence[gate.Part], room: float
) -> dict[str, str]:
    return {
        result.part.name: result.outcome
        for result in gate.run_all(parts, room, runs.start)
    }


def test_parts_run_side_by_side_as_far_as_there_is_room() -> None:
    runs = Runs({})
    assert set(outcomes(runs, [FIRST, SECOND, THIRD], 1.7).values()) == {
        'passed'
    }
    assert runs.most == 2
    runs = Runs({})
    outcomes(runs, [FIRST, SECOND, THIRD], 0.5)
    assert runs.most == 1


def test_failure_of_a_part_ends_only_what_needs_it() -> None:
    assert outcomes(Runs({'first': 2}), [THIRD, FIRST, SECOND], 9) == {
        'first': 'FAILED',
        'second': 'passed',
        'third': 'not run',
    }


def test_part_that_is_named_waits_for_none_that_is_not() -> None:
    """It would wait for ever."""
    (stack,) = gate.chosen(['stack'])
    assert (stack.name, stack.after) == ('stack', None)
    parts = gate.chosen(['openstack', 'stack'])
    assert [part.after for part in parts] == [None, 'openstack']
    assert gate.chosen([]) == list(gate.PARTS)


def test_interrupted_gate_ends_its_parts() -> None:
    runs = Runs({})
    results = gate.run_all([FIRST, SECOND], 9, runs.start)
    assert next(results).part == FIRST
    results.close()
    assert runs.ended == ['second']


def test_parts_that_wait_for_others_can_start() -> None:
    names = [part.name for part in gate.PARTS]
    assert len(names) == len(set(names))
    for part in gate.PARTS:
        assert part.after is None or part.after in names


def test_tests_are_read_from_the_report() -> None:
    assert gate.tests_of(JUNIT) == [
        gate.Test('tests.a::test_well[x]', 1.5),
        gate.Test('tests.a::test_ill', 0.2, 'assert 1 == 2\n  where 1'),
        gate.Test('tests.b::test_unprepared', 3.0, 'no server'),
    ]


def test_report_names_what_failed_and_where_its_log_is() -> None:
    tests = gate.tests_of(JUNIT)
    text = gate.report(
        [
            gate.Result(FIRST, 0, 61.0, 30.0, tests[:1]),
            gate.Result(SECOND, 2, 5.0, 1.0, tests[1:]),
        ],
        66.4,
    )
    assert '1:01' in text
    assert 'second failed, see .test/log/second.log' in text
    assert 'first failed' not in text
    assert 'FAILED tests.a::test_ill\n  assert 1 == 2\n    where 1\n' in text
    assert text.index('test_unprepared') < text.index('test_well')
    assert text.splitlines()[-2:] == ['FAILED in 1:06', '1 passed, 2 failed']


def test_part_without_tests_that_fails_is_counted() -> None:
    text = gate.report([gate.Result(FIRST, 1), gate.Result(THIRD, None)], 1)
    assert text.endswith('0 passed, 2 failed')
    assert 'third failed' not in text
    assert gate.report([gate.Result(FIRST, 0)], 1).endswith(
        '0 passed, 0 failed'
    )
