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

"""``openstack guest run`` with a service that is played."""

import copy
import json
import pathlib
from typing import Any
from unittest import mock

from keystoneauth1 import adapter
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
import pytest

from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import runs
from tests.unit.osc import fakes

RUN = {
    'uuid': 'run-id',
    'name': 'patch',
    'status': 'RUNNING',
    'targets': 2,
    'counts': {'WAITING': 2},
    'error': None,
    'created_at': '2026-01-01T00:00:00Z',
}


class Runs:
    """Plays the runs of a cloud with servers ``one`` to ``four``.

    :ivar run: the run, as the service shows it
    :ivar commands: commands of the run by their uuids, oldest first
    :ivar steps: what happens before each time that the run is shown
    :ivar asked: requests that were made
    """

    def __init__(self, compute: mock.Mock) -> None:
        self.run: dict[str, Any] = copy.deepcopy(RUN)
        self.commands: dict[str, dict[str, Any]] = {}
        self.steps: list[Any] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.on_cancel: Any = lambda: None
        # The SDK's own methods ask for an adapter.
        compute.__class__ = adapter.Adapter
        compute.default_microversion = None
        compute.retriable_status_codes = None
        compute.get.side_effect = self._get
        compute.post.side_effect = self._post
        compute.delete.side_effect = self._delete
        compute.find_server.side_effect = lambda name, **_: mock.Mock(
            id=f'id-of-{name}'
        )
        servers = []
        for name in ('one', 'two', 'three', 'four'):
            servers.append(mock.Mock(id=f'id-of-{name}'))
            servers[-1].name = name
        compute.servers.return_value = servers

    def release(self, *names: str) -> None:
        for name in names:
            self.commands[f'of-{name}'] = {
                'uuid': f'of-{name}',
                'instance_uuid': f'id-of-{name}',
                'status': 'RUNNING',
                'error': None,
                'result': None,
            }
        self._count()

    def end(
        self,
        name: str,
        exitcode: int | None = 0,
        out: str = '',
        status: str = 'COMPLETED',
        error: str | None = None,
    ) -> None:
        result = {
            'exitcode': exitcode,
            'out_data': out,
            'out_bytes': len(out),
            'out_truncated': False,
            'err_data': '',
            'err_bytes': 0,
            'err_truncated': False,
        }
        self.commands[f'of-{name}'].update(
            status=status,
            error=error,
            result=result if status == 'COMPLETED' else None,
        )
        self._count()

    def close(self, status: str = 'COMPLETED', **values: Any) -> None:
        self.run.update(status=status, **values)

    def _count(self) -> None:
        counts: dict[str, int] = {}
        for item in self.commands.values():
            counts[item['status']] = counts.get(item['status'], 0) + 1
        counts['WAITING'] = self.run['targets'] - len(self.commands)
        self.run['counts'] = counts

    def _get(self, url: str, params: Any = None, **_: Any) -> fakes.Response:
        # The SDK leaves the first slash out.
        url = '/' + url.lstrip('/')
        self.asked.append(('GET', url, params))
        if url.endswith('/guest-agent/runs/run-id'):
            if self.steps:
                self.steps.pop(0)()
            return fakes.Response(body={'run': copy.deepcopy(self.run)})
        if url.endswith('/guest-agent/runs/run-id/commands'):
            return fakes.Response(
                body={'commands': self._page(**(params or {}))}
            )
        if url.endswith('/guest-agent/runs'):
            return fakes.Response(body={'runs': [copy.deepcopy(self.run)]})
        *_, server, _, _, uuid = url.split('/')
        found = self.commands.get(uuid)
        if found is None:
            return fakes.Response(404, {'itemNotFound': {'message': 'gone'}})
        assert found['instance_uuid'] == server
        return fakes.Response(body={'command': copy.deepcopy(found)})

    def _page(
        self,
        status: Any = None,
        limit: int | None = None,
        marker: str | None = None,
        server: Any = None,
    ) -> list[dict[str, Any]]:
        found = [
            self._without_output(item)
            for item in reversed(self.commands.values())
        ]
        if marker is not None:
            uuids = [item['uuid'] for item in found]
            found = found[uuids.index(marker) + 1 :]
        return [
            item
            for item in found
            if (not status or item['status'] in status)
            and (not server or item['instance_uuid'] in server)
        ][:limit]

    def _without_output(self, item: dict[str, Any]) -> dict[str, Any]:
        shown = copy.deepcopy(item)
        for name in ('out_data', 'err_data'):
            (shown['result'] or {}).pop(name, None)
        return shown

    def _post(self, url: str, json: Any = None, **more: Any) -> Any:
        self.asked.append(('POST', url, json))
        if url.endswith('/action'):
            refusal = self.on_cancel()
            return refusal or fakes.Response(202)
        return fakes.Response(202, {'run': copy.deepcopy(self.run)})

    def _delete(self, url: str, **_: Any) -> fakes.Response:
        self.asked.append(('DELETE', url, None))
        return fakes.Response(204)


