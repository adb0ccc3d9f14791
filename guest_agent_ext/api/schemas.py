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

#: Of times, in UTC.
TIME_FORMAT = '%Y-%m-%dT%H:%M:%SZ'

_text = {'type': 'string', 'format': validation.UNICODE_WITHOUT_NUL}
_time = {'type': 'string', 'pattern': r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$'}
_seconds = {'type': 'integer', 'minimum': 1, 'maximum': command.MAX_TIMEOUT}


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return dict(schema, description=description)


def _closed(
    properties: dict[str, Any], required: list[str] | None = None
) -> dict[str, Any]:
    """An object with these properties and no others, all of them required."""
    return {
        'type': 'object',
        'properties': properties,
        'required': list(properties) if required is None else required,
        'additionalProperties': False,
    }


exec_arguments = _closed(
    {
        'command': {
            'type': 'array',
            'minItems': 1,
            'maxItems': command.MAX_ARGUMENTS,
            'prefixItems': [dict(_text, minLength=1)],
            'items': _text,
            'description': 'The program and its arguments. They are passed on as '
            'they are; no shell reads them.',
        },
        'input_data': {
            'type': 'string',
            'format': validation.UNICODE,
            'description': 'What the command reads from its stdin. Without it '
            'stdin is empty. Together with command and env at '
            'most %d bytes.' % command.MAX_INPUT_BYTES,
        },
        'input_encoding': {
            'type': 'string',
            'enum': ['utf-8', 'base64'],
            'description': 'How input_data stands for bytes. Default: utf-8.',
        },
        'env': {
            'type': 'object',
            'patternProperties': {_ENV_NAME: _text},
            'additionalProperties': False,
            'description': 'Variables added to the environment that the command '
            'has anyway (PATH, HOME, LANG).',
        },
        'cwd': _described(
            dict(_text, minLength=1, maxLength=4096),
            'The directory in which the command starts.',
        ),
        'timeout': _described(
            _seconds,
            'Seconds from its start after which the command and all '
            'its children are killed.',
        ),
        'start_timeout': _described(
            _seconds,
            'Seconds from now within which the command must start; '
            'after that it never will.',
        ),
        'output_keep': {
            'type': 'string',
            'enum': ['head', 'tail'],
            'description': 'Which end of the output is kept. Default: head.',
        },
    },
    required=['command'],
)

create = _closed(
    {
        'command': _described(
            _closed(
                {
                    'type': {
                        'type': 'string',
                        'enum': [command.EXEC],
                        'description': 'What kind of command it is.',
                    },
                    'arguments': _described(
                        exec_arguments, 'What to run, and how.'
                    ),
                }
            ),
            'The command.',
        )
    }
)

cancel = _closed(
    {'cancel': {'type': 'null', 'description': 'What to do with it.'}}
)

#: The answer of what answers nothing.
no_response = {'type': 'null'}


def _parameter(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A query parameter, given at most once."""
    return {
        'type': 'array',
        'items': schema,
        'maxItems': 1,
        'description': description,
    }


no_query = _closed({})

index_query = _closed(
    {
        'limit': _parameter(
            {'type': 'string', 'pattern': '^[0-9]{1,9}$'},
            'How many commands to list at most. [api] max_limit bounds it.',
        ),
        'marker': _parameter(
            {'type': 'string', 'pattern': '^[0-9a-f-]{36}$'},
            'List commands older than the one with this uuid.',
        ),
        'status': _parameter(
            {'type': 'string', 'enum': list(command.STATUSES)},
            'List only commands in this state.',
        ),
        'type': _parameter(
            {'type': 'string', 'enum': list(command.TYPES)},
            'List only commands of this type.',
        ),
    },
    required=[],
)

index_all_query = _closed(
    {
        **{
            name: index_query['properties'][name]
            for name in ('limit', 'marker', 'status')
        },
        'all_projects': _parameter(
            {'type': 'string', 'enum': ['true', 'false']},
            'Whether to list commands of all projects. For admins.',
        ),
        'project_id': _parameter(
            {'type': 'string', 'minLength': 1, 'maxLength': 255},
            'List commands of servers of this project. For admins.',
        ),
        'host': _parameter(
            {'type': 'string', 'minLength': 1, 'maxLength': 255},
            'List commands of servers on this host. For admins.',
        ),
        'since': _parameter(
            _time, 'List commands accepted at this time or later, in UTC.'
        ),
    },
    required=[],
)

output_query = _closed(
    {
        'stream': _parameter(
            {'type': 'string', 'enum': ['out', 'err']},
            'Which stream. Default: out.',
        ),
        'offset': _parameter(
            {'type': 'string', 'pattern': '^[0-9]{1,18}$'},
            'How many bytes that the command wrote to it are left out. '
            'Default: 0.',
        ),
    },
    required=[],
)

_path = _parameter(
    {'type': 'string', 'format': validation.PATH},
    'The file: an absolute POSIX or Windows path. Symbolic links are '
    'followed. Nova logs it with the request.',
)

file_read_query = _closed({'path': _path})

file_write_query = _closed(
    {
        'path': _path,
        'mode': _parameter(
            {'type': 'string', 'pattern': r'^[0-7]{3,4}$(?!\n)'},
            'The permissions that the file is to have, as octal digits. Default: '
            'those of the file that it replaces, and 0644 for a new one. Not for '
            'Windows.',
        ),
        'append': _parameter(
            {'type': 'string', 'enum': ['true', 'false']},
            'Whether the body is written behind what the file has, which is not '
            'all or nothing. Default: false.',
        ),
    },
    required=['path'],
)

_string = {'type': 'string'}
_integer = {'type': 'integer'}
_count = {'type': 'integer', 'minimum': 0}
_flag = {'type': 'boolean'}
_type = {'type': 'string', 'enum': list(command.TYPES)}
_status = {'type': 'string', 'enum': list(command.STATUSES)}
_encoding = {'type': 'string', 'enum': ['utf-8', 'base64']}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return dict(schema, type=[schema['type'], 'null'])


shown_arguments = _closed(
    {
        'command': {
            'type': 'array',
            'items': _string,
            'description': 'The program and its arguments.',
        },
        'cwd': _described(_string, 'As asked for.'),
        'timeout': _described(_integer, 'As asked for.'),
        'start_timeout': _described(_integer, 'As asked for.'),
        'output_keep': _described(_string, 'As asked for.'),
        'env': {
            'type': 'array',
            'items': _string,
            'description': 'The names; values are never shown.',
        },
        'input_bytes': _described(_count, 'The size of stdin.'),
    },
    required=['command'],
)

shown_transfer = _closed(
    {
        'path': _described(_string, 'The file.'),
        'size': _described(_count, 'Bytes of what is written.'),
        'mode': _described(_string, 'As asked for.'),
        'append': _described(_flag, 'As asked for.'),
    },
    required=['path'],
)

_ended = {
    'pid': _described(
        _or_null(_count), 'The process id of the command in the guest.'
    ),
    'exitcode': _described(
        _or_null(_integer),
        'Null if a signal ended it, or it was killed before it could tell.',
    ),
    'signal': _described(
        _or_null(_integer), 'The signal that ended it, if one did.'
    ),
    'out_truncated': _described(
        _flag, 'Whether bytes of stdout are missing from out_data.'
    ),
    'err_truncated': _described(
        _flag, 'Whether bytes of stderr are missing from err_data.'
    ),
    'out_bytes': _described(
        _or_null(_count),
        'Bytes that the command wrote to stdout, kept or '
        'not; null where the guest could not count.',
    ),
    'err_bytes': _described(
        _or_null(_count),
        'Bytes that the command wrote to stderr, kept or '
        'not; null where the guest could not count.',
    ),
}
_output = {
    'out_data': _described(
        _string,
        'What is kept of stdout. Of both streams together %d bytes '
        'are, of each at least half of that if it needs them.'
        % command.MAX_OUTPUT_BYTES,
    ),
    'out_encoding': _described(
        _encoding,
        'How out_data stands for bytes: utf-8 where they are '
        'valid UTF-8, else base64.',
    ),
    'err_data': _described(_string, 'What is kept of stderr.'),
    'err_encoding': _described(_encoding, 'How err_data stands for bytes.'),
}
result = _closed({**_ended, **_output}, required=list(_ended))

_metadata = {
    'uuid': _described(_string, 'The uuid of the command.'),
    'type': _described(_type, 'What kind of command it is.'),
    'instance_uuid': _described(_string, 'The uuid of the server.'),
    'status': _described(_status, 'The state of the command.'),
    'created_at': _described(_time, 'When it was accepted.'),
    'updated_at': _described(
        _or_null(_time), 'When it last changed; null until then.'
    ),
    'started_at': _described(
        _or_null(_time), 'When it started in the guest, if it did.'
    ),
    'finished_at': _described(_or_null(_time), 'When its end was recorded.'),
    'error': _described(
        _or_null(_string), 'Why it did not complete; null when it did.'
    ),
    'project_id': _described(_string, 'The project that asked for it.'),
    'user_id': _described(_string, 'The user who asked for it.'),
    'request_id': _described(
        _or_null(_string), 'The request that asked for it.'
    ),
}


def _command(result: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        {
            **_metadata,
            'result': _described(
                _or_null(result),
                'What came of it; null until it has ended, '
                'if it never started, and for files.',
            ),
            'arguments': _described(
                {'anyOf': [shown_arguments, shown_transfer]},
                'What was asked. Absent for those whom the policy does not let '
                'run commands.',
            ),
            'host': _described(
                _string,
                'Where the server was when last seen. Absent for those '
                'who are not admins.',
            ),
        },
        required=[*_metadata, 'result'],
    )


show_response = _closed(
    {'command': _described(_command(result), 'The command.')}
)

index_response = _closed(
    {
        'commands': {
            'type': 'array',
            'items': _command(_closed(_ended)),
            'description': 'The commands, newest first, without their output.',
        },
        'commands_links': {
            'type': 'array',
            'items': _closed(
                {
                    'rel': _described(
                        {'const': 'next'}, 'What the link is to.'
                    ),
                    'href': _described(_string, 'The URL of the next page.'),
                }
            ),
            'description': 'Where the list goes on. Absent at its end.',
        },
    },
    required=['commands'],
)

agent = _closed(
    {
        'status': {
            'type': 'string',
            'enum': ['available', 'unavailable'],
            'description': 'Whether a command can be run now.',
        },
        'reason': _described(
            _or_null(_string),
            'Why none can, and what to do about it; null while one can.',
        ),
        'version': _described(
            _or_null(_string),
            'The version of the guest agent; null where it '
            'was not told, as in the rest.',
        ),
        'os': _described(
            _or_null(_string), 'What the guest calls its operating system.'
        ),
        'supported_commands': dict(
            type=['array', 'null'],
            items=_string,
            description='The calls that the guest lets its agent answer.',
        ),
        'execution': _described(
            {'enum': ['guarded', 'direct', None]},
            'How commands run: guarded keeps every promise; direct, which an '
            'operator may permit for guests that have nothing better, bounds no '
            'output and may lose a result.',
        ),
    }
)

agent_response = _closed(
    {'guest_agent': _described(agent, 'The guest agent of the server.')}
)

host = _closed(
    {
        'host': _described(_string, 'The name of the compute host.'),
        'cell': _described(_string, 'The uuid of its cell.'),
        'state': {
            'type': 'string',
            'enum': ['up', 'down'],
            'description': 'Whether the service was heard of lately.',
        },
        'version': _described(_string, 'The release that it runs.'),
        'last_seen_at': _described(_time, 'When it was last heard of.'),
        'running': _described(
            _count, 'Commands that are running in servers on the host.'
        ),
        'pending': _described(
            _count, 'Commands that wait to start in servers on the host.'
        ),
    }
)

hosts_response = _closed(
    {
        'hosts': {
            'type': 'array',
            'items': host,
            'description': 'The services, by cell and host.',
        }
    }
)
