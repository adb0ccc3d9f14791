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
from guest_agent_ext.api import output
from guest_agent_ext.db import models


def row(keep: str, data: bytes | None, written: int | None) -> models.Command:
    return models.Command(
        status=command.COMPLETED,
        arguments={'output_keep': keep},
        out_data=data,
        out_bytes=written,
    )


@pytest.mark.parametrize(
    ('keep', 'asked', 'first', 'data'),
    [
        ('head', 0, 0, b'abc'),
        ('head', 2, 2, b'c'),
        ('head', 9, 9, b''),
        # Seven bytes were written, the last three are kept.
        ('tail', 0, 4, b'abc'),
        ('tail', 5, 5, b'bc'),
        ('tail', 9, 9, b''),
    ],
)
def test_offsets_count_what_was_written(
    keep: str, asked: int, first: int, data: bytes
) -> None:
    piece = output.recorded(row(keep, b'abc', 7), 'out', asked)
    assert (piece.offset, piece.data) == (first, data)
    assert piece.is_complete


@pytest.mark.parametrize('keep', ['head', 'tail'])
def test_command_that_wrote_nothing_or_was_not_counted(keep: str) -> None:
    assert output.recorded(row(keep, None, None), 'out', 0).data == b''
    assert output.recorded(row(keep, b'abc', None), 'out', 0).data == b'abc'


def test_headers_tell_where_to_go_on() -> None:
    headers = output.Piece(4, b'abc', is_complete=False).headers()
    assert headers == {
        'OpenStack-Guest-Agent-Offset': '4',
        'OpenStack-Guest-Agent-Next-Offset': '7',
        'OpenStack-Guest-Agent-Complete': 'false',
    }
