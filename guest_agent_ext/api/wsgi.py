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

"""Nova's WSGI layer, as the controllers use it.

No other module of the API imports that layer.
"""

from collections.abc import Callable
from collections.abc import Iterable
import re
from typing import Any
from typing import TypeVar

from nova.api import openstack
from nova.api.openstack import wsgi
import webob.exc

from guest_agent_ext import nova_types
from guest_agent_ext.api import errors
from guest_agent_ext.api import raw

IDEMPOTENCY_KEY = 'Idempotency-Key'

Method = TypeVar('Method', bound=Callable[..., Any])

#: A Content-Length that is accepted: Python would make numbers of "-5", "+5"
#: and "1_0" too, and no body has a size of more digits.
_LENGTH = re.compile('[0-9]{1,18}')
_MAX_SHOWN = 32

StartResponse = Callable[..., object]
Application = Callable[[nova_types.Environ, StartResponse], Iterable[bytes]]

Controller = wsgi.Controller
Fault = wsgi.Fault
ResponseObject = wsgi.ResponseObject
ProjectMapper = openstack.ProjectMapper


def context_of(req: nova_types.Request) -> nova_types.RequestContext:
    """Return Nova's context of a request."""
    context: nova_types.RequestContext = req.environ['nova.context']
    return context


def response(code: int) -> Callable[[Method], Method]:
    """Declare the status of a method's answer."""

    def decorate(method: Method) -> Method:
        vars(method)['success_code'] = code
        decorated: Method = wsgi.response(code)(method)
        return decorated

    return decorate


def expected_errors(*codes: int) -> Callable[[Method], Method]:
    """Declare the errors that a method may answer; any other becomes a 500.

    What a method raises of exception.py is answered as errors.py says.
    """

    def decorate(method: Method) -> Method:
        wrapped: Method = wsgi.expected_errors(codes)(errors.answered(method))
        # For the API's documentation: Nova's decorator keeps them to itself.
        vars(wrapped)['expected_codes'] = codes
        return wrapped

    return decorate


def idempotent(method: Method) -> Method:
    """Declare that a method honours an Idempotency-Key."""
    vars(method)['is_idempotent'] = True
    return method


def check_length(environ: nova_types.Environ) -> None:
    """Check the Content-Length of a request, if there is one.

    :raises Fault: 400: the value is no number
    """
    length: str = environ.get('CONTENT_LENGTH') or '0'
    if _LENGTH.fullmatch(length) is None:
        raise Fault(
            webob.exc.HTTPBadRequest(
                explanation='Content-Length must be 1 to 18 digits, not %s'
                % ascii(length)[:_MAX_SHOWN]
            )
        )


class Resource(wsgi.Resource):
    """Nova's resource, which leaves the body to validation.schema.

    A method gets the body as bytes, so that nothing is parsed before the
    policy has allowed the call.
    """

    def get_body(
        self, request: nova_types.Request
    ) -> tuple[str | None, bytes]:
        check_length(request.environ)
        # Nova logs the returned body at DEBUG, and a body has secrets.
        return request.get_content_type(), b''

    def _get_request_content(
        self, body: bytes, request: Any
    ) -> dict[str, bytes]:
        if not self._should_have_body(request):
            return {}
        try:
            return {'body': request.body}
        except webob.exc.HTTPException as error:
            # A chunked body is too large only when it is read.
            raise Fault(error) from None
        except OSError:
            raise Fault(
                webob.exc.HTTPBadRequest(
                    explanation='The request body ended early'
                )
            ) from None

    def dispatch(
        self, method: Any, request: Any, action_args: dict[str, Any]
    ) -> Any:
        # A client that sends a key relies on its effect.
        if IDEMPOTENCY_KEY in request.headers and not hasattr(
            method, 'is_idempotent'
        ):
            raise webob.exc.HTTPBadRequest(
                explanation='%s is for the creation of a command or a run only'
                % IDEMPOTENCY_KEY
            )
        return super().dispatch(method, request, action_args)


class RawResource(Resource):
    """A resource of bytes, which takes any type of body and reads none."""

    def get_body(
        self, request: nova_types.Request
    ) -> tuple[str | None, bytes]:
        check_length(request.environ)
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
