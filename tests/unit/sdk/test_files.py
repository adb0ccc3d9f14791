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


import base64
import hashlib
import pathlib
from unittest import mock

from openstack import exceptions
import pytest

from guest_agent_ext.sdk import files
from tests.unit.osc import fakes

CONTENT = b'content'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.retries.time, 'sleep', mock.Mock())


def test_file_is_put_whole(tmp_path: pathlib.Path) -> None:
    """Its digest is checked before it replaces another."""
    source = tmp_path / 'source'
    source.write_bytes(CONTENT)
    sent = []

    def take(url: str, method: str, data: object, **_: object) -> object:
        sent.append(data.read())
        # The first answer is lost.
        if len(sent) == 1:
            raise ConnectionResetError
        return fakes.Response(204)

    compute = mock.Mock(**{'request.side_effect': take})
    files.put(compute, 'server', str(source), '/to')
    assert sent == [CONTENT, CONTENT]
    (url, method), values = compute.request.call_args
    assert (url, method) == ('/servers/server/guest-agent/file-write', 'POST')
    assert values['params'] == {'path': '/to'}
    assert values['log'] is False
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert values['headers']['Content-Digest'] == f'sha-256=:{digest}:'
    assert values['headers']['Content-Length'] == '7'


def test_empty_file_has_a_length(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'source').touch()
    compute = mock.Mock(**{'request.return_value': fakes.Response(204)})
    files.put(compute, 'server', str(tmp_path / 'source'), '/to')
    assert compute.request.call_args.kwargs['data'] == b''


def test_file_is_got_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    to = tmp_path / 'to'
    to.write_text('before')
    broken = fakes.Response(content=CONTENT)
    broken.iter_content = mock.Mock(side_effect=ConnectionResetError)
    compute = mock.Mock(**{'request.return_value': broken})
    with pytest.raises(ConnectionResetError):
        files.get(compute, 'server', '/from', str(to))
    assert [path.name for path in tmp_path.iterdir()] == ['to']
    assert to.read_text() == 'before'
    compute.request.return_value = fakes.Response(content=CONTENT)
    files.get(compute, 'server', '/from', str(to))
    assert to.read_bytes() == CONTENT
    assert compute.request.call_args.kwargs['stream'] is True


def test_refusal_leaves_the_file(tmp_path: pathlib.Path) -> None:
    refusal = fakes.Response(404, {'itemNotFound': {'message': 'no file'}})
    compute = mock.Mock(**{'request.return_value': refusal})
    with pytest.raises(exceptions.NotFoundException):
        files.get(compute, 'server', '/from', str(tmp_path / 'to'))
    assert not list(tmp_path.iterdir())
