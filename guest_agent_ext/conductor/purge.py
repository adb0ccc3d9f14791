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

"""Removes what is kept no longer, a batch at a time, one process at a time."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
import uuid

from guest_agent_ext import conf
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import keys
from guest_agent_ext.db import leases

CONF = conf.CONF

#: Rows that one statement removes, and servers that one asks about.
BATCH = 200
#: Seconds that a conductor rests between two purges.
INTERVAL = 60
#: Seconds after which another takes over from one that died meanwhile.
LEASE = 120

_NAME = 'purge'


def run() -> Iterator[int]:
    """Remove all that is kept no longer, unless another process is at it.

    :returns: after each batch how many commands it removed
    """
    holder = str(uuid.uuid4())
    if not leases.take(_NAME, holder, LEASE):
        return
    try:
        for removed in _batches():
            yield removed
            if not leases.take(_NAME, holder, LEASE):
                return
    finally:
        leases.release(_NAME, holder)


def count() -> int:
    """Return how many commands are kept no longer for their age."""
    return commands.count_old(CONF.guest_agent.retention)


def _batches() -> Iterator[int]:
    age = CONF.guest_agent.retention
    yield from _until_none(commands.purge_old, age, BATCH)
    for forgotten in _forgotten_servers():
        yield from _until_none(commands.purge_of_servers, forgotten, BATCH)
    for _ in _until_none(keys.remove_expired, BATCH):
        yield 0


def _until_none(remove: Callable[..., int], *arguments: Any) -> Iterator[int]:
    while removed := remove(*arguments):
        yield removed


def _forgotten_servers() -> Iterator[set[str]]:
    after = ''
    while uuids := commands.servers(after, BATCH):
        forgotten = servers.forgotten(uuids)
        if forgotten:
            yield forgotten
        after = uuids[-1]
