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

from keystoneauth1 import exceptions as auth_exceptions
from openstack import exceptions
import pytest

from guest_agent_ext.sdk import retries


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.time, 'sleep', mock.Mock())


def away(code: int) -> exceptions.HttpException:
    return exceptions.HttpException(http_status=code)


@pytest.mark.parametrize(
    'error',
    [away(502), away(503), away(504), auth_exceptions.ConnectFailure()],
)
def test_lost_answers_are_asked_for_again(error: Exception) -> None:
    call = mock.Mock(side_effect=[error, error, 'answer'])
    assert retries.repeated(call, 3) == 'answer'
    call = mock.Mock(side_effect=error)
    with pytest.raises(type(error)):
        retries.repeated(call, 3)
    assert call.call_count == 3


@pytest.mark.parametrize('code', [400, 409, 410, 500])
def test_refusals_are_not(code: int) -> None:
    call = mock.Mock(side_effect=away(code))
    with pytest.raises(exceptions.HttpException):
        retries.repeated(call, 3)
    call.assert_called_once()
