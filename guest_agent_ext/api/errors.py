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

"""Answers errors of ours with an HTTP status, at one spot."""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any
from typing import cast
from typing import TypeVar

import webob.exc

from guest_agent_ext import exception

UUID_HEADER = 'X-Guest-Agent-Command-UUID'
#: Seconds after which a request is worth repeating.
RETRY = {'Retry-After': '5'}

_Method = TypeVar('_Method', bound=Callable[..., Any])
_HTTPError = type[webob.exc.HTTPError]

_ANSWERS: Mapping[type[exception.GuestAgentExtError], _HTTPError] = {
    exception.HostNotFound: webob.exc.HTTPNotFound,
    exception.HostInUse: webob.exc.HTTPConflict,
    exception.OutputUnavailable: webob.exc.HTTPConflict,
    exception.StreamRefused: webob.exc.HTTPConflict,
    exception.StreamUnanswered: webob.exc.HTTPServiceUnavailable,
    exception.TransferRefused: webob.exc.HTTPConflict,
    exception.TransferUnanswered: webob.exc.HTTPConflict,
    exception.CommitUnanswered: webob.exc.HTTPServiceUnavailable,
    exception.TooManyTransfers: webob.exc.HTTPTooManyRequests,
    exception.BodyEnded: webob.exc.HTTPBadRequest,
    exception.DigestMismatch: webob.exc.HTTPBadRequest,
}
#: Kinds of TransferRefused that have an answer of their own.
_REFUSALS: Mapping[exception.RefusalKind, _HTTPError] = {
    'missing': webob.exc.HTTPNotFound,
    'unsuitable': webob.exc.HTTPBadRequest,
}
_REPEATABLE = (
    exception.CommitUnanswered,
    exception.StreamUnanswered,
    exception.TooManyTransfers,
)


def answered(method: _Method) -> _Method:
    """Turn errors of ours that a method raises into HTTP errors."""

    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except tuple(_ANSWERS) as error:
            raise http_error(error) from None

    return cast(_Method, wrapper)


def http_error(error: exception.GuestAgentExtError) -> webob.exc.HTTPError:
    """Return the answer to an error.

    :param error: instance of a class that has an answer
    """
    answer = _ANSWERS[type(error)]
    headers = dict(RETRY) if isinstance(error, _REPEATABLE) else {}
    if isinstance(error, exception.TransferRefused):
        answer = _REFUSALS.get(error.kind, answer)
    if isinstance(error, exception.StreamRefused) and error.kind == 'gone':
        answer = webob.exc.HTTPGone
    if isinstance(error, exception.TransferError) and error.command_uuid:
        headers[UUID_HEADER] = error.command_uuid
    return answer(explanation=str(error), headers=headers)
