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


"""The port that shows metrics, with clients good and bad."""

from collections.abc import Iterator
import contextlib
import socket
import threading
import time
from urllib import error
from urllib import request

import pytest

from guest_agent_ext import metrics
from guest_agent_ext.cmd import exposition

PATIENCE = 10


@pytest.fixture
def address() -> exposition.Address:
    """An address that is free."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return '127.0.0.1', int(found.getsockname()[1])


@pytest.fixture
def shown(address: exposition.Address) -> Iterator[str]:
    """The URL of metrics that are shown."""
    with exposition.Server(
        address, metrics.registry(metrics.COMPUTE)
    ) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield 'http://%s:%d' % address
        listening.shutdown()
        thread.join(PATIENCE)


def get(url: str) -> str:
    with request.urlopen(url, timeout=PATIENCE) as answer:
        assert answer.headers['Content-Type'] == metrics.CONTENT_TYPE
        return str(answer.read().decode())


def hold(
    address: exposition.Address, opened: contextlib.ExitStack
) -> socket.socket:
    """Begin a request that never ends."""
    client = opened.enter_context(socket.create_connection(address, PATIENCE))
    client.sendall(b'GET /metr')
    return client


def has_ended(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b''
    return True


def test_metrics(shown: str) -> None:
    for _ in range(3 * exposition.MAX_REQUESTS):
        assert 'guest_agent_lanes{state="suspect"}' in get(shown + '/metrics?')


@pytest.mark.parametrize('path', ['/', '/metrics/x', '/etc/passwd'])
def test_there_is_nothing_else(shown: str, path: str) -> None:
    with pytest.raises(error.HTTPError, match='404'):
        get(shown + path)


def test_no_more_requests_than_the_bound(
    shown: str, address: exposition.Address
) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(exposition.MAX_REQUESTS):
            hold(address, opened)
        assert has_ended(hold(address, opened))
    deadline = time.monotonic() + PATIENCE
    while True:
        # The places of those that have gone are free a moment later.
        with contextlib.suppress(OSError):
            assert 'guest_agent' in get(shown + '/metrics')
            break
        assert time.monotonic() < deadline


def test_client_that_sends_a_byte_now_and_then(
    monkeypatch: pytest.MonkeyPatch, shown: str, address: exposition.Address
) -> None:
    monkeypatch.setattr(exposition, 'REQUEST_TIMEOUT', 0.3)
    with contextlib.ExitStack() as opened:
        client = hold(address, opened)
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < begun + PATIENCE:
                client.sendall(b'i')
                time.sleep(0.05)
        assert time.monotonic() < begun + PATIENCE


def test_address_of_another_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
    address: exposition.Address,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The service works without, and shows them once it can."""
    monkeypatch.setattr(exposition, 'BIND_GAP', 0.05)
    with socket.create_server(address):
        exposition.start(metrics.COMPUTE, address)
        deadline = time.monotonic() + PATIENCE
        while 'metrics_bind' not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while True:
        with contextlib.suppress(OSError):
            shown = get('http://%s:%d/metrics' % address)
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 'process_resident_memory_bytes' in shown


def test_no_address_is_no_port() -> None:
    before = threading.active_count()
    exposition.start(metrics.COMPUTE, None)
    assert threading.active_count() == before
