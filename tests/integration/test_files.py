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


"""Files in and out of a real guest, through separate processes."""

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import hashlib
import http.client
import json
import os
import time
import urllib.parse
import uuid

import pytest

from guest_agent_ext.compute import rpcapi
from tools.testbed import client as testbed_client
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes
from tools.testbed.parts import libvirtd

MIB = 1024 * 1024
LARGE = 100 * MIB
PATIENCE = 120
UUID = 'X-Guest-Agent-Command-UUID'


@pytest.fixture(scope='module')
def guest() -> libvirtd.Guest:
    """A guest whose file system, which is its memory, has some room."""
    return libvirtd.Guest(memory=900)


@pytest.fixture(scope='module')
def _booted(
    running_cloud: testbed_cloud.Cloud, guest: libvirtd.Guest
) -> Iterator[testbed_client.Client]:
    running_cloud.mend()
    yield running_cloud.add(guest)
    running_cloud.hypervisor.domain(guest).destroy()


@pytest.fixture
def client(
    cloud: testbed_cloud.Cloud, _booted: testbed_client.Client
) -> testbed_client.Client:
    """A member of the project of that guest's server."""
    return _booted


@pytest.fixture
def path() -> str:
    """A path in a directory that has nothing else."""
    return f'/root/{uuid.uuid4()}/file'


@pytest.fixture
def directory(client: testbed_client.Client, path: str) -> Iterator[str]:
    found = os.path.dirname(path)
    sh(client, 'mkdir "$1"', found)
    yield found
    sh(client, 'umount "$1" 2>/dev/null; rm -rf "$1"', found)


def sh(client: testbed_client.Client, script: str, *args: str) -> str:
    """Run a script in the guest that succeeds, and return what it wrote."""
    shown = client.run('/bin/sh', '-c', script, 'sh', *args)
    assert shown['result'] and shown['result']['exitcode'] in (0, 1), shown
    return str(shown['result']['out_data'])


def names(client: testbed_client.Client, directory: str) -> list[str]:
    return sh(client, 'ls -A "$1"', directory).split()


def open_handles(client: testbed_client.Client, name: str) -> int:
    """Count the descriptors that the agent has of a file."""
    return int(
        sh(client, 'ls -l /proc/$(pidof qemu-ga)/fd | grep -c "$1"', name)
    )


def message_of(answer: testbed_client.Answer, status: int) -> str:
    assert answer.status == status, answer.body
    (fault,) = json.loads(answer.body).values()
    return str(fault['message'])


def shown_of(
    client: testbed_client.Client, answer: testbed_client.Answer
) -> dict[str, object]:
    return client.show(answer.headers[UUID])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    processes.wait_for(condition, PATIENCE, what)


# Both ways.


@pytest.mark.parametrize(
    'size',
    [
        0,
        1,
        rpcapi.WRITE_CHUNK - 1,
        rpcapi.WRITE_CHUNK,
        rpcapi.WRITE_CHUNK + 1,
        rpcapi.READ_CHUNK - 1,
        rpcapi.READ_CHUNK,
        rpcapi.READ_CHUNK + 1,
        3 * MIB + 5,
    ],
)
def test_there_and_back(
    client: testbed_client.Client, directory: str, path: str, size: int
) -> None:
    data = os.urandom(size)
    written = client.put_file(path, data)
    assert (written.status, written.body) == (204, b'')
    assert shown_of(client, written)['status'] == 'COMPLETED'
    digest = hashlib.sha256(data).hexdigest()
    assert sh(client, 'sha256sum <"$1"', path).split()[0] == digest
    read = client.get_file(path)
    assert read.status == 200
    assert read.headers['Content-Length'] == str(size)
    assert read.body == data
    shown = client.wait(read.headers[UUID])
    assert (shown['type'], shown['status'], shown['result']) == (
        'file-read',
        'COMPLETED',
        None,
    )
    assert names(client, directory) == ['file']


