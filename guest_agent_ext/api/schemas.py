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

"""The JSON schemas of requests and answers.

A request schema is closed: unknown fields are refused. The api-ref shows the
descriptions.
"""

from guest_agent_ext import command
from guest_agent_ext import details
from guest_agent_ext import run
from guest_agent_ext.api import validation

# A plain $ would accept a newline at the end.
_ENV_NAME = r'^[A-Za-z_][A-Za-z0-9_]*$(?!\n)'
#: Names and numbers that a passwd may have; none is taken for an option.
#: Control characters are named: engines differ in which of them are spaces.
_CONTROL = r'\x00-\x1f\x7f-\x9f\ufeff'
_USER = rf'^[^\s:/{_CONTROL}-][^\s:/{_CONTROL}]*$(?!\n)'

#: One line, as authorized_keys has them.
_KEY = rf'^[^\s#{_CONTROL}][^\x00-\x1f\x7f]*$(?!\n)'

#: The format of times, which are in UTC.
TIME_FORMAT = '%Y-%m-%dT%H:%M:%SZ'

_text = {'type': 'string', 'format': validation.UNICODE_WITHOUT_NUL}
_time = {'type': 'string', 'pattern': r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$'}
_seconds = {'type': 'integer', 'minimum': 1, 'maximum': command.MAX_TIMEOUT}


def _described(
    schema: validation.Schema, description: str
) -> validation.Schema:
    return dict(schema, description=description)


def _closed(
    properties: validation.Schema, required: list[str] | None = None
) -> validation.Schema:
    """Return the schema of an object without other properties.

    :param required: names of the required properties, None for all
    """
    return {
        'type': 'object',
        'properties': properties,
        'required': list(properties) if required is None else required,
        'additionalProperties': False,
    }


_cells = {
    'type': 'integer',
    'minimum': 1,
    'maximum': command.MAX_TERMINAL_SIZE,
}

exec_arguments = _closed(
    {
        'command': {
            'type': 'array',
            'minItems': 1,
            'maxItems': command.MAX_ARGUMENTS,
            'prefixItems': [dict(_text, minLength=1)],
            'items': _text,
            'description': 'The program and its arguments. They are passed on '
            'unchanged, without a shell. Together with env at '
            'most %d bytes.' % command.MAX_ARGUMENT_BYTES,
        },
        'input_data': {
            'type': 'string',
            'format': validation.UNICODE,
            'description': 'The stdin of the command, at most %d bytes. '
            'Default: '
            'empty.' % command.MAX_INPUT_BYTES,
        },
        'input_encoding': {
            'type': 'string',
            'enum': ['utf-8', 'base64'],
            'description': 'The encoding of input_data. Default: utf-8.',
        },
        'env': {
            'type': 'object',
            'patternProperties': {_ENV_NAME: _text},
            'additionalProperties': False,
            'description': 'Variables to add to the environment of the '
            'command, '
            'which always has PATH, HOME and LANG.',
        },
        'cwd': _described(
            dict(_text, minLength=1, maxLength=4096),
            'The directory in which the command starts. Default: /.',
        ),
        'user': _described(
            {'type': 'string', 'pattern': _USER, 'maxLength': 255},
            'The user of the guest that the command runs as, by name or '
            'number. '
            'Groups, HOME, USER, LOGNAME and SHELL are those of the user in '
            'the '
            "guest. Default: the guest agent's user, usually root.",
        ),
        'timeout': _described(
            _seconds,
            'Seconds from the start of the command after which all its '
            'processes are killed.',
        ),
        'start_timeout': _described(
            _seconds,
            'Seconds from now within which the command must start, also in '
            'a server that is still being built or booted. A command that has '
            'not started by then never starts.',
        ),
        'output_keep': {
            'type': 'string',
            'enum': ['head', 'tail'],
            'description': 'The end of the output that is kept. Default: '
            'head.',
        },
        'attach': _described(
            {'type': 'boolean'},
            'Whether clients stream stdin and output while the command runs. '
            'Default: false, or true if there is a terminal.',
        ),
        'terminal': _described(
            _closed(
                {
                    'columns': _described(_cells, 'Its columns.'),
                    'rows': _described(_cells, 'Its rows.'),
                    'term': {
                        'type': 'string',
                        'pattern': r'^[A-Za-z0-9._+-]{1,64}$(?!\n)',
                        'description': 'The value of TERM, unless env has '
                        'one. Default: xterm.',
                    },
                },
                required=['columns', 'rows'],
            ),
            'The terminal that the command gets; it is attached then, and its '
            'one stream is out.',
        ),
        'detach': _described(
            {'type': 'boolean'},
            'Whether an attached command goes on without a client. Default: '
            'false.',
        ),
    },
    required=['command'],
)

_guest_user = _described(
    {'type': 'string', 'pattern': _USER, 'maxLength': 255},
    'The name of the user of the guest.',
)
_keys = {
    'type': 'array',
    'minItems': 1,
    'maxItems': command.MAX_KEYS,
    'items': {'type': 'string', 'pattern': _KEY, 'maxLength': details.MAX_KEY},
    'description': 'The public keys, each one line of authorized_keys. '
    'Together at most %d bytes.' % command.MAX_KEY_BYTES,
}
_start_timeout = exec_arguments['properties']['start_timeout']

#: The arguments of each type of command that is posted.
ARGUMENTS: dict[str, validation.Schema] = {
    command.EXEC: exec_arguments,
    command.SET_PASSWORD: _closed(
        {
            'user': _guest_user,
            'password': {
                'type': 'string',
                'format': validation.PASSWORD,
                'minLength': 1,
                'maxLength': command.MAX_PASSWORD,
                'description': 'The new password: one line. Never shown, and '
                'erased when the command has ended.',
            },
            'crypted': {
                'type': 'boolean',
                'description': 'Whether password is the hash that the '
                "guest's system stores, as crypt(3) makes it. Default: "
                'false.',
            },
            'start_timeout': _start_timeout,
        },
        required=['user', 'password'],
    ),
    command.SSH_KEYS_ADD: _closed(
        {
            'user': _guest_user,
            'keys': _keys,
            'reset': {
                'type': 'boolean',
                'description': 'Whether to remove all other keys of the '
                'user. Default: false.',
            },
            'start_timeout': _start_timeout,
        },
        required=['user', 'keys'],
    ),
    command.SSH_KEYS_REMOVE: _closed(
        {'user': _guest_user, 'keys': _keys, 'start_timeout': _start_timeout},
        required=['user', 'keys'],
    ),
    command.FSTRIM: _closed(
        {
            'minimum': {
                'type': 'integer',
                'minimum': 0,
                'maximum': command.MAX_TRIM,
                'description': 'The size in bytes of the smallest free range '
                'to discard. Default: 0, for all.',
            },
            'start_timeout': _start_timeout,
        },
        required=[],
    ),
}


def _by_type(kind: str, arguments: validation.Schema) -> validation.Schema:
    """Return the schema that a command of one type fits."""
    return {
        'if': {'properties': {'type': {'const': kind}}},
        'then': {
            'properties': {
                'arguments': _described(
                    arguments, 'The arguments of the command, by its type.'
                )
            }
        },
    }


create = _closed(
    {
        'command': {
            **_closed(
                {
                    'type': {
                        'type': 'string',
                        'enum': list(ARGUMENTS),
                        'description': 'The type of the command.',
                    },
                    'arguments': {
                        'description': 'The arguments of the command, by its '
                        'type.'
                    },
                }
            ),
            'allOf': [
                _by_type(kind, arguments)
                for kind, arguments in ARGUMENTS.items()
            ],
            'description': 'The command.',
        }
    }
)

_PERCENT = r'^(100|[1-9][0-9]?)%$(?!\n)'
#: A tag, and the name of an item of metadata, as Nova has them.
_TAG = r'^[^,/]*$(?!\n)'
_METADATA = r'^[a-zA-Z0-9_:. -]{1,255}$(?!\n)'
#: The arguments of an exec by which clients stream to it and from it: there is
#: nobody who would do that for many servers.
_ATTACHED = ('attach', 'terminal', 'detach')


def _detached(arguments: validation.Schema) -> validation.Schema:
    """Return the schema of an exec without what attaches clients."""
    return _closed(
        {
            name: value
            for name, value in arguments['properties'].items()
            if name not in _ATTACHED
        },
        required=arguments['required'],
    )


_run_arguments: dict[str, validation.Schema] = {
    **ARGUMENTS,
    command.EXEC: _detached(exec_arguments),
}

run_targets = {
    **_closed(
        {
            'servers': {
                'type': 'array',
                'items': {
                    'type': 'string',
                    'pattern': '^[0-9a-fA-F-]{32,36}$(?!\n)',
                },
                'minItems': 1,
                'maxItems': run.MAX_LISTED,
                'description': 'The uuids of servers, which are targets '
                'whatever their tags and metadata are. Each must exist.',
            },
            'tags': {
                'type': 'array',
                'items': dict(_text, pattern=_TAG, minLength=1, maxLength=60),
                'minItems': 1,
                'maxItems': run.MAX_TAGS,
                'description': 'The servers with all of these tags, and with '
                'all of metadata.',
            },
            'metadata': {
                'type': 'object',
                'patternProperties': {_METADATA: dict(_text, maxLength=255)},
                'additionalProperties': False,
                'minProperties': 1,
                'maxProperties': run.MAX_TAGS,
                'description': 'The servers with all of this metadata, and '
                'with all of tags.',
            },
        },
        required=[],
    ),
    'minProperties': 1,
}

run_create = _closed(
    {
        'run': {
            **_closed(
                {
                    'name': _described(
                        dict(_text, minLength=1, maxLength=run.MAX_NAME),
                        'A name for the run, which need not be unique.',
                    ),
                    'targets': _described(
                        run_targets,
                        'The servers of the project in which the command is '
                        'to run. They are found once, now.',
                    ),
                    'allow_missing_cells': _described(
                        {'type': 'boolean'},
                        'Whether to leave out the servers of a cell that is '
                        'down, of which nobody can tell whether they have the '
                        'tags and the metadata. Default: false, the run is '
                        'refused then.',
                    ),
                    'max_concurrency': {
                        'type': ['integer', 'string'],
                        'minimum': 1,
                        'maximum': run.MAX_CONCURRENCY,
                        'pattern': _PERCENT,
                        'description': 'Maximum number of unfinished commands '
                        'of the run, or a percentage of its targets (25%%). '
                        'Default: %d.' % run.DEFAULT_CONCURRENCY,
                    },
                    'max_errors': {
                        'type': ['integer', 'string'],
                        'minimum': 1,
                        'maximum': run.MAX_ERRORS,
                        'pattern': _PERCENT,
                        'description': 'Number of errors, or a percentage of '
                        'the targets, after which nothing more is released. '
                        'Default: none.',
                    },
                    'type': {
                        'type': 'string',
                        'enum': list(_run_arguments),
                        'description': 'The type of the commands.',
                    },
                    'arguments': {
                        'description': 'The arguments of the commands, by '
                        'their type.'
                    },
                },
                required=['targets', 'type', 'arguments'],
            ),
            'allOf': [
                _by_type(kind, arguments)
                for kind, arguments in _run_arguments.items()
            ],
            'description': 'The run.',
        }
    }
)

run_action = _closed(
    {
        'cancel': {
            'type': 'null',
            'description': 'The action that ends the run.',
        }
    }
)

action = {
    **_closed(
        {
            'cancel': {
                'type': 'null',
                'description': 'The action that ends the command.',
            },
            'resize': _described(
                _closed(
                    {
                        'columns': _described(_cells, 'Its columns.'),
                        'rows': _described(_cells, 'Its rows.'),
                    }
                ),
                'The action that sets the size of the terminal of an attached '
                'command.',
            ),
            'signal': {
                'type': 'string',
                'enum': list(command.SIGNALS),
                'description': 'The action that sends a signal to the process '
                'group of the command.',
            },
        },
        required=[],
    ),
    'minProperties': 1,
    'maxProperties': 1,
}

#: The answer without a body.
no_response = {'type': 'null'}


def _parameter(
    schema: validation.Schema, description: str
) -> validation.Schema:
    """Return the schema of a query parameter that is given at most once."""
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
            'Maximum number of commands to list. A page is also limited by '
            '[api] '
            'max_limit and to about 1 MiB.',
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

project_commands_query = _closed(
    {
        **{
            name: index_query['properties'][name]
            for name in ('limit', 'marker', 'status')
        },
        'all_projects': _parameter(
            {'type': 'string', 'enum': ['true', 'false']},
            'Whether to list commands of all projects, unless project_id '
            'names '
            'one. For admins.',
        ),
        'project_id': _parameter(
            {'type': 'string', 'minLength': 1, 'maxLength': 255},
            "List commands of this project's servers instead of those of the "
            "caller's project. For admins.",
        ),
        'host': _parameter(
            {'type': 'string', 'minLength': 1, 'maxLength': 255},
            "List only commands of servers on this host; of the caller's "
            'project, unless all_projects or project_id is given. For admins.',
        ),
        'since': _parameter(
            _time, 'List only commands accepted at this time (UTC) or later.'
        ),
    },
    required=[],
)

runs_query = _closed(
    {
        'limit': _parameter(
            {'type': 'string', 'pattern': '^[0-9]{1,9}$'},
            'Maximum number of runs to list. A page is also limited by [api] '
            'max_limit and to about 1 MiB.',
        ),
        'marker': _parameter(
            {'type': 'string', 'pattern': '^[0-9a-f-]{36}$'},
            'List runs older than the one with this uuid.',
        ),
        'status': _parameter(
            {'type': 'string', 'enum': list(run.STATUSES)},
            'List only runs in this state.',
        ),
        'all_projects': _parameter(
            {'type': 'string', 'enum': ['true', 'false']},
            'Whether to list runs of all projects, unless project_id names '
            'one. For admins.',
        ),
        'project_id': _parameter(
            {'type': 'string', 'minLength': 1, 'maxLength': 255},
            "List runs of this project instead of those of the caller's "
            'project. For admins.',
        ),
    },
    required=[],
)

run_commands_query = _closed(
    {
        **{
            name: index_query['properties'][name]
            for name in ('limit', 'marker')
        },
        'status': {
            'type': 'array',
            'items': {'type': 'string', 'enum': list(command.STATUSES)},
            'maxItems': len(command.STATUSES),
            'description': 'List only commands in this state. May be given '
            'several times, for any of these states.',
        },
        'server': {
            'type': 'array',
            'items': {'type': 'string', 'pattern': '^[0-9a-f-]{36}$'},
            'maxItems': run.MAX_FILTERED,
            'description': 'List only the command of the server with this '
            'uuid. May be given several times, for any of these servers.',
        },
    },
    required=[],
)

_client = _parameter(
    {'type': 'string', 'pattern': r'^[A-Za-z0-9_-]{1,64}$(?!\n)'},
    'The name that the client of an attached command gives itself, best a '
    'random one. Requests without it are one client.',
)
_take_over = _parameter(
    {'type': 'string', 'enum': ['true', 'false']},
    'Whether to take the place of another client that is attached. Default: '
    'false.',
)

output_query = _closed(
    {
        'stream': _parameter(
            {'type': 'string', 'enum': ['out', 'err']},
            'The stream to read. Default: out.',
        ),
        'offset': _parameter(
            {'type': 'string', 'pattern': '^[0-9]{1,18}$'},
            'Number of bytes to skip, counted from the first that the command '
            'wrote to the stream. Default: 0. Of an attached command all '
            'output before it is acknowledged.',
        ),
        'wait': _parameter(
            {'type': 'string', 'pattern': '^[0-9]{1,9}$'},
            'Seconds to wait for output of an attached command, at most '
            '[guest_agent]max_wait. Default: 0.',
        ),
        'client': _client,
        'take_over': _take_over,
    },
    required=[],
)

input_query = _closed(
    {
        'offset': _parameter(
            {'type': 'string', 'pattern': '^[0-9]{1,18}$'},
            'Number of bytes of stdin before the body. Default: 0.',
        ),
        'end': _parameter(
            {'type': 'string', 'enum': ['true', 'false']},
            'Whether stdin ends behind the body. Default: false.',
        ),
        'client': _client,
        'take_over': _take_over,
    },
    required=[],
)

_path = _parameter(
    {'type': 'string', 'format': validation.PATH},
    'The absolute POSIX or Windows path of the file. Symbolic links are '
    'followed. Nova logs the path with the request.',
)

file_read_query = _closed({'path': _path})

file_write_query = _closed(
    {
        'path': _path,
        'mode': _parameter(
            {'type': 'string', 'pattern': r'^[0-7]{3,4}$(?!\n)'},
            'The permissions of the file as octal digits. Default: those of '
            'the '
            'file that is replaced, or 0644. Not for Windows.',
        ),
        'append': _parameter(
            {'type': 'string', 'enum': ['true', 'false']},
            'Whether to append the body to the file. A failure may leave a '
            'part '
            'of the body appended. Default: false.',
        ),
        'owner': _parameter(
            {'type': 'string', 'pattern': _USER, 'maxLength': 255},
            'The user of the guest that the file is to belong to, by name or '
            'number. Default: the owner of the file that is replaced, or the '
            "guest agent's user. A file that is appended to keeps its own. "
            'Not for Windows.',
        ),
        'group': _parameter(
            {'type': 'string', 'pattern': _USER, 'maxLength': 255},
            'The group of the guest that the file is to belong to, by name '
            'or number. Default: the group of the file that is replaced, or '
            'that of the guest agent. A file that is appended to keeps its '
            'own. Not for Windows.',
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


def _or_null(schema: validation.Schema) -> validation.Schema:
    return dict(schema, type=[schema['type'], 'null'])


shown_arguments = _closed(
    {
        'command': {
            'type': 'array',
            'items': _string,
            'description': 'The program and its arguments.',
        },
        'cwd': _described(_string, 'As in the request.'),
        'user': _described(_string, 'As in the request.'),
        'timeout': _described(_integer, 'As in the request.'),
        'start_timeout': _described(_integer, 'As in the request.'),
        'output_keep': _described(_string, 'As in the request.'),
        'env': {
            'type': 'array',
            'items': _string,
            'description': 'The names of the variables; the values are never '
            'shown.',
        },
        'input_bytes': _described(_count, 'The size of stdin in bytes.'),
        'attach': _described(_flag, 'As in the request.'),
        'detach': _described(_flag, 'As in the request.'),
        'terminal': _described(
            _closed(
                {
                    'columns': _described(_count, 'As in the request.'),
                    'rows': _described(_count, 'As in the request.'),
                    'term': _described(_string, 'The value of TERM.'),
                }
            ),
            'The terminal as it was asked for.',
        ),
    },
    required=['command'],
)

shown_transfer = _closed(
    {
        'path': _described(_string, 'The path of the file.'),
        'size': _described(_count, 'The size of the body in bytes.'),
        'mode': _described(_string, 'As in the request.'),
        'append': _described(_flag, 'As in the request.'),
        'owner': _described(_string, 'As in the request.'),
        'group': _described(_string, 'As in the request.'),
    },
    required=['path'],
)

shown_call = _closed(
    {
        'user': _described(_string, 'As in the request.'),
        'crypted': _described(_flag, 'As in the request.'),
        'keys': {
            'type': 'array',
            'items': _string,
            'description': 'As in the request.',
        },
        'reset': _described(_flag, 'As in the request.'),
        'minimum': _described(_count, 'As in the request.'),
        'start_timeout': _described(_integer, 'As in the request.'),
    },
    required=[],
)

_ended = {
    'pid': _described(
        _or_null(_count), 'The process id of the command in the guest.'
    ),
    'exitcode': _described(
        _or_null(_integer),
        'The exit code of the command; null if a signal '
        'ended the command, or if the code is not '
        'known.',
    ),
    'signal': _described(
        _or_null(_integer), 'The signal that ended the command, or null.'
    ),
    'out_truncated': _described(
        _flag, 'Whether bytes of stdout are missing from out_data.'
    ),
    'err_truncated': _described(
        _flag, 'Whether bytes of stderr are missing from err_data.'
    ),
    'out_bytes': _described(
        _or_null(_count),
        'Number of bytes that the command wrote to stdout, '
        'kept or not; null where the guest could not count '
        'them.',
    ),
    'err_bytes': _described(
        _or_null(_count),
        'Number of bytes that the command wrote to stderr, '
        'kept or not; null where the guest could not count '
        'them.',
    ),
}
_output = {
    'out_data': _described(
        _string,
        'The part of stdout that is kept. At most %d bytes of both '
        'streams together are kept; a stream that needs less than '
        'half leaves the rest to the other.' % command.MAX_OUTPUT_BYTES,
    ),
    'out_encoding': _described(
        _encoding,
        'The encoding of out_data: utf-8 if the bytes are valid '
        'UTF-8, else base64.',
    ),
    'err_data': _described(_string, 'The part of stderr that is kept.'),
    'err_encoding': _described(
        _encoding, 'The encoding of err_data, as for out_data.'
    ),
}
result = _closed({**_ended, **_output}, required=list(_ended))

_metadata = {
    'uuid': _described(_string, 'The uuid of the command.'),
    'type': _described(_type, 'The type of the command.'),
    'instance_uuid': _described(_string, 'The uuid of the server.'),
    'status': _described(_status, 'The state of the command.'),
    'created_at': _described(_time, 'When the command was accepted.'),
    'updated_at': _described(
        _or_null(_time),
        'When the command last changed; null until the first change.',
    ),
    'started_at': _described(
        _or_null(_time),
        'When the command started in the guest; null until then.',
    ),
    'finished_at': _described(
        _or_null(_time),
        'When the end of the command was recorded; null until then.',
    ),
    'error': _described(
        _or_null(_string),
        'Why the command did not complete; null if the '
        'command completed. A general sentence for callers '
        'who may not run commands.',
    ),
    'project_id': _described(_string, 'The project of the request.'),
    'user_id': _described(_string, 'The user who made the request.'),
    'request_id': _described(_or_null(_string), 'The id of the request.'),
    'run_uuid': _described(
        _or_null(_string),
        'The uuid of the run that the command is of; null if it was posted by '
        'itself.',
    ),
}


def _command(result: validation.Schema) -> validation.Schema:
    return _closed(
        {
            **_metadata,
            'result': _described(
                _or_null(result),
                'The result of the command; null until the '
                'end, if the command never started, and for '
                'all types but exec.',
            ),
            'arguments': _described(
                {'anyOf': [shown_arguments, shown_transfer, shown_call]},
                'The arguments of the request, without secret ones. Absent '
                'for '
                'callers who may not run commands.',
            ),
            'host': _described(
                _or_null(_string),
                'The host that the server was last seen on; null if it has '
                'not had one. Only for admins.',
            ),
        },
        required=[*_metadata, 'result'],
    )


input_response = _closed(
    {
        'input': _described(
            _closed(
                {
                    'next_offset': _described(
                        _count,
                        'The offset of what is to be sent next: less than '
                        'what was sent where the window is full.',
                    ),
                    'end': _described(
                        _flag,
                        'Whether stdin is closed: its end was told, or the '
                        'command takes no more. With end=true the request is '
                        'repeated until it is.',
                    ),
                }
            ),
            'What was accepted.',
        )
    }
)

show_response = _closed(
    {'command': _described(_command(result), 'The command.')}
)

index_response = _closed(
    {
        'commands': {
            'type': 'array',
            'items': _command(_closed(_ended)),
            'description': 'The commands, newest first, without output.',
        },
        'commands_links': {
            'type': 'array',
            'items': _closed(
                {
                    'rel': _described(
                        {'const': 'next'}, 'The relation of the link.'
                    ),
                    'href': _described(_string, 'The URL of the next page.'),
                }
            ),
            'description': 'The link to the next page. Absent on the last '
            'page.',
        },
    },
    required=['commands'],
)

unattachable = _closed(
    {
        'attach': _described(_string, 'Why no command can be attached.'),
        'terminal': _described(_string, 'Why none can run in a terminal.'),
    },
    required=[],
)

run_counts = _closed(
    {
        name: _described(_count, f'Number of targets {words}.')
        for name, words in run.COUNTED.items()
    }
)

_run = {
    'uuid': _described(_string, 'The uuid of the run.'),
    'name': _described(_or_null(_string), 'The name of the run, or null.'),
    'type': _described(_type, 'The type of the commands.'),
    'status': {
        'type': 'string',
        'enum': list(run.STATUSES),
        'description': 'The state of the run.',
    },
    'targets': _described(_count, 'Number of servers of the run.'),
    'counts': _described(
        run_counts, 'Number of targets by the state of their commands.'
    ),
    'errors': _described(
        _count,
        'Number of errors: of commands that are FAILED, TIMED_OUT or LOST or '
        'have another exit code than 0, and of servers that could not take a '
        'command.',
    ),
    'max_concurrency': _described(
        _count, 'Maximum number of unfinished commands of the run.'
    ),
    'max_errors': _described(
        _or_null(_count),
        'Number of errors after which nothing more is released; null for '
        'none.',
    ),
    'created_at': _described(_time, 'When the run was accepted.'),
    'updated_at': _described(
        _or_null(_time),
        'When the run last changed; null until the first change.',
    ),
    'finished_at': _described(
        _or_null(_time), 'When the run ended; null until then.'
    ),
    'error': _described(
        _or_null(_string),
        'Why not all servers of the request got the command; null if all did.',
    ),
    'project_id': _described(_string, 'The project of the request.'),
    'user_id': _described(_string, 'The user who made the request.'),
    'request_id': _described(_or_null(_string), 'The id of the request.'),
}
run_refused = _described(
    {
        'type': 'array',
        'items': _closed(
            {
                'instance_uuid': _described(
                    _string, 'The uuid of the server.'
                ),
                'error': _described(_string, 'Why it took no command.'),
            }
        ),
    },
    'The servers that could not take a command, at most %d of them.'
    % run.MAX_REFUSED,
)
_run_shown_arguments = _described(
    {'anyOf': [_detached(shown_arguments), shown_call]},
    'The arguments of the request, without secret ones. Absent for callers '
    'who may not run commands.',
)

run_response = _closed(
    {
        'run': _described(
            _closed(
                {
                    **_run,
                    'refused': run_refused,
                    'arguments': _run_shown_arguments,
                },
                required=[*_run, 'refused'],
            ),
            'The run.',
        )
    }
)

runs_response = _closed(
    {
        'runs': {
            'type': 'array',
            'items': _closed(
                {**_run, 'arguments': _run_shown_arguments}, required=[*_run]
            ),
            'description': 'The runs, newest first.',
        },
        'runs_links': index_response['properties']['commands_links'],
    },
    required=['runs'],
)

agent = _closed(
    {
        'status': {
            'type': 'string',
            'enum': ['available', 'unavailable'],
            'description': 'Whether programs can be run now.',
        },
        'reason': _described(
            _or_null(_string),
            'Why programs cannot be run, and what to do about '
            'that; null while they can.',
        ),
        'version': _described(
            _or_null(_string),
            'The version of the guest agent; null if not '
            'known, like the fields below.',
        ),
        'os': _described(
            _or_null(_string), "The guest's name for its operating system."
        ),
        'supported_commands': dict(
            type=['array', 'null'],
            items=_string,
            description='The calls that the guest lets its agent answer.',
        ),
        'execution': _described(
            {'enum': ['guarded', 'direct', None]},
            'How commands run: guarded keeps every promise; direct, which an '
            'operator may permit for guests that support nothing better, does '
            'not bound the output and may lose a result.',
        ),
        'command_types': dict(
            type=['array', 'null'],
            items=_type,
            description='The types of commands that work in the guest. Some '
            'need no program to be run, and work where that is not allowed.',
        ),
        'unavailable': _described(
            _or_null(unattachable),
            'Why attached commands cannot be run; empty if they can.',
        ),
    }
)

agent_response = _closed(
    {'guest_agent': _described(agent, 'The guest agent of the server.')}
)

_names = '|'.join(details.PARTS)

details_query = _closed(
    {
        'fields': _parameter(
            {
                'type': 'string',
                'pattern': f'^({_names})(,({_names}))*$(?!\\n)',
            },
            'The parts to ask for, with commas between them: '
            f'{", ".join(details.PARTS)}. Default: all, but ssh_keys only if '
            'user is given.',
        ),
        'user': _parameter(
            {'type': 'string', 'pattern': _USER, 'maxLength': 255},
            'The user of the guest whose ssh keys are asked for.',
        ),
    },
    required=[],
)

guest_details = _closed(
    {
        **{
            name: _described(part.kind.schema(), part.description)
            for name, part in details.PARTS.items()
        },
        'unavailable': _described(
            _closed(
                {
                    name: _described(_string, f'Why {name} is absent.')
                    for name in details.PARTS
                },
                required=[],
            ),
            'Why a part that was asked for is absent, by its name.',
        ),
    },
    required=['unavailable'],
)

details_response = _closed(
    {
        'guest_agent_details': _described(
            guest_details, 'What the guest agent tells of the guest.'
        )
    }
)

host = _closed(
    {
        'host': _described(_string, 'The name of the compute host.'),
        'cell': _described(_string, 'The uuid of its cell.'),
        'state': {
            'type': 'string',
            'enum': ['up', 'down'],
            'description': 'Whether the service has reported lately.',
        },
        'version': _described(_string, 'The release of the service.'),
        'last_seen_at': _described(_time, 'When the service last reported.'),
        'running': _described(
            _count, 'Number of running commands in servers on the host.'
        ),
        'pending': _described(
            _count,
            'Number of commands that wait to start in servers on the host.',
        ),
    }
)

host_delete_query = _closed(
    {
        'cell': _parameter(
            {'type': 'string', 'pattern': '^[0-9a-f-]{36}$'},
            "The uuid of the host's cell; needed if hosts of several cells "
            'have '
            'this name.',
        )
    },
    required=[],
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
