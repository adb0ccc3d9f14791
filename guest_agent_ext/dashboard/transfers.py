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

"""Files, and streams of attached commands: bytes that pass through Horizon.

Nothing of them is kept: what the browser sends is read as the API takes it,
and what the API sends goes on as it comes.
"""

from collections.abc import Callable
from collections.abc import Iterator
import ntpath
import posixpath
from typing import Any
from urllib import parse

from django import http
from django.utils.translation import gettext as _
import requests

from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import slots

#: Bytes that are read at once.
PIECE = 256 * 1024

#: Seconds after which to try again when all slots are taken.
_RETRY_AFTER = '5'


class Upload:
    """The body of a request, as requests reads it.

    :param request: request that no form parser has read
    :param size: its length, in bytes
    """

    def __init__(self, request: http.HttpRequest, size: int) -> None:
        self._request = request
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(PIECE):
            yield piece

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, none at the end.

        :param size: maximum number of bytes
        """
        return bytes(self._request.read(PIECE if size < 0 else size))


def slot() -> Callable[[], None]:
    """Take the slot of a transfer; return what gives it back.

    :raises client.Problem: none is free
    """
    give_back = slots.transfers.take()
    if give_back is None:
        raise client.Problem(
            429,
            _('The dashboard is busy with other files; try again later.'),
            _RETRY_AFTER,
        )
    return give_back


def send(
    request: http.HttpRequest, api: client.Client, server_id: str
) -> None:
    """Write what the browser sends to a file of a server."""
    try:
        size = int(request.META['CONTENT_LENGTH'])
    except (KeyError, ValueError):
        raise client.Problem(411, _('The length is missing.')) from None
    params = {
        name: request.GET[name]
        for name in ('path', 'mode')
        if request.GET.get(name)
    }
    give_back = slot()
    try:
        api.write_file(server_id, Upload(request, size), **params)
    finally:
        give_back()


def fetch(
    api: client.Client, server_id: str, path: str
) -> http.StreamingHttpResponse:
    """Return a file of a server, as a download."""
    give_back = slot()
    try:
        upstream = api.read_file(server_id, path)
    except BaseException:
        give_back()
        raise
    return download(upstream, base_name(path), upstream.close, give_back)


def download(
    upstream: requests.Response, name: str, *closers: Callable[[], Any]
) -> http.StreamingHttpResponse:
    """Return what the API sends, for the browser to save.

    :param name: name of the file
    :param closers: functions to call when all was sent, or the browser left
    """
    response = http.StreamingHttpResponse(
        upstream.iter_content(PIECE), content_type='application/octet-stream'
    )
    response._resource_closers.extend(closers)
    if 'Content-Length' in upstream.headers:
        response['Content-Length'] = upstream.headers['Content-Length']
    response['Content-Disposition'] = disposition(name)
    # A browser is not to guess that it is a page of ours.
    response['X-Content-Type-Options'] = 'nosniff'
    response['Content-Security-Policy'] = 'sandbox'
    response['Cache-Control'] = 'no-store'
    return response


def disposition(name: str) -> str:
    """Return the header that has a browser save a file under a name."""
    plain = ''.join(
        char
        if char.isascii() and char.isprintable() and char not in '"\\%'
        else '_'
        for char in name
    )
    return f'attachment; filename="{plain}"; filename*=UTF-8\'\'' + (
        parse.quote(name, safe='')
    )


def base_name(path: str) -> str:
    """Return the last part of a path in a server, also of a Windows one."""
    found = ntpath.basename(path) if path[1:2] == ':' else ''
    return found or posixpath.basename(path) or 'file'