@pytest.fixture
def cloud(compute: mock.Mock, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr(runs.time, 'sleep', mock.Mock())
    return Runs(compute)


def create(compute: mock.Mock, *argv: str) -> Any:
    return fakes.run_without_server(runs.Create, compute, *argv)


def waited(compute: mock.Mock, *argv: str) -> Any:
    return create(compute, '--wait', '--tag', 'web', *argv, '--', 'id')


def test_request(
    compute: mock.Mock, cloud: Runs, tmp_path: pathlib.Path
) -> None:
    argv = '--server one --server two --tag web --tag blue --property a=b=c'
    options = (
        '--max-concurrency 25% --max-errors 1 --name patch --timeout 5 '
        '--user tenant --allow-missing-cells'
    )
    program = ['--', 'sh', '-c', 'id']
    assert create(compute, *argv.split(), *options.split(), *program) == 0
    ((_, url, body),) = cloud.asked
    assert url == '/guest-agent/runs'
    assert body == {
        'run': {
            'name': 'patch',
            'targets': {
                'servers': ['id-of-one', 'id-of-two'],
                'tags': ['web', 'blue'],
                'metadata': {'a': 'b=c'},
            },
            'max_concurrency': '25%',
            'max_errors': 1,
            'allow_missing_cells': True,
            'type': 'exec',
            'arguments': {
                'command': ['sh', '-c', 'id'],
                'timeout': 5,
                'user': 'tenant',
            },
        }
    }
    # It has secrets.
    assert compute.post.call_args.kwargs['log'] is False


def test_script(
    compute: mock.Mock, cloud: Runs, tmp_path: pathlib.Path
) -> None:
    script = tmp_path / 'patch.sh'
    script.write_text('echo $1')
    create(compute, '--tag', 'web', '--script', str(script), '--', 'x')
    sent = cloud.asked[0][2]['run']['arguments']
    assert sent['command'][-3:] == ['/bin/sh', '/proc/self/fd/9', 'x']
    assert 'input_data' in sent


def test_request_without_an_answer_is_repeated_with_its_key(
    compute: mock.Mock, cloud: Runs
) -> None:
    compute.post.side_effect = [
        ConnectionResetError(),
        fakes.Response(202, {'run': RUN}),
    ]
    assert create(compute, '--tag', 'web', 'id') == 0
    keys = {
        call.kwargs['headers']['Idempotency-Key']
        for call in compute.post.call_args_list
    }
    assert (compute.post.call_count, len(keys)) == (2, 1)


def test_servers_must_be_chosen(compute: mock.Mock, cloud: Runs) -> None:
    with pytest.raises(exceptions.CommandError, match='--tag'):
        create(compute, '--', 'id')
    assert not cloud.asked


@pytest.mark.parametrize(
    'argv',
    [
        ['--max-errors', 'x'],
        ['--max-concurrency', '%'],
        ['--property', 'a'],
        ['--property', '=a'],
    ],
)
def test_words_that_mean_nothing(
    compute: mock.Mock, cloud: Runs, argv: list[str], capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        create(compute, '--tag', 'web', *argv, '--', 'id')
    assert argv[1] in capsys.readouterr().err


def test_option_behind_the_program_is_asked_about(
    compute: mock.Mock, cloud: Runs, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        create(compute, '--tag', 'web', 'ls', '--wait')
    assert '(-- ls ...)' in capsys.readouterr().err


def test_output_comes_as_the_servers_end(
    compute: mock.Mock, cloud: Runs, capfdbinary: Any
) -> None:
    cloud.steps = [
        lambda: cloud.release('one', 'two'),
        lambda: cloud.end('two', out='second\n'),
        lambda: (cloud.end('one', out='first\n'), cloud.close()),
    ]
    assert waited(compute) == 0
    assert capfdbinary.readouterr() == (
        b'two: second\none: first\n',
        b'Run run-id COMPLETED, 2 servers: 2 succeeded\n',
    )


def test_what_ends_between_two_polls_is_shown_once(
    compute: mock.Mock, cloud: Runs, capfdbinary: Any
) -> None:
    cloud.run['targets'] = 3
    cloud.steps = [
        lambda: (cloud.release('one'), cloud.end('one', out='1\n')),
        lambda: (
            cloud.release('two', 'three'),
            cloud.end('two', out='2\n'),
            cloud.end('three', out='3\n'),
            cloud.close(),
        ),
    ]
    assert waited(compute) == 0
    assert capfdbinary.readouterr()[0] == b'one: 1\nthree: 3\ntwo: 2\n'


def test_command_that_wrote_nothing_costs_no_request(
    compute: mock.Mock, cloud: Runs
) -> None:
    cloud.steps = [
        lambda: (cloud.release('one', 'two'), cloud.end('one')),
        lambda: (cloud.end('two'), cloud.close()),
    ]
    waited(compute)
    read = [url for _, url, _ in cloud.asked if url.startswith('/servers')]
    # It was known to run before, so its end had to be asked for.
    assert read == ['/servers/id-of-two/guest-agent/commands/of-two']


def test_servers_with_the_same_output_together(
    compute: mock.Mock, cloud: Runs, capfdbinary: Any
) -> None:
    cloud.steps = [
        lambda: (
            cloud.release('one', 'two'),
            cloud.end('one', out='same\n'),
            cloud.end('two', out='same\n'),
            cloud.close(),
        )
    ]
    assert waited(compute, '--group') == 0
    assert b'one, two (2)\n' in capfdbinary.readouterr()[0]


def test_code_and_counts_where_not_all_succeeded(
    compute: mock.Mock, cloud: Runs, capfdbinary: Any
) -> None:
    cloud.run['targets'] = 5
    refused = [{'instance_uuid': 'id-of-four', 'error': 'is locked'}]

    def stop() -> None:
        cloud.run['counts'].update(WAITING=1, REFUSED=1)
        cloud.close('STOPPED', error='2 errors', refused=refused)

    cloud.steps = [
        lambda: (
            cloud.release('one', 'two', 'three'),
            cloud.end('one'),
            cloud.end('two', exitcode=2),
            cloud.end('three', status='LOST', error='Rebooted'),
            stop(),
        )
    ]
    assert waited(compute) == runs.NOT_ALL
    assert capfdbinary.readouterr()[1].decode().splitlines() == [
        'three: LOST: Rebooted',
        'two: exit code 2',
        'four: refused: is locked',
        'Run run-id STOPPED (2 errors), 5 servers: 1 succeeded, '
        '1 exited with another code, 1 lost, 1 refused, 1 not started',
    ]


def test_command_that_was_deleted_meanwhile(
    compute: mock.Mock, cloud: Runs, capfdbinary: Any
) -> None:
    cloud.steps = [
        lambda: cloud.release('one', 'two'),
        lambda: (
            cloud.end('two'),
            cloud.commands.pop('of-one'),
            cloud.close(),
        ),
    ]
    assert waited(compute) == runs.NOT_ALL
    assert b'2 servers: 1 succeeded' in capfdbinary.readouterr()[1]


def test_interrupt_cancels_the_run(
    compute: mock.Mock,
    cloud: Runs,
    capfdbinary: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        runs.time,
        'sleep',
        mock.Mock(side_effect=[interrupts.Interrupted(2), None, None]),
    )
    cloud.steps = [lambda: cloud.release('one')]

    def cancel() -> None:
        cloud.end('one', status='CANCELLED', error='It was cancelled')
        cloud.close('CANCELLED')

    cloud.on_cancel = cancel
    assert waited(compute) == 130
    cancels = [item for item in cloud.asked if item[0] == 'POST'][1:]
    assert cancels == [
        ('POST', '/guest-agent/runs/run-id/action', {'cancel': None})
    ]
    told = capfdbinary.readouterr()[1].decode()
    assert told.endswith('2 servers: 1 cancelled, 1 not started\n')


def test_run_that_ended_before_it_was_cancelled(
    compute: mock.Mock, cloud: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of the run, which was whole."""
    monkeypatch.setattr(
        runs.time,
        'sleep',
        mock.Mock(side_effect=[interrupts.Interrupted(2), None, None]),
    )
    cloud.steps = [lambda: cloud.release('one', 'two')]

    def end() -> fakes.Response:
        cloud.end('one')
        cloud.end('two')
        cloud.close()
        return fakes.Response(
            409, {'conflictingRequest': {'message': 'has ended'}}
        )

    cloud.on_cancel = end
    assert waited(compute) == 0


def test_interrupt_between_two_outputs_loses_none(
    compute: mock.Mock,
    cloud: Runs,
    capfdbinary: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, failures = runs.gathered.read, [interrupts.Interrupted(2)]

    def interrupted(*args: Any) -> Any:
        if item_is(args[1], 'two') and failures:
            raise failures.pop()
        return read(*args)

    def item_is(item: Any, name: str) -> bool:
        return bool(item.id == f'of-{name}')

    monkeypatch.setattr(runs.gathered, 'read', interrupted)
    cloud.run['targets'] = 3
    cloud.steps = [
        lambda: (
            cloud.release('one', 'two', 'three'),
            cloud.end('one', out='1\n'),
            cloud.end('two', out='2\n'),
            cloud.end('three', out='3\n'),
        )
    ]
    cloud.on_cancel = lambda: cloud.close('CANCELLED')
    assert waited(compute) == 130
    out, err = capfdbinary.readouterr()
    assert out == b'three: 3\ntwo: 2\none: 1\n'
    assert err.endswith(b'3 servers: 3 succeeded\n')


def test_interrupt_behind_an_output_shows_none_twice(
    compute: mock.Mock,
    cloud: Runs,
    capfdbinary: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add, failures = runs.gathered.Prefixed.add, [interrupts.Interrupted(2)]

    def interrupted(*args: Any) -> None:
        add(*args)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(runs.gathered.Prefixed, 'add', interrupted)
    cloud.steps = [
        lambda: (
            cloud.release('one', 'two'),
            cloud.end('one', out='1\n'),
            cloud.end('two', out='2\n'),
        )
    ]
    cloud.on_cancel = lambda: cloud.close('CANCELLED')
    assert waited(compute) == 130
    out, err = capfdbinary.readouterr()
    assert out == b'two: 2\none: 1\n'
    assert err.endswith(b'2 servers: 2 succeeded\n')


def test_second_interrupt_leaves_the_run(
    compute: mock.Mock,
    cloud: Runs,
    capfdbinary: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        runs.time, 'sleep', mock.Mock(side_effect=interrupts.Interrupted(15))
    )
    cloud.steps = [lambda: cloud.release('one')]
    assert waited(compute) == 143
    told = capfdbinary.readouterr()[1]
    assert told == b'Run run-id is being cancelled\n'


def test_service_that_is_away_for_a_moment(
    compute: mock.Mock, cloud: Runs
) -> None:
    def fail() -> None:
        raise ConnectionResetError

    cloud.steps = [
        lambda: (
            cloud.release('one', 'two'),
            cloud.end('one'),
            cloud.end('two'),
            fail(),
        ),
        cloud.close,
    ]
    assert waited(compute) == 0


def test_large_runs_are_asked_about_less(
    compute: mock.Mock, cloud: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    sleep = mock.Mock()
    monkeypatch.setattr(runs.time, 'sleep', sleep)
    monkeypatch.setattr(runs.time, 'monotonic', lambda: now[0])

    def pass_time() -> None:
        now[0] += 10

    cloud.steps = [pass_time, cloud.close]
    waited(compute)
    assert sleep.call_args_list == [mock.call(10)]


def test_list_and_show(compute: mock.Mock, cloud: Runs) -> None:
    cloud.run.update(
        counts={'COMPLETED': 2, 'LOST': 0, 'WAITING': 1},
        arguments={'command': ['echo', 'a b']},
    )
    titles, rows = fakes.run_without_server(
        runs.List,
        compute,
        *['--status', 'RUNNING', '--long', '--limit', '1', '--all-projects'],
    )
    (row,) = list(rows)
    shown = dict(zip(titles, row, strict=True))
    assert shown['Id'] == 'run-id'
    assert shown['Counts'].human_readable() == '2 COMPLETED, 1 WAITING'
    assert shown['Command Line'].human_readable() == "echo 'a b'"
    assert cloud.asked[0][2] == {
        'status': ['RUNNING'],
        'limit': 1,
        'all_projects': 'true',
    }
    names, values = fakes.run_without_server(runs.Show, compute, 'run-id')
    found = dict(zip(names, values, strict=True))
    assert (found['name'], found['targets']) == ('patch', 2)
    json.dumps(found['counts'].machine_readable())


def test_cancel_and_delete(compute: mock.Mock, cloud: Runs) -> None:
    fakes.run_without_server(runs.Cancel, compute, 'a', 'b')
    fakes.run_without_server(runs.Delete, compute, 'c')
    assert [(method, url) for method, url, _ in cloud.asked] == [
        ('POST', '/guest-agent/runs/a/action'),
        ('POST', '/guest-agent/runs/b/action'),
        ('DELETE', 'guest-agent/runs/c'),
    ]


@pytest.mark.parametrize(
    ('argv', 'shown'),
    [([], b'two: 2\none: 1\n'), (['--server', 'one'], b'one: 1\n')],
)
def test_output_of_what_has_ended(
    compute: mock.Mock,
    cloud: Runs,
    capfdbinary: Any,
    argv: list[str],
    shown: bytes,
) -> None:
    cloud.release('one', 'two', 'three')
    cloud.end('one', out='1\n')
    cloud.end('two', out='2\n', exitcode=1)
    code = fakes.run_without_server(runs.Output, compute, 'run-id', *argv)
    assert code == 0
    out, err = capfdbinary.readouterr()
    assert out == shown
    assert (b'two: exit code 1\n' in err) == (not argv)


def test_refused_request(compute: mock.Mock, cloud: Runs) -> None:
    compute.post.side_effect = None
    compute.post.return_value = fakes.Response(
        400, {'badRequest': {'message': 'no such server'}}
    )
    with pytest.raises(sdk_exceptions.BadRequestException, match='no such'):
        waited(compute)
