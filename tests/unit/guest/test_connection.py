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

"""The connection to libvirt, with libvirt played."""

from collections.abc import Callable
from collections.abc import Iterator
import json
import threading
import traceback
from typing import Any
from unittest import mock

import libvirt
import libvirt_qemu
import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import connection
from tests import counted

UUID = '8b1f5b51-6c70-4a53-8d5b-6a7c0e4b7f10'
URI = 'qemu:///played'
PING = {'execute': 'guest-ping'}
#: Seconds after which a test is given up.
PATIENCE = 10

QEMU = libvirt.VIR_FROM_QEMU
RPC = libvirt.VIR_FROM_RPC
REFUSED = "internal error: unable to execute QEMU agent command 'guest-ping': "
REFUSED_NEW = (
    'guest agent command failed: unable to execute QEMU agent '
    "command 'guest-ping': "
)
UNRESPONSIVE = 'Guest agent is not responding: '


def error(code: int, text: str, domain: int = QEMU) -> libvirt.libvirtError:
    raised = libvirt.libvirtError(text)
    raised.err = (code, domain, text, 2, '%s', text, None, -1, -1)
    return raised


FINE = '{"return": {}}'
SYNC = {'execute': 'guest-sync', 'arguments': {'id': 7}}


def answer_of_sync(text: str, timeout: int, flags: int) -> str:
    """Answer as an agent does that has lost nothing."""
    return json.dumps({'return': json.loads(text)['arguments']['id']})


class Libvirt:
    """Plays libvirtd with one domain in it."""

    def __init__(self) -> None:
        self.opened: list[mock.Mock] = []
        self.state = libvirt.VIR_DOMAIN_RUNNING
        self.has_domain = True
        self.job: Callable[[], dict[str, int]] = lambda: {'type': 0}
        self.on_open: Callable[[], object] = lambda: None
        self.answer: Callable[..., str] = lambda *args: FINE

    def open(self, uri: str) -> mock.Mock:
        assert uri == URI
        opened = mock.Mock()
        opened.isAlive.return_value = 1
        opened.lookupByUUIDString.side_effect = self._look_up
        self.opened.append(opened)
        self.on_open()
        return opened

    def agent_command(
        self, domain: mock.Mock, text: str, timeout: int, flags: int
    ) -> str:
        answer = self.answer(text, timeout, flags)
        # What says nothing says that the agent is well.
        if answer == FINE and 'guest-sync' in text:
            return answer_of_sync(text, timeout, flags)
        return answer

    def _look_up(self, uuid: str) -> mock.Mock:
        if uuid != UUID or not self.has_domain:
            raise error(42, f'Domain not found: no domain {uuid}')
        domain = mock.Mock()
        domain.state.side_effect = lambda: [self.state, 1]
        domain.jobStats.side_effect = self.job
        return domain


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    played = Libvirt()
    monkeypatch.setattr(connection, '_prepare_libvirt', lambda: None)
    monkeypatch.setattr(libvirt, 'open', played.open)
    monkeypatch.setattr(libvirt_qemu, 'qemuAgentCommand', played.agent_command)
    return played


@pytest.fixture
def guests(played: Libvirt) -> connection.Connection:
    return connection.Connection(URI)


def test_request_and_answer(
    played: Libvirt, guests: connection.Connection
) -> None:
    played.answer = mock.Mock(return_value='{"return": {"pid": 5}}')
    request = {'execute': 'guest-exec', 'arguments': {'arg': ['"\u20ac']}}
    assert guests.agent_command(UUID, request, 7) == {'pid': 5}
    text, timeout, flags = played.answer.call_args.args
    assert json.loads(text) == request
    assert (timeout, flags) == (7, 0)


