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

"""What an instance action tells of a command."""

import pytest

from guest_agent_ext import command
from guest_agent_ext.conductor import actions
from guest_agent_ext.db import models


@pytest.mark.parametrize(
    ('status', 'result', 'message'),
    [
        (command.COMPLETED, 'Success', None),
        (command.LOST, 'Error', 'Error'),
        (command.CANCELLED, 'Error', 'Error'),
    ],
)
def test_result_of_the_action(
    row: models.Command, status: str, result: str, message: str | None
) -> None:
    row.status = status
    end = actions._end(row)
    assert end == {
        'finish_time': row.finished_at,
        'result': result,
        'details': f'{row.uuid}: {status}, exit code 3',
    }
    progress = actions._progress(row)
    assert progress.get('message') == message
    assert progress['updated_at'] == row.finished_at


def test_action_of_what_runs_has_no_result(row: models.Command) -> None:
    row.status, row.finished_at = command.RUNNING, None
    assert actions._end(row) == {}
    assert actions._progress(row) == {'updated_at': row.started_at}


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        (command.EXEC, 'guest_agent_exec'),
        (command.FILE_READ, 'guest_agent_file_read'),
    ],
)
def test_name_of_the_action_is_one_word(
    row: models.Command, kind: str, name: str
) -> None:
    row.type = kind
    assert actions.name_of(row) == name
