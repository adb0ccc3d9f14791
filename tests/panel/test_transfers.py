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

"""What a transfer costs Horizon: a thread, and hardly any memory."""

from concurrent import futures
import http.client
import pathlib
import threading
import urllib.parse

from playwright import sync_api
import pytest

from tests.panel import cloud as fake
from tests.panel.conftest import Site
from tools.testbed import processes

_MIB = 1024 * 1024
#: What is sent and fetched, and by how much a process may grow meanwhile.
SIZE, MOST = 256 * _MIB, 16 * _MIB
#: Transfers that a process of Horizon has at once.
SLOTS = 4


class Zeros:
    """A file of zeros, which takes no memory here.

    :param size: its length in bytes
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._piece = bytes(_MIB)

    def read(self, size: int = -1) -> bytes:
        piece = self._piece[: min(size if size > 0 else _MIB, self._left)]
        self._left -= len(piece)
        return piece


class User:
    """Somebody with a browser's session, and without the browser.

    :param page: page of that browser
    """

    def __init__(self, page: sync_api.Page, site: Site) -> None:
        page.goto(f'{site.url}/project/guest_commands/')
        self._host = site.url.removeprefix('http://')
        self._headers = {
            'Cookie': '; '.join(
                f'{cookie["name"]}={cookie["value"]}'
                for cookie in page.context.cookies()
            ),
            'X-CSRFToken': str(
                page.locator('.guest-agent').get_attribute('data-csrf')
            ),
            'Content-Type': 'application/octet-stream',
        }

    def request(
        self, method: str, path: str, size: int = 0
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._host, timeout=120)
        connection.request(
            method,
            path,
            Zeros(size) if size else None,
            {**self._headers, 'Content-Length': str(size)},
        )
        return connection.getresponse()


@pytest.fixture
def user(page: sync_api.Page, site: Site) -> User:
    return User(page, site)


@pytest.fixture
def path(cloud: fake.Cloud) -> str:
    """The call for a file of a server."""
    query = urllib.parse.urlencode({'path': '/x'})
    return (
        f'/project/guest_commands/servers/{cloud.add_server()}/file/?{query}'
    )


@pytest.fixture
def worker(site: Site) -> processes.Process:
    """The process of Horizon that answers."""
    parent = site.process.pid
    children = pathlib.Path(f'/proc/{parent}/task/{parent}/children')
    (pid,) = map(int, children.read_text().split())
    return processes.Process.of('worker', pid)


def test_memory(
    cloud: fake.Cloud, user: User, path: str, worker: processes.Process
) -> None:
    cloud.sink = True
    cloud.zeros = SIZE
    worker.forget_peak()
    before = worker.memory('VmHWM')
    answer = user.request('POST', path, SIZE)
    assert (answer.status, answer.read()) == (200, b'{}')
    assert cloud.sunk == SIZE
    answer = user.request('GET', path)
    got = 0
    while piece := answer.read(_MIB):
        got += len(piece)
    assert (answer.status, got) == (200, SIZE)
    assert worker.memory('VmHWM') - before < MOST


def test_transfers_are_bounded(
    cloud: fake.Cloud, user: User, path: str
) -> None:
    """Pages are answered while transfers hold all threads that they may."""
    cloud.hold = threading.Event()
    with futures.ThreadPoolExecutor(SLOTS) as pool:
        try:
            held = [
                pool.submit(user.request, 'POST', path, 1)
                for _ in range(SLOTS)
            ]
            processes.wait_for(lambda: cloud.held == SLOTS, 60, 'transfers')
            refused = user.request('POST', path, 1)
            assert refused.status == 429
            assert b'busy with other files' in refused.read()
            page = user.request('GET', '/project/guest_commands/')
            assert page.status == 200
        finally:
            cloud.hold.set()
        assert [each.result().status for each in held] == [200] * SLOTS
    # They have given back what they held.
    assert user.request('POST', path, 1).status == 200


def test_a_browser_that_goes_gives_its_thread_back(
    cloud: fake.Cloud, user: User, path: str
) -> None:
    cloud.zeros = SIZE
    for _ in range(SLOTS + 1):
        answer = user.request('GET', path)
        assert answer.status == 200
        answer.read(_MIB)
        answer.close()

    def is_answered() -> bool:
        answer = user.request('GET', path)
        answer.read(1)
        answer.close()
        return answer.status == 200

    # Horizon notices when it writes on.
    processes.wait_for(is_answered, 60, 'a slot', gap=0.2)
