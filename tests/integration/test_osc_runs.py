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

"""The real ``openstack guest run``, with three servers."""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest

from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd
from tools.testbed.parts import nova

OPENSTACK = pathlib.Path(sys.executable).with_name('openstack')


class Servers:
    """Three servers, and ``openstack`` for their project.

    :ivar ids: ids of the servers by their names
    """

    def __init__(self, cloud: testbed_cloud.Cloud) -> None:
        client = cloud.client()
        guests = [libvirtd.Guest(), libvirtd.Guest()]
        for guest in guests:
            cloud.add(guest)
        uuids = [client.server_id, *(guest.uuid for guest in guests)]
        self.ids = dict(zip(('one', 'two', 'three'), uuids, strict=True))
        for name, uuid in self.ids.items():
            cloud.update(uuid, display_name=name)
        self._env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith('OS_')
            },
            'OS_AUTH_TYPE': 'admin_token',
            'OS_TOKEN': client.token,
            'OS_ENDPOINT': cloud.nova.url,
        }

    def start(self, line: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a command.

        :param line: arguments of ``openstack``, quoted as for a shell
        :param more: arguments behind that
        """
        return subprocess.Popen(
            [OPENSTACK, *shlex.split(line), *more],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, line: str, *more: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        process = self.start(line, *more)
        out, err = process.communicate(timeout=180)
        return process.returncode, out.decode(), err.decode()

    def do(self, line: str, *more: str) -> str:
        """Run something that succeeds; return what it printed."""
        code, out, err = self.run(line, *more)
        assert code == 0, err
        return out

    def json(self, line: str) -> Any:
        return json.loads(self.do(f'{line} -f json'))


@pytest.fixture(scope='module')
def servers(running_cloud: testbed_cloud.Cloud) -> Servers:
    """``one`` and ``two`` have the tag web, ``three`` a property."""
    running_cloud.mend()
    servers = Servers(running_cloud)
    # By Nova's API this would take a Neutron.
    with contextlib.closing(
        running_cloud.mariadb.connect(nova.CELL)
    ) as connection:
        cursor = connection.cursor()
        for name in ('one', 'two'):
            cursor.execute(
                "INSERT INTO tags (resource_id, tag) VALUES (%s, 'web')",
                [servers.ids[name]],
            )
        cursor.execute(
            'INSERT INTO instance_metadata (instance_uuid, `key`, value, '
            "deleted) VALUES (%s, 'role', 'db', 0)",
            [servers.ids['three']],
        )
        connection.commit()
    for name in servers.ids:
        servers.do(f'server guest wait {name}')
    return servers


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


def test_output_of_each_server_and_the_counts(servers: Servers) -> None:
    code, out, err = servers.run(
        'guest run create --tag web --server three --wait -- sh -c',
        'echo out; echo err >&2',
    )
    assert code == 0, err
    assert lines(out) == ['one: out', 'three: out', 'two: out']
    *told, last = err.splitlines()
    assert sorted(told) == ['one: err', 'three: err', 'two: err']
    assert last.endswith('COMPLETED, 3 servers: 3 succeeded')


@pytest.mark.parametrize(
    ('chosen', 'names'),
    [
        ('--tag web', {'one', 'two'}),
        ('--property role=db', {'three'}),
        ('--server one --property role=db', {'one', 'three'}),
    ],
)
def test_targets(servers: Servers, chosen: str, names: set[str]) -> None:
    out = servers.do(f'guest run create --wait {chosen} -- echo x')
    assert {line.partition(':')[0] for line in out.splitlines()} == names


def test_same_output_together(servers: Servers) -> None:
    for name, text in (('one', 'old'), ('two', 'new'), ('three', 'old')):
        servers.do(
            f'server guest exec {name} -- sh -c', f'echo {text} >/tmp/release'
        )
    out = servers.do(
        'guest run create --tag web --server three --wait --group -- '
        'cat /tmp/release'
    )
    rule = '-' * 15
    assert out.splitlines() == [
        *(rule, 'one, three (2)', rule, 'old'),
        *(rule, 'two (1)', rule, 'new'),
    ]


def test_errors_stop_a_run(servers: Servers) -> None:
    """The order is that of the servers on the command line."""
    code, out, err = servers.run(
        'guest run create --server one --server two --server three '
        '--max-concurrency 1 --max-errors 1 --wait -- sh -c',
        'echo tried; exit 4',
    )
    assert (code, out) == (3, 'one: tried\n')
    assert 'one: exit code 4\n' in err
    last = err.splitlines()[-1]
    assert 'STOPPED' in last
    assert last.endswith(
        '3 servers: 1 exited with another code, 2 not started'
    )


def test_server_that_cannot_take_it(
    servers: Servers, running_cloud: testbed_cloud.Cloud
) -> None:
    with running_cloud.server(vm_state='stopped'):
        code, out, err = servers.run(
            'guest run create --tag web --wait -- echo x'
        )
    assert (code, out) == (3, 'two: x\n')
    assert 'one: refused: Server' in err
    assert err.splitlines()[-1].endswith('1 succeeded, 1 refused')


def test_interrupt_cancels(servers: Servers) -> None:
    servers.do('server guest exec two -- touch /tmp/quick')
    process = servers.start(
        'guest run create --tag web --server three --wait -- sh -c',
        '[ -e /tmp/quick ] || sleep 600; echo quick',
    )
    assert process.stdout is not None
    # The first output tells that it follows the run.
    assert process.stdout.readline() == b'two: quick\n'
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    last = err.decode().splitlines()[-1]
    assert 'CANCELLED, 3 servers: 1 succeeded, 2 cancelled' in last


def test_looked_at_later(servers: Servers) -> None:
    told = servers.do('guest run create --name patch --tag web -- hostname')
    run = told.split()[1]
    waited(servers, run)
    listed = servers.json('guest run list --limit 1')
    assert [(item['Id'], item['Name']) for item in listed] == [(run, 'patch')]
    shown = servers.json(f'guest run show {run}')
    assert shown['counts']['COMPLETED'] == 2
    out = servers.do(f'guest run output {run}')
    assert lines(out) == ['one: guest', 'two: guest']
    out = servers.do(f'guest run output {run} --server two')
    assert out == 'two: guest\n'
    servers.do(f'guest run delete {run}')
    assert servers.run(f'guest run show {run}')[0] == 1


def test_cancelled_later(servers: Servers) -> None:
    told = servers.do(
        'guest run create --tag web --max-concurrency 1 -- sleep 600'
    )
    run = told.split()[1]
    servers.do(f'guest run cancel {run}')
    assert waited(servers, run)['status'] == 'CANCELLED'


def waited(servers: Servers, run: str) -> Any:
    """Return a run when it has ended, as it is shown."""
    for _ in range(60):
        shown = servers.json(f'guest run show {run}')
        if shown['status'] != 'RUNNING':
            break
    return shown
