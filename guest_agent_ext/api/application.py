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

"""The paste applications of guest-agent-api: our calls, and nothing else."""

from collections.abc import Iterable

import webob.exc

from guest_agent_ext import nova_types
from guest_agent_ext.api import filter as api_filter
from guest_agent_ext.api import wsgi

_MAX_SHOWN = 128


def app_factory(
    global_conf: dict[str, str], **local_conf: str
) -> wsgi.Application:
    """Return the application for paste that answers the calls of routes.py."""
    return api_filter.filter_factory(global_conf, **local_conf)(_not_found)


def not_found_factory(
    global_conf: dict[str, str], **local_conf: str
) -> wsgi.Application:
    """Return the application for paste that answers 404 to every call."""
    return _not_found


def _not_found(
    environ: nova_types.Environ, start_response: wsgi.StartResponse
) -> Iterable[bytes]:
    path = environ.get('SCRIPT_NAME', '') + environ['PATH_INFO']
    answer: wsgi.Application = wsgi.Fault(
        webob.exc.HTTPNotFound(
            explanation='guest-agent-api has no %s %s: it answers '
            '/v2.1/servers/{id}/guest-agent, /v2.1/guest-agent and what is '
            'below these; all other calls are for nova-api'
            % (environ['REQUEST_METHOD'], ascii(path)[1:-1][:_MAX_SHOWN])
        )
    )
    return answer(environ, start_response)