def test_large_file_and_memory(
    cloud: testbed_cloud.Cloud,
    client: testbed_client.Client,
    directory: str,
    path: str,
) -> None:
    """100 MiB of random bytes; the services hold a few chunks of it."""
    data = os.urandom(LARGE)
    # What comes with the first transfer is there for good.
    assert client.put_file(path, data[:MIB]).status == 204
    assert client.get_file(path).status == 200
    services = {'nova-api': cloud.api, 'compute': cloud.compute}
    before = {
        name: process.memory('VmRSS') for name, process in services.items()
    }
    for process in services.values():
        process.forget_peak()
    assert client.put_file(path, data).status == 204
    assert client.get_file(path).body == data
    grown = {
        name: process.memory('VmHWM') - before[name]
        for name, process in services.items()
    }
    assert max(grown.values()) < 32 * MIB, grown


def test_two_transfers_and_a_command_at_once(
    client: testbed_client.Client, directory: str
) -> None:
    data = {f'{directory}/{name}': os.urandom(8 * MIB) for name in 'ab'}
    with futures.ThreadPoolExecutor(3) as pool:
        written = [
            pool.submit(client.put_file, path, content)
            for path, content in data.items()
        ]
        wait_for(
            lambda: any('.ga-' in name for name in names(client, directory)),
            'a transfer',
        )
        # Its turn comes between the chunks.
        assert not all(answer.done() for answer in written)
        assert [answer.result().status for answer in written] == [204, 204]
        read = {path: pool.submit(client.get_file, path) for path in data}
        assert sh(client, 'echo meanwhile') == 'meanwhile\n'
        assert {
            path: answer.result().body for path, answer in read.items()
        } == data


@pytest.mark.parametrize(
    'name',
    [
        'with space',
        'ünïcödé ☃',
        '100%',
        '%41',
        'a+b',
        'quote\'"',
        '*',
        '$(id)',
        '-n',
        'new\nline',
        'back\\slash',
    ],
)
def test_names_survive(
    client: testbed_client.Client, directory: str, name: str
) -> None:
    path = f'{directory}/{name}'
    assert client.put_file(path, name.encode()).status == 204
    assert client.get_file(path).body == name.encode()
    assert sh(client, 'cat -- "$1"', path) == name


