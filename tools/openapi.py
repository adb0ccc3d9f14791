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

"""Builds the OpenAPI document from the declarations in the code.

``python -m tools.samples`` writes the document. Its schemas are those that the
methods are checked against.
"""

from typing import Any

from guest_agent_ext.api import routes
from guest_agent_ext.api import schemas
from guest_agent_ext.api import sizelimit
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.api.controllers import files

_OPENAPI = '3.1.0'
_JSON, _BYTES = 'application/json', 'application/octet-stream'
_TEXT = 'text/plain'

#: Parameters of paths.
_PATH_PARAMETERS = {
    'server_id': 'The uuid of the server.',
    'command_id': 'The uuid of the command.',
    'run_id': 'The uuid of the run.',
    'host': 'The name of the compute host.',
}

_UUID = {'type': 'string', 'format': 'uuid'}
_NAME = {'type': 'string', 'minLength': 1}

_FAULT = {
    'type': 'object',
    'minProperties': 1,
    'maxProperties': 1,
    'description': 'The reason of a refusal, under the name that Nova has for '
    'the code.',
    'additionalProperties': {
        'type': 'object',
        'required': ['code', 'message'],
        'properties': {
            'code': {
                'type': 'integer',
                'description': 'The status of the answer.',
            },
            'message': {
                'type': 'string',
                'description': 'What is wrong, with which value, and '
                'what would be accepted.',
            },
        },
    },
}

_HEADERS = {
    'Idempotency-Key': {
        'schema': {'type': 'string', 'minLength': 1, 'maxLength': 255},
        'description': 'The same key with the same body answers the first '
        'command or run again, and starts nothing.',
    },
    'Prefer': {
        'schema': {'type': 'string', 'examples': ['wait=5']},
        'description': 'wait=N: answer when the command or run has ended, or '
        'after N seconds. Anything else is ignored (RFC 7240).',
    },
    'Range': {
        'schema': {'type': 'string', 'examples': ['bytes=0-99']},
        'description': 'One range of bytes. Anything else is ignored '
        '(RFC 9110).',
    },
    'If-Range': {
        'schema': {'type': 'string'},
        'description': 'Range is ignored if this is given: files have no '
        'validator.',
    },
    'Content-Digest': {
        'schema': {'type': 'string'},
        'description': 'The SHA-256 of the body: sha-256=:<base64>: (RFC '
        '9530). Other digests are ignored.',
    },
}

#: Request headers by the controller's method, except those of every body.
_HEADERS_OF = {
    'CommandsController.create': ('Idempotency-Key', 'Prefer'),
    'CommandsController.show': ('Prefer',),
    'RunsController.create': ('Idempotency-Key', 'Prefer'),
    'RunsController.show': ('Prefer',),
    'FilesController.read': ('Range', 'If-Range'),
    'FilesController.write': ('Content-Digest',),
}

_OFFSET, _NEXT, _COMPLETE = (
    f'OpenStack-Guest-Agent-{name}'
    for name in ('Offset', 'Next-Offset', 'Complete')
)
_COUNT = {'type': 'integer', 'minimum': 0}

#: Response headers.
ANSWERED: dict[str, dict[str, Any]] = {
    'Preference-Applied': {
        'schema': {'type': 'string'},
        'description': 'wait=N, if the answer has waited for the end.',
    },
    'Retry-After': {
        'schema': _COUNT,
        'description': 'Seconds after which to ask again.',
    },
    _OFFSET: {
        'schema': _COUNT,
        'description': 'The number of bytes that the command wrote before '
        'the first byte of the body.',
    },
    _NEXT: {'schema': _COUNT, 'description': 'The offset to read on from.'},
    _COMPLETE: {
        'schema': {'type': 'boolean'},
        'description': 'Whether nothing follows, now or later.',
    },
    files.UUID_HEADER: {
        'schema': _UUID,
        'description': 'The uuid of the command.',
    },
    'Accept-Ranges': {
        'schema': {'const': 'bytes'},
        'description': 'The unit of Range.',
    },
    'Content-Range': {
        'schema': {'type': 'string'},
        'description': 'The offsets of the bytes, and the size of the file.',
    },
    'Content-Digest': {
        'schema': {'type': 'string'},
        'description': 'The SHA-256 of the bytes; only for small files (RFC '
        '9530).',
    },
}

