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

"""Traps at the boundaries that a command crosses.

A trap is armed by a file in the directory that FAULT_TRAPS names: who comes to
the place removes the file, and has what the file's name says happen to it. So
each armed trap springs once, in whichever process comes first.

The extension has no such places of its own: what it does at its boundaries are
functions, and the traps are put around those.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import operator
import os
import signal
import sys
import types
from typing import Any

_Loss = tuple[str, str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Place:
    """A boundary, and how the other side of it is lost.

    :ivar module: module of the function
    :ivar function: its name there, behind that of its class
    :ivar loss: the exception that tells that no answer came: module, name and
        arguments
    :ivar counts: whether a call that returned this crossed the boundary
    :ivar can_come_twice: whether it may be crossed twice, as by a message
    """

    module: str
    function: str
    loss: _Loss
    counts: Callable[[Any], bool] = lambda result: True
    can_come_twice: bool = True


_EXCEPTIONS = 'guest_agent_ext.exception'
_NO_CONDUCTOR: _Loss = (
    _EXCEPTIONS,
    'ConductorUnreachable',
    {'detail': 'the answer fell into a trap'},
)
_NO_HOST: _Loss = (
    _EXCEPTIONS,
    'HostUnreachable',
    {'detail': 'the answer fell into a trap'},
)
_AGENT: _Loss = (_EXCEPTIONS, 'AgentUnresponsive', {'may_have_run': True})
_DATABASE: _Loss = ('oslo_db.exception', 'DBConnectionError', {})

_COMMANDS = 'guest_agent_ext.db.commands'
_RUNS = 'guest_agent_ext.db.runs'
_CONDUCTOR = 'guest_agent_ext.conductor.rpcapi'
_COMPUTE = 'guest_agent_ext.compute.rpcapi'
_ATTACHED = 'guest_agent_ext.guest.attached'
_POSIX = 'guest_agent_ext.guest.launchers.posix'
_SCRIPTED = 'guest_agent_ext.guest.launchers.scripted'

_is_something = functools.partial(operator.is_not, None)

#: By name, in the order in which a command meets them.
PLACES: Mapping[str, Place] = {
    # nova-api
    'insert': Place(_COMMANDS, 'create', _DATABASE, can_come_twice=False),
    'cast': Place(_COMPUTE, 'ComputeAPI.work', _NO_HOST),
    'cancel': Place(_COMMANDS, 'cancel', _DATABASE),
    'run-insert': Place(_RUNS, 'create', _DATABASE, can_come_twice=False),
    'run-cancel': Place(_RUNS, 'cancel', _DATABASE),
    'ask-output': Place(_COMPUTE, 'ComputeAPI.read_stream', _NO_HOST),
    'ask-input': Place(_COMPUTE, 'ComputeAPI.write_stream', _NO_HOST),
    # guest-agent-compute
    'ask-claim': Place(_CONDUCTOR, 'ConductorAPI.claim', _NO_CONDUCTOR),
    'ask-adopt': Place(_CONDUCTOR, 'ConductorAPI.adopt', _NO_CONDUCTOR),
    'guest-exec': Place(_POSIX, 'PosixLauncher.launch', _AGENT),
    'recover': Place(_SCRIPTED, 'ScriptLauncher.recover', _AGENT),
    'fence': Place(_SCRIPTED, 'ScriptLauncher.fence', _AGENT),
    'last-status': Place(
        _SCRIPTED,
        'ScriptLauncher.poll',
        _AGENT,
        counts=_is_something,
        can_come_twice=False,
    ),
    'stream-news': Place(_ATTACHED, 'Attached.follow', _AGENT),
    'stream-read': Place(_ATTACHED, 'Attached.read', _AGENT),
    'stream-acknowledge': Place(_ATTACHED, 'Attached.acknowledge', _AGENT),
    'stream-write': Place(_ATTACHED, 'Attached.write', _AGENT),
    'kill': Place(_SCRIPTED, 'ScriptLauncher.signal_tree', _AGENT),
    'ask-started': Place(_CONDUCTOR, 'ConductorAPI.started', _NO_CONDUCTOR),
    'ask-finish': Place(_CONDUCTOR, 'ConductorAPI.finish', _NO_CONDUCTOR),
    'release': Place(_SCRIPTED, 'ScriptLauncher.release', _AGENT),
    'report': Place(_CONDUCTOR, 'ConductorAPI.report', _NO_CONDUCTOR),
    # guest-agent-conductor
    'claim': Place(_COMMANDS, 'claim', _DATABASE),
    'adopt': Place(_COMMANDS, 'adopt', _DATABASE),
    'pid-recorded': Place(_COMMANDS, 'note_started', _DATABASE),
    'result-recorded': Place(_COMMANDS, 'finish', _DATABASE),
    'run-taken': Place(_RUNS, 'take', _DATABASE, counts=bool),
    'run-settled': Place(_RUNS, 'settle', _DATABASE),
    'run-released': Place(_RUNS, 'release', _DATABASE, counts=bool),
}

#: Statements that meet a deadlock, and a transaction whose commit was made and
#: whose answer is lost.
_SESSION = 'guest_agent_ext.db.session'

KILL_BEFORE, KILL_AFTER = 'kill-before', 'kill-after'
LOSE_REQUEST, LOSE_REPLY, TWICE = 'lose-request', 'lose-reply', 'twice'
DEADLOCK, LOST_COMMIT = 'statement.deadlock', 'commit.lose-reply'

MODULES = frozenset({place.module for place in PLACES.values()} | {_SESSION})

#: A process is killed at each of these.
KILLS = [
    f'{name}.{action}'
    for name in PLACES
    for action in (KILL_BEFORE, KILL_AFTER)
]


def names() -> list[str]:
    """Return all traps: the place, a dot, and what happens there."""
    found = [*KILLS]
    found += [
        f'{name}.{action}'
        for name in PLACES
        for action in (LOSE_REQUEST, LOSE_REPLY)
    ]
    found += [
        f'{name}.{TWICE}'
        for name, place in PLACES.items()
        if place.can_come_twice
    ]
    return [*found, DEADLOCK, LOST_COMMIT]


def set_in(module: types.ModuleType) -> None:
    """Put a module's traps around its functions."""
    for name, place in PLACES.items():
        if place.module == module.__name__:
            *classes, attribute = place.function.split('.')
            owner = functools.reduce(getattr, classes, module)
            setattr(
                owner,
                attribute,
                _trapped(name, place, getattr(owner, attribute)),
            )
    if module.__name__ == _SESSION:
        _set_in_session(module)