@pytest.mark.parametrize(
    ('code', 'domain', 'text', 'kind', 'may_have_run'),
    [
        (
            42,
            QEMU,
            'Domain not found: no domain with matching uuid',
            exception.DomainNotFound,
            False,
        ),
        (
            55,
            QEMU,
            'Requested operation is not valid: domain is not running',
            exception.DomainNotRunning,
            False,
        ),
        (
            74,
            QEMU,
            'argument unsupported: QEMU guest agent is not configured',
            exception.AgentNotConfigured,
            False,
        ),
        (
            86,
            QEMU,
            UNRESPONSIVE + 'QEMU guest agent is not connected',
            exception.AgentNotConnected,
            False,
        ),
        (
            86,
            QEMU,
            UNRESPONSIVE + 'Guest agent disappeared while executing command',
            exception.AgentNotConnected,
            True,
        ),
        (
            86,
            QEMU,
            UNRESPONSIVE + 'Guest agent not available for now',
            exception.AgentUnresponsive,
            True,
        ),
        (
            86,
            QEMU,
            UNRESPONSIVE + 'QEMU guest agent is not available due to an error',
            exception.AgentUnresponsive,
            False,
        ),
        (
            86,
            QEMU,
            UNRESPONSIVE + "guest agent didn't respond to "
            "synchronization within '5' seconds",
            exception.AgentUnresponsive,
            False,
        ),
        (
            97,
            QEMU,
            'Guest agent replied with wrong id',
            exception.AgentUnresponsive,
            False,
        ),
        (
            112,
            QEMU,
            "guest agent command timed out: guest agent didn't "
            "respond to command within '5' seconds",
            exception.AgentUnresponsive,
            True,
        ),
        (
            68,
            QEMU,
            'Timed out during operation: cannot acquire state change '
            'lock (held by agent=remoteDispatchDomainQemuAgentCommand)',
            exception.AgentBusy,
            False,
        ),
        (
            1,
            QEMU,
            REFUSED + "Invalid parameter 'pid'",
            exception.AgentRefused,
            False,
        ),
        (
            113,
            QEMU,
            REFUSED_NEW + "Invalid parameter 'pid'",
            exception.AgentRefused,
            False,
        ),
        (
            1,
            QEMU,
            REFUSED + 'Command guest-exec has been disabled',
            exception.AgentCommandDisabled,
            False,
        ),
        (
            113,
            QEMU,
            REFUSED_NEW + 'Command guest-exec has been disabled: '
            'the command is not allowed',
            exception.AgentCommandDisabled,
            False,
        ),
        (
            1,
            QEMU,
            REFUSED + 'Command guest-exec has been disabled: the agent '
            'is in frozen state',
            exception.AgentBusy,
            False,
        ),
        (
            38,
            RPC,
            'End of file while reading data: Input/output error',
            exception.HypervisorUnavailable,
            True,
        ),
        (
            1,
            RPC,
            'internal error: client socket is closed',
            exception.HypervisorUnavailable,
            True,
        ),
        (
            1,
            RPC,
            'internal error: connection closed due to keepalive timeout',
            exception.HypervisorUnavailable,
            True,
        ),
        (
            39,
            RPC,
            'Unable to encode message payload',
            exception.AgentReplyTooLarge,
            True,
        ),
        (
            38,
            RPC,
            'Unable to encode message payload',
            exception.AgentReplyTooLarge,
            True,
        ),
        (
            38,
            QEMU,
            'No complete agent response found in 10485760 bytes: '
            'Numerical result out of range',
            exception.AgentReplyTooLarge,
            True,
        ),
        (
            38,
            QEMU,
            'Unable to read from agent: Connection reset by peer',
            exception.AgentNotConnected,
            True,
        ),
        (
            1,
            QEMU,
            'internal error: never heard of',
            exception.AgentError,
            True,
        ),
        (2, 0, 'out of memory', exception.AgentError, True),
    ],
)
def test_errors(
    played: Libvirt,
    guests: connection.Connection,
    code: int,
    domain: int,
    text: str,
    kind: type[exception.GuestError],
    may_have_run: bool,
) -> None:
    played.answer = mock.Mock(side_effect=error(code, text, domain))
    with pytest.raises(exception.GuestError) as raised:
        guests.agent_command(UUID, PING, 5)
    assert type(raised.value) is kind
    assert raised.value.may_have_run is may_have_run


@pytest.mark.parametrize('prefix', [REFUSED, REFUSED_NEW])
def test_refusal_is_in_the_words_of_the_agent(
    played: Libvirt, guests: connection.Connection, prefix: str
) -> None:
    played.answer = mock.Mock(
        side_effect=error(1, f"{prefix}Invalid 'pid': 5\nsorry" + 'x' * 9999)
    )
    with pytest.raises(exception.AgentRefused) as raised:
        guests.agent_command(UUID, PING, 5)
    words = str(raised.value)
    assert words.startswith("The guest agent refused: Invalid 'pid': 5 sorry")
    assert len(words) < 1000


