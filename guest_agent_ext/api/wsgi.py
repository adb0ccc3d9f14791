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

"""Nova's WSGI layer as our controllers use it.

The one place that imports it, beside servers.py for Nova's servers.
"""

from collections.abc import Callable
from typing import Any
from typing import TypeVar

from nova.api import openstack
from nova.api.openstack import wsgi
import webob.exc

from guest_agent_ext.api import raw

IDEMPOTENCY_KEY = 'Idempotency-Key'

Method = TypeVar('Method', bound=Callable[..., Any])

Controller: Any = wsgi.Controller
ResponseObject: Any = wsgi.ResponseObject
ProjectMapper: Any = openstack.ProjectMapper


def response(code: int) -> Callable[[Method], Method]:
    """Say with which status a method answers."""

    def decorate(method: Method) -> Method:
        vars(method)['success_code'] = code
        decorated: Method = wsgi.response(code)(method)
        return decorated

    return decorate


def expected_errors(*codes: int) -> Callable[[Method], Method]:
    """Say which errors a method may answer; any other becomes a 500."""

    def decorate(method: Method) -> Method:
        wrapped: Method = wsgi.expected_errors(codes)(method)
        # For the API's documentation: Nova's decorator keeps them to itself.
        vars(wrapped)['expected_codes'] = codes
        return wrapped

    return decorate


def idempotent(method: Method) -> Method:
    """Say that a method honours an Idempotency-Key."""
    vars(method)['is_idempotent'] = True
    return method


class Resource(wsgi.Resource):
    """Nova's resource, but for the body.

    A method gets the body as bytes: it is parsed by validation.schema, after
    policy has been asked.
    """

    def get_body(self, request: Any) -> tuple[str | None, bytes]:
        # Nova logs at DEBUG what this returns, and a body holds secrets.
        return request.get_content_type(), b''

    def _get_request_content(
        self, body: bytes, request: Any
    ) -> dict[str, bytes]:
        if not self._should_have_body(request):
            return {}
        return {'body': request.body}

    def dispatch(
        self, method: Any, request: Any, action_args: dict[str, Any]
    ) -> Any:
        # Who sends a key relies on it.
        if IDEMPOTENCY_KEY in request.headers and not hasattr(
            method, 'is_idempotent'
        ):
            raise webob.exc.HTTPBadRequest(
                explanation='%s is for the creation of a command only'
                % IDEMPOTENCY_KEY
            )
        return super().dispatch(method, request, action_args)


class RawResource(Resource):
    """A resource of bytes: it takes any type of body and leaves it unread."""

    def get_body(self, request: Any) -> tuple[str | None, bytes]:
        return None, b''

    def _get_request_content(
        self, body: bytes, request: Any
    ) -> dict[str, bytes]:
        return {}

    def dispatch(
        self, method: Any, request: Any, action_args: dict[str, Any]
    ) -> Any:
        try:
            return super().dispatch(method, request, action_args)
        except Exception:
            raw.body_of(request).drain()
            raise
