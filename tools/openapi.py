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

"""The API as an OpenAPI document, from the declarations in the code.

``python -m tools.samples`` writes it; ``document()`` returns it. A schema that
a method is checked against is what stands here: nothing is written twice.
"""

from typing import Any

from guest_agent_ext.api import routes
from guest_agent_ext.api import schemas
from guest_agent_ext.api import validation

_OPENAPI = '3.1.0'
_JSON, _BYTES = 'application/json', 'application/octet-stream'

#: What stands in a path.
_PATH_PARAMETERS = {
    'server_id': 'The uuid of the server.',
    'command_id': 'The uuid of the command.',
}

_UUID = {'type': 'string', 'format': 'uuid'}

_FAULT = {
    'type': 'object',
    'minProperties': 1,
    'maxProperties': 1,
    'description': 'Why it was refused, under the name that Nova has for the '
    'code.',
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
        'command again, and starts nothing.',
    },
    'Prefer': {
        'schema': {'type': 'string', 'examples': ['wait=5']},
        'description': 'wait=N: answer when the command has ended, or after N '
        'seconds. Anything else is ignored (RFC 7240).',
    },
    'Range': {
        'schema': {'type': 'string', 'examples': ['bytes=0-99']},
        'description': 'One range of bytes. Anything else is ignored '
        '(RFC 9110).',
    },
}

#: Headers by the controller's method.
_HEADERS_OF = {
    'CommandsController.create': ('Idempotency-Key', 'Prefer'),
    'CommandsController.show': ('Prefer',),
    'FilesController.read': ('Range',),
}

#: What answers bytes, and with which status beside its usual one.
_RAW: dict[str, tuple[int, ...]] = {
    'CommandsController.output': (),
    'FilesController.read': (206,),
}
#: What takes bytes.
_TAKES_BYTES = ('FilesController.write',)


#: Calls that take the uuid of what another one has answered.
_LINKS = {
    'CommandsController.create': (
        'CommandsController.show',
        'CommandsController.output',
        'CommandsController.cancel',
        'CommandsController.delete',
    )
}


def document() -> dict[str, Any]:
    """Return the document, as what json.dumps() takes."""
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
            'responses': {
                'Fault': {
                    'description': 'It was refused.',
                    'content': {
                        _JSON: {
                            'schema': {'$ref': '#/components/schemas/Fault'}
                        }
                    },
                }
            },
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
        'responses': _responses(name, method),
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
            'schema': _UUID,
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
            'schema': _plain(parameter['items']),
        }
        for name, parameter in schema['properties'].items()
    ]


def _header(name: str) -> dict[str, Any]:
    return {'name': name, 'in': 'header', 'required': False, **_HEADERS[name]}


def _request_body(name: str, method: Any) -> dict[str, Any]:
    if name in _TAKES_BYTES:
        return {_BYTES: {'schema': {'type': 'string', 'format': 'binary'}}}
    schema = method.schemas.get('request_body_schemas')
    return {_JSON: {'schema': _plain(schema)}} if schema else {}


def _responses(name: str, method: Any) -> dict[str, Any]:
    usual = _usual(name, method)
    return {
        **{
            str(code): usual
            for code in (method.success_code, *_RAW.get(name, ()))
        },
        # Of the filters before ours.
        '401': {'description': 'No token, or one that is not valid.'},
        **{
            str(code): {'$ref': '#/components/responses/Fault'}
            for code in sorted({*method.expected_codes, 415})
        },
    }


def _usual(name: str, method: Any) -> dict[str, Any]:
    """Return what is answered when nothing is refused."""
    answered: dict[str, Any] = {'description': 'It was done.'}
    if name in _RAW:
        answered['content'] = {
            _BYTES: {'schema': {'type': 'string', 'format': 'binary'}}
        }
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
    """Say with patterns what only we have a format for."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(value) for name, value in schema.items()}
    wanted = plain.pop('format', None)
    if wanted in validation.PATTERNS:
        plain['pattern'] = validation.PATTERNS[wanted]
    return plain
