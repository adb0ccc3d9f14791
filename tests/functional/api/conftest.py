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

from collections.abc import Iterator
from typing import Any

from nova import rpc
import oslo_messaging
from oslo_messaging.notify import _impl_test
import pytest

from tests.functional.api import base


@pytest.fixture(scope='module')
def shared_cloud() -> Iterator[base.Cloud]:
    cloud = base.Cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(shared_cloud: base.Cloud) -> base.Cloud:
    """The module's Nova, with a server that no other test has used."""
    shared_cloud.renew()
    return shared_cloud


@pytest.fixture
def sent(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """What oslo.messaging's driver for tests was given: message by message
    a tuple of context, message, priority and number of retries.
    """
    messages: list[Any] = []
    monkeypatch.setattr(_impl_test, 'NOTIFICATIONS', messages)
    monkeypatch.setattr(
        rpc,
        'NOTIFIER',
        oslo_messaging.Notifier(
            rpc.NOTIFICATION_TRANSPORT,
            driver='test',
            serializer=rpc.RequestContextSerializer(
                rpc.JsonPayloadSerializer()
            ),
        ),
    )
    base.CONF.set_override(
        'notification_format', 'both', group='notifications'
    )
    yield messages
    base.CONF.set_override(
        'notification_format', 'unversioned', group='notifications'
    )
