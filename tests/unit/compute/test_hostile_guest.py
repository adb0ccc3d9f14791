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

"""A guest whose root has the agent answer anything at all.

What it says is its own trouble: no exception but those that lanes know, and
nothing that the conductor could not write down or that would be too large.
"""

import base64
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import math
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies as st
import libvirt
import libvirt_qemu
import pytest

from guest_agent_ext import clock
from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.compute import inquiry
from guest_agent_ext.compute import lane as compute_lane
from guest_agent_ext.compute import manager
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest import files
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import direct
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import scripted
from guest_agent_ext.guest.launchers import windows

SERVER = '8b1f5b51-6c70-4a53-8d5b-6a7c0e4b7f10'
COMMAND = '3f6f5f0e-1111-4000-8000-000000000000'
BOOT = '11111111-2222-4333-8444-555555555555'
MOST = command.MAX_OUTPUT_BYTES
#: What a column has room for.
LARGEST = 2**63 - 1
#: Characters of words for the tenant.
LONGEST = 1000

# The same examples each time.
hypothesis.settings.register_profile(
    'ours',
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile('ours')

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([10**30, -1, 2**63, 2**31, -(10**9)]),
    st.floats(),
    st.booleans(),
)
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        ['x' * 200_000, 'a\nb\0c\x1b[31m', '\ud800', '9' * 5000, '-' * 36]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(TEXTS, inner, max_size=5)
    ),
    max_leaves=10,
)
DEEP = '[' * 50_000 + ']' * 50_000

#: What scripts in guests print when all is well.
POSIX = [
    b'refused boot\n',
    b'refused /run/guest-agent\n',
    b'taken\n',
    b'none\n',
    b'fenced\n',
    b'died\n',
    b'running - - 12345 -\n',
    b'running 77 1000 12345 S\n',
    b'running 77 1000 12345 Z\n',
    b'ended 77 1000 768 0 head 10 0 -\nhello',
    b'ended 77 1000 9 0 tail 5 0 TIMED_OUT\nhello',
    b'ended 77 1000 32512 64 head 0 0 -\n',
    b'guest ' + BOOT.encode() + b' 12345 ' + COMMAND.encode(),
    b'created 17 ' + COMMAND.encode() + b'\n/root/file',
    b'committed\n',
    b'unsuitable directory\n',
    b'missing\n',
    b'3\n',
]
WINDOWS = [
    json.dumps(answer).encode()
    for answer in (
        {'says': 'refused', 'reason': 'boot'},
        {'says': 'taken'},
        {
            'says': 'running',
            'pid': 7,
            'start': 1,
            'uptime': 2,
            'has_exited': False,
        },
        {
            'says': 'ended',
            'pid': 7,
            'start': 100,
            'exitcode': -1073741510,
            'out': 'AP8=',
            'err': '',
            'out_bytes': 3_000_000_000,
            'err_bytes': 0,
            'killed': 'CANCELLED',
        },
        {'says': 'failed', 'error': 'bm8=', 'uptime': 5},
        {'boot_id': BOOT, 'uptime': 12, 'ids': [COMMAND]},
        {
            'says': 'created',
            'details': ['17'],
            'path': 'QzpcZg==',
            'error': '',
        },
    )
]