def _trapped(
    name: str, place: Place, function: Callable[..., Any]
) -> Callable[..., Any]:

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _die_if_armed(f'{name}.{KILL_BEFORE}')
        if _springs(f'{name}.{LOSE_REQUEST}'):
            raise _loss(place.loss)
        if place.can_come_twice and _springs(f'{name}.{TWICE}'):
            with contextlib.suppress(Exception):
                function(*args, **kwargs)
        result = function(*args, **kwargs)
        if place.counts(result):
            _die_if_armed(f'{name}.{KILL_AFTER}')
            if _springs(f'{name}.{LOSE_REPLY}'):
                raise _loss(place.loss)
        return result

    return call


def _set_in_session(module: Any) -> None:
    changed, writer = module.changed, module.writer

    def changed_or_deadlock(*args: Any) -> Any:
        if _springs(DEADLOCK):
            raise _loss(('oslo_db.exception', 'DBDeadlock', {}))
        return changed(*args)

    @contextlib.contextmanager
    def writer_that_loses() -> Iterator[Any]:
        with writer() as session:
            yield session
        if _springs(LOST_COMMIT):
            raise _loss(_DATABASE)

    module.changed, module.writer = changed_or_deadlock, writer_that_loses


def _springs(name: str) -> bool:
    try:
        os.unlink(os.path.join(os.environ['FAULT_TRAPS'], name))
    except FileNotFoundError:
        return False
    return True


def _die_if_armed(name: str) -> None:
    if _springs(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _loss(loss: _Loss) -> Exception:
    module, name, arguments = loss
    error: Exception = getattr(sys.modules[module], name)(**arguments)
    return error
