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

"""A service of the next release beside one of today's, over a real transport.

The next release has a minor version more, with a call more and a field more
in its answers; its major version is the same.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging
import threading
from typing import Any
from unittest import mock

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import conffixture
from oslo_messaging._drivers import common
from oslo_messaging._drivers import impl_fake
import pytest

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext import rpc
from guest_agent_ext.compute import manager as compute_manager
from guest_agent_ext.compute import rpcapi as compute_rpcapi
from guest_agent_ext.conductor import manager as conductor_manager
from guest_agent_ext.conductor import rpcapi as conductor_rpcapi
from guest_agent_ext.db import hosts

HOST = 'compute1'
SERVICE: conductor_rpcapi.Service = {'host': HOST, 'incarnation': 'f00d'}
#: Seconds after which a test is given up.
PATIENCE = 10
NEXT = '1.2'
LATER = {'added_by_the_next_release': 1}
ALIEN: dict[str, Any] = {
    'uuid': 'c',
    'type': 'later',
    'instance_uuid': 's',
    'status': 'PENDING',
    'attempt': 'a',
    'cancel_requested': False,
    'start_in': 5.0,
    **LATER,
}

#: Older releases of oslo.messaging want to be told which executor, and newer
#: ones not to be.
OLDER_WARN = pytest.mark.filterwarnings(
    'ignore:Using the .executor:DeprecationWarning'
)

Serve = Callable[[str, Any], None]


class NextConductor:
    """What the next release's conductor answers."""

    target = oslo_messaging.Target(version=NEXT)

    def register(
        self,
        ctxt: Any,
        host: str,
        machine_id: str,
        version: str,
        features: Any = None,
    ) -> str:
        return 'beef'

    def report(
        self, ctxt: Any, service: Any, held: Any, seen: Any, load: Any = None
    ) -> Any:
        return {
            'fenced': False,
            'work': [ALIEN],
            'ended': [],
            'moved': [],
            **LATER,
        }

    def claim(self, ctxt: Any, **arguments: Any) -> Any:
        return {'uuid': arguments['uuid'], **LATER}

    def refuse(self, ctxt: Any, **arguments: Any) -> None:
        return None

    def adopt(self, ctxt: Any, **arguments: Any) -> Any:
        return None

    def started(self, ctxt: Any, **arguments: Any) -> str:
        return command.OK

    finish = not_here = started

    def ended(self, ctxt: Any, **arguments: Any) -> Any:
        return arguments['uuids']

    def summarize(self, ctxt: Any) -> str:
        return 'summary'


class NextCompute:
    """What the next release's compute service answers."""

    target = oslo_messaging.Target(version=NEXT)

    def __init__(self) -> None:
        self.rung = threading.Event()

    def work(self, ctxt: Any, urgent: bool = False) -> None:
        self.rung.set()

    def agent_status(
        self, ctxt: Any, instance_uuid: str, depth: int = 0
    ) -> Any:
        return {**compute_rpcapi.unavailable('asleep'), **LATER}

    def read_output(self, ctxt: Any, **arguments: Any) -> Any:
        return {'data': '', 'reason': None, **LATER}

    def write_chunk(self, ctxt: Any, **arguments: Any) -> Any:
        return {'refusal': None, 'done': True, **LATER}

    commit = write_chunk

    def open_file(self, ctxt: Any, **arguments: Any) -> Any:
        return {'refusal': None, 'size': 0, 'data': None, **LATER}

    def read_chunk(self, ctxt: Any, **arguments: Any) -> Any:
        return {'refusal': None, 'data': '', **LATER}

    def abort(self, ctxt: Any, **arguments: Any) -> None:
        self.rung.set()


class NextConductorAPI(conductor_rpcapi.ConductorAPI):
    """The next release's client: it does without what is not offered."""

    def summarize(self, version: str = NEXT) -> str:
        try:
            with rpc.errors(exception.ConductorUnreachable):
                return str(
                    self._client.prepare(version=version).call({}, 'summarize')
                )
        except exception.ConductorUnreachable as error:
            assert error.cause == 'not offered'
            return 'none'


