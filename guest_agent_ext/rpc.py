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

"""What all RPC clients have in common: how a call fails."""

from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib

import oslo_messaging

from guest_agent_ext import exception
from guest_agent_ext import metrics

#: The label of a failure in the metric; the first that fits.
_LABELS: Sequence[tuple[type[Exception], str]] = (
    (oslo_messaging.MessagingTimeout, 'timeout'),
    (oslo_messaging.RemoteError, 'remote'),
    (oslo_messaging.MessageDeliveryFailure, 'delivery'),
    (oslo_messaging.MessagingException, 'other'),
    # Of a driver: that of RabbitMQ lets errors of its own through where it
    # opens a connection while the broker is away.
    (Exception, 'delivery'),
)

#: What oslo.messaging raises in a service that does not offer a call.
_NOT_OFFERED = ('UnsupportedVersion', 'NoSuchMethod')


def create_server(
    transport: oslo_messaging.Transport,
    target: oslo_messaging.Target,
    endpoint: object,
    access_policy: type[
        oslo_messaging.RPCAccessPolicyBase
    ] = oslo_messaging.DefaultRPCAccessPolicy,
) -> oslo_messaging.MessageHandlingServer:
    """Return an RPC server, which starts a thread when all others are busy.

    :param target: topic, and name of this server
    :param access_policy: policy that tells which methods may be called
    :returns: oslo.messaging's RPCServer
    """
    server = oslo_messaging.get_rpc_server(
        transport, target, [endpoint], access_policy=access_policy
    )
    # oslo.messaging's own pool starts one with each message until it has all,
    # and each of them wakes up every second. There is no option for it.
    server._executor_cls = futures.ThreadPoolExecutor
    return server


@contextlib.contextmanager
def errors(unreachable: type[exception.ServiceError]) -> Iterator[None]:
    """Raise every failure of the block as the same error of ours.

    Callers know what to do when no answer came, whatever the reason is.

    :param unreachable: error to raise
    :raises exception.ServiceError: the message was not delivered, or not
        answered; its cause tells more
    """
    try:
        yield
    except Exception as error:
        label = next(
            label for kind, label in _LABELS if isinstance(error, kind)
        )
        metrics.RPC_ERRORS.labels(label).inc()
        raise unreachable(*_described(error)) from error


def _described(error: Exception) -> tuple[str, exception.Cause]:
    """Return a failure in words for the log, and its cause."""
    match error:
        case oslo_messaging.RemoteError(exc_type=kind) if kind in _NOT_OFFERED:
            return str(error.value), 'not offered'
        case oslo_messaging.RemoteError():
            # Not in its words: they have a traceback.
            return str(error.exc_type), 'failed'
        case oslo_messaging.MessagingException():
            return str(error), 'no answer'
    return f'{type(error).__name__}: {error}', 'no answer'


def no_answer(instance_uuid: str, error: exception.HostUnreachable) -> str:
    """Return in words for the tenant why a host did not do what was asked.

    :param instance_uuid: uuid of the server
    :param error: error of the call
    """
    if error.cause == 'not offered':
        return (
            'The guest agent service of the host of server %s is of a '
            'release that cannot do this' % instance_uuid
        )
    return (
        'The guest agent service of the host of server %s does not '
        'answer; try again later' % instance_uuid
    )
