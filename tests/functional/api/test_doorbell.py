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

"""The doorbell with oslo.messaging's own driver, and brokers that fail."""

from collections.abc import Iterator
import socket
import threading
import time
import types

from oslo_config import cfg
import oslo_messaging
import pytest

from guest_agent_ext import breaker
from guest_agent_ext import doorbell as doorbells
from guest_agent_ext.api import doorbell
from guest_agent_ext.api import servers

CELL = types.SimpleNamespace(uuid='cell')


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A port that is bound: it refuses until it listens, then it hangs."""
    with socket.socket() as port:
        port.bind(('127.0.0.1', 0))
        url = 'rabbit://user:password@127.0.0.1:%d/' % port.getsockname()[1]
        transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        monkeypatch.setattr(servers, 'transport', lambda cell: transport)
        monkeypatch.setattr(doorbells, '_breaker', breaker.Breaker(60))
        monkeypatch.setattr(doorbell, '_doorbells', {})
        yield port
    for thread in ringing():
        thread.join(10)
        assert not thread.is_alive()


def ringing() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == 'guest-agent-doorbell'
    ]


def test_broker_that_refuses(
    broker: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    doorbell.ring(CELL, 'host')
    for thread in ringing():
        thread.join(5)
    assert not ringing()
    assert 'did not take the doorbell of host host' in caplog.text
    assert 'Errno 111' in caplog.text
    assert 'password' not in caplog.text
    assert not doorbells._breaker.allows('cell')


def test_broker_that_hangs(broker: socket.socket) -> None:
    broker.listen()
    begun = time.monotonic()
    for number in range(10):
        doorbell.ring(CELL, 'host%d' % number)
    # A connection to it is waited for much longer.
    assert time.monotonic() - begun < 5
    assert len(ringing()) == 1
