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

import oslo_messaging
import pytest

from guest_agent_ext import rpc


@pytest.mark.parametrize('raised', [OSError('refused'), ValueError()])
def test_errors_of_a_driver_are_told_as_oslo_messagings(
    raised: Exception,
) -> None:
    with (
        pytest.raises(oslo_messaging.MessageDeliveryFailure) as caught,
        rpc.errors(),
    ):
        raise raised
    assert caught.value.__cause__ is raised


def test_errors_of_oslo_messaging_stay_what_they_are() -> None:
    with pytest.raises(oslo_messaging.MessagingTimeout), rpc.errors():
        raise oslo_messaging.MessagingTimeout()
