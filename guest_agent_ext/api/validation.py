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

"""Decorators that check bodies and queries against their schemas.

They leave on a method what Nova's decorators of these names leave there, for
the tools that read it. They differ in their messages, which name a field by
its whole path and never show what may be secret, and under ``/v2``, where
Nova's drop unknown fields that these refuse.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import json
import re
from typing import Any
from typing import cast
from typing import NoReturn

import jsonschema
from jsonschema import exceptions as jsonschema_exc
from nova.api import validation as nova_validation
from oslo_log import log as logging
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext.api import wsgi

LOG = logging.getLogger(__name__)
CONF = conf.CONF

#: Characters of a name or a value that a message shows.
MAX_SHOWN = 64


def schema(
    body_schema: dict[str, Any],
) -> Callable[[wsgi.Method], wsgi.Method]:
    """Have a method called with its body parsed, if it fits the schema."""

    def check(kwargs: dict[str, Any]) -> None:
        kwargs['body'] = _parse(kwargs['body'])
        error = _best_error(body_schema, kwargs['body'])
        if error is not None:
            bad_request(_describe(error, 'The request body'))

    return _checked_before('request_body_schemas', body_schema, check)


def query_schema(
    parameters: dict[str, Any],
) -> Callable[[wsgi.Method], wsgi.Method]:
    """Have a method called if its query fits the schema."""

    def check(kwargs: dict[str, Any]) -> None:
        try:
            query = kwargs['req'].GET.dict_of_lists()
        except UnicodeDecodeError:
            bad_request('The query string must be UTF-8')
        error = _best_error(parameters, query)
        if error is not None:
            # Below a parameter's name there is but the list of its values.
            bad_request(_describe(error, 'The query', depth=1))

    return _checked_before('request_query_schemas', parameters, check)


def response_body_schema(
    body_schema: dict[str, Any],
) -> Callable[[wsgi.Method], wsgi.Method]:
    """Check what a method answers, as ``[api] response_validation`` says."""

    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(self: Any, **kwargs: Any) -> Any:
            response = method(self, **kwargs)
            if CONF.api.response_validation != 'ignore':
                _check_response(
                    body_schema, getattr(response, 'obj', response)
                )
            return response

        _note(wrapper, 'response_body_schemas', body_schema)
        return cast(wsgi.Method, wrapper)

    return decorate


def bad_request(explanation: str) -> NoReturn:
    """Answer 400.

    :param explanation: it must not hold what a tenant keeps secret
    """
    raise webob.exc.HTTPBadRequest(explanation=explanation) from None


def _checked_before(
    attribute: str,
    checked: dict[str, Any],
    check: Callable[[dict[str, Any]], None],
) -> Callable[[wsgi.Method], wsgi.Method]:
    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(self: Any, **kwargs: Any) -> Any:
            check(kwargs)
            return method(self, **kwargs)

        _note(wrapper, attribute, checked)
        return cast(wsgi.Method, wrapper)

    return decorate


def _note(wrapper: Any, attribute: str, schema: dict[str, Any]) -> None:
    schemas = nova_validation.Schemas()
    schemas.add_schema(schema, None, None)
    setattr(wrapper, attribute, schemas)
    # Nova's container does not give back what it was given.
    vars(wrapper).setdefault('schemas', {})[attribute] = schema


def _check_response(schema: dict[str, Any], response: Any) -> None:
    error = _best_error(schema, response)
    if error is None:
        return
    message = _describe(error, 'The response')
    if CONF.api.response_validation == 'error':
        raise ValueError(message)
    LOG.error('An answer does not fit its schema: %s', message)


def _parse(body: bytes) -> Any:
    """Parse JSON, more strictly than Python's parser does.

    :raises webob.exc.HTTPBadRequest: also for NaN, and for a name that is
        twice in one object
    """
    try:
        return json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        bad_request('The request body must be a JSON object in UTF-8')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            bad_request('%s is there twice in one object' % _shown(name))
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_unicode(value: Any) -> bool:
    # JSON can escape half of a surrogate pair, which is no text.
    if not isinstance(value, str):
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_free_of_nul(value: Any) -> bool:
    return not isinstance(value, str) or '\0' not in value


def _is_path(value: Any) -> bool:
    return (
        _is_free_of_nul(value)
        and len(value.encode()) <= MAX_PATH
        and _PATH.fullmatch(value) is not None
    )


#: Bytes of a path.
MAX_PATH = 4096
_PATH = re.compile(r'/|/.*[^/]|([A-Za-z]:[\\/]|\\\\[^\\/]).*[^\\/]', re.DOTALL)

#: The formats of our schemas, by the words that a message has for them.
PATH = (
    r'the absolute path of a file (/etc/hosts, C:\Users\file or '
    r'\\server\share\file) of at most %d bytes, without NUL' % MAX_PATH
)
UNICODE = 'valid Unicode'
UNICODE_WITHOUT_NUL = 'valid Unicode without NUL'

#: What a pattern can say of them, for readers that do not know them.
PATTERNS = {PATH: f'^({_PATH.pattern})$', UNICODE_WITHOUT_NUL: r'^[^\x00]*$'}

_FORMATS = jsonschema.FormatChecker(formats=())
_FORMATS.checks(UNICODE)(_is_unicode)
_FORMATS.checks(PATH)(lambda value: _is_unicode(value) and _is_path(value))
_FORMATS.checks(UNICODE_WITHOUT_NUL)(
    lambda value: _is_unicode(value) and _is_free_of_nul(value)
)

_Validator: Any = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    # JSON Schema takes 60.0 for an integer; who reads it would not.
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        'integer', lambda checker, value: type(value) is int
    ),
)


def _best_error(schema: dict[str, Any], value: Any) -> Any:
    errors = _Validator(schema, format_checker=_FORMATS).iter_errors(value)
    return jsonschema_exc.best_match(errors)


def _describe(error: Any, whole: str, depth: int | None = None) -> str:
    """Say which field is wrong, with which value, and what is accepted.

    :param whole: what to call that which was checked
    :param depth: how many names of a path are told
    """
    names, must = _PROBLEMS[error.validator](error)
    path = [*error.absolute_path, *names][:depth]
    message = '%s %s' % (_field(path) or whole, must)
    if not names and _may_be_shown(error):
        message += ', not ' + _shown(error.instance)
    return message


def _may_be_shown(error: Any) -> bool:
    # Strings may be secret, but not where the schema lists the values that
    # are accepted, or gives a pattern for them.
    return bool({'enum', 'minimum', 'pattern'} & error.schema.keys())


def _field(path: list[Any]) -> str:
    """Name a field as JavaScript would: ``command.arguments.command[0]``."""
    parts = [
        '[%d]' % part if isinstance(part, int) else '.' + _shown(part)
        for part in path
    ]
    return ''.join(parts).lstrip('.')


def _shown(value: Any) -> str:
    """Return the beginning of a value, in printable ASCII."""
    if isinstance(value, dict | list):
        return 'an object' if isinstance(value, dict) else 'a list'
    if isinstance(value, str) and value.isidentifier():
        return value[:MAX_SHOWN]
    return ascii(value)[:MAX_SHOWN]


def _missing(error: Any) -> tuple[list[str], str]:
    missing = [
        name for name in error.validator_value if name not in error.instance
    ]
    return missing[:1], 'is missing'


def _unknown(error: Any) -> tuple[list[str], str]:
    patterns = error.schema.get('patternProperties')
    if patterns:
        return [], 'may have only names that match ' + ' or '.join(patterns)
    known = error.schema['properties']
    unknown = [name for name in error.instance if name not in known]
    return unknown[:1], 'is not known here; known are: ' + _listed(known)


def _listed(values: Any) -> str:
    return ', '.join(str(value) for value in values) or 'none'


def _must(text: str) -> Callable[[Any], tuple[list[str], str]]:
    return lambda error: ([], text % error.validator_value)


#: By the keyword of the schema that a value fails: the names that lead from
#: the value to the field in question, and what is wrong with that.
_PROBLEMS: Mapping[str, Callable[[Any], tuple[list[str], str]]] = {
    'additionalProperties': _unknown,
    'enum': lambda error: (
        [],
        'must be one of: ' + _listed(error.validator_value),
    ),
    'format': _must('must be %s'),
    'maxItems': _must('must have at most %s value(s)'),
    'maxLength': _must('must have at most %s character(s)'),
    'maximum': _must('must be at most %s'),
    'minItems': _must('must have at least %s value(s)'),
    'minLength': _must('must have at least %s character(s)'),
    'minimum': _must('must be at least %s'),
    'pattern': _must('must match %s'),
    'required': _missing,
    'type': lambda error: (
        [],
        'must be of type %s' % (error.validator_value,),
    ),
}
