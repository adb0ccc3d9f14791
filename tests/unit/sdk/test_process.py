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


from unittest import mock

import pytest

from guest_agent_ext.sdk import process


@pytest.mark.parametrize('url', ['http://own', None])
def test_endpoint_of_its_own_is_used_where_there_is_one(
    url: str | None,
) -> None:
    compute = mock.Mock(interface='internal', region_name='region')
    compute.session.get_endpoint.return_value = url
    found = process.best_endpoint(compute)
    asked = compute.session.get_endpoint.call_args.kwargs
    assert asked == {
        'service_type': 'guest-agent',
        'interface': 'internal',
        'region_name': 'region',
    }
    assert (found is compute) == (url is None)
    if url:
        assert (found.service_type, found.interface) == (
            'guest-agent',
            'internal',
        )


def test_stdin_that_is_forgotten_asks_no_server() -> None:
    """A finalizer may run anywhere, and the server may be gone for good."""
    forgotten = mock.Mock(_is_over=False)
    process._Input(forgotten).__del__()
    forgotten._send.assert_not_called()
    forgotten._call.assert_not_called()
    assert forgotten.method_calls == []
