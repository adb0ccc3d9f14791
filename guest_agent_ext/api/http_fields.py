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

"""Reads and writes header fields of HTTP that describe a file's bytes."""

import base64
from collections.abc import Mapping
import contextlib
import re

from guest_agent_ext.api import validation

#: A single range, as RFC 9110 defines it. webob is no help: it takes the first
#: of several, and rejects a suffix that is longer than the file.
_RANGE = re.compile(r'bytes=(?!-$)(\d{0,18})-(\d{0,18})')
#: The SHA-256 among the digests of RFC 9530.
_DIGEST = re.compile(r'(?:^|,)\s*sha-256\s*=\s*([^,]*?)\s*(?=,|$)')


def byte_range(
    headers: Mapping[str, str], size: int
) -> tuple[int, int] | None:
    """Return the range that a request asks for.

    :param headers: headers of the request
    :param size: size of the file in bytes
    :returns: offset of the first byte and of the byte behind the last; no
        bytes where the range is outside the file; None for the whole file
    """
    asked = _RANGE.fullmatch(headers.get('Range', ''))
    # Answers carry no validator, so If-Range never holds.
    if asked is None or 'If-Range' in headers:
        return None
    first, last = asked[1], asked[2]
    if not first:
        return max(0, size - int(last)), size
    if last and int(first) > int(last):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def sha256_of(headers: Mapping[str, str]) -> bytes | None:
    """Return the SHA-256 that a request announces for its body, if any.

    :param headers: headers of the request
    :raises webob.exc.HTTPBadRequest: the value is not a SHA-256
    """
    found = _DIGEST.search(headers.get('Content-Digest', ''))
    if found is None:
        return None
    text = found[1]
    digest = b''
    # Also of characters outside ASCII, which are no binascii.Error.
    with contextlib.suppress(ValueError):
        digest = base64.b64decode(text[1:-1], validate=True)
    if text != _encoded(digest) or len(digest) != 32:
        validation.bad_request(
            'sha-256 of Content-Digest must be the base64 of a SHA-256 '
            'between colons, as RFC 9530 defines it'
        )
    return digest


def content_digest(digest: bytes) -> str:
    """Return the Content-Digest that announces a SHA-256."""
    return 'sha-256=' + _encoded(digest)


def _encoded(digest: bytes) -> str:
    return ':%s:' % base64.b64encode(digest).decode()
