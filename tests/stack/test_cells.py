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

"""Two cells behind one API and one conductor; one of them is cut off.

The broker of the second cell is in a network namespace of its own. Runs go to
eight servers in both.
"""

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import time
from typing import Any

import pytest

from tests.stack import conftest
from tools.stack import nova
from tools.stack import stack as stack_module
from tools.testbed import processes

HOSTS = ('compute-1', 'compute-2')

#: Servers of each cell that a run goes to, and the tag that these have.
SERVERS, TAG = 4, 'fleet'


@pytest.fixture(scope='module')
def cell2(stack: stack_module.Stack) -> nova.Cell:
    stack.add_cell()
    return stack.cells[2]


@pytest.fixture(scope='module')
def servers(cell2: nova.Cell, boot: Callable[..., str]) -> dict[str, str]:
    """A server in each cell, by its host."""
    return {host: boot('admin', host) for host in HOSTS}


@pytest.fixture
def compute(sdk: Callable[[str], Any]) -> Any:
    return sdk('admin').compute


@pytest.fixture(scope='module')
def tagged(
    sdk: Callable[[str], Any],
    servers: dict[str, str],
    boot: Callable[..., str],
) -> dict[str, set[str]]:
    """Uuids of the servers with the tag, by their host."""
    found = {host: {server_id} for host, server_id in servers.items()}
    more = [host for host in HOSTS for _ in range(SERVERS - 1)]
    with futures.ThreadPoolExecutor(len(more)) as pool:
        for host, server_id in zip(
            more, pool.map(lambda host: boot('admin', host), more), strict=True
        ):
            found[host].add(server_id)
    for server_id in set().union(*found.values()):
        sdk('admin').compute.put(
            f'/servers/{server_id}/tags/{TAG}', microversion='2.26'
        ).raise_for_status()
    return found


@contextlib.contextmanager
def _refused(stack: stack_module.Stack) -> Iterator[None]:
    """Connections to the second cell's broker are refused."""
    stack.process('rabbitmq-cell2').stop()
    yield
    stack.start_broker(stack.cells[2])


@contextlib.contextmanager
def _black_hole(stack: stack_module.Stack) -> Iterator[None]:
    """What the second cell's broker is sent, and sends, is dropped."""
    namespace = stack.cells[2].namespace
    assert namespace is not None
    namespace.cut_off()
    yield
    namespace.mend()


def _post(compute: Any, server_id: str, *argv: str) -> tuple[float, Any]:
    began = time.monotonic()
    answer = compute.post(
        f'/servers/{server_id}/guest-agent/commands',
        json={
            'command': {'type': 'exec', 'arguments': {'command': list(argv)}}
        },
    )
    return time.monotonic() - began, answer


def _show(compute: Any, answer: Any) -> Any:
    """Return, as it is now, the command that a POST answered."""
    assert answer.status_code == 200, answer.text
    command = answer.json()['command']
    return compute.get(
        f'/servers/{command["instance_uuid"]}/guest-agent/commands/'
        + command['uuid']
    ).json()['command']


def _ended(compute: Any, answer: Any, timeout: float = 120) -> Any:
    """Wait for the end of what a POST answered."""
    processes.wait_for(
        lambda: _show(compute, answer)['finished_at'],
        timeout,
        'the end of a command',
    )
    return _show(compute, answer)


def test_both_cells_run_commands(
    compute: Any, servers: dict[str, str]
) -> None:
    for host, server_id in servers.items():
        ended = _ended(compute, _post(compute, server_id, 'hostname')[1])
        assert (ended['status'], ended['host']) == ('COMPLETED', host)
    hosts = compute.get('/guest-agent/hosts').json()['hosts']
    assert {item['host']: item['state'] for item in hosts} == {
        'compute-1': 'up',
        'compute-2': 'up',
    }
    assert len({item['cell'] for item in hosts}) == 2


@pytest.mark.parametrize('cut_off', [_refused, _black_hole])
def test_a_cell_is_cut_off(
    stack: stack_module.Stack,
    compute: Any,
    servers: dict[str, str],
    cut_off: Any,
) -> None:
    """The other does not notice; what was accepted runs when it is back."""
    well, ill = servers['compute-1'], servers['compute-2']
    # What a POST takes is the machine's; that it waits for no broker is ours.
    bound = 1 + max(
        _post(compute, server_id, 'true')[0]
        for server_id in (well, ill, well, ill)
    )
    waiting = []
    with cut_off(stack):
        for _ in range(3):
            seconds, answer = _post(compute, well, 'true')
            assert seconds < bound
            assert _ended(compute, answer, 60)['status'] == 'COMPLETED'
            seconds, answer = _post(compute, ill, 'true')
            assert seconds < bound
            waiting.append(answer)
        for answer in waiting:
            assert _show(compute, answer)['status'] == 'PENDING'
    for answer in waiting:
        assert _ended(compute, answer)['status'] == 'COMPLETED'


@pytest.fixture
def admin(cloud: Callable[[str], conftest.OpenStack]) -> conftest.OpenStack:
    return cloud('admin')


def test_run_in_the_servers_of_both_cells(
    admin: conftest.OpenStack, tagged: dict[str, set[str]]
) -> None:
    code, out, err = admin.run(
        *('guest', 'run', 'create', '--tag', TAG, '--max-concurrency', '3'),
        *('--wait', '--group', '--', 'hostname'),
    )
    assert code == 0, err
    assert f'({2 * SERVERS})' in out.decode()
    last = err.decode().splitlines()[-1]
    assert last.endswith(f'{2 * SERVERS} servers: {2 * SERVERS} succeeded')
    run = admin.json('guest', 'run', 'list', '--limit', '1')[0]['Id']
    for host in HOSTS:
        for server_id in tagged[host]:
            told = admin.do(
                'guest', 'run', 'output', run, '--server', server_id
            )
            assert told.endswith(': guest\n')


def test_run_while_the_database_of_a_cell_does_not_answer(
    stack: stack_module.Stack,
    admin: conftest.OpenStack,
    tagged: dict[str, set[str]],
) -> None:
    create = ('guest', 'run', 'create', '--tag', TAG, '--wait')
    cell = stack.cells[2]
    with contextlib.closing(stack.database.connect(cell.database)) as session:
        session.cursor().execute('LOCK TABLES instances WRITE')
        code, out, err = admin.run(*create, '--', 'hostname')
        assert (code, out) == (1, b'')
        assert f'Cell {cell.name} is down' in err.decode()
        code, out, err = admin.run(
            *create, '--allow-missing-cells', '--', 'hostname'
        )
    assert code == 0, err
    assert len(out.splitlines()) == len(tagged['compute-1'])
    assert f'{SERVERS} succeeded' in err.decode().splitlines()[-1]
    assert cell.name in err.decode()