def test_range(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    data = os.urandom(MIB)
    client.put_file(path, data)
    for asked, expected in (
        ('0-0', data[:1]),
        ('700000-', data[700000:]),
        ('-3', data[-3:]),
        ('262143-524288', data[262143:524289]),
    ):
        answer = client.get_file(path, {'Range': f'bytes={asked}'})
        assert (answer.status, answer.body) == (206, expected)
    answer = client.get_file(path, {'Range': f'bytes={MIB}-'})
    assert answer.status == 416
    assert answer.headers['Content-Range'] == f'bytes */{MIB}'


def test_what_the_guest_makes_up(client: testbed_client.Client) -> None:
    answer = client.get_file('/proc/version')
    assert answer.status == 200
    assert answer.body.decode() == sh(client, 'cat /proc/version')


# What becomes of a file that is written.


def test_mode_and_owner_of_a_replaced_file_are_kept(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    sh(client, 'echo old >"$1"; chown 12:34 "$1"; chmod 4751 "$1"', path)
    assert client.put_file(path, b'new').status == 204
    assert sh(client, 'stat -c "%a %u:%g" "$1"; cat "$1"', path) == (
        '4751 12:34\nnew'
    )


@pytest.mark.parametrize(
    ('query', 'mode'), [({}, '644'), ({'mode': '0600'}, '600')]
)
def test_mode_of_a_new_file(
    client: testbed_client.Client,
    directory: str,
    path: str,
    query: dict[str, str],
    mode: str,
) -> None:
    assert client.put_file(path, b'x', **query).status == 204
    assert sh(client, 'stat -c "%a %u:%g" "$1"', path) == f'{mode} 0:0\n'


@pytest.mark.parametrize('is_there', [False, True])
@pytest.mark.parametrize(
    ('query', 'owner'),
    [
        ({'owner': 'tenant'}, '1000:34'),
        ({'group': 'guests'}, '12:2000'),
        ({'owner': '1000', 'group': '7', 'mode': '4750'}, '1000:7'),
    ],
)
def test_owner_that_is_asked_for(
    client: testbed_client.Client,
    directory: str,
    path: str,
    query: dict[str, str],
    owner: str,
    is_there: bool,
) -> None:
    if is_there:
        sh(client, 'echo old >"$1"; chown 12:34 "$1"', path)
    else:
        owner = owner.replace('12:', '0:').replace(':34', ':0')
    mode = query.get('mode', '644')
    assert client.put_file(path, b'new', **query).status == 204
    assert sh(client, 'stat -c "%a %u:%g" "$1"; cat "$1"', path) == (
        f'{mode} {owner}\nnew'
    )


@pytest.mark.parametrize('append', ['true', 'false'])
def test_owner_that_there_is_not(
    client: testbed_client.Client, directory: str, path: str, append: str
) -> None:
    answer = client.put_file(path, b'x', owner='no-such-user', append=append)
    assert answer.status == 409
    assert b'no-such-user' in answer.body
    assert names(client, directory) == []


def test_symlink_is_followed(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    sh(
        client,
        'mkdir "$1/there"; echo old >"$1/there/real"; '
        'ln -s there/real "$1/file"',
        directory,
    )
    assert client.put_file(path, b'new').status == 204
    assert (
        sh(client, 'readlink "$1"; cat "$2"', path, f'{directory}/there/real')
        == 'there/real\nnew'
    )


def test_append(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    first, second = os.urandom(10), os.urandom(rpcapi.WRITE_CHUNK + 10)
    for data in (first, second):
        assert client.put_file(path, data, append='true').status == 204
    assert client.get_file(path).body == first + second
    assert names(client, directory) == ['file']


# What is refused, and why.


def test_missing(client: testbed_client.Client, path: str) -> None:
    answer = client.get_file(path)
    assert path in message_of(answer, 404)
    shown = shown_of(client, answer)
    assert shown['status'] == 'FAILED'
    assert path in str(shown['error'])


@pytest.mark.parametrize('what', ['/tmp', '/dev/null', '/dev/ttyS0', 'fifo'])
def test_what_is_no_file(
    client: testbed_client.Client, directory: str, path: str, what: str
) -> None:
    """Above all, no agent hangs that opened a FIFO."""
    if what == 'fifo':
        sh(client, 'mkfifo "$1"', path)
        what = path
    for answer in (client.get_file(what), client.put_file(what, b'x')):
        assert what in message_of(answer, 400)
    assert sh(client, 'echo well') == 'well\n'


def test_links_in_a_circle(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    sh(client, 'ln -s file "$1"', path)
    message_of(client.get_file(path), 404)
    assert 'symbolic links' in message_of(client.put_file(path, b'x'), 409)


def test_system_refuses(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    sh(client, 'mount -t tmpfs -o ro none "$1"', directory)
    answer = client.put_file(path, b'x')
    assert 'Read-only' in message_of(answer, 409)
    assert shown_of(client, answer)['status'] == 'FAILED'
    answer = client.put_file(f'{directory}/no/such', b'x')
    assert f'{directory}/no' in message_of(answer, 409)


def test_full_disk(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    sh(
        client,
        'mount -t tmpfs -o size=1m none "$1"; echo old >"$2"',
        directory,
        path,
    )
    answer = client.put_file(path, bytes(2 * MIB))
    assert 'No space left' in message_of(answer, 409)
    assert client.wait(answer.headers[UUID])['status'] == 'FAILED'
    assert sh(client, 'cat "$1"', path) == 'old\n'
    assert names(client, directory) == ['file']
    assert open_handles(client, directory) == 0


def test_wrong_digest(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    answer = client.put_file(
        path, b'data', {'Content-Digest': 'sha-256=:' + 'A' * 43 + '=:'}
    )
    assert answer.status == 400
    assert client.wait(answer.headers[UUID])['status'] == 'FAILED'
    assert names(client, directory) == []


def test_guest_that_does_not_allow_it(cloud: testbed_cloud.Cloud) -> None:
    """Without guest-exec nothing is all or nothing."""
    blocked = libvirtd.Guest(blocked=('guest-exec',))
    client = cloud.add(blocked)
    try:
        for answer in (
            client.put_file('/root/x', b'x'),
            client.get_file('/etc/passwd'),
        ):
            assert 'guest-exec' in message_of(answer, 409)
            assert client.wait(answer.headers[UUID])['status'] == 'FAILED'
    finally:
        cloud.hypervisor.domain(blocked).destroy()


# What breaks on the way.


class Upload:
    """A write whose body comes by and by.

    :param size: bytes that its client says it sends
    """

    def __init__(
        self, client: testbed_client.Client, path: str, size: int
    ) -> None:
        self._connection = client.connect()
        self._connection.putrequest(
            'POST',
            '%s/servers/%s/guest-agent/'
            'file-write?%s'
            % (
                client.base_path,
                client.server_id,
                urllib.parse.urlencode({'path': path}),
            ),
        )
        for name, value in (
            ('X-Auth-Token', client.token),
            ('Content-Length', str(size)),
        ):
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def send(self, data: bytes) -> None:
        self._connection.send(data)

    def answer(self) -> int:
        return self._connection.getresponse().status

    def break_(self) -> None:
        self._connection.close()


@pytest.fixture
def upload(client: testbed_client.Client, directory: str, path: str) -> Upload:
    """One that replaces a file, and has sent half of its body."""
    sh(client, 'echo old >"$1"', path)
    started = Upload(client, path, 2 * MIB)
    started.send(os.urandom(MIB))
    wait_for(
        lambda: (
            int(sh(client, 'cat "$1"/.ga-* 2>/dev/null | wc -c', directory))
            > 0
        ),
        'the first chunks',
    )
    return started


def transfer(client: testbed_client.Client) -> dict[str, object]:
    """Return the last transfer of the server."""
    status, body = client.request(
        'GET', f'{client.commands}?type=file-write&limit=1'
    )
    assert status == 200
    return dict(body['commands'][0])


def ended(client: testbed_client.Client) -> dict[str, object]:
    return client.wait(str(transfer(client)['uuid']), timeout=PATIENCE)


def assert_nothing_happened(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    """The old file is as it was, and nothing else is there or open."""
    assert sh(client, 'cat "$1"', path) == 'old\n'
    assert names(client, directory) == ['file']
    assert open_handles(client, directory) == 0


def test_broken_connection(
    client: testbed_client.Client, upload: Upload, directory: str, path: str
) -> None:
    upload.break_()
    shown = ended(client)
    assert shown['status'] == 'FAILED'
    assert_nothing_happened(client, directory, path)


def test_cancelled(
    client: testbed_client.Client, upload: Upload, directory: str, path: str
) -> None:
    assert client.cancel(str(transfer(client)['uuid'])) == 202
    assert ended(client)['status'] == 'CANCELLED'
    with contextlib.suppress(OSError):
        upload.send(os.urandom(MIB))
    assert upload.answer() == 409
    assert_nothing_happened(client, directory, path)


def test_compute_service_is_killed(
    cloud: testbed_cloud.Cloud,
    client: testbed_client.Client,
    upload: Upload,
    directory: str,
    path: str,
) -> None:
    cloud.compute.kill()
    cloud.start_compute()
    shown = ended(client)
    assert shown['status'] == 'FAILED'
    with contextlib.suppress(OSError):
        upload.send(os.urandom(MIB))
    assert upload.answer() == 409
    assert_nothing_happened(client, directory, path)


def test_nova_api_is_killed(
    cloud: testbed_cloud.Cloud,
    client: testbed_client.Client,
    upload: Upload,
    directory: str,
    path: str,
) -> None:
    cloud.api.kill()
    cloud.api = cloud.nova.start_api()
    assert ended(client)['status'] == 'FAILED'
    assert_nothing_happened(client, directory, path)


def test_agent_is_killed(
    client: testbed_client.Client, upload: Upload, directory: str, path: str
) -> None:
    sh(client, '(sleep 0.2; kill -9 $(pidof qemu-ga)) >/dev/null 2>&1 &')
    with contextlib.suppress(OSError):
        upload.send(os.urandom(MIB))
    assert upload.answer() == 409
    assert ended(client)['status'] == 'FAILED'
    assert_nothing_happened(client, directory, path)


def test_guest_dies(cloud: testbed_cloud.Cloud) -> None:
    other = libvirtd.Guest(memory=256)
    client = cloud.add(other)
    path = '/root/file'
    sh(client, 'echo old >"$1"', path)
    started = Upload(client, path, 2 * MIB)
    started.send(os.urandom(MIB))
    wait_for(lambda: '.ga-' in sh(client, 'ls -A /root'), 'the first chunks')
    cloud.hypervisor.domain(other).destroy()
    with contextlib.suppress(OSError):
        started.send(os.urandom(MIB))
    assert started.answer() == 409
    assert ended(client)['status'] == 'FAILED'


def test_litter_is_removed_by_the_next_write(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    """As a guest that died leaves it on its disk."""
    shown = shown_of(client, client.put_file(path, b'first'))
    litter = f'{directory}/.ga-{shown["uuid"]}'
    kept = f'{directory}/.ga-is-no-transfer'
    sh(client, 'echo half >"$1"; echo mine >"$2"', litter, kept)
    assert client.put_file(path, b'second').status == 204
    assert names(client, directory) == [os.path.basename(kept), 'file']


def begin_read(
    client: testbed_client.Client, path: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = client.connect()
    connection.request(
        'GET',
        '%s/servers/%s/guest-agent/file-read?%s'
        % (
            client.base_path,
            client.server_id,
            urllib.parse.urlencode({'path': path}),
        ),
        headers={'X-Auth-Token': client.token},
    )
    return connection, connection.getresponse()


def test_read_that_fails_breaks_the_connection(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    client.put_file(path, os.urandom(24 * MIB))
    _, response = begin_read(client, path)
    assert response.status == 200
    response.read(MIB)
    sh(client, ': >"$1"', path)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    shown = client.wait(str(response.headers[UUID]))
    assert shown['status'] == 'FAILED'
    assert 'shorter' in str(shown['error'])


def test_client_that_leaves_a_read(
    client: testbed_client.Client, directory: str, path: str
) -> None:
    client.put_file(path, os.urandom(24 * MIB))
    connection, response = begin_read(client, path)
    response.read(MIB)
    connection.close()
    response.close()
    shown = client.wait(str(response.headers[UUID]), timeout=PATIENCE)
    assert shown['status'] == 'FAILED'
    assert open_handles(client, directory) == 0


def test_rabbitmq_is_paused(
    cloud: testbed_cloud.Cloud,
    client: testbed_client.Client,
    upload: Upload,
    directory: str,
    path: str,
) -> None:
    """A pause that is not too long costs nothing but time."""
    cloud.rabbitmq.process.pause()
    time.sleep(3)
    cloud.rabbitmq.process.resume()
    upload.send(os.urandom(MIB))
    assert upload.answer() == 204
    assert ended(client)['status'] == 'COMPLETED'


def test_guest_hangs_for_a_while(
    cloud: testbed_cloud.Cloud,
    client: testbed_client.Client,
    guest: libvirtd.Guest,
    upload: Upload,
    directory: str,
    path: str,
) -> None:
    qemu = cloud.hypervisor.qemu(guest)
    log = processes.Log(cloud.compute)
    qemu.pause()
    upload.send(os.urandom(MIB))
    log.wait_for(f'Guest {guest.uuid}: .*; it is asked again')
    qemu.resume()
    assert upload.answer() == 204
    assert ended(client)['status'] == 'COMPLETED'
    assert names(client, directory) == ['file']
