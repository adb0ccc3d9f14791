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
import webob.exc

from guest_agent_ext import command
from guest_agent_ext.api import command_request


def order(**arguments: Any) -> command_request.Order:
    asked: Any = {'command': ['id'], **arguments}
    return command_request.exec_of(asked)


def test_secrets_are_kept_apart_from_what_is_shown() -> None:
    found = order(
        env={'B': 'secret', 'A': 'word'}, input_data='hush\xe9', cwd='/tmp'
    )
    assert found.arguments == {
        'command': ['id'],
        'cwd': '/tmp',
        'env': ['A', 'B'],
        'input_bytes': 6,
    }
    assert found.inputs == {
        'env': {'B': 'secret', 'A': 'word'},
        'stdin': 'aHVzaMOp',
    }
    assert 'secret' not in repr(found)


def test_command_without_inputs_has_none() -> None:
    found = order()
    assert found.inputs is None
    assert found.arguments == {'command': ['id']}


def test_empty_inputs_are_not_lost() -> None:
    found = order(env={}, input_data='')
    assert found.arguments['env'] == []
    assert found.arguments['input_bytes'] == 0


def test_timeouts_default_to_the_options() -> None:
    options = command_request.CONF.guest_agent
    assert order().timeout == options.default_timeout
    assert order().start_timeout == options.default_start_timeout
    assert order(timeout=7).timeout == 7
    assert order(start_timeout=8).start_timeout == 8


@pytest.mark.parametrize(('text', 'stdin_bytes'), [('aGk=', 2), ('', 0)])
def test_base64_is_counted_decoded(text: str, stdin_bytes: int) -> None:
    found = order(input_data=text, input_encoding='base64')
    assert found.arguments['input_bytes'] == stdin_bytes


@pytest.mark.parametrize('text', ['aGk', 'a!Gk=', 'h\xfc', 'aGk=\n'])
def test_base64_is_strict_and_not_repeated(text: str) -> None:
    with pytest.raises(webob.exc.HTTPBadRequest) as caught:
        order(input_data=text, input_encoding='base64')
    assert text not in str(caught.value.explanation)


def test_bounds_count_bytes_not_characters() -> None:
    half = 'é' * (command.MAX_ARGUMENT_BYTES // 4)
    order(command=[half, half])
    with pytest.raises(webob.exc.HTTPBadRequest, match='together'):
        order(command=[half, half], env={'A': ''})
    order(input_data='x' * command.MAX_INPUT_BYTES)
    with pytest.raises(webob.exc.HTTPBadRequest, match='input_data'):
        order(input_data='x' * command.MAX_INPUT_BYTES + 'x')


@pytest.mark.parametrize(
    ('kind', 'changes'),
    [
        (command.EXEC, True),
        (command.FILE_WRITE, True),
        (command.FILE_READ, False),
    ],
)
def test_only_a_read_leaves_a_server_unchanged(
    kind: str, changes: bool
) -> None:
    found = command_request.Order(kind, {}, None, 1, 1)
    assert found.changes is changes
