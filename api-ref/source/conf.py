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

"""The API reference. Its parameters are written from the schemas."""

import json
import pathlib
from typing import Any

from guest_agent_ext.api import schemas

extensions = ['openstackdocstheme', 'os_api_ref']
project = 'guest_agent_ext'
html_theme = 'openstackdocs'
html_theme_options = {'sidebar_mode': 'toc'}
openstackdocs_auto_name = False
openstackdocs_repo_name = 'guest_agent_ext'

#: In the order that os-api-ref wants.
_PLACES = ('header', 'path', 'query', 'body')
_PATH = {
    'server_id': 'The uuid of the server.',
    'command_id': 'The uuid of the command.',
    'run_id': 'The uuid of the run.',
    'host': 'The name of the compute host.',
}
_HEADERS = {
    'Idempotency-Key': 'A name for the request, of 1 to 255 characters: a '
    'repetition with the same key and body answers the '
    'first command or run, and starts nothing.',
    'If-Range': 'With it ``Range`` is ignored: files have no validator.',
    'Prefer': '``wait=N``: answer when the command or run has ended, or after '
    'N seconds. Anything else is ignored (RFC 7240).',
    'Range': 'One range of bytes, as ``bytes=0-99``, ``bytes=100-`` or '
    '``bytes=-100``.',
    'Content-Length': 'Bytes of the body.',
    'Content-Digest': 'The SHA-256 of the body, as RFC 9530 has it: '
    '``sha-256=:<base64>:``. Other digests are ignored.',
}
#: Prefix of the parameters' names, where they stand, and their schema.
_SCHEMAS: tuple[tuple[str, str, Any], ...] = (
    ('request', 'body', schemas.create['properties']['command']),
    ('request.arguments', 'body', schemas.exec_arguments),
    *(
        (f'request.{kind}', 'body', arguments)
        for kind, arguments in schemas.ARGUMENTS.items()
    ),
    (
        'request.arguments.terminal',
        'body',
        schemas.exec_arguments['properties']['terminal'],
    ),
    ('request', 'body', schemas.action),
    ('request.resize', 'body', schemas.action['properties']['resize']),
    ('query', 'query', schemas.index_query),
    ('output', 'query', schemas.output_query),
    ('input', 'query', schemas.input_query),
    ('response', 'body', schemas.input_response),
    ('response.input', 'body', schemas.input_response['properties']['input']),
    ('file', 'query', schemas.file_write_query),
    ('all', 'query', schemas.project_commands_query),
    ('show', 'body', schemas.show_response),
    ('command', 'body', schemas.show_response['properties']['command']),
    ('arguments', 'body', schemas.shown_arguments),
    (
        'arguments.terminal',
        'body',
        schemas.shown_arguments['properties']['terminal'],
    ),
    ('transfer', 'body', schemas.shown_transfer),
    ('call', 'body', schemas.shown_call),
    ('result', 'body', schemas.result),
    ('index', 'body', schemas.index_response),
    ('run_request', 'body', schemas.run_create['properties']['run']),
    ('run_request.targets', 'body', schemas.run_targets),
    ('run_action', 'body', schemas.run_action),
    ('runs', 'query', schemas.runs_query),
    ('run_commands', 'query', schemas.run_commands_query),
    ('runs', 'body', schemas.runs_response),
    ('run', 'body', schemas.run_response),
    ('run', 'body', schemas.run_response['properties']['run']),
    ('counts', 'body', schemas.run_counts),
    ('refused', 'body', schemas.run_refused['items']),
    ('agent', 'body', schemas.agent_response),
    ('guest_agent', 'body', schemas.agent),
    ('guest_agent.unavailable', 'body', schemas.unattachable),
    ('details', 'query', schemas.details_query),
    ('details', 'body', schemas.details_response),
    ('guest_details', 'body', schemas.guest_details),
    ('host_delete', 'query', schemas.host_delete_query),
    ('hosts', 'body', schemas.hosts_response),
    ('host', 'body', schemas.host),
)


def _parameters() -> dict[str, dict[str, Any]]:
    found = {
        name: _parameter('path', 'string', True, description)
        for name, description in _PATH.items()
    }
    for name, description in _HEADERS.items():
        found[name] = _parameter(
            'header', 'string', name == 'Content-Length', description
        )
    for prefix, place, schema in _SCHEMAS:
        for name, value in schema['properties'].items():
            found[f'{prefix}.{name}'] = _parameter(
                place,
                _type(value),
                name in schema['required'],
                value['description'] + _accepted(value),
            )
    return dict(
        sorted(
            found.items(),
            key=lambda item: (_PLACES.index(item[1]['in']), item[0]),
        )
    )


def _parameter(
    place: str, type_: str, required: bool, description: str
) -> dict[str, Any]:
    return {
        'in': place,
        'type': type_,
        'required': required,
        'description': description,
    }


def _type(schema: dict[str, Any]) -> str:
    # A query parameter is an array only because it might be repeated.
    if schema.get('maxItems') == 1:
        return _type(schema['items'])
    types = schema.get('type', 'string')
    return types if isinstance(types, str) else ' or '.join(types)


def _accepted(schema: dict[str, Any]) -> str:
    if schema.get('maxItems') == 1:
        return _accepted(schema['items'])
    if 'enum' in schema:
        return ' One of %s.' % ', '.join(
            f'``{value}``' for value in schema['enum']
        )
    if 'maximum' in schema:
        return ' From %(minimum)d to %(maximum)d.' % schema
    return ''


# JSON is YAML.
(pathlib.Path(__file__).parent / 'parameters.yaml').write_text(
    json.dumps(_parameters(), indent=1)
)
