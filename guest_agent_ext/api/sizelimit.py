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

"""The paste filter that limits the size of bodies, in place of oslo's.

Arguments of 65,536 bytes may need six times as much in JSON, which is more
than Nova's other calls are allowed; a file is larger still.
"""

from collections.abc import Callable
from collections.abc import Mapping
import re
from typing import Any

from oslo_middleware import sizelimit
import webob
import webob.exc

from guest_agent_ext import conf

CONF = conf.CONF

_SERVER = r'(/[0-9a-f-]+)?/servers/[^/]+/guest-agent'

#: Bytes that a body may have, by method and path. What is not here is
#: limited as before.
LIMITS: Mapping[tuple[str, re.Pattern[str]], Callable[[], int]] = {
    ('POST', re.compile(_SERVER + '/commands')): lambda: 512 * 1024,
    # It is not read at once, but by and by.
    ('POST', re.compile(_SERVER + '/file-write')): lambda: int(
        CONF.guest_agent.max_file_size
    ),
}


class SizeLimiter:
    """WSGI middleware.

    :param application: what answers the request
    :param local_conf: the section of api-paste.ini
    """

    def __init__(self, application: Any, local_conf: dict[str, str]) -> None:
        self._application = application
        self._oslo = sizelimit.RequestBodySizeLimiter(application, local_conf)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        limit = _limit_of(environ)
        if limit is None:
            return self._oslo(environ, start_response)
        req = webob.Request(environ)
        if req.content_length is None:
            req.body_file = sizelimit.LimitingReader(req.body_file, limit)
        elif req.content_length > limit:
            refusal = webob.exc.HTTPRequestEntityTooLarge(
                explanation='The body must have at most %d bytes, not %d'
                % (limit, req.content_length)
            )
            return refusal(environ, start_response)
        return self._application(environ, start_response)


def _limit_of(environ: dict[str, Any]) -> int | None:
    for (method, path), limit in LIMITS.items():
        if environ['REQUEST_METHOD'] == method and path.fullmatch(
            environ['PATH_INFO']
        ):
            return limit()
    return None


def filter_factory(
    global_conf: dict[str, str], **local_conf: str
) -> Callable[[Any], Any]:
    """Make the filter for paste."""
    return lambda application: SizeLimiter(application, local_conf)
