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

"""What is accepted, and what is answered.

A request schema is closed: what it does not name is refused. Descriptions are
those of the api-ref.
"""

from typing import Any

from guest_agent_ext import command
from guest_agent_ext.api import validation

# A plain $ would let a newline follow.
_ENV_NAME = r'^[A-Za-z_][A-Za-z0-9_]*$(?!\n)'

_text = {'type': 'string', 'format': validation.UNICODE_WITHOUT_NUL}
_seconds = {'type': 'integer', 'minimum': 1, 'maximum': command.MAX_TIMEOUT}


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return dict(schema, description=description)


def _closed(properties: dict[str, Any],
            required: list[str] | None = None) -> dict[str, Any]:
    """An object with these properties and no others, all of them required."""
    return {'type': 'object', 'properties': properties,
            'required': list(properties) if required is None else required,
            'additionalProperties': False}


_exec_arguments = _closed({
    'command': {
        'type': 'array', 'minItems': 1, 'maxItems': command.MAX_ARGUMENTS,
        'prefixItems': [dict(_text, minLength=1)], 'items': _text,
        'description': 'The program and its arguments. No shell reads them.',
    },
    'input_data': {
        'type': 'string', 'format': validation.UNICODE,
        'description': 'What the command reads from its stdin. Without it '
                       'stdin is empty.',
    },
    'input_encoding': {
        'type': 'string', 'enum': ['utf-8', 'base64'],
        'description': 'How input_data stands for bytes. Default: utf-8.',
    },
    'env': {
        'type': 'object', 'patternProperties': {_ENV_NAME: _text},
        'additionalProperties': False,
        'description': 'Variables added to the environment.',
    },
    'cwd': _described(dict(_text, minLength=1, maxLength=4096),
                      'The directory in which the command starts.'),
    'timeout': _described(
        _seconds, 'Seconds from its start after which the command and all '
                  'its children are killed.'),
    'start_timeout': _described(
        _seconds, 'Seconds from now within which the command must start; '
                  'after that it never will.'),
    'output_keep': {
        'type': 'string', 'enum': ['head', 'tail'],
        'description': 'Which end of the output is kept. Default: head.',
    },
}, required=['command'])

create = _closed({
    'command': _closed({
        'type': {'type': 'string', 'enum': [command.EXEC],
                 'description': 'What kind of command it is.'},
        'arguments': _exec_arguments,
    }),
})


def _parameter(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A query parameter, given at most once."""
    return {'type': 'array', 'items': schema, 'maxItems': 1,
            'description': description}


no_query = _closed({})

index_query = _closed({
    'limit': _parameter(
        {'type': 'string', 'pattern': '^[0-9]{1,9}$'},
        'How many commands to list at most. [api] max_limit bounds it.'),
    'marker': _parameter(
        {'type': 'string', 'pattern': '^[0-9a-f-]{36}$'},
        'List commands older than the one with this uuid.'),
    'status': _parameter(
        {'type': 'string', 'enum': list(command.STATUSES)},
        'List only commands in this state.'),
    'type': _parameter(
        {'type': 'string', 'enum': list(command.TYPES)},
        'List only commands of this type.'),
}, required=[])

_string = {'type': 'string'}
_time = {'type': 'string',
         'pattern': r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$'}
_encoding = {'type': 'string', 'enum': ['utf-8', 'base64']}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return dict(schema, type=[schema['type'], 'null'])


_count = {'type': 'integer', 'minimum': 0}

_shown_arguments = _closed({
    'command': {'type': 'array', 'items': _string},
    'cwd': _string,
    'timeout': {'type': 'integer'},
    'start_timeout': {'type': 'integer'},
    'output_keep': _string,
    'env': _described({'type': 'array', 'items': _string},
                      'The names; values are never shown.'),
    'input_bytes': _described(_count, 'The size of stdin.'),
}, required=['command'])

_result = {
    'pid': _described(_or_null(_count),
                      'The process id of the command in the guest.'),
    'exitcode': _described(
        _or_null({'type': 'integer'}),
        'Null if a signal ended it, or it was killed before it could tell.'),
    'signal': _or_null({'type': 'integer'}),
    'out_truncated': _described(
        {'type': 'boolean'}, 'Whether bytes are missing from out_data.'),
    'err_truncated': _described(
        {'type': 'boolean'}, 'Whether bytes are missing from err_data.'),
    'out_bytes': _described(
        _or_null(_count), 'Bytes that the command wrote to stdout, kept or '
                          'not. Null where the guest could not count.'),
    'err_bytes': _described(
        _or_null(_count), 'The same of stderr.'),
}
_output = {
    'out_data': _described(_string, 'What is kept of stdout.'),
    'out_encoding': _described(
        _encoding, 'How out_data stands for bytes: utf-8 where they are '
                   'valid UTF-8, else base64.'),
    'err_data': _described(_string, 'What is kept of stderr.'),
    'err_encoding': _described(_encoding, 'The same of err_data.'),
}

_metadata = {
    'uuid': _string,
    'type': {'type': 'string', 'enum': list(command.TYPES)},
    'instance_uuid': _string,
    'status': {'type': 'string', 'enum': list(command.STATUSES)},
    'created_at': _time,
    'updated_at': _or_null(_time),
    'started_at': _or_null(_time),
    'finished_at': _or_null(_time),
    'error': _described(_or_null(_string), 'Why it did not complete.'),
    'project_id': _string,
    'user_id': _string,
    'request_id': _or_null(_string),
}


def _command(result: dict[str, Any]) -> dict[str, Any]:
    return _closed({
        **_metadata,
        'result': _or_null(_closed(result, required=list(_result))),
        'arguments': _described(
            _shown_arguments, 'What was asked. Absent for those whom the '
                              'policy does not let run commands.'),
        'host': _described(
            _string, 'Where the server was when last seen. For admins.'),
    }, required=[*_metadata, 'result'])


show_response = _closed({'command': _command({**_result, **_output})})

index_response = _closed({
    'commands': {'type': 'array', 'items': _command(_result)},
    'commands_links': {
        'type': 'array',
        'items': _closed({'rel': {'const': 'next'}, 'href': _string}),
        'description': 'Where the list goes on. Absent at its end.',
    },
}, required=['commands'])

hosts_response = _closed({
    'hosts': {'type': 'array', 'items': _closed({
        'host': _string,
        'cell': _described(_string, 'The uuid of its cell.'),
        'state': {'type': 'string', 'enum': ['up', 'down']},
        'version': _string,
        'last_seen_at': _time,
        'running': _count,
        'pending': _count,
    })},
})
