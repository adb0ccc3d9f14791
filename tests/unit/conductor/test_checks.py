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

"""What the conductor believes of what a compute host says."""

import base64
import inspect
import json
import math
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies as st
import pytest

from guest_agent_ext import command
from guest_agent_ext import untrusted
from guest_agent_ext.conductor import checks
from guest_agent_ext.conductor import manager
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts

SERVICE = {'host': 'here', 'incarnation': 'f00d'}
#: A proper call of each method.
CALLS: dict[str, dict[str, Any]] = {
    'register': {'host': 'here', 'machine_id': '', 'version': '1'},
    'report': {'service': SERVICE, 'held': {'u': 'a'}, 'seen': {'u': 'x'}},
    'claim': {
        'service': SERVICE,
        'uuid': 'u',
        'attempt': 'a',
        'boot_id': 'boot',
        'ticket': 7,
        'window': 30.0,
    },
    'refuse': {'service': SERVICE, 'uuid': 'u', 'error': 'why'},
    'adopt': {
        'service': SERVICE,
        'uuid': 'u',
        'attempt': 'a',
        'previous': 'p',
    },
    'started': {
        'service': SERVICE,
        'uuid': 'u',
        'attempt': 'a',
        'pid': 1,
        'started_uptime': 7,
        'age': 0.5,
        'opened': None,
    },
    'finish': {
        'service': SERVICE,
        'uuid': 'u',
        'attempt': 'a',
        'end': {'status': command.COMPLETED},
    },
    'not_here': {
        'service': SERVICE,
        'uuid': 'u',
        'attempt': 'a',
        'state': 'shutoff',
    },
    'ended': {'service': SERVICE, 'uuids': ['u']},
}
REFUSALS: dict[str, Any] = {
    'report': manager._FENCED,
    'ended': [],
    'started': command.MOVED,
    'finish': command.MOVED,
    'not_here': command.MOVED,
}
#: What no argument is; of an error any words are taken.
NONSENSE: Any = [['x']]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Fails the test if a call comes as far as here."""
    database = mock.Mock()
    for name in (
        'get',
        'instance_for',
        'states',
        'note_seen',
        'claim',
        'adopt',
        'note_started',
        'finish',
        'end',
    ):
        monkeypatch.setattr(commands, name, getattr(database, name))
    for name in ('register', 'heartbeat'):
        monkeypatch.setattr(hosts, name, getattr(database, name))
    return database


def test_every_argument_of_every_call_is_read() -> None:
    methods = {
        name: method
        for name, method in inspect.getmembers(
            manager.ConductorManager, inspect.isfunction
        )
        if name[0] != '_'
    }
    assert methods.keys() == CALLS.keys()
    for name, method in methods.items():
        names = inspect.signature(method).parameters.keys() - {'self', 'ctxt'}
        assert names == CALLS[name].keys()
        readers = inspect.getclosurevars(method).nonlocals['readers']
        assert readers.keys() == names, name


@pytest.mark.parametrize(
    ('method', 'argument'),
    [
        (method, argument)
        for method, call in CALLS.items()
        for argument in call
        if argument != 'error'
    ],
)
def test_improper_argument_changes_nothing(
    database: mock.Mock, method: str, argument: str
) -> None:
    conductor = manager.ConductorManager(mock.Mock(uuid='cell'), mock.Mock())
    answer = getattr(conductor, method)(
        {}, **{**CALLS[method], argument: NONSENSE}
    )
    assert answer == REFUSALS.get(method)
    assert not database.mock_calls


@pytest.mark.parametrize(
    ('reader', 'value'),
    [
        (checks.word, 'x' * 65),
        (checks.word, ''),
        (checks.word, 'a\nb'),
        (checks.host, 'x' * 256),
        (checks.window, -1),
        (checks.window, math.nan),
        (checks.window, 1e9),
        (untrusted.uptime, 2**62),
        (untrusted.uptime, -1),
        (untrusted.age, math.nan),
        (checks.opened, {'target': 'x' * 40_000}),
        (untrusted.boot_id, 'x' * 37),
        (untrusted.natural, -7),
    ],
)
def test_what_is_out_of_bounds_is_refused(reader: Any, value: Any) -> None:
    with pytest.raises(untrusted.IMPROPER):
        reader(value)


@pytest.mark.parametrize(
    ('end', 'believed'),
    [
        (
            {'status': 'COMPLETED', 'exitcode': 7, 'pid': 3, 'age': 2.5},
            {'exitcode': 7, 'pid': 3, 'age': 2.5},
        ),
        (
            {'status': 'COMPLETED', 'pid': -7, 'exitcode': 2**40, 'signal': 0},
            {},
        ),
        ({'status': 'COMPLETED', 'age': 63e9}, {'age': untrusted.MAX_AGE}),
        ({'status': 'COMPLETED', 'age': -5}, {'age': 0.0}),
        ({'status': 'COMPLETED', 'age': math.nan, 'out_bytes': -1}, {}),
        (
            {'status': 'LOST', 'error': 'a\nb' + 'x' * 9000},
            {'error': 'a b' + 'x' * (untrusted.MAX_SENTENCE - 3)},
        ),
        ({'status': 'COMPLETED', 'out_data': '!', 'err_data': 5}, {}),
        ({'status': 'COMPLETED', 'more': 1}, {}),
    ],
)
def test_end_is_believed_as_far_as_it_goes(end: Any, believed: Any) -> None:
    assert checks.end(end) == {'status': end['status'], **believed}


def test_no_more_output_is_believed_than_is_kept() -> None:
    sent = base64.b64encode(b'x' * 8_000_000).decode()
    read = checks.end({'status': command.COMPLETED, 'out_data': sent})
    assert base64.b64decode(read['out_data']) == (
        b'x' * command.MAX_OUTPUT_BYTES
    )


@pytest.mark.parametrize('status', ['RUNNING', 'PENDING', 'x', None, 7])
def test_end_is_one_of_the_states_that_are(status: Any) -> None:
    with pytest.raises(untrusted.IMPROPER):
        checks.end({'status': status})


@hypothesis.given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_readers_fail_in_foreseen_ways_only(value: Any) -> None:
    for reader in (
        checks.word,
        checks.host,
        checks.service,
        checks.attempts,
        checks.sentences,
        checks.words,
        checks.window,
        checks.opened,
        checks.end,
        checks.machine_id,
        untrusted.age,
        untrusted.uptime,
        untrusted.boot_id,
    ):
        try:
            believed = reader(value)
        except untrusted.IMPROPER:
            continue
        assert len(json.dumps(believed)) < 1_000_000


def test_names_are_bounded() -> None:
    many = {str(number): 'x' for number in range(20_000)}
    assert len(checks.attempts(many)) == checks.MAX_NAMED
    assert len(checks.words(list(many))) == checks.MAX_NAMED


def test_proper_calls_pass(database: mock.Mock) -> None:
    database.heartbeat.return_value = None
    database.instance_for.return_value = None
    database.states.return_value = {}
    conductor = manager.ConductorManager(mock.Mock(uuid='cell'), mock.Mock())
    for method, call in CALLS.items():
        database.reset_mock()
        getattr(conductor, method)({}, **call)
        assert database.mock_calls, method


def test_pending_that_is_handed_out_keeps_a_lane_busy() -> None:
    # guest_agent.max_running_per_server is 8 where nobody says otherwise.
    assert rpcapi.PENDING_PER_SERVER >= 2 * 8
