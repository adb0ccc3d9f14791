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

import datetime
from typing import Any

import pytest

from guest_agent_ext import command
from guest_agent_ext.api import views
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models

TIME = datetime.datetime(2026, 3, 9, 12, 13, 22, 999999)
KEPT = command.MAX_OUTPUT_BYTES


def row(**values: Any) -> models.Command:
    return models.Command(
        **dict(
            {
                'uuid': 'uuid',
                'type': command.EXEC,
                'status': command.COMPLETED,
                'created_at': TIME,
                'started_at': TIME,
                'arguments': {},
            },
            **values,
        )
    )


def result(
    viewer: views.Viewer | None = None, **values: Any
) -> dict[str, Any]:
    viewer = viewer or views.Viewer(sees_contents=True, is_admin=False)
    found: dict[str, Any] = views.show(row(**values), viewer)['result']
    return found


@pytest.mark.parametrize(
    ('kept', 'written', 'truncated'),
    [
        (0, 0, False),
        (0, None, False),
        (5, 5, False),
        (5, None, False),
        (5, 6, True),
        (0, 1, True),
        (KEPT, KEPT, False),
        (KEPT, KEPT + 1, True),
        (KEPT, None, False),
    ],
)
def test_truncated_exactly_when_bytes_are_missing(
    kept: int, written: int | None, truncated: bool
) -> None:
    found = result(out_data=b'x' * kept, out_bytes=written)
    assert found['out_truncated'] is truncated
    assert found['err_truncated'] is False


def test_truncated_by_the_other_stream() -> None:
    found = result(
        out_data=b'x' * KEPT, out_bytes=KEPT, err_data=b'y', err_bytes=1
    )
    assert (found['out_truncated'], found['err_truncated']) == (True, False)
    assert len(found['out_data']) == KEPT - 1


def test_halves() -> None:
    found = result(out_data=b'x' * KEPT, err_data=b'y' * KEPT)
    assert len(found['out_data']) == len(found['err_data']) == KEPT // 2
    assert found['out_truncated'] and found['err_truncated']


def test_tail_keeps_the_end_and_nothing_of_nothing() -> None:
    found = result(
        out_data=b'a' + b'x' * (KEPT - 1),
        err_data=b'y',
        arguments={'output_keep': 'tail'},
    )
    assert found['out_data'] == 'x' * (KEPT - 1)
    found = result(out_data=b'', arguments={'output_keep': 'tail'})
    assert found['out_data'] == ''


def test_character_that_is_cut_makes_base64() -> None:
    # No byte is dropped to make it text.
    found = result(out_data='ü'.encode() * (KEPT // 2), err_data=b'y')
    assert found['out_encoding'] == 'base64'
    found = result(out_data='ü'.encode() * (KEPT // 2))
    assert (found['out_encoding'], len(found['out_data'])) == (
        'utf-8',
        KEPT // 2,
    )


@pytest.mark.parametrize(
    ('status', 'started'),
    [
        (command.PENDING, None),
        (command.RUNNING, None),
        (command.RUNNING, TIME),
        (command.FAILED, None),
        (command.CANCELLED, None),
        (command.LOST, None),
    ],
)
def test_no_result_yet_or_ever(status: str, started: Any) -> None:
    assert result(status=status, started_at=started, out_data=b'x') is None


def test_times_are_cut_to_the_second() -> None:
    viewer = views.Viewer(sees_contents=False, is_admin=False)
    shown = views.show(row(), viewer)
    assert shown['created_at'] == '2026-03-09T12:13:22Z'
    assert shown['finished_at'] is None


@pytest.mark.parametrize(
    ('sees_contents', 'is_admin', 'names'),
    [
        (False, False, set()),
        (True, False, {'arguments'}),
        (False, True, {'host'}),
        (True, True, {'arguments', 'host'}),
    ],
)
def test_what_only_some_see(
    sees_contents: bool, is_admin: bool, names: set[str]
) -> None:
    viewer = views.Viewer(sees_contents, is_admin)
    shown = views.show(row(host='h', out_data=b'x'), viewer)
    assert {'arguments', 'host'} & shown.keys() == names
    assert ('out_data' in shown['result']) is sees_contents


@pytest.mark.parametrize('status', command.STATUSES)
def test_error_is_general_for_who_sees_no_contents(status: str) -> None:
    viewer = views.Viewer(sees_contents=False, is_admin=False)
    ended = row(
        status=status,
        error='/opt/secret: no such program',
        out_size=0,
        err_size=0,
    )
    for shown in (views.show(ended, viewer), views.listed(ended, viewer)):
        assert 'secret' not in str(shown)
        has_failed = status not in (*command.UNFINISHED, command.COMPLETED)
        assert (shown['error'] is not None) is has_failed


def test_error_is_as_recorded_for_who_sees_contents() -> None:
    viewer = views.Viewer(sees_contents=True, is_admin=False)
    ended = row(
        status=command.FAILED,
        out_size=0,
        err_size=0,
        error='/opt/secret: no such program',
    )
    assert views.show(ended, viewer)['error'] == ended.error
    assert views.listed(ended, viewer)['error'] == ended.error


@pytest.mark.parametrize(
    ('silent_for', 'state'), [(0.0, 'up'), (60.0, 'up'), (60.1, 'down')]
)
def test_host_is_down_once_it_is_silent(silent_for: float, state: str) -> None:
    shown = views.host(
        hosts.HostState('h', 'c', '1', TIME, silent_for, 1, 2), down_time=60
    )
    assert shown['state'] == state
    assert (shown['running'], shown['pending']) == (1, 2)
