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

The filter answers the calls of routes.py and passes on all others: also a
path of ours with a method that no route has, which Nova answers with 404.
"""

from collections.abc import Callable
from collections.abc import Iterable

from guest_agent_ext import conf
from guest_agent_ext import logs
from guest_agent_ext import nova_types
from guest_agent_ext.api import routes
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import session


class GuestAgentFilter:
    """WSGI middleware that answers the calls of routes.py.

    :param application: application that answers all other calls
    """

    def __init__(self, application: wsgi.Application) -> None:
        self._application = application
        self._mapper = routes.mapper()

    def __call__(
        self, environ: nova_types.Environ, start_response: wsgi.StartResponse
    ) -> Iterable[bytes]:
        match = self._mapper.match(environ['PATH_INFO'], environ)
        if match is None:
            return self._application(environ, start_response)
        # Nova's Resource expects the match here.
        environ['wsgiorg.routing_args'] = ((), match)
        resource: wsgi.Application = match['controller']
        return resource(environ, start_response)


def filter_factory(
    global_conf: dict[str, str], **local_conf: str
) -> Callable[[wsgi.Application], wsgi.Application]:
    """Return the filter for paste, once for ``/v2`` and once for ``/v2.1``."""
    session.configure(conf.CONF)
    logs.hide_answers()
    logs.quiet_broken_connections()
    return GuestAgentFilter
