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

from concurrent import futures
import threading

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import conffixture
import pytest

from guest_agent_ext import exception
from guest_agent_ext import rpc
from tests import counted


@pytest.mark.parametrize(
    ('raised', 'detail', 'cause', 'counted_as'),
    [
        (
            oslo_messaging.MessagingTimeout('late'),
            'late',
            'no answer',
            'timeout',
        ),
        (
            oslo_messaging.MessageDeliveryFailure('down'),
            'down',
            'no answer',
            'delivery',
        ),
        (
            oslo_messaging.RemoteError('DBError', 'secret', ['Traceback']),
            'DBError',
            'failed',
            'remote',
        ),
        (
            oslo_messaging.RemoteError('NoSuchMethod', 'no work'),
            'no work',
            'not offered',
            'remote',
        ),
        (
            oslo_messaging.RemoteError('UnsupportedVersion', 'no 2.0'),
            'no 2.0',
            'not offered',
            'remote',
        ),
        (
            oslo_messaging.InvalidTarget('bad', None),
            'bad:None',
            'no answer',
            'other',
        ),
        (OSError('refused'), 'OSError: refused', 'no answer', 'delivery'),
    ],
)
def test_failures_are_told_as_one_error_and_counted(
    raised: Exception, detail: str, cause: str, counted_as: str
) -> None:
    with (
        counted.grows('guest_agent_rpc_errors_total', error=counted_as),
        pytest.raises(exception.HostUnreachable) as caught,
        rpc.errors(exception.HostUnreachable),
    ):
        raise raised
    assert str(caught.value) == detail
    assert caught.value.cause == cause
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    ('cause', 'words'),
    [
        ('no answer', 'does not answer'),
        ('failed', 'does not answer'),
        ('not offered', 'of a release that cannot do this'),
    ],
)
def test_tenants_are_told_why_but_not_the_detail(
    cause: exception.Cause, words: str
) -> None:
    message = rpc.no_answer('uuid', exception.HostUnreachable('detail', cause))
    assert words in message
    assert 'server uuid' in message
    assert 'detail' not in message


class Endpoint:
    """Answers at once, or when three are called."""

    def __init__(self) -> None:
        self._together = threading.Barrier(3)

    def alone(self, context: object) -> int:
        return threading.active_count()

    def at_once(self, context: object) -> None:
        self._together.wait(30)


def test_server_has_the_threads_that_its_calls_need() -> None:
    conf = cfg.ConfigOpts()
    conf([], project='threads')
    with conffixture.ConfFixture(conf):
        transport = oslo_messaging.get_rpc_transport(conf, 'fake:///')
        server = rpc.create_server(
            transport,
            oslo_messaging.Target(topic='topic', server='here'),
            Endpoint(),
        )
        server.start()
        client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic='topic'), timeout=30
        )
        first, *others = [client.call({}, 'alone') for _ in range(20)]
        with futures.ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(client.call, {}, 'at_once') for _ in range(3)]
            for call in calls:
                call.result()
        server.stop()
        server.wait()
        transport.cleanup()
    # A thread that has just answered may not be free yet.
    assert max(others) < first + 10