@pytest.mark.parametrize(
    ('code', 'domain'),
    [(1, QEMU), (38, RPC), (38, QEMU), (86, QEMU), (55, QEMU)],
)
def test_what_libvirt_quotes_is_told_to_nobody(
    played: Libvirt,
    guests: connection.Connection,
    caplog: pytest.LogCaptureFixture,
    code: int,
    domain: int,
) -> None:
    played.answer = mock.Mock(
        side_effect=error(code, 'cannot parse json {"return": "hush"}', domain)
    )
    with pytest.raises(exception.GuestError) as raised:
        guests.agent_command(UUID, PING, 5)
    assert 'hush' not in ''.join(traceback.format_exception(raised.value))
    assert 'hush' not in caplog.text


def test_unknown_domain(guests: connection.Connection) -> None:
    unknown = UUID.replace('8', '9')
    with pytest.raises(exception.DomainNotFound):
        guests.ping(unknown)
    assert guests.domain_state(unknown) == connection.ABSENT


@pytest.mark.parametrize(
    ('job', 'is_migrating'),
    [
        ({'type': libvirt.VIR_DOMAIN_JOB_NONE}, False),
        (
            {
                'type': libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
                'operation': libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
            },
            True,
        ),
        (
            {
                'type': libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
                'operation': libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP,
            },
            False,
        ),
    ],
)
@pytest.mark.parametrize('way', ['agent_command', 'probe_command', 'ping'])
def test_nothing_is_asked_of_a_guest_that_is_migrated(
    played: Libvirt,
    guests: connection.Connection,
    way: str,
    job: dict[str, int],
    is_migrating: bool,
) -> None:
    """Other jobs are no hindrance."""
    played.job = lambda: job
    played.answer = mock.Mock(side_effect=answer_of_sync)
    arguments = (UUID,) if way == 'ping' else (UUID, SYNC, 5)
    if not is_migrating:
        getattr(guests, way)(*arguments)
        return
    with pytest.raises(exception.DomainMigrating):
        getattr(guests, way)(*arguments)
    played.answer.assert_not_called()


def test_answer_of_another_question_is_no_sign_of_life(
    played: Libvirt, guests: connection.Connection
) -> None:
    played.answer = lambda *args: '{"return": -1}'
    with pytest.raises(exception.AgentUnresponsive):
        guests.ping(UUID)


@pytest.mark.parametrize(
    ('state', 'word'),
    [
        (libvirt.VIR_DOMAIN_PAUSED, 'paused'),
        (libvirt.VIR_DOMAIN_SHUTOFF, 'shutoff'),
        (libvirt.VIR_DOMAIN_CRASHED, 'crashed'),
        (99, 'unknown'),
    ],
)
def test_domain_that_does_not_run_tells_its_state(
    played: Libvirt, guests: connection.Connection, state: int, word: str
) -> None:
    played.state = state
    played.answer = mock.Mock(side_effect=error(55, 'domain is not running'))
    with pytest.raises(exception.DomainNotRunning) as raised:
        guests.agent_command(UUID, PING, 5)
    assert raised.value.state == word
    assert guests.domain_state(UUID) == word


def test_domain_that_leaves_during_the_call(
    played: Libvirt, guests: connection.Connection
) -> None:
    def leave(*args: object) -> str:
        played.has_domain = False
        raise error(55, 'domain is not running')

    played.answer = leave
    with pytest.raises(exception.DomainNotFound):
        guests.agent_command(UUID, PING, 5)


class Gate:
    """Holds agent calls up, and counts them."""

    def __init__(self, played: Libvirt) -> None:
        played.answer = self._answer
        self.inside = self.most = 0
        self.changed = threading.Condition()
        self.released = threading.Event()

    def wait_for(self, inside: int) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: self.inside == inside, PATIENCE
            )

    def _answer(self, text: str, timeout: int, flags: int) -> str:
        if timeout == 1:
            return FINE  # a probe
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.changed.notify_all()
        assert self.released.wait(PATIENCE)
        with self.changed:
            self.inside -= 1
        return FINE


