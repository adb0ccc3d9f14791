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

"""Rings the doorbell of a server's host, without delaying the request."""

import functools
import os

from guest_agent_ext import doorbell
from guest_agent_ext import nova_types
from guest_agent_ext.api import servers
from guest_agent_ext.compute import rpcapi

_doorbells: dict[tuple[int, str], doorbell.Doorbell] = {}


def ring(cell: nova_types.CellMapping, host: str) -> None:
    """Ring a host that has work; this neither waits nor fails.

    :param cell: mapping of the host's cell
    """
    # By process: after a fork the thread is gone, but its doorbell is not.
    key = (os.getpid(), cell.uuid)
    _doorbells.setdefault(
        key, doorbell.Doorbell(cell.uuid, functools.partial(_ring, cell))
    ).ring(host)


def _ring(cell: nova_types.CellMapping, host: str) -> None:
    rpcapi.ComputeAPI(servers.transport(cell)).work(host)
