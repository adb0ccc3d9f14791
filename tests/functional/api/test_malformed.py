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

"""Nothing that a tenant sends is accepted by mistake, or makes a 5xx."""

import io
import json
from typing import Any
from unittest import mock

from nova import objects
from oslo_utils import uuidutils
import pytest
import webob

from guest_agent_ext import command
from guest_agent_ext.db import commands
from tests.functional.api import base

#: What nothing is called. Tests have the same names in all processes.
UNKNOWN = '7f3c9a52-5d0e-4f0b-9d0c-3b1f2a6e8c41'

SECRET = 'hunter2'
ARGUMENTS = 'command.arguments'

#: Arguments, and what the message must say.
ARGUMENT_TABLE: list[tuple[Any, str]] = [
    ({}, f'{ARGUMENTS}.command is missing'),
    ([], f'{ARGUMENTS} must be of type object'),
    ({'command': []}, f'{ARGUMENTS}.command must have at least 1 value'),
    ({'command': SECRET}, f'{ARGUMENTS}.command must be of type array'),
    ({'command': ['']}, f'{ARGUMENTS}.command[0] must have at least 1 char'),
    ({'command': ['a', 1]}, f'{ARGUMENTS}.command[1] must be of type string'),
    ({'command': ['a', None]}, f'{ARGUMENTS}.command[1] must be of type'),
    ({'command': ['a', [SECRET]]}, f'{ARGUMENTS}.command[1] must be of type'),
    (
        {'command': ['a', SECRET + '\0']},
        f'{ARGUMENTS}.command[1] must be valid Unicode without NUL',
    ),
    (
        {'command': ['a', SECRET + '\ud800']},
        f'{ARGUMENTS}.command[1] must be valid Unicode',
    ),
    (
        {'command': ['a'] * 1025},
        f'{ARGUMENTS}.command must have at most 1024 value',
    ),
    ({'command': ['x' * 65537]}, 'at most 65536 bytes, not 65537'),
    ({'command': ['ü' * 32769]}, 'at most 65536 bytes, not 65538'),
    (
        {'command': ['a'], 'input_data': 'x' * (1024 * 1024 + 1)},
        'at most 1048576 bytes, not 1048577',
    ),
    ({'command': ['a'], 'user': ''}, 'user'),
    ({'command': ['a'], 'user': '-u'}, 'user'),
    ({'command': ['a'], 'user': 'a b'}, 'user'),
    ({'command': ['a'], 'user': 'a:b'}, 'user'),
    ({'command': ['a'], 'env': {'A': 'x' * 65535}}, 'env'),
    (
        {'command': ['a'], 'timeout': 0},
        f'{ARGUMENTS}.timeout must be at least 1, not 0',
    ),
    (
        {'command': ['a'], 'timeout': 86401},
        f'{ARGUMENTS}.timeout must be at most 86400, not 86401',
    ),
    (
        {'command': ['a'], 'timeout': True},
        f'{ARGUMENTS}.timeout must be of type integer, not True',
    ),
    (
        {'command': ['a'], 'timeout': '5'},
        f"{ARGUMENTS}.timeout must be of type integer, not '5'",
    ),
    (
        {'command': ['a'], 'timeout': 5.5},
        f'{ARGUMENTS}.timeout must be of type integer, not 5.5',
    ),
    (
        {'command': ['a'], 'timeout': None},
        f'{ARGUMENTS}.timeout must be of type integer, not None',
    ),
    (
        {'command': ['a'], 'timeout': 10**1000},
        f'{ARGUMENTS}.timeout must be at most 86400',
    ),
    (
        {'command': ['a'], 'start_timeout': -1},
        f'{ARGUMENTS}.start_timeout must be at least 1',
    ),
    (
        {'command': ['a'], 'output_keep': 'middle'},
        f'{ARGUMENTS}.output_keep must be one of: head, tail, not middle',
    ),
    (
        {'command': ['a'], 'input_encoding': 'utf-16', 'input_data': ''},
        f'{ARGUMENTS}.input_encoding must be one of: utf-8, base64',
    ),
    (
        {'command': ['a'], 'input_encoding': 'base64', 'input_data': SECRET},
        f'{ARGUMENTS}.input_data must be base64',
    ),
    (
        {'command': ['a'], 'input_encoding': 'base64', 'input_data': 'aG!k='},
        f'{ARGUMENTS}.input_data must be base64',
    ),
    (
        {'command': ['a'], 'input_encoding': 'base64', 'input_data': 'ü'},
        f'{ARGUMENTS}.input_data must be base64',
    ),
    (
        {'command': ['a'], 'input_data': SECRET + '\udfff'},
        f'{ARGUMENTS}.input_data must be valid Unicode',
    ),
    ({'command': ['a'], 'input_data': 5}, f'{ARGUMENTS}.input_data must be'),
    (
        {'command': ['a'], 'env': [SECRET]},
        f'{ARGUMENTS}.env must be of type object',
    ),
    (
        {'command': ['a'], 'env': {f'A={SECRET}': ''}},
        f'{ARGUMENTS}.env may have only names that match',
    ),
    ({'command': ['a'], 'env': {'': SECRET}}, f'{ARGUMENTS}.env may have'),
    ({'command': ['a'], 'env': {'A\n': SECRET}}, f'{ARGUMENTS}.env may have'),
    ({'command': ['a'], 'env': {'É': SECRET}}, f'{ARGUMENTS}.env may have'),
    (
        {'command': ['a'], 'env': {'A': 1}},
        f'{ARGUMENTS}.env.A must be of type string',
    ),
    (
        {'command': ['a'], 'env': {'A': SECRET + '\0'}},
        f'{ARGUMENTS}.env.A must be valid Unicode without NUL',
    ),
    ({'command': ['a'], 'cwd': ''}, f'{ARGUMENTS}.cwd must have at least 1'),
    ({'command': ['a'], 'cwd': '/\0'}, f'{ARGUMENTS}.cwd must be valid'),
    (
        {'command': ['a'], 'shell': True},
        f'{ARGUMENTS}.shell is not known here; known are: command, ',
    ),
    ({'command': ['a'], '\ud800': 1}, r"'\ud800' is not known here"),
]