def mutated(printed: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return proper answers with something in the place of some of it."""
    return st.builds(
        lambda text, start, length, new: (
            text[:start] + new + text[start + length :]
        ),
        st.sampled_from(printed),
        st.integers(0, 200),
        st.integers(0, 40),
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b'9' * 30, b'-1', b' ', b'x' * 5000]),
        ),
    )


PRINTED = st.one_of(
    mutated(POSIX),
    mutated(WINDOWS),
    st.binary(),
    st.sampled_from(
        [
            b'ended 77 1000 0 0 tail 999999 0 -\n' + bytes(MOST + 1),
            DEEP.encode(),
            bytes(3_000_000),
        ]
    ),
    JSON.map(lambda value: json.dumps(value).encode()),
)
STATUSES = st.builds(
    guest_agent.ExecStatus,
    st.just(True),
    st.none() | st.integers(-9, 9),
    st.none() | st.integers(0, 64),
    PRINTED,
    PRINTED,
)


class Answering:
    """A connection whose guest answers as it is told.

    :param draw: makes an answer of a request
    """

    def __init__(self, draw: Callable[[str], Any]) -> None:
        self._draw = draw

    def agent_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        return self._draw(str(request['execute']))

    def probe_command(
        self, uuid: str, request: Mapping[str, Any], timeout: int
    ) -> Any:
        return self.agent_command(uuid, request, timeout)

    def ping(self, uuid: str, *, is_suspect: bool = False) -> None:
        """It answers that."""


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that do not end are waited for no longer than once."""
    monkeypatch.setattr(scripted, 'GAP', 0)
    monkeypatch.setattr(scripted, 'IDLE_GAP', 0)
    monkeypatch.setattr(scripted, 'MAX_IDLE_GAP', 0)
    for kind in (posix.PosixLauncher, windows.WindowsLauncher):
        monkeypatch.setattr(kind, 'timeout', -1)


# What libvirt hands over.


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> connection.Connection:
    monkeypatch.setattr(connection, '_prepare_libvirt', lambda: None)
    monkeypatch.setattr(libvirt, 'open', mock.Mock())
    return connection.Connection('qemu:///played')


@hypothesis.given(
    answer=st.one_of(
        TEXTS,
        JSON.map(json.dumps),
        JSON.map(lambda value: json.dumps({'return': value})),
    )
)
@hypothesis.example(answer=DEEP)
@hypothesis.example(answer='{"return": ' + DEEP + '}')
@hypothesis.example(answer='{"return": 1e999}')
@hypothesis.example(answer='{"retur')
def test_text_of_libvirt(guests: connection.Connection, answer: str) -> None:
    with mock.patch.object(
        libvirt_qemu, 'qemuAgentCommand', autospec=True, return_value=answer
    ):
        try:
            found = guests.agent_command(SERVER, {'execute': 'x'}, 5)
        except exception.AgentError as error:
            assert error.may_have_run
        else:
            assert repr(found) == repr(json.loads(answer)['return'])


@hypothesis.given(words=TEXTS)
def test_refusal_in_the_guests_words(
    guests: connection.Connection, words: str
) -> None:
    error = libvirt.libvirtError('')
    text = "unable to execute QEMU agent command 'guest-exec': " + words
    error.err = (1, libvirt.VIR_FROM_QEMU, text, 2, '', text, None, -1, -1)
    with (
        mock.patch.object(
            libvirt_qemu, 'qemuAgentCommand', autospec=True, side_effect=error
        ),
        pytest.raises(exception.GuestError) as raised,
    ):
        guests.agent_command(SERVER, {'execute': 'x'}, 5)
    assert_fit_to_show(str(raised.value))


# What the agent says.

CALLS: list[Callable[[guest_agent.Agent], Any]] = [
    lambda agent: agent.version(),
    lambda agent: agent.info(),
    lambda agent: agent.osinfo(),
    lambda agent: agent.fsfreeze_status(),
    lambda agent: agent.exec('/bin/sh', []),
    lambda agent: agent.exec_status(5),
    lambda agent: agent.file_open('/f', 'r'),
    lambda agent: agent.file_seek(1, 0, 'end'),
    lambda agent: agent.file_read(1, 10),
    lambda agent: agent.file_write(1, b'x'),
    lambda agent: files.Files(posix.PosixLauncher(agent)).check_readable('/f'),
]


@hypothesis.given(answer=JSON, call=st.sampled_from(CALLS))
@hypothesis.example(answer={'pid': math.inf}, call=CALLS[4])
@hypothesis.example(
    answer={'version': json.loads('[' * 200 + ']' * 200)}, call=CALLS[0]
)
@hypothesis.example(answer={'exited': True, 'exitcode': 10**30}, call=CALLS[5])
def test_answers_of_any_type(
    answer: Any, call: Callable[[guest_agent.Agent], Any]
) -> None:
    agent = guest_agent.Agent(Answering(lambda name: answer), SERVER)
    try:
        found = call(agent)
    except exception.GuestError as error:
        assert_fit_to_show(str(error))
    else:
        if isinstance(found, int):
            assert abs(found) <= LARGEST
        if isinstance(found, guest_agent.ExecStatus):
            assert_fits(found.exitcode, found.signal)


@hypothesis.given(answers=st.lists(JSON, min_size=4, max_size=4))
def test_agent_status_of_nova_api(answers: list[Any]) -> None:
    names = [
        'guest-info',
        'guest-get-osinfo',
        'guest-exec',
        'guest-exec-status',
    ]
    drawn = dict(zip(names, answers, strict=True))
    status = inquiry.Inquiries(
        Answering(drawn.get), clock.SystemClock()
    ).agent_status(SERVER)
    for word in (status['version'], status['os'], status['reason']):
        assert len(word or '') < LONGEST
    json.dumps(status)


# What scripts print.


def assert_fit_to_show(words: str) -> None:
    assert len(words) < LONGEST
    assert words.isprintable()


def assert_fits(*numbers: int | None) -> None:
    assert all(number is None or abs(number) <= LARGEST for number in numbers)


def check(outcome: launcher.Outcome | launcher.Probe) -> None:
    match outcome:
        case launcher.Ended():
            assert_fits(
                outcome.pid,
                outcome.start_ticks,
                outcome.exitcode,
                outcome.signal,
                outcome.out_bytes,
                outcome.err_bytes,
            )
            assert max(len(outcome.out), len(outcome.err)) <= MOST
            # The states that a command may end in are looked up by it.
            hash(outcome.killed)
            assert_fit_to_show(outcome.error or '')
        case launcher.Running():
            assert_fits(outcome.pid, outcome.started, outcome.uptime)
        case launcher.Refused():
            assert_fit_to_show(outcome.reason)
        case launcher.Probe():
            assert_fits(outcome.uptime)
            assert len(outcome.boot_id) <= 36
            assert len(outcome.ids) <= 500
            assert {len(uuid) for uuid in outcome.ids} <= {36}


ASKED: list[Callable[[scripted.ScriptLauncher], Any]] = [
    lambda guest: guest.probe(),
    lambda guest: guest.poll(5),
    lambda guest: guest.recover(COMMAND),
    lambda guest: guest.fence(COMMAND),
    lambda guest: guest.signal_tree(COMMAND, 'TERM', 'CANCELLED'),
    lambda guest: guest.unhold(COMMAND),
    lambda guest: guest.release([]),
    lambda guest: files.Files(guest).create(
        '/f', COMMAND, mode=None, append=False
    ),
    lambda guest: files.Files(guest).poll_commit(TARGET, 5),
    lambda guest: files.Files(guest).discard(TARGET),
]
TARGET = files.Target('/f', '/.ga', '17', None)


def each_truncated() -> Iterator[bytes]:
    for printed in (*POSIX, *WINDOWS):
        for length in range(len(printed) + 1):
            yield printed[:length]


def ask(
    kind: type[scripted.ScriptLauncher],
    status: guest_agent.ExecStatus,
    asked: Callable[[scripted.ScriptLauncher], Any],
) -> None:
    agent = mock.Mock()
    agent.exec.return_value = 5
    agent.exec_status.return_value = status
    try:
        found = asked(kind(agent))
    except exception.GuestError as error:
        assert_fit_to_show(str(error))
    else:
        check(found)


@pytest.mark.parametrize(
    'kind', [posix.PosixLauncher, windows.WindowsLauncher]
)
def test_truncated_anywhere(kind: type[scripted.ScriptLauncher]) -> None:
    for printed in each_truncated():
        for asked in ASKED:
            ask(
                kind,
                guest_agent.ExecStatus(True, 0, None, printed, b''),
                asked,
            )


@hypothesis.given(
    status=STATUSES,
    asked=st.sampled_from(ASKED),
    kind=st.sampled_from([posix.PosixLauncher, windows.WindowsLauncher]),
)
def test_printed_at_will(
    kind: type[scripted.ScriptLauncher],
    status: guest_agent.ExecStatus,
    asked: Callable[[scripted.ScriptLauncher], Any],
) -> None:
    ask(kind, status, asked)


@hypothesis.given(status=STATUSES)
def test_live_output_is_bounded(status: guest_agent.ExecStatus) -> None:
    agent = mock.Mock()
    agent.exec_status.return_value = status
    with contextlib.suppress(exception.GuestError):
        assert (
            len(posix.PosixLauncher(agent).output(COMMAND, 'stdout', 0))
            <= MOST
        )


# All of it: a lane, a step at a time.


def make_lane(draw: Callable[[str], Any]) -> compute_lane.Lane:
    conductor = mock.Mock()
    order: rpcapi.ExecOrder = {
        'command': ['id'],
        'cwd': None,
        'user': None,
        'env': {},
        'stdin': '',
        'output_keep': 'head',
    }
    conductor.claim.side_effect = conductor.adopt.side_effect = lambda *args: {
        'uuid': COMMAND,
        'type': command.EXEC,
        'exec': order,
        'file': None,
        'timeout': 60,
        'boot_id': BOOT,
        'ticket': 99999,
        'started_uptime': None,
    }
    conductor.finish.return_value = command.OK
    conductor.ended.side_effect = lambda service, uuids: list(uuids)
    session = compute_session.Session(
        SERVER,
        Answering(draw),
        conductor,
        {'host': 'here', 'incarnation': 'f00d'},
        clock.SystemClock(),
    )
    return compute_lane.Lane(session, manager.make_task, lambda lane: False)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@hypothesis.given(data=st.data(), is_adopted=st.booleans())
def test_no_step_fails_in_an_unforeseen_way(
    data: st.DataObject, is_adopted: bool
) -> None:
    def draw(name: str) -> Any:
        if name == 'guest-info':
            return {
                'version': '7',
                'supported_commands': [
                    {'name': name, 'enabled': True}
                    for name in ('guest-exec', 'guest-exec-status')
                ],
            }
        if name == 'guest-exec':
            return data.draw(st.just({'pid': 5}) | JSON)
        return data.draw(
            st.builds(
                lambda out: {
                    'exited': True,
                    'exitcode': 0,
                    'out-data': encoded(out),
                },
                mutated(POSIX),
            )
            | JSON
        )

    with mock.patch.object(compute_lane, 'LOG', autospec=True) as log:
        lane = make_lane(draw)
        lane.offer(
            {
                'uuid': COMMAND,
                'type': command.EXEC,
                'instance_uuid': SERVER,
                'status': command.PENDING,
                'attempt': 'before' if is_adopted else None,
                'cancel_requested': False,
                'start_in': 120.0,
            }
        )
        (item,) = lane._tasks.values()
        for _ in range(30):
            if item.is_done:
                break
            lane._step(item)
    log.exception.assert_not_called()
    for call in log.log.call_args_list:
        assert 'answers again' in call.args[1] or call.args[-1] in MESSAGES
    for call in lane.session.conductor.finish.call_args_list:
        check_end(call.args[3])


#: What is logged of a guest that does not do as asked: nothing of its own.
MESSAGES = {
    kind.message
    for kind in vars(exception).values()
    if isinstance(kind, type) and issubclass(kind, exception.GuestError)
}


def check_end(end: rpcapi.End) -> None:
    for value in end.values():
        if isinstance(value, int):
            assert_fits(value)
    for stream in (end.get('out_data', ''), end.get('err_data', '')):
        assert len(base64.b64decode(stream)) <= MOST
    assert_fit_to_show(end.get('error', ''))


@hypothesis.given(answer=JSON)
def test_direct_capture(answer: Any) -> None:
    agent = guest_agent.Agent(Answering(lambda name: answer), SERVER)
    guest = direct.DirectLauncher(agent)
    order = launcher.Launch(
        COMMAND, ['id'], {}, b'', None, None, direct.BOOT_ID, 1, MOST, 'head'
    )
    try:
        outcome = guest.poll(guest.launch(order))
    except exception.GuestError:
        return
    if outcome is not None:
        check(outcome)
