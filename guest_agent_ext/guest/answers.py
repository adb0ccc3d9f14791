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

"""What of a guest's answers is believed.

A guest is its tenant's: whoever is root there can make the agent, and what
runs beside it, answer anything. What leaves this package is bounded, and fits
into the columns and messages that it goes on to.
"""

import re
from typing import Any

from guest_agent_ext import command

#: What the reading of an answer raises that is not as it should be: of the
#: wrong type, nested too deeply, infinite.
IMPROPER = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

#: Ids of commands that a guest may claim to have left.
MAX_IDS = 500
#: Characters of a word, and of a sentence, that are passed on.
MAX_WORD, MAX_SENTENCE = 100, 500

_LARGEST = 2**63 - 1
_UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_BOOT_ID = re.compile('[0-9A-Za-z-]{1,36}')


def integer(value: Any) -> int:
    """Read a number that fits into a column.

    :raises ValueError: it is none, or another of IMPROPER
    """
    number = int(value)
    if not -_LARGEST <= number <= _LARGEST:
        raise ValueError
    return number


def natural(value: Any) -> int:
    """Read a number that is not negative; see integer()."""
    number = integer(value)
    if number < 0:
        raise ValueError
    return number


def boot_id(text: Any) -> str:
    """Read the name of a boot.

    :raises ValueError: it is none, or another of IMPROPER
    """
    if _BOOT_ID.fullmatch(text) is None:
        raise ValueError
    return str(text)


def ids(words: Any) -> tuple[str, ...]:
    """Read the uuids among some words."""
    return tuple(
        word
        for word in words
        if isinstance(word, str) and _UUID.fullmatch(word)
    )[:MAX_IDS]


def output(data: bytes) -> bytes:
    """Read what is kept of a stream: a launcher keeps no more.

    :raises ValueError: it is more
    """
    if len(data) > command.MAX_OUTPUT_BYTES:
        raise ValueError
    return data


def text(value: Any, length: int = MAX_SENTENCE) -> str:
    """Return words that can be shown: on one line, and not too many."""
    shown = str(value)[:length]
    return ''.join(
        character if character.isprintable() else ' ' for character in shown
    )
