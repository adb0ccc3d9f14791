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

"""The routes, the OpenAPI document and the pages of the API reference agree.

What is read of a page: its calls, their status codes, the parameters of their
requests, the fields and the headers of their answers.
"""

from collections.abc import Iterator
import json
import pathlib
import re
from typing import Any

import pytest

from guest_agent_ext.api import routes
from tools import openapi

_API_REF = pathlib.Path(__file__).parents[3] / 'api-ref'
_DOCUMENT = json.loads((_API_REF / 'openapi.json').read_text())
_PAGES = '\n'.join(
    page.read_text() for page in sorted((_API_REF / 'source').glob('*.inc'))
)
#: What every body has, said where it matters.
_OF_ANY_BODY = {'Content-Length'}

OPERATIONS: dict[str, Any] = {
    f'{method.upper()} {path}': operation
    for path, operations in _DOCUMENT['paths'].items()
    for method, operation in operations.items()
}
#: What a page says of each call, from its method on.
SECTIONS: dict[str, str] = {
    section.partition('\n')[0]: section
    for section in _PAGES.split('.. rest_method:: ')[1:]
}


def part(call: str, title: str) -> str:
    """Return a part of what a page says of a call, empty if there is none."""
    found = re.search(
        rf'\n{title}\n-+\n(.*?)(?=\n\w+\n-+\n|\n[\w ]+\n=+\n|\Z)',
        SECTIONS[call],
        re.DOTALL,
    )
    return found[1] if found else ''


def parameters(text: str) -> set[str]:
    return set(re.findall(r'^  - ([\w.-]+): ', text, re.MULTILINE))


def fields(schema: dict[str, Any], prefix: str = '') -> Iterator[str]:
    """Yield the names of all fields, with what they stand in."""
    if 'items' in schema:
        yield from fields(schema['items'], prefix)
    for part in (*schema.get('anyOf', ()), *schema.get('allOf', ())):
        yield from fields(part.get('then', part), prefix)
    for name, value in schema.get('properties', {}).items():
        yield prefix + name
        yield from fields(value, f'{prefix}{name}.')


def body_of(content: Any) -> dict[str, Any]:
    schema: dict[str, Any] = (
        content.get('content', {})
        .get('application/json', {})
        .get('schema', {})
    )
    return schema


def usual(call: str) -> list[Any]:
    return [
        answer
        for code, answer in OPERATIONS[call]['responses'].items()
        if code < '300'
    ]


def test_every_route_is_told_of() -> None:
    wanted = {f'{route.method} {route.path}' for route in routes.ROUTES}
    assert OPERATIONS.keys() == SECTIONS.keys() == wanted


def test_document_is_current() -> None:
    assert openapi.document() == _DOCUMENT


@pytest.mark.parametrize('call', OPERATIONS)
def test_status_codes(call: str) -> None:
    found = re.search(
        r'Normal response codes: (.*?)\n\n'
        r'Error response codes: (.*?)\n\n',
        SECTIONS[call],
        re.DOTALL,
    )
    assert found is not None
    assert (
        set(re.findall(r'\d+', found[1] + found[2]))
        == OPERATIONS[call]['responses'].keys()
    )


@pytest.mark.parametrize('call', OPERATIONS)
def test_parameters(call: str) -> None:
    operation = OPERATIONS[call]
    names = {parameter['name'] for parameter in operation['parameters']}
    schema = body_of(operation.get('requestBody', {}))
    # What is but an envelope is not told of.
    outermost = list(schema.get('properties', {}))
    envelope = outermost[0] if outermost else ''
    in_body = set(fields(schema))
    if len(outermost) == 1 and len(in_body) > 1:
        in_body = {
            name.removeprefix(envelope + '.') for name in in_body - {envelope}
        }
    assert parameters(part(call, 'Request')) - _OF_ANY_BODY == names | in_body


@pytest.mark.parametrize('call', OPERATIONS)
def test_fields_of_the_answer(call: str) -> None:
    schema = body_of(usual(call)[0])
    told = part(call, 'Response')
    known = set()
    for name in fields(schema):
        outer, dot, inner = name.partition('.')
        known.add(inner if dot else outer)
    assert parameters(told) <= known
    # What is like another call's is told there.
    if '`_' not in told:
        assert parameters(told) == known


@pytest.mark.parametrize('call', OPERATIONS)
def test_headers_of_the_answer(call: str) -> None:
    told = part(call, 'Response')
    defined = set(re.findall(r'^``([A-Z][\w-]+)``$', told, re.MULTILINE))
    assert defined - _OF_ANY_BODY == {
        name for answer in usual(call) for name in answer.get('headers', {})
    }


@pytest.mark.parametrize('call', OPERATIONS)
def test_headers_of_errors(call: str) -> None:
    for answer in OPERATIONS[call]['responses'].values():
        for name in answer.get('headers', {}):
            assert f'``{name}``' in SECTIONS[call]
