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

"""The details of the guests of a host: asked for, and kept for a moment."""

import collections
from collections.abc import Collection
import threading
from typing import NamedTuple

from guest_agent_ext import clock as system_clock
from guest_agent_ext import details
from guest_agent_ext import exception
from guest_agent_ext.compute import rpcapi
from guest_agent_ext.guest import agent as guest_agent

#: Seconds for which an answer of a guest is given again.
FRESH = 2.0
#: Seconds after which no further part is asked for.
PATIENCE = 8.0
#: Maximum number of guests whose answers are kept, the latest ones.
MAX_GUESTS = 64

LATE = 'The guest took too long to answer for other parts; ask for it alone'
NO_USER = 'The request names no user'


class _Answer(NamedTuple):
    """What a guest said of one part.

    :ivar at: time of the answer
    :ivar value: value, None if there is none
    :ivar reason: reason that there is none, in words for the tenant
    """

    at: float
    value: details.Value
    reason: str | None


class Answers:
    """What guests said lately, by server, part and user.

    :param clock: clock that ages are measured with
    """

    def __init__(self, clock: system_clock.Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._guests: collections.OrderedDict[
            str, dict[tuple[str, str | None], _Answer]
        ] = collections.OrderedDict()

    def fresh(
        self, uuid: str, fields: Collection[str], user: str | None
    ) -> dict[str, _Answer]:
        """Return the answers of a guest that may be given again.

        :param uuid: server's uuid
        :param fields: names of parts
        :param user: user of the guest whose keys are asked for
        """
        oldest = self._clock.now() - FRESH
        with self._lock:
            known = self._guests.get(uuid, {})
            return {
                name: answer
                for name in fields
                if (answer := known.get(_key(name, user))) is not None
                and answer.at >= oldest
            }

    def keep(
        self, uuid: str, told: dict[str, _Answer], user: str | None
    ) -> None:
        """Keep answers of a guest, and forget those that are not fresh."""
        oldest = self._clock.now() - FRESH
        with self._lock:
            kept = {
                key: answer
                for key, answer in self._guests.pop(uuid, {}).items()
                if answer.at >= oldest
            }
            kept.update(
                (_key(name, user), answer) for name, answer in told.items()
            )
            self._guests[uuid] = kept
            if len(self._guests) > MAX_GUESTS:
                self._guests.popitem(last=False)


def _key(name: str, user: str | None) -> tuple[str, str | None]:
    return name, user if name == details.SSH_KEYS else None


def ask(
    agent: guest_agent.Agent,
    fields: Collection[str],
    user: str | None,
    clock: system_clock.Clock,
) -> dict[str, _Answer]:
    """Ask a guest for parts of its details.

    :param fields: names of the parts
    :param user: user of the guest whose keys are asked for
    :returns: answer for each part
    :raises exception.GuestError: the agent does not answer, or its file
        systems are frozen
    """
    began = clock.now()
    enabled = agent.info()
    told: dict[str, _Answer] = {}
    silence: str | None = None
    for name, part in details.PARTS.items():
        if name not in fields:
            continue
        reason = silence or guest_agent.refusal_of(enabled, part.call)
        if reason is None and clock.now() - began > PATIENCE:
            reason = LATE
        if name == details.SSH_KEYS and user is None:
            reason = NO_USER
        value = None
        if reason is None:
            try:
                value = agent.tell(part, _arguments(name, user))
            except exception.GuestError as error:
                reason = str(error)
                if isinstance(error, exception.AgentUnresponsive):
                    # It would not answer for the others either.
                    silence = reason
        told[name] = _Answer(clock.now(), value, reason)
    if told and not any(enabled.get(name) for name in _calls()):
        _refuse_frozen(agent)
    return told


def _calls() -> Collection[str]:
    return [part.call for part in details.PARTS.values()]


def _refuse_frozen(agent: guest_agent.Agent) -> None:
    if agent.is_frozen():
        raise exception.AgentBusy(guest_agent.FROZEN)


def _arguments(name: str, user: str | None) -> dict[str, str]:
    if name == details.SSH_KEYS and user is not None:
        return {'username': user}
    return {}


def answer_of(told: dict[str, _Answer]) -> rpcapi.Details:
    """Return the answers of a guest in the form that is sent."""
    return {
        'reason': None,
        'details': {
            name: answer.value
            for name, answer in told.items()
            if answer.reason is None
        },
        'unavailable': {
            name: answer.reason
            for name, answer in told.items()
            if answer.reason is not None
        },
    }