NOT_JSON = 'The request body must be a JSON object in UTF-8'
TOO_DEEP = 'The request body must have at most 16 levels of objects and lists'

#: Whole bodies, and what the message must say.
BODY_TABLE: list[tuple[bytes, str]] = [
    (b'', NOT_JSON),
    (b'{', NOT_JSON),
    (b'\xff{}', NOT_JSON),
    (b'{"command": NaN}', NOT_JSON),
    (b'[' * 100000, TOO_DEEP),
    (b'{"a":' * 100000, TOO_DEEP),
    (b'[' * 17 + b']' * 17, TOO_DEEP),
    (
        b'{"command": {"type": ' + b'[{"a": ' * 8 + b'1' + b'}]' * 8 + b'}}',
        TOO_DEEP,
    ),
    # What Python parses on this machine, and jsonschema fails at.
    (b'{"command": ' + b'[' * 500 + b']' * 500 + b'}', TOO_DEEP),
    (b'{"command": ' + b'[' * 873 + b']' * 873 + b'}', TOO_DEEP),
    (b'[' * 16 + b']' * 16, 'The request body must be of type object'),
    (b'9' * 5000, NOT_JSON),
    (b'null', 'The request body must be of type object'),
    (b'[]', 'The request body must be of type object'),
    (b'{}', 'command is missing'),
    (b'{"command": []}', 'command must be of type object'),
    (
        b'{"command": {"arguments": {"command": ["a"]}}}',
        'command.type is missing',
    ),
    (
        b'{"command": {"type": "file-read", "arguments": {"command": ["a"]}}}',
        'command.type must be one of: exec, set-password, ',
    ),
    (b'{"command": {"type": "exec"}}', 'command.arguments is missing'),
    (
        b'{"command": {"type": "exec", "type": "exec", "arguments": {}}}',
        'type is a duplicate key',
    ),
    (
        b'{"command": {"type": "exec", "arguments": {"command": ["a"]}, '
        b'"x": 1}}',
        'command.x is not known here',
    ),
    (
        b'{"command": {"type": "exec", "arguments": {"command": ["a"]}}, '
        b'"y": 1}',
        'y is not known here; known are: command',
    ),
    (
        b'{"command": {"type": "exec", "arguments": {"command": ["a"],'
        b' "timeout": 1e400}}}',
        'timeout must be of type integer, not inf',
    ),
]