#: Headers of every answer, by the controller's method and the status.
_ALWAYS: dict[tuple[str, int], tuple[str, ...]] = {
    ('CommandsController.create', 429): ('Retry-After',),
    ('CommandsController.act', 503): ('Retry-After',),
    ('CommandsController.input', 503): ('Retry-After',),
    ('CommandsController.output', 503): ('Retry-After',),
    ('CommandsController.output', 200): (_OFFSET, _NEXT, _COMPLETE),
    ('FilesController.read', 200): (files.UUID_HEADER, 'Accept-Ranges'),
    ('FilesController.read', 206): (
        files.UUID_HEADER,
        'Accept-Ranges',
        'Content-Range',
    ),
    ('FilesController.read', 416): (files.UUID_HEADER, 'Content-Range'),
    ('FilesController.read', 429): ('Retry-After',),
    ('FilesController.write', 204): (files.UUID_HEADER,),
    ('FilesController.write', 429): ('Retry-After',),
}

#: Headers of some answers, likewise.
_AT_TIMES: dict[tuple[str, int], tuple[str, ...]] = {
    ('CommandsController.create', 200): ('Preference-Applied',),
    ('CommandsController.create', 503): ('Retry-After',),
    ('CommandsController.show', 200): ('Preference-Applied',),
    ('RunsController.create', 202): ('Preference-Applied',),
    ('RunsController.create', 503): ('Retry-After',),
    ('RunsController.show', 200): ('Preference-Applied',),
    ('FilesController.read', 200): ('Content-Digest',),
    ('FilesController.read', 206): ('Content-Digest',),
    ('FilesController.read', 503): ('Retry-After',),
    ('FilesController.write', 503): (files.UUID_HEADER, 'Retry-After'),
    **{
        (f'FilesController.{action}', code): (files.UUID_HEADER,)
        for action in ('read', 'write')
        for code in (400, 404, 409)
    },
}

_REFUSED = {
    'description': 'The request was refused.',
    'content': {_JSON: {'schema': {'$ref': '#/components/schemas/Fault'}}},
}

#: Methods that answer bytes, and their statuses beside the usual one.
_RAW: dict[str, tuple[int, ...]] = {
    'CommandsController.output': (),
    'FilesController.read': (206,),
}
#: Methods that answer text.
_ANSWERS_TEXT = ('MetricsController.show',)
#: Methods that take bytes.
_TAKES_BYTES = ('CommandsController.input', 'FilesController.write')


#: Calls that take the uuid from the answer of another call.
_LINKS = {
    'CommandsController.create': (
        'CommandsController.show',
        'CommandsController.output',
        'CommandsController.act',
        'CommandsController.delete',
    )
}


def document() -> dict[str, Any]:
    """Return the document, ready for json.dumps()."""
    paths: dict[str, Any] = {}
    for route in routes.ROUTES:
        operations = paths.setdefault(route.path, {})
        operations[route.method.lower()] = _operation(route)
    return {
        'openapi': _OPENAPI,
        'info': {
            'title': 'Guest agent commands of OpenStack servers',
            'version': 'v2.1',
            'description': 'What guest_agent_ext adds to the Compute API.',
            'license': {'name': 'Apache-2.0', 'identifier': 'Apache-2.0'},
        },
        'servers': [{'url': '/v2.1'}],
        'security': [{'token': []}],
        'paths': paths,
        'components': {
            'securitySchemes': {
                'token': {
                    'type': 'apiKey',
                    'in': 'header',
                    'name': 'X-Auth-Token',
                    'description': 'A token of Keystone.',
                }
            },
            'schemas': {'Fault': _FAULT},
            'responses': {'Fault': _REFUSED},
        },
    }


