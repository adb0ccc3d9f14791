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

import http.client
import pathlib
import urllib.parse

from playwright import sync_api
import pytest

from tests.panel import cloud as fake
from tests.panel.conftest import Site
from tools.testbed import processes

_MIB = 1024 * 1024
#: What is sent and fetched, and by how much a process may grow meanwhile.
SIZE, MOST = 256 * _MIB, 16 * _MIB


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


@pytest.fixture
def worker(site: Site) -> processes.Process:
    """The process of Horizon that answers."""
    parent = site.process.pid
    children = pathlib.Path(f'/proc/{parent}/task/{parent}/children')
    (pid,) = map(int, children.read_text().split())
    return processes.Process.of('worker', pid)


def test_memory(
    cloud: fake.Cloud,
    page: sync_api.Page,
    site: Site,
    worker: processes.Process,
) -> None:
    cloud.sink = True
    cloud.zeros = SIZE
    server_id = cloud.add_server()
    page.goto(f'{site.url}/project/guest_commands/')
    token = page.locator('.guest-agent').get_attribute('data-csrf')
    cookies = '; '.join(
        f'{cookie["name"]}={cookie["value"]}'
        for cookie in page.context.cookies()
    )
    headers = {
        'Cookie': cookies,
        'X-CSRFToken': str(token),
        'Content-Type': 'application/octet-stream',
        'Content-Length': str(SIZE),
    }
    path = (
        f'/project/guest_commands/servers/{server_id}/file/?'
        + urllib.parse.urlencode({'path': '/x'})
    )
    worker.forget_peak()
    before = worker.memory('VmHWM')
    connection = http.client.HTTPConnection(
        site.url.removeprefix('http://'), timeout=120
    )
    connection.request('POST', path, Zeros(SIZE), headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b'{}')
    assert cloud.sunk == SIZE
    connection.request('GET', path, headers={'Cookie': cookies})
    answer = connection.getresponse()
    got = 0
    while piece := answer.read(_MIB):
        got += len(piece)
    assert (answer.status, got) == (200, SIZE)
    assert worker.memory('VmHWM') - before < MOST
