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

They set the same attributes on a method as Nova's decorators of these names,
for tools that read the attributes. They differ in their messages, which name a
field by its whole path and never show a value that may be secret; and under
``/v2``, where Nova's drop unknown fields that these refuse.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import json
import re
from typing import Any
from typing import cast
from typing import NoReturn
from typing import Protocol

import jsonschema
from jsonschema import exceptions as jsonschema_exc
from nova.api import validation as nova_validation
from oslo_log import log as logging
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext.api import wsgi

LOG = logging.getLogger(__name__)
CONF = conf.CONF

#: Maximum levels of objects and lists in a body. No schema has as many, and
#: recursive functions would fail on bodies with very many.
MAX_DEPTH = 16
#: Characters of a name or a value that a message shows.
MAX_SHOWN = 64

#: JSON Schema.
Schema = dict[str, Any]
#: Names that lead from a value to the wrong field, and what is wrong there.
_Problem = tuple[Sequence[str], str]


class _Decorator(Protocol):
    def __call__(self, method: wsgi.Method, /) -> wsgi.Method:
        """Return the decorated method."""


class _Error(Protocol):
    """What is used of jsonschema.ValidationError.

    :ivar validator: keyword of the schema that the value violates
    :ivar validator_value: value of that keyword
    :ivar schema: part of the schema that has the keyword
    :ivar instance: value that is wrong
    """

    validator: str
    validator_value: Any
    schema: Schema
    instance: Any
    absolute_path: Iterable[str | int]


def schema(body_schema: Schema) -> _Decorator:
    """Parse the body of a request, and check the value against a schema."""

    def check(kwargs: dict[str, Any]) -> None:
        kwargs['body'] = _parse(kwargs['body'])
        error = _best_error(body_schema, kwargs['body'])
        if error is not None:
            bad_request(_describe(error, 'The request body'))

    return _checked_before('request_body_schemas', body_schema, check)


def query_schema(parameters: Schema) -> _Decorator:
    """Check the query of a request against a schema."""

    def check(kwargs: dict[str, Any]) -> None:
        try:
            query = kwargs['req'].GET.dict_of_lists()
        except UnicodeDecodeError:
            bad_request('The query string must be UTF-8')
        error = _best_error(parameters, query)
        if error is not None:
            # Below a parameter's name there is only the list of its values.
            bad_request(_describe(error, 'The query', depth=1))

    return _checked_before('request_query_schemas', parameters, check)


def response_body_schema(body_schema: Schema) -> _Decorator:
    """Check an answer, if ``[api] response_validation`` asks for that."""

    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(self: object, **kwargs: Any) -> Any:
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

    :param explanation: words for the tenant, without any secret value
    """
    raise webob.exc.HTTPBadRequest(explanation=explanation) from None


def _checked_before(
    attribute: str, checked: Schema, check: Callable[[dict[str, Any]], None]
) -> _Decorator:
    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(self: object, **kwargs: Any) -> Any:
            check(kwargs)
            return method(self, **kwargs)

        _note(wrapper, attribute, checked)
        return cast(wsgi.Method, wrapper)

    return decorate


def _note(wrapper: object, attribute: str, schema: Schema) -> None:
    schemas = nova_validation.Schemas()
    schemas.add_schema(schema, None, None)
    setattr(wrapper, attribute, schemas)
    # Nova's container does not return the schemas that it was given.
    vars(wrapper).setdefault('schemas', {})[attribute] = schema


def _check_response(schema: Schema, response: object) -> None:
    error = _best_error(schema, response)
    if error is None:
        return
    message = _describe(error, 'The response')
    if CONF.api.response_validation == 'error':
        raise ValueError(message)
    LOG.error('An answer does not fit its schema: %s', message)


def _parse(body: bytes) -> object:
    """Parse JSON, more strictly than Python's parser does.

    :raises webob.exc.HTTPBadRequest: the body is no JSON, has NaN, a duplicate
        key, or more than MAX_DEPTH levels
    """
    try:
        value: object = json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_float=_number,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        _too_deep()
    except ValueError:
        bad_request('The request body must be a JSON object in UTF-8')
    _check_depth(value)
    return value


def _number(text: str) -> float:
    """Return a number; an integer for 60.0 and 6e1, as JSON Schema has it."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in _children(parent)
            if isinstance(child, dict | list)
        ]
    if level:
        _too_deep()


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep() -> NoReturn:
    bad_request(
        'The request body must have at most %d levels of objects and '
        'lists' % MAX_DEPTH
    )


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            bad_request('%s is a duplicate key' % _shown(name))
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_unicode(value: object) -> bool:
    # JSON can escape half of a surrogate pair, which is no text.
    if not isinstance(value, str):
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_free_of_nul(value: object) -> bool:
    return not isinstance(value, str) or '\0' not in value


