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

"""A compute host that lies to the conductor, of its own and others' commands.

It is played: it sends by RPC what who is root on a compute host could send.
What comes of it is for invariants.py to find: no command may end, start or
move by it, and nobody's reports may stop.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import random
import time
from typing import Any

from oslo_config import cfg
import oslo_messaging
import pymysql

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.conductor import rpcapi
from tools.faults import world as fault_world
from tools.testbed import processes

#: Its name, which is no server's host.
HOST = 'liar'
#: Seconds that it waits for an answer; commands that it lies of at a time.
_TIMEOUT, _COMMANDS = 3, 20
_PAUSE = 0.2

_KNOWN = (
    'SELECT uuid, attempt FROM guest_agent_commands '
    f'ORDER BY id DESC LIMIT {_COMMANDS}'
)
_HUGE = 'x' * 65_535


def lie(world: fault_world.World, host: str, seconds: float) -> None:
    """Lie for a while, in the name of a host and as oneself.

    :param host: name of a host that serves
    :raises: StartError if no conductor heard a lie
    """
    until = time.monotonic() + seconds
    mine: str | None = None
    with _client(world.broker.transport_url()) as client:
        while time.monotonic() < until:
            mine = mine or _send(
                lambda: client.register(HOST, 'machine of the liar', '0')
            )
            services: list[Any] = [
                {
                    'host': host,
                    'incarnation': '%032x' % random.getrandbits(128),
                },
                {'host': host, 'incarnation': 1},
                {'host': HOST, 'incarnation': mine},
            ]
            with contextlib.suppress(pymysql.MySQLError):
                for row in world.rows(_KNOWN):
                    _lie_of(client, random.choice(services), row)
            _send(
                functools.partial(
                    client.report,
                    services[-1],
                    {'x': _HUGE},
                    {'x': _HUGE * 10},
                )
            )
            time.sleep(_PAUSE)
    if mine is None:
        raise processes.StartError('No conductor heard the liar')


@contextlib.contextmanager
def _client(url: str) -> Iterator[rpcapi.ConductorAPI]:
    # oslo.messaging registers options of its own with this one only.
    cfg.CONF([])
    # As Nova has it.
    oslo_messaging.set_transport_defaults('nova')
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    try:
        yield rpcapi.ConductorAPI(transport, _TIMEOUT)
    finally:
        transport.cleanup()


def _lie_of(
    client: rpcapi.ConductorAPI, service: Any, row: dict[str, Any]
) -> None:
    """Tell one lie of a command, with the attempt that has it."""
    uuid, attempt = row['uuid'], row['attempt'] or 'attempt'
    end: Any = {
        'status': random.choice(command.ENDED),
        'exitcode': 99,
        'pid': -7,
        'age': 63e9,
        'error': _HUGE,
        'out_data': 'bGll' * 500_000,
    }
    _send(
        random.choice(
            [
                lambda: client.claim(
                    service, uuid, attempt, 'boot', 10**11, 60.0
                ),
                lambda: client.adopt(service, uuid, 'mine', attempt),
                lambda: client.started(service, uuid, attempt, -7, -1, 63e9),
                lambda: client.finish(service, uuid, attempt, end),
                lambda: client.refuse(service, uuid, _HUGE),
                lambda: client.not_here(service, uuid, attempt, 'shutoff'),
                lambda: client.report(service, {uuid: attempt}, {uuid: _HUGE}),
            ]
        )
    )


def _send(call: Callable[[], Any]) -> Any:
    # A conductor or a broker may be away just now.
    with contextlib.suppress(exception.ConductorUnreachable):
        return call()
    return None