QUERY_TABLE: list[tuple[str, str]] = [
    ('limit=-1', "limit must match ^[0-9]{1,9}$, not '-1'"),
    ('limit=', 'limit must match'),
    ('limit=ten', 'limit must match'),
    ('limit=' + '9' * 5000, 'limit must match'),
    ('limit=1&limit=2', 'limit must have at most 1 value'),
    ('status=pending', 'status must be one of: PENDING, RUNNING, '),
    ('status=PENDING&status=LOST', 'status must have at most 1 value'),
    ('type=shell', 'type must be one of: exec, file-read, file-write'),
    ('marker=1', 'marker must match'),
    ('marker=' + UNKNOWN, 'marker must be a command of'),
    ('color=red', 'color is not known here; known are: limit, marker, '),
    ('limit=%ff', 'The query string must be UTF-8'),
    ('%00=%00', 'is not known here'),
]


@pytest.fixture(params=['/v2.1', '/v2'])
def version(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(('arguments', 'said'), ARGUMENT_TABLE)
def test_arguments(
    cloud: base.Cloud, version: str, arguments: Any, said: str
) -> None:
    response = cloud.post(arguments, version=version)
    message = base.message_of(response, 400, 'badRequest')
    assert said in message
    assert SECRET not in message
    assert not cloud.rung


@pytest.mark.parametrize(('body', 'said'), BODY_TABLE)
def test_body(cloud: base.Cloud, version: str, body: bytes, said: str) -> None:
    response = cloud.request('POST', cloud.path, raw=body, version=version)
    assert said in base.message_of(response, 400, 'badRequest')


@pytest.mark.parametrize(('query', 'said'), QUERY_TABLE)
def test_query(cloud: base.Cloud, version: str, query: str, said: str) -> None:
    response = cloud.get(f'{cloud.path}?{query}', version=version)
    assert said in base.message_of(response, 400, 'badRequest')


@pytest.mark.parametrize('path', ['/{uuid}?x=1', '?x=1'])
def test_query_where_none_is_known(cloud: base.Cloud, path: str) -> None:
    uuid = cloud.post().json()['command']['uuid']
    if path == '?x=1':
        response = cloud.post(path=cloud.path + path)
    else:
        response = cloud.get(cloud.path + path.format(uuid=uuid))
    message = base.message_of(response, 400, 'badRequest')
    assert message == 'x is not known here; known are: none'


def test_largest_body_is_accepted(cloud: base.Cloud) -> None:
    # As JSON, \u0001 takes six bytes for one.
    argument = '\x01' * (command.MAX_ARGUMENT_BYTES - 1)
    response = cloud.post(
        {
            'command': ['a', argument],
            'input_data': '\x01' * command.MAX_INPUT_BYTES,
        }
    )
    assert response.status_code == 200
    asked = response.json()['command']['arguments']
    assert asked['command'][1] == argument
    assert asked['input_bytes'] == command.MAX_INPUT_BYTES


def test_larger_body_is_refused_unread(cloud: base.Cloud) -> None:
    response = cloud.post({'command': ['a' * 6750209]})
    assert 'at most 6750208 bytes' in base.message_of(
        response, 413, 'overLimit'
    )
    # In chunks there is no length that tells.
    answer = send(cloud, 'POST', cloud.path, io.BytesIO(b' ' * 6750209), '')
    assert answer.status_int == 413
    assert '6750208' in json.loads(answer.body)['overLimit']['message']


def test_larger_action_is_refused(cloud: base.Cloud) -> None:
    uuid = cloud.post().json()['command']['uuid']
    response = cloud.request(
        'POST', f'{cloud.path}/{uuid}/action', {'cancel': 'a' * 65536}
    )
    assert 'at most 65536 bytes' in base.message_of(response, 413, 'overLimit')


LENGTHS = [
    '-5',
    '+5',
    '1_0',
    '5 ',
    ' 5',
    'five',
    '0x5',
    '5, 5',
    '\xb2',
    '9' * 19,
    '9' * 5000,
]


@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('POST', 'commands'),
        ('POST', 'commands/{uuid}/action'),
        ('POST', 'file-write?path=/f'),
        ('GET', 'file-read?path=/f'),
        ('GET', 'commands'),
        ('DELETE', 'commands/{uuid}'),
    ],
)
def test_content_length_is_digits(
    cloud: base.Cloud, method: str, path: str
) -> None:
    uuid = cloud.post().json()['command']['uuid']
    path = cloud.path.removesuffix('commands') + path.format(uuid=uuid)
    for length in LENGTHS:
        body = mock.Mock()
        answer = send(cloud, method, path, body, length)
        assert answer.status_int == 400
        message = json.loads(answer.body)['badRequest']['message']
        assert message.startswith(
            'Content-Length must be 1 to 18 digits, not ' + ascii(length)[:9]
        )
        assert not body.read.called
    assert command_count(cloud) == 1


