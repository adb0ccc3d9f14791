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

"""What every schema must be like."""

from collections.abc import Iterator
from typing import Any

import pytest

from guest_agent_ext.api import schemas

SCHEMAS = {
    name: value
    for name, value in vars(schemas).items()
    if isinstance(value, dict)
    and value.get('type') == 'object'
    and not name.startswith('_')
}


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Find the objects in a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects(item)
    elif isinstance(schema, dict):
        if 'object' in schema.get('type', ''):
            yield schema
        for item in schema.values():
            yield from objects(item)


@pytest.mark.parametrize('name', SCHEMAS)
def test_every_object_is_closed(name: str) -> None:
    assert all(
        schema['additionalProperties'] is False
        for schema in objects(SCHEMAS[name])
    )


@pytest.mark.parametrize('name', SCHEMAS)
def test_every_property_is_described(name: str) -> None:
    for schema in objects(SCHEMAS[name]):
        for field, property_ in schema.get('properties', {}).items():
            assert property_['description'].endswith('.'), field
