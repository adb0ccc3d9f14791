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

"""The paste filter that stands directly before Nova's application.

It answers what routes.py names and passes on all else: also a method that no
route has for a path of ours, which Nova answers with its 404.
"""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from guest_agent_ext import conf
from guest_agent_ext import logs
from guest_agent_ext.api import routes
from guest_agent_ext.db import session

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class GuestAgentFilter:
    """WSGI middleware.

    :param application: what answers all that we do not
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._mapper = routes.mapper()

    def __call__(
        self, environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes]:
        match = self._mapper.match(environ['PATH_INFO'], environ)
        if match is None:
            return self._application(environ, start_response)
        # Where Nova's Resource looks for it.
        environ['wsgiorg.routing_args'] = ((), match)
        resource: Application = match['controller']
        return resource(environ, start_response)


def filter_factory(
    global_conf: dict[str, str], **local_conf: str
) -> Callable[[Application], Application]:
    """Make the filter for paste, once for ``/v2`` and once for ``/v2.1``."""
    session.configure(conf.CONF)
    logs.hide_answers()
    return GuestAgentFilter