def _operation(route: routes.Route) -> dict[str, Any]:
    method = getattr(route.controller, route.action)
    name = f'{route.controller.__name__}.{route.action}'
    operation = {
        'operationId': name,
        'summary': (method.__doc__ or '').strip().splitlines()[0],
        'parameters': [
            *_path_parameters(route.path),
            *_query(method),
            *(_header(header) for header in _HEADERS_OF.get(name, ())),
        ],
        'responses': _responses(name, method, route),
    }
    body = _request_body(name, method)
    if body:
        operation['requestBody'] = {'required': True, 'content': body}
    return operation


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            'name': name,
            'in': 'path',
            'required': True,
            'schema': _UUID if name.endswith('_id') else _NAME,
            'description': description,
        }
        for name, description in _PATH_PARAMETERS.items()
        if f'{{{name}}}' in path
    ]


def _query(method: Any) -> list[dict[str, Any]]:
    schema = method.schemas['request_query_schemas']
    return [
        {
            'name': name,
            'in': 'query',
            'required': name in schema['required'],
            'description': parameter['description'],
            'schema': _plain(_of_query(parameter)),
        }
        for name, parameter in schema['properties'].items()
    ]


def _of_query(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, or of a list of its values."""
    if parameter['maxItems'] == 1:
        return dict(parameter['items'])
    return {
        name: value
        for name, value in parameter.items()
        if name != 'description'
    }


def _header(name: str) -> dict[str, Any]:
    return {'name': name, 'in': 'header', 'required': False, **_HEADERS[name]}


def _request_body(name: str, method: Any) -> dict[str, Any]:
    if name in _TAKES_BYTES:
        return {_BYTES: {'schema': {'type': 'string', 'format': 'binary'}}}
    schema = method.schemas.get('request_body_schemas')
    return {_JSON: {'schema': _plain(schema)}} if schema else {}


def _responses(name: str, method: Any, route: routes.Route) -> dict[str, Any]:
    usual = _usual(name, method)
    return {
        **{
            str(code): {**usual, **_sent(name, code)}
            for code in (method.success_code, *_RAW.get(name, ()))
        },
        # Filters before ours answer this one.
        '401': {'description': 'No token, or one that is not valid.'},
        **{
            str(code): _refused(name, code)
            for code in sorted({*method.expected_codes, *_of_all(route)})
        },
    }


def _of_all(route: routes.Route) -> set[int]:
    """Return the errors that come before a method is called."""
    codes = set() if route.resource is wsgi.RawResource else {415}
    limited = any(
        route.method == method and path.fullmatch(route.path)
        for method, path in sizelimit.LIMITS
    )
    return codes | {413} if limited else codes


def _refused(name: str, code: int) -> dict[str, Any]:
    headers = _sent(name, code)
    if headers:
        return {**_REFUSED, **headers}
    return {'$ref': '#/components/responses/Fault'}


def _sent(name: str, code: int) -> dict[str, Any]:
    """Return the headers of an answer, an empty dict for none."""
    always = _ALWAYS.get((name, code), ())
    at_times = _AT_TIMES.get((name, code), ())
    headers = {
        header: {**ANSWERED[header], 'required': header in always}
        for header in (*always, *at_times)
    }
    return {'headers': headers} if headers else {}


def _usual(name: str, method: Any) -> dict[str, Any]:
    """Return the answer of a method that refuses nothing."""
    answered: dict[str, Any] = {'description': 'The request was carried out.'}
    if name in _RAW:
        answered['content'] = {
            _BYTES: {'schema': {'type': 'string', 'format': 'binary'}}
        }
        return answered
    if name in _ANSWERS_TEXT:
        answered['content'] = {_TEXT: {'schema': {'type': 'string'}}}
        return answered
    schema = method.schemas.get('response_body_schemas', schemas.no_response)
    if schema != schemas.no_response:
        answered['content'] = {_JSON: {'schema': _plain(schema)}}
    if name in _LINKS:
        answered['links'] = {
            linked: {
                'operationId': linked,
                'parameters': {
                    'server_id': '$request.path.server_id',
                    'command_id': '$response.body#/command/uuid',
                },
            }
            for linked in _LINKS[name]
        }
    return answered


def _plain(schema: Any) -> Any:
    """Return a schema with patterns in place of formats of our own."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(value) for name, value in schema.items()}
    wanted = plain.pop('format', None)
    if wanted in validation.PATTERNS:
        plain['pattern'] = validation.PATTERNS[wanted]
    return plain