def _is_path(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return (
        _is_unicode(value)
        and _is_free_of_nul(value)
        and len(value.encode()) <= MAX_PATH
        and _PATH.fullmatch(value) is not None
    )


#: Maximum bytes of a path.
MAX_PATH = 4096
_PATH = re.compile(r'/|/.*[^/]|([A-Za-z]:[\\/]|\\\\[^\\/]).*[^\\/]', re.DOTALL)

#: The formats of the schemas. Each is named by the words for a message.
PATH = (
    r'the absolute path of a file (/etc/hosts, C:\Users\file or '
    r'\\server\share\file) of at most %d bytes, without NUL' % MAX_PATH
)
PASSWORD = 'one line of valid Unicode without NUL'
UNICODE = 'valid Unicode'
UNICODE_WITHOUT_NUL = 'valid Unicode without NUL'

#: Patterns that come close to the formats, for readers that do not know them.
PATTERNS = {
    PATH: f'^({_PATH.pattern})$',
    UNICODE_WITHOUT_NUL: r'^[^\x00]*$',
    PASSWORD: r'^[^\x00\r\n]*$',
}

_FORMATS = jsonschema.FormatChecker(formats=())
_FORMATS.checks(UNICODE)(_is_unicode)
_FORMATS.checks(PATH)(_is_path)
_FORMATS.checks(UNICODE_WITHOUT_NUL)(
    lambda value: _is_unicode(value) and _is_free_of_nul(value)
)

_FORMATS.checks(PASSWORD)(
    lambda value: (
        _is_unicode(value)
        and not (isinstance(value, str) and set('\0\r\n') & set(value))
    )
)

_Validator: Any = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    # What is no integer when it was parsed is none here either.
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        'integer', lambda checker, value: type(value) is int
    ),
)


def _best_error(schema: Schema, value: object) -> _Error | None:
    errors = _Validator(schema, format_checker=_FORMATS).iter_errors(value)
    error: _Error | None = jsonschema_exc.best_match(errors)
    return error


def _describe(error: _Error, whole: str, depth: int | None = None) -> str:
    """Return a message with the field, its value and what is accepted.

    :param whole: words for the whole value, in case no field is wrong
    :param depth: maximum number of names in the path of the field
    """
    names, must = _PROBLEMS[error.validator](error)
    path = [*error.absolute_path, *names][:depth]
    message = '%s %s' % (_field(path) or whole, must)
    # Strings may be secret, but not where the schema lists the values that
    # are accepted, or gives a pattern for them.
    may_be_shown = {'enum', 'minimum', 'pattern'} & error.schema.keys()
    if not names and may_be_shown:
        message += ', not ' + _shown(error.instance)
    return message


def _field(path: Sequence[str | int]) -> str:
    """Return a path in JavaScript's notation: ``command.arguments.env``."""
    parts = [
        '[%d]' % part if isinstance(part, int) else '.' + _shown(part)
        for part in path
    ]
    return ''.join(parts).lstrip('.')


def _shown(value: object) -> str:
    """Return the beginning of an identifier, or of a value in ASCII."""
    if isinstance(value, dict | list):
        return 'an object' if isinstance(value, dict) else 'a list'
    if isinstance(value, str) and value.isidentifier():
        return value[:MAX_SHOWN]
    return ascii(value)[:MAX_SHOWN]


def _missing(error: _Error) -> _Problem:
    missing = [
        name for name in error.validator_value if name not in error.instance
    ]
    return missing[:1], 'is missing'


def _unknown(error: _Error) -> _Problem:
    patterns = error.schema.get('patternProperties')
    if patterns:
        return [], 'may have only names that match ' + ' or '.join(patterns)
    known = error.schema['properties']
    unknown = [name for name in error.instance if name not in known]
    return unknown[:1], 'is not known here; known are: ' + _listed(known)


def _listed(values: Iterable[object]) -> str:
    return ', '.join(str(value) for value in values) or 'none'


def _must(text: str) -> Callable[[_Error], _Problem]:
    return lambda error: ([], text % error.validator_value)


#: By the keyword of the schema that a value violates.
_PROBLEMS: Mapping[str, Callable[[_Error], _Problem]] = {
    'additionalProperties': _unknown,
    'enum': lambda error: (
        [],
        'must be one of: ' + _listed(error.validator_value),
    ),
    'format': _must('must be %s'),
    'maxItems': _must('must have at most %s value(s)'),
    'maxLength': _must('must have at most %s character(s)'),
    'maxProperties': _must('must have at most %s name(s)'),
    'maximum': _must('must be at most %s'),
    'minItems': _must('must have at least %s value(s)'),
    'minLength': _must('must have at least %s character(s)'),
    'minProperties': _must('must have at least %s name(s)'),
    'minimum': _must('must be at least %s'),
    'pattern': _must('must match %s'),
    'required': _missing,
    'type': lambda error: (
        [],
        'must be of type %s' % (error.validator_value,),
    ),
}
