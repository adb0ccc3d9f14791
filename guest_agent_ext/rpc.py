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

"""What every RPC client here has in common."""

from collections.abc import Iterator
import contextlib

import oslo_messaging


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Raise every failure of the block as oslo.messaging's.

    Its drivers let errors of their own through: that of RabbitMQ does where
    it opens a connection while the broker is away. Callers know what to do
    when no answer came, whatever the reason is.

    :raises oslo_messaging.MessagingException: the message was not delivered,
        or not answered
    """
    try:
        yield
    except oslo_messaging.MessagingException:
        raise
    except Exception as error:
        raise oslo_messaging.MessageDeliveryFailure(
            f'{type(error).__name__}: {error}'
        ) from error
