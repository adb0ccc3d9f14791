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

"""What hostile guests say of themselves."""

import json
import math
from typing import Any

import hypothesis
from hypothesis import strategies as st
import jsonschema
import pytest

from guest_agent_ext import details
from guest_agent_ext import untrusted

hypothesis.settings.register_profile(
    'ours',
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile('ours')

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(['x' * 200_000, 'a\nb\0\x1b[31m', '\ud800', 10**30]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
    ),
    max_leaves=8,
)


def like(kind: Any) -> st.SearchStrategy[Any]:
    """Return what looks like an answer, with some of it anything."""
    if isinstance(kind, details.Object):
        shape: st.SearchStrategy[Any] = st.fixed_dictionaries(
            {},
            optional={
                name.replace('_', '-'): like(field.kind)
                for name, field in kind.fields.items()
            },
        )
    elif isinstance(kind, details.Many):
        shape = st.lists(like(kind.item), max_size=3)
    else:
        shape = {
            'string': st.text(),
            'integer': st.integers(),
            'number': st.floats(),
            'boolean': st.booleans(),
        }[kind.type]
    return st.one_of(shape, shape, shape, JSON)


def check(part: details.Part, value: Any) -> None:
    """Check that what is believed fits the schema, a line and a message."""
    jsonschema.validate(value, part.kind.schema())
    text = json.dumps(value, allow_nan=False)
    assert len(text) <= 2 * details.MAX_BYTES
    # Half of a surrogate pair could not be sent.
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize('name', details.PARTS)
@hypothesis.given(data=st.data())
def test_hostile_answer(name: str, data: Any) -> None:
    part = details.PARTS[name]
    answer = data.draw(st.one_of(like(part.kind), JSON))
    if name == 'host_name':
        answer = {'host-name': answer}
    if name == details.SSH_KEYS:
        answer = {'keys': answer}
    try:
        value = part.read(answer)
    except untrusted.IMPROPER:
        return
    check(part, value)


def test_many_values_are_cut() -> None:
    part = details.PARTS['users']
    user = {'user': 'x' * 1000, 'login-time': 0}
    value = part.read([user] * 100_000)
    check(part, value)
    assert 100 < len(value) <= details.MAX_ITEMS
    assert len(value[0]['user']) == details.MAX_TEXT


def test_large_values_are_cut() -> None:
    part = details.PARTS[details.SSH_KEYS]
    value = part.read({'keys': ['x' * details.MAX_KEY] * 256})
    check(part, value)
    assert 0 < len(value) < 5


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    part = details.PARTS['host_name']
    assert part.read({'host-name': 'a\ud800b'}) == 'a b'


def test_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError):
        details.PARTS['users'].read([{'user': 'x', 'login-time': math.nan}])


def test_number_that_is_infinite_is_bounded() -> None:
    part = details.PARTS['users']
    (user,) = part.read([{'user': 'x', 'login-time': math.inf}])
    assert user['login_time'] == details.MAX_NUMBER


def test_what_every_agent_tells_must_be_there() -> None:
    with pytest.raises(untrusted.IMPROPER):
        details.PARTS['users'].read([{'user': 'x'}])
