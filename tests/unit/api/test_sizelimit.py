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

import io
from typing import Any

from oslo_config import cfg
import pytest
import webob
import webob.dec

from guest_agent_ext.api import sizelimit

COMMANDS = '/servers/0b1e/guest-agent/commands'
LIMIT = 6750208


@pytest.fixture
def limiter() -> Any:
    @webob.dec.wsgify
    def application(req: webob.Request) -> str:
        return str(len(req.body))

    return sizelimit.filter_factory({})(application)


def send(
    limiter: Any, method: str, path: str, size: int, chunked: bool = False
) -> tuple[int, str]:
    req = webob.Request.blank(path, method=method)
    if chunked:
        req.body_file = io.BytesIO(b'x' * size)
        req.content_length = None
        req.environ['wsgi.input_terminated'] = True
    else:
        req.body = b'x' * size
    response = req.get_response(limiter)
    return response.status_int, response.text


@pytest.mark.parametrize('chunked', [False, True])
@pytest.mark.parametrize('prefix', ['', '/0a1b2c'])
def test_commands_may_be_large(
    limiter: Any, prefix: str, chunked: bool
) -> None:
    path = prefix + COMMANDS
    assert send(limiter, 'POST', path, LIMIT, chunked) == (200, str(LIMIT))
    code, text = send(limiter, 'POST', path, LIMIT + 1, chunked)
    assert code == 413
    assert str(LIMIT) in text


@pytest.mark.parametrize(
    'path',
    [
        COMMANDS,
        COMMANDS + '/0b1e/action',
        '/servers/0b1e/guest-agent/file-read',
        '/0a1b2c/guest-agent/commands',
    ],
)
def test_length_is_digits(limiter: Any, path: str) -> None:
    """oslo's limiter would take one away that is no number."""
    for length in ('-5', '+5', '1_0', 'x', '\xb2', '9' * 5000):
        req = webob.Request.blank(path, method='POST')
        req.environ['CONTENT_LENGTH'] = length
        response = req.get_response(limiter)
        assert response.status_int == 400
        assert (
            'Content-Length must be' in response.json['badRequest']['message']
        )


def test_others_lengths_are_not_ours(limiter: Any) -> None:
    req = webob.Request.blank('/servers', method='POST')
    req.environ['CONTENT_LENGTH'] = 'x'
    assert req.get_response(limiter).status_int == 200


@pytest.mark.parametrize('chunked', [False, True])
@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('PUT', COMMANDS),
        ('POST', COMMANDS + '/x'),
        ('POST', '/servers'),
        ('POST', '/x' + COMMANDS),
        ('POST', '/servers/a/b/guest-agent/commands'),
        ('POST', COMMANDS + '/'),
        ('POST', '/servers/%ff'),
    ],
)
def test_others_as_oslo_has_them(
    limiter: Any, method: str, path: str, chunked: bool
) -> None:
    assert send(limiter, method, path, 114688, chunked) == (200, '114688')
    assert send(limiter, method, path, 114689, chunked)[0] == 413


def test_section_of_paste_still_counts() -> None:
    application = webob.dec.wsgify(lambda req: 'fine')
    limiter = sizelimit.filter_factory({}, max_request_body_size='5')(
        application
    )
    try:
        assert send(limiter, 'POST', '/servers', 6)[0] == 413
    finally:
        # oslo.middleware has it count for the whole process.
        cfg.CONF.clear_override(
            'max_request_body_size', group='oslo_middleware'
        )
