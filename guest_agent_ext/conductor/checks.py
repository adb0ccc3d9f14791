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

"""Checks of what compute hosts send.

Whoever is root on a compute host, or has the credentials of its queue, can
send anything. A reader takes one argument of a call, and returns what is
believed of it or raises one of untrusted.IMPROPER, and then the call is
refused. Where only a part is out of bounds, that part is cut off or left out.
"""

import base64
from collections.abc import Callable
import contextlib
import functools
import inspect
import itertools
import json
import math
import typing
from typing import Any
from typing import ParamSpec
from typing import TypeVar

from oslo_log import log as logging

from guest_agent_ext import command
from guest_agent_ext import untrusted
from guest_agent_ext.conductor import rpcapi

LOG = logging.getLogger(__name__)

#: Maximum number of commands that one call names, and of bytes of JSON that
#: tell what a transfer has open.
MAX_NAMED, MAX_OPENED = 10_000, 32 * 1024
#: Maximum number of characters of a host's name, and of any other identifier.
MAX_HOST, MAX_WORD = 255, 64
#: Maximum number of seconds between a claim and the expiry of its ticket.
MAX_WINDOW = 3600.0

_MAX_ENCODED = 4 * math.ceil(command.MAX_OUTPUT_BYTES / 3)
_MAX_EXITCODE, _MAX_SIGNAL = 2**32 - 1, 255

_P = ParamSpec('_P')
_R = TypeVar('_R')
_Reader = Callable[[Any], Any]


def believing(
    refusal: object, **readers: _Reader
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate an endpoint's method so that its arguments are checked first.

    :param refusal: answer to an improper call
    :param readers: reader of each argument, by the argument's name
    """

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(method)
        call: Callable[..., _R] = method

        @functools.wraps(method)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            bound = signature.bind(*args, **kwargs)
            try:
                for name in bound.arguments.keys() & readers.keys():
                    bound.arguments[name] = readers[name](
                        bound.arguments[name]
                    )
            except untrusted.IMPROPER as error:
                # Without the error's text, which may be the host's.
                LOG.warning(
                    'Refused an improper call of %(method)s from a '
                    'compute host: %(kind)s',
                    {'method': method.__name__, 'kind': type(error).__name__},
                )
                return typing.cast(_R, refusal)
            return call(*bound.args, **bound.kwargs)

        return checked

    return decorate


def word(value: Any) -> str:
    """Read an identifier: a uuid, an attempt, a name, a version."""
    if not 0 < len(value) <= MAX_WORD or not value.isprintable():
        raise ValueError
    return str(value)


def host(value: Any) -> str:
    """Read the name of a host."""
    if not 0 < len(value) <= MAX_HOST or not value.isprintable():
        raise ValueError
    return str(value)


def machine_id(value: Any) -> str:
    """Read the id of a machine, which may be empty."""
    return word(value) if value else ''


def service(value: Any) -> rpcapi.Service:
    """Read which service calls."""
    return {
        'host': host(value['host']),
        'incarnation': word(value['incarnation']),
    }


def attempts(value: Any) -> dict[str, str]:
    """Read attempts, by the uuids of their commands."""
    return {
        word(uuid): word(attempt)
        for uuid, attempt in itertools.islice(value.items(), MAX_NAMED)
    }


def sentences(value: Any) -> dict[str, str]:
    """Read why commands do not go on, by their uuids."""
    return {
        word(uuid): untrusted.text(seen)
        for uuid, seen in itertools.islice(value.items(), MAX_NAMED)
    }


def words(value: Any) -> list[str]:
    """Read a list of identifiers."""
    return [word(item) for item in itertools.islice(value, MAX_NAMED)]


def window(value: Any) -> float:
    """Read the seconds until a command may no longer start."""
    seconds = float(value)
    if not 0 <= seconds <= MAX_WINDOW:
        raise ValueError
    return seconds


def optional(reader: _Reader) -> _Reader:
    """Return a reader that also accepts None."""
    return lambda value: None if value is None else reader(value)


def opened(value: Any) -> dict[str, Any]:
    """Read what a transfer has open in its guest, which only hosts use."""
    if not isinstance(value, dict) or len(json.dumps(value)) > MAX_OPENED:
        raise ValueError
    return value


def end(value: Any) -> rpcapi.End:
    """Read how a command ended, and leave out improper fields."""
    status = value['status']
    if status not in command.ENDED:
        raise ValueError
    believed: dict[str, object] = {'status': status}
    for name, reader in _END_READERS.items():
        if value.get(name) is None:
            continue
        with contextlib.suppress(*untrusted.IMPROPER):
            believed[name] = reader(value[name])
    return typing.cast(rpcapi.End, believed)


def _between(least: int, most: int) -> _Reader:
    def read(value: Any) -> int:
        number = untrusted.integer(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return read


def _stream(value: Any) -> str:
    # Only what is kept is decoded.
    kept = base64.b64decode(value[:_MAX_ENCODED], validate=True)[
        : command.MAX_OUTPUT_BYTES
    ]
    return base64.b64encode(kept).decode()


_END_READERS: dict[str, _Reader] = {
    'error': untrusted.text,
    'age': untrusted.age,
    'pid': untrusted.natural,
    'exitcode': _between(-_MAX_EXITCODE, _MAX_EXITCODE),
    'signal': _between(1, _MAX_SIGNAL),
    'out_data': _stream,
    'err_data': _stream,
    'out_bytes': untrusted.natural,
    'err_bytes': untrusted.natural,
}
