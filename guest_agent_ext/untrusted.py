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

"""Checks of values that come from guests and compute hosts.

Whoever is root in a guest can have its agent and launchers answer anything,
and so can root on a compute host. A value that passes these functions is
bounded and fits into the columns and messages that receive it.
"""

import math
import re
from typing import Any

from guest_agent_ext import command

#: Exceptions raised by parsing a malformed answer: a wrong type, too deeply
#: nested, infinite.
IMPROPER = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

#: Maximum number of commands that a guest may report.
MAX_IDS = 500
#: Maximum characters of a word, and of a sentence, that are passed on.
MAX_WORD, MAX_SENTENCE = 100, 500

#: Maximum uptime of a guest in centiseconds: three hundred years.
MAX_UPTIME = 10**12
#: Maximum age in seconds: thirty years.
MAX_AGE = 10.0**9

_LARGEST = 2**63 - 1
_UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_BOOT_ID = re.compile('[0-9A-Za-z-]{1,36}')


def integer(value: Any) -> int:
    """Return an integer that fits into a column.

    :raises ValueError: the value is not such a number; depending on its type,
        another of IMPROPER is raised
    """
    number = int(value)
    if not -_LARGEST <= number <= _LARGEST:
        raise ValueError
    return number


def natural(value: Any) -> int:
    """Return an integer that is not negative; see integer()."""
    number = integer(value)
    if number < 0:
        raise ValueError
    return number


def uptime(value: Any) -> int:
    """Return a guest's uptime in centiseconds; see integer()."""
    ticks = natural(value)
    if ticks > MAX_UPTIME:
        raise ValueError
    return ticks


def age(value: Any) -> float:
    """Return an age in seconds, limited to 0 and MAX_AGE; see integer()."""
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError
    return min(max(seconds, 0.0), MAX_AGE)


def boot_id(text: Any) -> str:
    """Return the name of a boot; see integer()."""
    if _BOOT_ID.fullmatch(text) is None:
        raise ValueError
    return str(text)


def ids(words: Any) -> tuple[str, ...]:
    """Return the UUIDs among some words, MAX_IDS at most."""
    return tuple(
        word
        for word in words
        if isinstance(word, str) and _UUID.fullmatch(word)
    )[:MAX_IDS]


def output(data: bytes) -> bytes:
    """Return the output of a command, no larger than a launcher keeps.

    :raises ValueError: the output is larger
    """
    if len(data) > command.MAX_OUTPUT_BYTES:
        raise ValueError
    return data


def text(value: Any, length: int = MAX_SENTENCE) -> str:
    """Return a value as text that can be shown on one line.

    :param length: maximum number of characters
    """
    shown = str(value)[:length]
    return ''.join(
        character if character.isprintable() else ' ' for character in shown
    )
