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

import pytest
import webob.exc

from guest_agent_ext.api import http_fields

DIGEST = hashlib.sha256(b'body').digest()
TEXT = base64.b64encode(DIGEST).decode()


@pytest.mark.parametrize(
    ('value', 'asked'),
    [
        ('bytes=0-0', (0, 1)),
        ('bytes=2-4', (2, 5)),
        ('bytes=2-', (2, 10)),
        ('bytes=-3', (7, 10)),
        ('bytes=-99', (0, 10)),
        ('bytes=2-99', (2, 10)),
        # Outside the file: no bytes.
        ('bytes=10-', (10, 10)),
        ('bytes=-0', (10, 10)),
        # No range, or none that is understood: the whole file.
        ('bytes=4-2', None),
        ('bytes=-', None),
        ('bytes=0-1,3-4', None),
        ('lines=0-1', None),
        ('', None),
        ('bytes=a-b', None),
    ],
)
def test_ranges(value: str, asked: tuple[int, int] | None) -> None:
    assert http_fields.byte_range({'Range': value}, 10) == asked


def test_if_range_never_holds() -> None:
    headers = {'Range': 'bytes=0-1', 'If-Range': '"tag"'}
    assert http_fields.byte_range(headers, 10) is None


@pytest.mark.parametrize(
    'value',
    [
        f'sha-256=:{TEXT}:',
        f'md5=:AAAA:, sha-256=:{TEXT}:',
        f' sha-256 = :{TEXT}: , md5=:AAAA:',
    ],
)
def test_digest_that_is_announced(value: str) -> None:
    assert http_fields.sha256_of({'Content-Digest': value}) == DIGEST


@pytest.mark.parametrize(
    'headers',
    [{}, {'Content-Digest': ''}, {'Content-Digest': 'sha-512=:AAAA:'}],
)
def test_no_digest_is_announced(headers: dict[str, str]) -> None:
    assert http_fields.sha256_of(headers) is None


@pytest.mark.parametrize(
    'text',
    [
        '',
        TEXT,
        ':AAAA:',
        f':{TEXT}',
        f':{TEXT[:-1]}:',
        ':\xe9:',
        f':{TEXT}{TEXT}:',
    ],
)
def test_digest_that_is_none(text: str) -> None:
    with pytest.raises(webob.exc.HTTPBadRequest):
        http_fields.sha256_of({'Content-Digest': 'sha-256=' + text})


def test_digest_is_written_as_it_is_read() -> None:
    header = {'Content-Digest': http_fields.content_digest(DIGEST)}
    assert http_fields.sha256_of(header) == DIGEST