@pytest.fixture
def gate(played: Libvirt) -> Iterator[Gate]:
    gate = Gate(played)
    yield gate
    gate.released.set()


def start_calls(
    guests: connection.Connection, number: int, done: list[Any]
) -> list[threading.Thread]:
    threads = [
        threading.Thread(
            target=lambda: done.append(guests.agent_command(UUID, PING, 5))
        )
        for _ in range(number)
    ]
    for thread in threads:
        thread.start()
    return threads


def test_calls_at_once_are_bounded(
    guests: connection.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = start_calls(guests, 4, [])
    gate.wait_for(inside=4)
    monkeypatch.setattr(connection, 'FREE_TIMEOUT', 0.01)
    with pytest.raises(exception.AgentBusy) as raised:
        guests.agent_command(UUID, PING, 5)
    assert not raised.value.may_have_run
    gate.released.set()
    for thread in threads:
        thread.join(PATIENCE)


def test_calls_beyond_the_bound_wait_for_their_turn(
    guests: connection.Connection, gate: Gate
) -> None:
    done: list[Any] = []
    threads = start_calls(guests, 6, done)
    gate.wait_for(inside=4)
    gate.released.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (gate.most, len(done)) == (4, 6)


def test_hung_guests_delay_neither_probes_nor_states(
    guests: connection.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = start_calls(guests, 4, [])
    gate.wait_for(inside=4)
    monkeypatch.setattr(connection, 'FREE_TIMEOUT', 0.01)
    guests.ping(UUID)
    assert guests.domain_state(UUID) == 'running'
    gate.released.set()
    for thread in threads:
        thread.join(PATIENCE)


def test_guests_that_hung_before_delay_only_each_other(
    guests: connection.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [
        threading.Thread(target=lambda: guests.ping(UUID, 5, is_suspect=True))
        for _ in range(connection.SUSPECTS)
    ]
    for thread in threads:
        thread.start()
    gate.wait_for(inside=connection.SUSPECTS)
    monkeypatch.setattr(connection, 'FREE_TIMEOUT', 0.01)
    with pytest.raises(exception.AgentBusy):
        guests.ping(UUID, is_suspect=True)
    guests.ping(UUID)
    gate.released.set()
    for thread in threads:
        thread.join(PATIENCE)


def test_connection_is_given_back_after_an_error(
    played: Libvirt,
    guests: connection.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, 'FREE_TIMEOUT', 0.01)
    played.answer = mock.Mock(side_effect=error(68, 'busy'))
    for _ in range(3):
        with pytest.raises(exception.AgentBusy, match='another call'):
            guests.ping(UUID)


def test_work_probes_and_looks_have_a_connection_each(
    played: Libvirt, guests: connection.Connection
) -> None:
    for _ in range(2):
        guests.agent_command(UUID, PING, 5)
        guests.ping(UUID)
        guests.domain_state(UUID)
    assert len(played.opened) == 3
    for opened in played.opened:
        opened.setKeepAlive.assert_called_once_with(5, 3)


def test_dead_connection_is_opened_again(
    played: Libvirt, guests: connection.Connection
) -> None:
    guests.ping(UUID)
    played.opened[0].isAlive.return_value = 0
    guests.ping(UUID)
    guests.ping(UUID)
    assert len(played.opened) == 2


def test_failed_opening_is_tried_again(
    played: Libvirt, guests: connection.Connection
) -> None:
    played.on_open = mock.Mock(side_effect=[error(38, 'refused', RPC), None])
    with pytest.raises(exception.HypervisorUnavailable) as raised:
        guests.ping(UUID)
    assert not raised.value.may_have_run
    guests.ping(UUID)


def test_close_after_a_failed_opening(
    played: Libvirt, guests: connection.Connection
) -> None:
    played.on_open = mock.Mock(side_effect=error(38, 'refused', RPC))
    with pytest.raises(exception.HypervisorUnavailable):
        guests.ping(UUID)
    guests.close()


@pytest.fixture
def hung_opening(
    played: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> Iterator[threading.Event]:
    """libvirtd accepts connections, and says nothing until this is set."""
    released = threading.Event()
    played.on_open = lambda: released.wait(PATIENCE)
    monkeypatch.setattr(connection, 'OPEN_TIMEOUT', 0.01)
    yield released
    released.set()


def test_opening_that_hangs_is_waited_for_by_all(
    played: Libvirt,
    guests: connection.Connection,
    hung_opening: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(3):
        with pytest.raises(exception.HypervisorUnavailable) as raised:
            guests.ping(UUID)
        assert not raised.value.may_have_run
    hung_opening.set()
    monkeypatch.setattr(connection, 'OPEN_TIMEOUT', PATIENCE)
    guests.ping(UUID)
    assert len(played.opened) == 1


def test_opening_that_hangs_does_not_hold_up_close(
    played: Libvirt,
    guests: connection.Connection,
    hung_opening: threading.Event,
) -> None:
    with pytest.raises(exception.HypervisorUnavailable):
        guests.ping(UUID)
    guests.close()
    played.opened[0].setKeepAlive.assert_not_called()


def test_close(played: Libvirt, guests: connection.Connection) -> None:
    guests.close()
    guests.ping(UUID)
    guests.close()
    played.opened[0].close.assert_called_once_with()
    guests.ping(UUID)
    assert len(played.opened) == 2


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """libvirt's events: an error, a turn, and then nothing for ever."""
    ended = threading.Event()

    def turns() -> Iterator[libvirt.libvirtError | None]:
        yield error(1, 'hiccup')
        yield None
        ended.set()
        threading.Event().wait()

    events = mock.Mock(ended=ended)
    events.run.side_effect = turns()
    monkeypatch.setattr(libvirt, 'registerErrorHandler', events.silence)
    monkeypatch.setattr(
        libvirt, 'virEventRegisterDefaultImpl', events.register
    )
    monkeypatch.setattr(libvirt, 'virEventRunDefaultImpl', events.run)
    monkeypatch.setattr(connection, 'EVENT_ERROR_GAP', 0)
    connection._prepare_libvirt.cache_clear()
    yield events
    connection._prepare_libvirt.cache_clear()


def test_event_loop_runs_once_and_survives_errors(events: mock.Mock) -> None:
    connection.Connection(URI)
    connection.Connection(URI)
    assert events.ended.wait(PATIENCE)
    assert [call[0] for call in events.mock_calls] == [
        'silence',
        'register',
        'run',
        'run',
        'run',
    ]


def test_libvirt_prints_no_errors(
    events: mock.Mock, capfd: pytest.CaptureFixture[str]
) -> None:
    connection.Connection(URI)
    handler, context = events.silence.call_args.args
    handler(context, error(1, 'hush').err)
    assert capfd.readouterr() == ('', '')


def test_calls_are_counted(
    played: Libvirt, guests: connection.Connection
) -> None:
    calls = 'guest_agent_agent_call_seconds_count'
    failures = 'guest_agent_agent_call_failures_total'
    with (
        counted.grows(calls, 2, pool='work'),
        counted.grows(calls, 3, pool='probe'),
        counted.grows(calls, 1, pool='suspect'),
        counted.grows(failures, 0, error='AgentUnresponsive'),
        counted.grows(failures, 2, error='DomainNotFound'),
    ):
        guests.agent_command(UUID, PING, 5)
        guests.probe_command(UUID, PING, 5)
        guests.ping(UUID)
        guests.ping(UUID, is_suspect=True)
        played.has_domain = False
        with pytest.raises(exception.DomainNotFound):
            guests.agent_command(UUID, PING, 5)
        with pytest.raises(exception.DomainNotFound):
            guests.probe_command(UUID, PING, 5)


def test_call_without_a_free_connection_is_counted(
    monkeypatch: pytest.MonkeyPatch, played: Libvirt
) -> None:
    monkeypatch.setattr(connection, 'FREE_TIMEOUT', 0.01)
    guests = connection.Connection(URI, work_calls=1)
    with (
        guests._work.connection(),
        counted.grows(
            'guest_agent_agent_call_failures_total', error='AgentBusy'
        ),
        pytest.raises(exception.AgentBusy),
    ):
        guests.agent_command(UUID, PING, 5)
