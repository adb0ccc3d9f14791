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

"""Holds answers to what the OpenAPI document says of them."""

import re
from typing import Any
import urllib.parse

from tools import openapi

_PATHS = openapi.document()['paths']
#: Nova's, of all its calls: a microversion it lacks, and a fault of its own.
_OF_NOVA = (406, 500)


def check(method: str, path: str, answer: Any) -> None:
    """Check status and headers of an answer, if the call is one of ours.

    :param path: below the version
    :param answer: requests.Response
    """
    operation = _operation(method, urllib.parse.urlsplit(path).path)
    if operation is None or answer.status_code in _OF_NOVA:
        return
    responses = operation['responses']
    assert str(answer.status_code) in responses, (
        f'{operation["operationId"]} is not said to answer '
        f'{answer.status_code}'
    )
    headers = responses[str(answer.status_code)].get('headers', {})
    wanted = {name for name, header in headers.items() if header['required']}
    sent = {name for name in openapi.ANSWERED if name in answer.headers}
    assert wanted <= sent <= headers.keys(), (
        f'{operation["operationId"]} {answer.status_code} has {sent}, and is '
        f'said to have {wanted} of {headers.keys()}'
    )


def _operation(method: str, path: str) -> Any:
    for template, operations in _PATHS.items():
        pattern = '(/[0-9a-f-]+)?' + re.sub(r'{\w+}', '[^/]+', template)
        if re.fullmatch(pattern, path):
            return operations.get(method.lower())
    return None