def send(
    cloud: base.Cloud, method: str, path: str, body: Any, length: str
) -> Any:
    """Send what clients refuse to send, and servers to pass on."""
    req = webob.Request.blank(
        '/v2.1' + path,
        method=method,
        headers={
            'X-Auth-User': 'fake',
            'X-Auth-Project-Id': base.PROJECT,
            'X-Roles': 'reader,member',
            'Content-Type': 'application/json',
        },
    )
    req.environ['wsgi.input'] = body
    req.environ['wsgi.input_terminated'] = True
    req.environ['CONTENT_LENGTH'] = length
    return req.get_response(cloud.app())


def command_count(cloud: base.Cloud) -> int:
    return len(cloud.get(cloud.path).json()['commands'])


def test_body_that_ends_early(cloud: base.Cloud) -> None:
    answer = send(cloud, 'POST', cloud.path, io.BytesIO(b'{'), '5')
    assert answer.status_int == 400
    assert 'ended early' in json.loads(answer.body)['badRequest']['message']


def test_other_calls_are_limited_as_before(cloud: base.Cloud) -> None:
    response = cloud.request('POST', '/servers', {'x': 'a' * 115000})
    assert response.status_code == 413
    response = cloud.request('POST', cloud.path + '/x', {'x': 'a' * 115000})
    assert response.status_code == 413


@pytest.mark.parametrize('content_type', [None, 'text/plain'])
def test_content_type_may_be_missing(
    cloud: base.Cloud, content_type: str | None
) -> None:
    body = json.dumps(base.body_of({'command': ['id']})).encode()
    response = cloud.request(
        'POST', cloud.path, raw=body, headers={'Content-Type': content_type}
    )
    assert response.status_code == 200


def test_other_content_type_is_nova_s_415(cloud: base.Cloud) -> None:
    response = cloud.request(
        'POST',
        cloud.path,
        raw=b'a=b',
        headers={'Content-Type': 'application/x-www-form-urlencoded'},
    )
    base.message_of(response, 415, 'badMediaType')


@pytest.mark.parametrize(
    ('method', 'path'),
    [('PUT', ''), ('DELETE', ''), ('PATCH', '/x'), ('POST', '/x')],
)
def test_method_without_route_is_nova_s_404(
    cloud: base.Cloud, method: str, path: str
) -> None:
    assert cloud.request(method, cloud.path + path).status_code == 404


@pytest.mark.parametrize(
    'server',
    [
        'x',
        '%ff',
        '%00',
        '..%2f',
        UNKNOWN,
        UNKNOWN.replace('-', ''),
        '1' * 5000,
        '{}',
        "'; --",
    ],
)
@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_no_such_server(cloud: base.Cloud, method: str, server: str) -> None:
    response = cloud.request(
        method,
        base.commands_of(server),
        raw=b'{}' if method == 'POST' else None,
    )
    assert response.status_code == 404


@pytest.mark.parametrize('uuid', ['x', '%ff', '%00', '1' * 5000, UNKNOWN])
def test_no_such_command(cloud: base.Cloud, uuid: str) -> None:
    response = cloud.get(f'{cloud.path}/{uuid}')
    assert 'could not be found' in base.message_of(
        response, 404, 'itemNotFound'
    )


def test_database_is_asked_for_uuids_only(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MySQL takes "x " for "x"; PostgreSQL fails where there is a NUL.
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(commands, 'get', refuse)
    path = f'{cloud.path}/{uuidutils.generate_uuid()}%20'
    assert cloud.get(path).status_code == 404
    monkeypatch.setattr(
        objects.InstanceMapping, 'get_by_instance_uuid', refuse
    )
    path = base.commands_of(cloud.instance.uuid + '%20')
    assert cloud.get(path).status_code == 404


def test_foreign_project_in_the_path(cloud: base.Cloud) -> None:
    response = cloud.get(f'/{base.OTHER_PROJECT}{cloud.path}')
    base.message_of(response, 400, 'badRequest')


def test_microversion_that_nova_lacks(cloud: base.Cloud) -> None:
    response = cloud.get(
        cloud.path, headers={'OpenStack-API-Version': 'compute 2.9999'}
    )
    assert response.status_code == 406
