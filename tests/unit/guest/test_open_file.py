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


from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import open_file


@pytest.fixture
def agent() -> mock.Mock:
    """An agent whose file has 10 bytes."""
    agent = mock.Mock()
    agent.file_seek.side_effect = lambda number, offset, whence: (
        10 if whence == 'end' else offset
    )
    return agent


def test_read_goes_on_until_it_has_all(agent: mock.Mock) -> None:
    agent.file_read.side_effect = [b'ab', b'c']
    assert open_file.OpenFile(agent, 3).read(5, 3) == b'abc'
    agent.file_seek.assert_called_once_with(3, 5, 'set')


def test_read_ends_where_the_file_does(agent: mock.Mock) -> None:
    agent.file_read.side_effect = [b'ab', b'']
    assert open_file.OpenFile(agent, 3).read(0, 3) == b'ab'


def test_what_follows_is_read_without_seeking(agent: mock.Mock) -> None:
    agent.file_read.side_effect = lambda number, count: b'x' * count
    opened = open_file.OpenFile(agent, 3)
    opened.read(0, open_file.READ_CHUNK + 1)
    opened.read(open_file.READ_CHUNK + 1, 2)
    agent.file_seek.assert_called_once()
    assert max(call.args[1] for call in agent.file_read.call_args_list) == (
        open_file.READ_CHUNK
    )


def test_unanswered_read_is_sought_anew(agent: mock.Mock) -> None:
    agent.file_read.side_effect = [b'a', exception.AgentUnresponsive(), b'b']
    opened = open_file.OpenFile(agent, 3)
    opened.read(0, 1)
    with pytest.raises(exception.AgentUnresponsive):
        opened.read(1, 1)
    assert opened.read(1, 1) == b'b'
    assert agent.file_seek.call_args_list[-1] == mock.call(3, 1, 'set')


def test_write_goes_on_until_all_is_written(agent: mock.Mock) -> None:
    agent.file_write.side_effect = [2, 1]
    open_file.OpenFile(agent, 3).write(7, b'abc')
    assert agent.file_write.call_args_list == [
        mock.call(3, b'abc'),
        mock.call(3, b'c'),
    ]


def test_write_of_nothing_does_not_go_on_for_ever(agent: mock.Mock) -> None:
    agent.file_write.return_value = 0
    with pytest.raises(exception.AgentError):
        open_file.OpenFile(agent, 3).write(0, b'abc')


def test_request_is_no_larger_than_a_chunk(agent: mock.Mock) -> None:
    agent.file_write.side_effect = lambda number, data: len(data)
    open_file.OpenFile(agent, 3).write(0, b'x' * (open_file.WRITE_CHUNK + 1))
    sizes = [len(call.args[1]) for call in agent.file_write.call_args_list]
    assert sizes == [open_file.WRITE_CHUNK, 1]


def test_close_tells_what_was_not_written(agent: mock.Mock) -> None:
    agent.file_flush.side_effect = exception.AgentRefused('No space left')
    with pytest.raises(exception.AgentRefused, match='No space left'):
        open_file.OpenFile(agent, 3).close()


def test_unanswered_close_may_have_closed_it(agent: mock.Mock) -> None:
    opened = open_file.OpenFile(agent, 3)
    agent.file_close.side_effect = [exception.AgentUnresponsive()]
    with pytest.raises(exception.AgentUnresponsive):
        opened.close()
    agent.file_flush.side_effect = exception.AgentRefused('unknown handle')
    opened.close()


def test_discard_of_what_is_closed(agent: mock.Mock) -> None:
    agent.file_close.side_effect = exception.AgentRefused('unknown handle')
    open_file.OpenFile(agent, 3).discard()
    agent.file_flush.assert_not_called()
