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

A command may be larger than the bodies of Nova's other calls, and up to six
times as large in JSON; a file is larger still.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import re

from oslo_middleware import sizelimit
import webob
import webob.exc

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext.api import wsgi

CONF = conf.CONF

_PROJECT = r'(/[0-9a-f-]+)?'
_SERVER = _PROJECT + '/servers/[^/]+/guest-agent'
#: Paths of ours, whose Content-Length is checked here: oslo's limiter removes
#: one that is no number.
_OURS = re.compile(rf'({_SERVER}|{_PROJECT}/guest-agent)(/.*)?')

#: Bytes of the largest body of a command: a control character is six bytes in
#: JSON, and 64 KiB are left for the rest.
_COMMAND = (
    6 * (command.MAX_ARGUMENT_BYTES + command.MAX_INPUT_BYTES) + 64 * 1024
)
_ACTION = 64 * 1024
#: Bytes of the uuid of a server in a list, in JSON.
_LISTED = 40

#: Maximum bytes of a body, by method and path. All other calls have oslo's
#: limit.
LIMITS: Mapping[tuple[str, re.Pattern[str]], Callable[[], int]] = {
    ('POST', re.compile(_SERVER + '/commands')): lambda: _COMMAND,
    ('POST', re.compile(_SERVER + '/commands/[^/]+/action')): lambda: _ACTION,
    ('POST', re.compile(_PROJECT + '/guest-agent/runs')): lambda: (
        _COMMAND + _LISTED * int(CONF.guest_agent.max_run_targets)
    ),
    (
        'POST',
        re.compile(_PROJECT + '/guest-agent/runs/[^/]+/action'),
    ): lambda: _ACTION,
    ('POST', re.compile(_SERVER + '/commands/[^/]+/input')): lambda: (
        command.MAX_STREAM_BYTES
    ),
    # A file is read in pieces, never as a whole.
    ('POST', re.compile(_SERVER + '/file-write')): lambda: int(
        CONF.guest_agent.max_file_size
    ),
}


class SizeLimiter:
    """WSGI middleware that limits the size of bodies.

    :param application: application that answers the request
    :param local_conf: section of api-paste.ini
    """

    def __init__(
        self, application: wsgi.Application, local_conf: dict[str, str]
    ) -> None:
        self._application = application
        self._limited: wsgi.Application = sizelimit.RequestBodySizeLimiter(
            application, local_conf
        )

    def __call__(
        self, environ: nova_types.Environ, start_response: wsgi.StartResponse
    ) -> Iterable[bytes]:
        try:
            if _OURS.fullmatch(environ['PATH_INFO']):
                wsgi.check_length(environ)
            limit = _limit_of(environ)
            if limit is None:
                return self._limited(environ, start_response)
            _hold(environ, limit)
        except wsgi.Fault as refusal:
            answer: wsgi.Application = refusal
            return answer(environ, start_response)
        return self._application(environ, start_response)


def _hold(environ: nova_types.Environ, limit: int) -> None:
    """Limit a body.

    :param limit: maximum number of bytes
    :raises wsgi.Fault: the body is larger. A chunked body is refused later,
        when so many bytes have been read.
    """
    req = webob.Request(environ)
    if req.content_length is None:
        req.body_file = sizelimit.LimitingReader(req.body_file, limit)
    elif req.content_length > limit:
        raise wsgi.Fault(
            webob.exc.HTTPRequestEntityTooLarge(
                explanation='The body must have at most %d bytes, not %d'
                % (limit, req.content_length)
            )
        )


def _limit_of(environ: nova_types.Environ) -> int | None:
    for (method, path), limit in LIMITS.items():
        if environ['REQUEST_METHOD'] == method and path.fullmatch(
            environ['PATH_INFO']
        ):
            return limit()
    return None


def filter_factory(
    global_conf: dict[str, str], **local_conf: str
) -> Callable[[wsgi.Application], SizeLimiter]:
    """Return the filter for paste."""
    return lambda application: SizeLimiter(application, local_conf)