@pytest.fixture
def _errors_as_over_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake driver hands exceptions over as they are; others write them."""
    reply = impl_fake.FakeIncomingMessage.reply

    def written(self: Any, answer: Any = None, failure: Any = None) -> None:
        if failure:
            text = common.serialize_remote_exception(failure)
            error = common.deserialize_remote_exception(text, [])
            failure = (type(error), error, None)
        reply(self, answer, failure)

    monkeypatch.setattr(impl_fake.FakeIncomingMessage, 'reply', written)


@pytest.fixture
def transport(_errors_as_over_a_broker: None) -> Iterator[Any]:
    conf = cfg.ConfigOpts()
    conf([], project='upgrade')
    with conffixture.ConfFixture(conf):
        transport = oslo_messaging.get_rpc_transport(conf, 'fake:///')
        yield transport
        transport.cleanup()


@pytest.fixture
def serve(transport: Any) -> Iterator[Serve]:
    """What serves an endpoint under a topic while the test runs."""
    with contextlib.ExitStack() as stack:

        def start(topic: str, endpoint: Any) -> None:
            server = oslo_messaging.get_rpc_server(
                transport,
                oslo_messaging.Target(topic=topic, server=HOST),
                [endpoint],
                executor='threading',
            )
            server.start()
            stack.callback(server.wait)
            stack.callback(server.stop)

        yield start


@pytest.fixture
def today_s_conductor(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, 'heartbeat', mock.Mock(return_value=[]))
    serve(
        conductor_rpcapi.TOPIC,
        conductor_manager.ConductorManager(
            mock.Mock(uuid='cell'), mock.Mock()
        ),
    )


@pytest.fixture
def today_s_compute(transport: Any) -> Iterator[threading.Event]:
    service = compute_manager.ComputeManager(HOST, transport, mock.Mock())
    service._inquiries = mock.Mock(
        **{'agent_status.return_value': compute_rpcapi.unavailable('asleep')}
    )
    service._server.start()
    yield service._doorbell
    service._server.stop()
    service._server.wait()


def test_compute_of_today_beside_the_next_conductor(
    serve: Serve, transport: Any
) -> None:
    serve(conductor_rpcapi.TOPIC, NextConductor())
    client = conductor_rpcapi.ConductorAPI(transport, PATIENCE)
    assert client.register(HOST, 'machine', '1') == 'beef'
    assert client.report(SERVICE, {}, {})['work'][0]['uuid'] == 'c'
    claimed = client.claim(SERVICE, 'c', 'a', 'boot', 1, 1.0)
    assert claimed is not None and claimed['uuid'] == 'c'
    client.refuse(SERVICE, 'c', 'error')
    assert client.adopt(SERVICE, 'c', 'a', 'b') is None
    assert client.started(SERVICE, 'c', 'a', 1, 1, 0.0) == command.OK
    assert client.finish(SERVICE, 'c', 'a', {}) == command.OK
    assert client.not_here(SERVICE, 'c', 'a', 'absent') == command.OK
    assert client.ended(SERVICE, ['c']) == ['c']


@OLDER_WARN
def test_commands_of_the_next_release_wait(
    serve: Serve, transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    serve(conductor_rpcapi.TOPIC, NextConductor())
    service = compute_manager.ComputeManager(HOST, transport, mock.Mock())
    for _ in range(3):
        service._report()
    assert service._lanes == {}
    assert [
        message for message in caplog.messages if 'type later' in message
    ] == [
        'Commands of type later are of a later release and wait until this '
        'service is upgraded'
    ]


def test_api_of_today_beside_the_next_compute(
    serve: Serve, transport: Any
) -> None:
    endpoint = NextCompute()
    serve(compute_rpcapi.TOPIC, endpoint)
    client = compute_rpcapi.ComputeAPI(transport)
    client.work(HOST)
    assert endpoint.rung.wait(PATIENCE)
    endpoint.rung.clear()
    assert client.agent_status(HOST, 's')['reason'] == 'asleep'
    assert client.read_output(HOST, 's', 'c', 'out', 0) == b''
    assert client.open_file(HOST, 's', 'c').size == 0
    assert client.read_chunk(HOST, 'c', 0, 0) == b''
    client.write_chunk(HOST, 'c', 0, b'')
    assert client.commit(HOST, 'c', 0, '')
    client.abort(HOST, 'c', 'error')
    assert endpoint.rung.wait(PATIENCE)


@pytest.mark.usefixtures('today_s_conductor')
@pytest.mark.parametrize('version', [NEXT, '1.0', '2.0'])
def test_next_compute_beside_the_conductor_of_today(
    transport: Any, version: str
) -> None:
    client = NextConductorAPI(transport, PATIENCE)
    assert client.summarize(version) == 'none'
    assert client.report(SERVICE, {}, {})['fenced'] is False


def test_next_compute_beside_the_next_conductor(
    serve: Serve, transport: Any
) -> None:
    serve(conductor_rpcapi.TOPIC, NextConductor())
    assert NextConductorAPI(transport, PATIENCE).summarize() == 'summary'


@OLDER_WARN
def test_next_api_beside_the_compute_of_today(
    today_s_compute: threading.Event, transport: Any
) -> None:
    client = compute_rpcapi.ComputeAPI(transport)
    # What is no call, though the service has a method of this name.
    with pytest.raises(exception.HostUnreachable, match='stop') as caught:
        client._call(HOST, 'stop')
    assert caught.value.cause == 'not offered'
    with pytest.raises(
        exception.HostUnreachable, match='no_such_call'
    ) as caught:
        client._call(HOST, 'no_such_call')
    assert caught.value.cause == 'not offered'
    assert 'of a release that cannot' in rpc.no_answer('s', caught.value)
    later = client._client.prepare(server=HOST, version=NEXT)
    with (
        pytest.raises(exception.HostUnreachable, match=NEXT) as caught,
        rpc.errors(exception.HostUnreachable),
    ):
        later.call({}, 'agent_status', instance_uuid='s')
    assert caught.value.cause == 'not offered'
    # A cast has nobody to answer; what comes after it is heard.
    later.cast({}, 'work')
    client._cast(HOST, 'no_such_call')
    assert not today_s_compute.is_set()
    client.work(HOST)
    assert today_s_compute.wait(PATIENCE)
    assert client.agent_status(HOST, 's')['reason'] == 'asleep'


@pytest.mark.usefixtures('today_s_conductor')
def test_call_that_is_not_offered_is_logged_once(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=conductor_rpcapi.__name__)
    client = conductor_rpcapi.ConductorAPI(transport, PATIENCE)
    for _ in range(3):
        with pytest.raises(exception.ConductorUnreachable):
            client._send('summarize')
        client.report(SERVICE, {}, {})
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == conductor_rpcapi.__name__
    ]
    assert len(told) == 1
    assert 'does not offer summarize, upgrade it' in told[0]
