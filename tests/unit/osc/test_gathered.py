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

"""What a user reads of the commands of a run."""

import threading
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext.osc import gathered
from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import resources
from tests.unit.osc import fakes

OK = gathered.End(None, b'ok\n')


def test_prefix_before_each_line(capfdbinary: Any) -> None:
    end = gathered.End('exit code 3', b'one\n\ntwo', b'oops\n')
    gathered.Prefixed().add('web-1', end)
    assert capfdbinary.readouterr() == (
        b'web-1: one\nweb-1: \nweb-1: two\n',
        b'web-1: oops\nweb-1: exit code 3\n',
    )


def test_bytes_are_passed_on(capfdbinary: Any) -> None:
    gathered.Prefixed().add('a', gathered.End(None, b'\xff\r\x00\n'))
    assert capfdbinary.readouterr()[0] == b'a: \xff\r\x00\n'


def test_what_was_not_kept_is_told(capfdbinary: Any) -> None:
    gathered.Prefixed().add('a', gathered.End(None, b'x', missing=7))
    assert capfdbinary.readouterr() == (
        b'a: x\n',
        b'a: 7 bytes of output were not kept\n',
    )


def test_servers_with_the_same_end_stand_together(capfdbinary: Any) -> None:
    grouped = gathered.Grouped()
    grouped.add('c', OK)
    grouped.add('b', gathered.End('exit code 1', b'ok\n', b'err'))
    grouped.add('a', OK)
    assert capfdbinary.readouterr() == (b'', b'')
    grouped.finish()
    assert capfdbinary.readouterr() == (
        b'---------------\na, c (2)\n---------------\nok\n'
        b'---------------\nb (1), exit code 1\n---------------\nok\nerr\n',
        b'',
    )


def test_reader_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = mock.Mock()
    stdout.buffer.write.side_effect = BrokenPipeError
    monkeypatch.setattr('sys.stdout', stdout)
    monkeypatch.setattr(interrupts, 'close', mock.Mock())
    with pytest.raises(interrupts.Interrupted):
        gathered.Prefixed().add('a', OK)


def test_closed_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.stdout', None)
    gathered.Prefixed().add('a', OK)


def test_names_are_read_once_and_only_when_needed() -> None:
    nova = mock.Mock()
    nova.servers.return_value = [mock.Mock(id=number) for number in '1234']
    for server, name in zip(
        nova.servers.return_value, ['web', 'twin', 'twin', ''], strict=True
    ):
        server.name = name
    names = gathered.Names(nova)
    nova.servers.assert_not_called()
    assert [names.of(server) for server in '12345'] == [
        'web',
        '2',
        '3',
        '4',
        '5',
    ]
    nova.servers.assert_called_once_with(details=False)


def test_servers_whose_names_nova_does_not_tell_have_their_ids(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gathered, 'NAMES_TIMEOUT', 0.05)
    over = threading.Event()
    nova = mock.Mock()
    nova.servers.side_effect = lambda **_: over.wait(30) or []
    names = gathered.Names(nova)
    assert [names.of(server) for server in '12'] == ['1', '2']
    over.set()
    assert capsys.readouterr().err.count('does not list the servers') == 1


def test_refusal_to_list_servers_is_told() -> None:
    nova = mock.Mock()
    nova.servers.side_effect = ValueError('refused')
    with pytest.raises(ValueError, match='refused'):
        gathered.Names(nova).of('1')


@pytest.mark.parametrize(
    ('values', 'verdict'),
    [
        ({'result': {'exitcode': 0}}, None),
        ({'result': {'exitcode': 4}}, 'exit code 4'),
        ({'result': {'exitcode': None, 'signal': 9}}, 'signal 9'),
        ({'status': 'LOST', 'error': 'Rebooted'}, 'LOST: Rebooted'),
        ({'status': 'TIMED_OUT'}, 'TIMED_OUT'),
    ],
)
def test_verdict(values: dict[str, Any], verdict: str | None) -> None:
    found = resources.Command.new(**{'status': 'COMPLETED', **values})
    assert gathered.verdict_of(found) == verdict


def listed(**result: Any) -> resources.RunCommand:
    found: resources.RunCommand = resources.RunCommand.existing(
        uuid='command-id',
        status='COMPLETED',
        instance_uuid=fakes.SERVER,
        result={'exitcode': 0, **result},
    )
    return found


@pytest.mark.parametrize(
    'item',
    [
        listed(out_bytes=0, err_bytes=0),
        resources.RunCommand.existing(status='FAILED', error='No such file'),
    ],
)
def test_command_that_wrote_nothing_is_not_read_again(
    compute: mock.Mock, item: resources.RunCommand
) -> None:
    assert gathered.read(compute, item).out == b''
    compute.get.assert_not_called()


def test_output_is_read_from_the_command(
    compute: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a long stream is not in its result."""
    whole = resources.Command.existing(
        uuid='command-id',
        server_id=fakes.SERVER,
        status='COMPLETED',
        result={
            'exitcode': 0,
            'out_bytes': 9,
            'err_bytes': 3,
            'out_data': 'ab',
            'out_truncated': True,
            'err_data': 'err',
            'err_truncated': False,
        },
    )
    monkeypatch.setattr(
        resources.RunCommand, 'whole', lambda self, compute: whole
    )
    compute.get.return_value = fakes.output(b'abcd', 0, True)
    end = gathered.read(compute, listed(out_bytes=9, err_bytes=3))
    assert end == gathered.End(None, b'abcd', b'err', 5)
    (url,) = compute.get.call_args.args
    assert url == (
        f'/servers/{fakes.SERVER}/guest-agent/commands/command-id/output'
    )
