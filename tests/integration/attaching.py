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

"""Clients of attached commands, by nothing but HTTP."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import hashlib
import json
import threading
import time
from typing import Any
import urllib.parse

from tools.testbed import client as http

MIB = 1024 * 1024
#: Seconds that anything may take here.
PATIENCE = 240
PREFIX = 'OpenStack-Guest-Agent-'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Attached:
    """A client of an attached command; each byte is asked for by its offset.

    :ivar got: what was read so far, by stream
    :ivar retried: requests that were repeated
    """

    def __init__(
        self,
        client: http.Client,
        *argv: str,
        name: str = 'one',
        **arguments: Any,
    ) -> None:
        self.client = client
        self.name = name
        self.uuid = client.start(*argv, **{'attach': True, **arguments})
        self.got = {'out': b'', 'err': b''}
        self.sent = 0
        self.retried = 0
        self.seen = 0

    def send(
        self, method: str, what: str, body: bytes | None = None, **query: Any
    ) -> http.Answer:
        query.setdefault('client', self.name)
        path = f'{self.client.commands}/{self.uuid}/{what}?'
        return self.client.send(
            method, path + urllib.parse.urlencode(query), body
        )

    def repeated(self, ask: Callable[[], http.Answer]) -> http.Answer:
        """Ask until the host answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = ask()
            if answer.status != 503:
                return answer
            assert time.monotonic() < deadline, answer.body
            self.retried += 1
            time.sleep(0.2)

    def read(self, stream: str = 'out', wait: int = 5) -> bool:
        """Read what comes next; tell whether the stream is complete."""
        offset = len(self.got[stream])
        answer = self.repeated(
            lambda: self.send(
                'GET', 'output', stream=stream, offset=offset, wait=wait
            )
        )
        assert answer.status == 200, (answer.status, answer.body)
        assert int(answer.headers[PREFIX + 'Offset']) == offset
        self.got[stream] += answer.body
        return answer.headers[PREFIX + 'Complete'] == 'true'

    def drain(self, stream: str = 'out') -> bytes:
        deadline = time.monotonic() + PATIENCE
        while not self.read(stream):
            assert time.monotonic() < deadline, self.got[stream][-300:]
        return self.got[stream]

    def write(self, data: bytes, *, end: bool = False) -> None:
        deadline = time.monotonic() + PATIENCE
        is_closed = False
        while data or (end and not is_closed):
            assert time.monotonic() < deadline
            piece = data[: 256 * 1024]
            answer = self.repeated(
                functools.partial(
                    self.send,
                    'POST',
                    'input',
                    piece,
                    offset=self.sent,
                    end=str(end and len(piece) == len(data)).lower(),
                )
            )
            assert answer.status == 200, (answer.status, answer.body)
            accepted = answer_of(answer)
            data = data[accepted['next_offset'] - self.sent :]
            self.sent = accepted['next_offset']
            is_closed = accepted['end']
            if is_closed:
                return

    @contextlib.contextmanager
    def writing(self, data: bytes) -> Iterator[None]:
        """Send all of the input beside the block, and wait for its end."""
        failures: list[BaseException] = []

        def write() -> None:
            try:
                self.write(data, end=True)
            except BaseException as error:
                failures.append(error)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        yield
        writer.join(PATIENCE)
        assert not writer.is_alive() and not failures, failures

    def until(self, expected: bytes) -> bytes:
        """Read until something is there, and forget what came up to it."""
        deadline = time.monotonic() + PATIENCE
        while expected not in self.got['out'][self.seen :]:
            assert time.monotonic() < deadline, self.got
            assert not self.read(), self.got
        at = self.got['out'].index(expected, self.seen) + len(expected)
        shown = self.got['out'][self.seen : at]
        self.seen = at
        return shown

    def act(self, **action: Any) -> int:
        return self.client.request(
            'POST', f'{self.client.commands}/{self.uuid}/action', action
        )[0]

    def end(self) -> dict[str, Any]:
        """Read the rest, and return the command as it ended."""
        self.drain('out')
        self.drain('err')
        return self.client.wait(self.uuid, timeout=PATIENCE)


def answer_of(answer: http.Answer) -> Any:
    return json.loads(answer.body)['input']
