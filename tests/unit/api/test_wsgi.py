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

"""What our resources check by themselves, whichever filters stand before."""

from unittest import mock

import pytest
import webob

from guest_agent_ext.api import wsgi


@pytest.mark.parametrize('length', ['-5', '+5', '1_0', '9' * 5000])
@pytest.mark.parametrize('resource', [wsgi.Resource, wsgi.RawResource])
def test_length_is_digits(resource: type[wsgi.Resource], length: str) -> None:
    req = webob.Request.blank('/', method='POST')
    req.environ['wsgi.input'] = mock.Mock()
    req.environ['CONTENT_LENGTH'] = length
    answer = req.get_response(resource(wsgi.Controller()))
    assert answer.status_int == 400
    assert 'Content-Length must be' in answer.json['badRequest']['message']
    assert not req.environ['wsgi.input'].read.called


@pytest.mark.parametrize('length', ['', '0', '5', '0005', '9' * 18])
def test_lengths_that_are_taken(length: str) -> None:
    wsgi.check_length({'CONTENT_LENGTH': length})
    wsgi.check_length({})
