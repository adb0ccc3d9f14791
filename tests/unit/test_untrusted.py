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

from guest_agent_ext import command
from guest_agent_ext import untrusted

UUID = '3f6f5f0e-0000-4000-8000-000000000000'


@pytest.mark.parametrize(
    'value', [2**63, -(2**63), float('inf'), float('nan'), None, 'x', [], {}]
)
def test_no_integer_of_a_column(value: Any) -> None:
    with pytest.raises(untrusted.IMPROPER):
        untrusted.integer(value)


def test_integers_that_fit() -> None:
    assert untrusted.integer(2**63 - 1) == 2**63 - 1
    assert untrusted.integer('-3') == -3


@pytest.mark.parametrize('read', [untrusted.natural, untrusted.uptime])
def test_negative_numbers(read: Any) -> None:
    assert read('0') == 0
    with pytest.raises(ValueError):
        read('-1')


def test_uptime_is_bounded() -> None:
    assert untrusted.uptime(untrusted.MAX_UPTIME) == untrusted.MAX_UPTIME
    with pytest.raises(ValueError):
        untrusted.uptime(untrusted.MAX_UPTIME + 1)


@pytest.mark.parametrize(
    ('value', 'age'),
    [
        (-5, 0.0),
        (2.5, 2.5),
        (float('inf'), untrusted.MAX_AGE),
        ('1e300', untrusted.MAX_AGE),
    ],
)
def test_age_is_neither_negative_nor_absurd(value: Any, age: float) -> None:
    assert untrusted.age(value) == age


def test_age_is_a_number() -> None:
    with pytest.raises(ValueError):
        untrusted.age('nan')


@pytest.mark.parametrize('value', ['', 'a b', 'a\n', 'x' * 37, None, 5])
def test_no_name_of_a_boot(value: Any) -> None:
    with pytest.raises(untrusted.IMPROPER):
        untrusted.boot_id(value)


def test_ids_are_uuids_and_bounded() -> None:
    assert untrusted.ids([UUID, UUID + '0', UUID.upper(), None, 5]) == (UUID,)
    assert len(untrusted.ids([UUID] * 1000)) == untrusted.MAX_IDS


def test_output_is_no_larger_than_a_launcher_keeps() -> None:
    largest = b'x' * command.MAX_OUTPUT_BYTES
    assert untrusted.output(largest) == largest
    with pytest.raises(ValueError):
        untrusted.output(largest + b'x')


def test_text_cannot_forge_a_line_of_a_log() -> None:
    assert untrusted.text('a\nb\x1b[31m\u202e') == 'a b [31m '
    assert len(untrusted.text('x' * 1000)) == untrusted.MAX_SENTENCE


def test_what_json_can_do_is_improper() -> None:
    for document in ('[' * 100_000, '{"a"', '1e999'):
        with pytest.raises(untrusted.IMPROPER):
            untrusted.integer(json.loads(document)['a'])
