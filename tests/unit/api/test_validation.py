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

import json
from typing import Any

import pytest
import webob.exc

from guest_agent_ext.api import validation

STRING = {'type': 'string'}


def message_of(schema: validation.Schema, value: Any) -> str | None:
    error = validation._best_error(schema, value)
    return None if error is None else validation._describe(error, 'The body')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (b'{"a": 1, "a": 1}', 'a is a duplicate key'),
        (b'{"a": NaN}', 'must be a JSON object in UTF-8'),
        (b'\xff', 'must be a JSON object in UTF-8'),
        (b'{', 'must be a JSON object in UTF-8'),
        (b'[' * 17 + b']' * 17, 'at most 16 levels'),
        (b'[' * 100_000, 'at most 16 levels'),
    ],
)
def test_json_is_parsed_strictly(text: bytes, words: str) -> None:
    with pytest.raises(webob.exc.HTTPBadRequest, match=words):
        validation._parse(text)


def test_whole_numbers_are_integers_however_they_are_written() -> None:
    """JSON Schema says so, and clients of some languages write 60.0."""
    found = validation._parse(b'[60.0, 6e1, -0.0, 0.5, 1e400]')
    assert isinstance(found, list)
    assert [type(value) for value in found] == [int, int, int, float, float]
    assert found[:4] == [60, 60, 0, 0.5]


def test_levels_up_to_the_bound_are_parsed() -> None:
    text = b'[' * 16 + b']' * 16
    assert validation._parse(text) == json.loads(text)


@pytest.mark.parametrize(
    ('schema', 'value', 'message'),
    [
        (
            {'properties': {'a': {'items': STRING}}},
            {'a': ['x', 1]},
            'a[1] must be of type string',
        ),
        ({'required': ['a', 'b']}, {'a': 1}, 'b is missing'),
        (
            {'properties': {'a': {}}, 'additionalProperties': False},
            {'b': 1},
            'b is not known here; known are: a',
        ),
        ({'enum': ['x', 'y']}, 'z', 'The body must be one of: x, y, not z'),
        ({'minimum': 2}, 1, 'The body must be at least 2, not 1'),
        ({'type': 'integer'}, 60.0, 'The body must be of type integer'),
        ({'type': 'integer'}, True, 'The body must be of type integer'),
    ],
)
def test_messages_name_field_value_and_what_is_accepted(
    schema: validation.Schema, value: Any, message: str
) -> None:
    assert message_of(schema, value) == message


def test_values_that_may_be_secret_are_not_shown() -> None:
    message = message_of({'maxLength': 3}, 'secret')
    assert message == 'The body must have at most 3 character(s)'


def test_long_values_are_cut_and_written_in_ascii() -> None:
    message = message_of({'enum': ['x']}, 'é ' * 1000)
    assert message is not None
    assert message.isascii()
    assert len(message) < 120


@pytest.mark.parametrize(
    ('path', 'fits'),
    [
        ('/', True),
        ('/etc/hosts', True),
        ('C:\\a', True),
        ('d:/a', True),
        (r'\\server\share', True),
        ('etc', False),
        ('/etc/', False),
        ('C:', False),
        ('C:\\', False),
        ('', False),
        ('/a\0', False),
        ('/' + 'a' * 4095, True),
        ('/' + 'é' * 2048, False),
        ('/\ud800', False),
    ],
)
def test_paths(path: str, fits: bool) -> None:
    schema = {'type': 'string', 'format': validation.PATH}
    assert (message_of(schema, path) is None) is fits
