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

"""A guest that is a distribution: Debian under systemd, on a disk."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import time
from typing import Any

import pytest

from guest_agent_ext import exception
from tests.integration.conftest import Debian
from tools.testbed import client as http

UNIT = 'qemu-guest-agent.service'


def test_it_is_what_it_says(debian: Debian) -> None:
    assert debian.agent.osinfo()['id'] == 'debian'
    # Nothing has failed.
    assert debian.run('/bin/systemctl', 'is-system-running') == 'running'
    assert debian.run('/bin/cat', '/proc/1/comm') == 'systemd'
    # As its package has it.
    assert debian.run(
        '/bin/systemctl',
        'show',
        UNIT,
        '--property',
        'FragmentPath,DropInPaths',
    ).split('\n') == [
        f'FragmentPath=/lib/systemd/system/{UNIT}',
        'DropInPaths=',
    ]
    assert (
        debian.run('/bin/cat', '/proc/self/cgroup')
        == f'0::/system.slice/{UNIT}'
    )
    machine = debian.run('/bin/cat', '/etc/machine-id')
    debian.run('/bin/test', '-f', f'/var/log/journal/{machine}/system.journal')
    assert debian.run(
        '/bin/findmnt', '--noheadings', '--output', 'TARGET,SOURCE,FSTYPE', '/'
    ).split() == ['/', '/dev/vda', 'ext4']
    assert (
        debian.run(
            '/bin/findmnt',
            '--noheadings',
            '--output',
            'FSTYPE',
            '/sys/fs/cgroup',
        )
        == 'cgroup2'
    )
    assert debian.run('/bin/id', 'tenant') == (
        'uid=1000(tenant) gid=1000(tenant) groups=1000(tenant),4(adm)'
    )


@pytest.fixture
def client(debian: Debian) -> http.Client:
    return debian.client


@pytest.mark.parametrize(
    'how',
    [
        f'systemctl restart {UNIT}',
        f'systemctl kill -s KILL {UNIT}',
        'pkill -9 qemu-ga',
    ],
)
def test_end_of_the_agent_is_not_that_of_its_commands(
    client: http.Client, how: str
) -> None:
    """They live in a control group that is not the agent's."""
    ended = client.sh(
        f'echo before; {how}; sleep 2; echo after; exit 7', timeout=60
    )
    assert (ended['status'], ended['error']) == ('COMPLETED', None)
    assert ended['result']['exitcode'] == 7
    assert ended['result']['out_data'] == 'before\nafter\n'
    assert (
        client.sh('systemctl is-active ' + UNIT)['result']['out_data']
        == 'active\n'
    )


def test_lack_of_memory_ends_whom_it_is_the_fault_of(
    client: http.Client,
) -> None:
    neighbour = client.start('/bin/sh', '-c', 'sleep 20; echo out')
    client.wait(neighbour, 'RUNNING')
    agent = client.sh('pidof qemu-ga')['result']['out_data']
    ended = client.run(
        '/usr/bin/python3',
        '-c',
        'import time\nopen("/proc/self/oom_score_adj", "w").write("1000")\n'
        # As the kernel does when there is no memory left.
        'open("/proc/sysrq-trigger", "w").write("f")\ntime.sleep(60)',
    )
    assert (ended['status'], ended['result']['signal']) == ('COMPLETED', 9)
    assert client.wait(neighbour)['result']['out_data'] == 'out\n'
    assert client.sh('pidof qemu-ga')['result']['out_data'] == agent


def journal(client: http.Client) -> str:
    return str(
        client.sh(f'journalctl -q -o cat -u {UNIT} | tail -c 90000')['result'][
            'out_data'
        ]
    )


def test_journal_has_no_word_of_the_tenants(client: http.Client) -> None:
    word = f'secret-{time.monotonic_ns()}'
    client.run('/bin/echo', word, input_data=word, env={'SECRET': word})
    text = journal(client)
    assert 'guest-exec called' in text
    assert word not in text and 'keep_head' not in text


def test_command_that_takes_long_leaves_few_lines(client: http.Client) -> None:
    """See the unit test for ten minutes: it takes too long here."""
    lines = client.sh(
        f'journalctl -q -u {UNIT} -n 1; sleep 40; '
        f'journalctl -q -u {UNIT} -n 100'
    )['result']['out_data'].splitlines()
    during = lines[lines.index(lines[0], 1) + 1 :]
    assert len(during) <= 35, '\n'.join(during)


def test_nobody_finds_a_launcher_by_a_word_of_the_command(
    client: http.Client,
) -> None:
    ended = client.run('/usr/bin/pgrep', '-f', 'no-such-service-zq9')
    assert (ended['result']['exitcode'], ended['result']['out_data']) == (
        1,
        '',
    )


@pytest.mark.parametrize(
    'killer',
    ['killall sh', 'killall tee', 'pkill sh', 'pkill -f guest-[a]gent'],
)
def test_killers_by_name(client: http.Client, killer: str) -> None:
    ended = client.run(
        '/usr/bin/python3',
        '-c',
        'import os, time, sys\n'
        f'os.system("{killer}")\n'
        'time.sleep(1); print("out"); sys.exit(7)',
    )
    assert (ended['status'], ended['error']) == ('COMPLETED', None)
    assert (ended['result']['exitcode'], ended['result']['out_data']) == (
        7,
        'out\n',
    )


def test_streams_that_a_unit_has_do_not_outlive_the_timeout(
    client: http.Client,
) -> None:
    """systemd starts it: it is no child of the command."""
    began = time.monotonic()
    ended = client.sh(
        'systemd-run --quiet --wait --pipe --unit tenants sleep 300', timeout=3
    )
    assert ended['status'] == 'TIMED_OUT'
    assert time.monotonic() - began < 60
    client.sh('systemctl stop tenants')


def test_user_with_its_groups(client: http.Client) -> None:
    result = client.sh(
        'id -un; id -Gn; echo $HOME $USER $LOGNAME $SHELL', user='tenant'
    )['result']
    assert result['out_data'] == (
        'tenant\ntenant adm\n/home/tenant tenant tenant /bin/bash\n'
    )
    assert client.sh('cat /etc/shadow', user='1000')['result']['exitcode'] == 1


def test_frozen_file_systems_keep_nobody_for_ever(
    debian: Debian, client: http.Client
) -> None:
    """A command that waits meanwhile runs after the thaw."""
    running = client.start(
        '/bin/sh',
        '-c',
        'until rm /run/thawed 2>&-; do sleep 0.1; done; echo out',
    )
    client.wait(running, 'RUNNING')
    debian.agent._call('guest-fsfreeze-freeze', {}, int)
    try:
        waiting = client.start('/bin/echo', 'waited')
        time.sleep(6)
        assert client.show(waiting)['status'] == 'PENDING'
    finally:
        debian.agent._call('guest-fsfreeze-thaw', {}, int)
    debian.run('/bin/touch', '/run/thawed')
    assert client.wait(running)['result']['out_data'] == 'out\n'
    assert client.wait(waiting)['result']['out_data'] == 'waited\n'


def test_full_disk_harms_no_command(client: http.Client) -> None:
    try:
        client.sh('dd if=/dev/zero of=/filling bs=1M 2>/dev/null')
        result = client.sh('echo out; echo x >/more || exit 7')['result']
        assert (result['exitcode'], result['out_data']) == (7, 'out\n')
    finally:
        client.sh('rm -f /filling /more')


#: What an agent of 7.2 must be told to block so that it allows what the one of
#: RHEL 10 does: no programs and no files.
BLOCKED = (
    'guest-exec',
    'guest-exec-status',
    *(
        f'guest-file-{name}'
        for name in ('open', 'close', 'read', 'write', 'seek', 'flush')
    ),
)
KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI tenant@home'
#: The key that ends the time of the block list: nothing else that a test can
#: do in such a guest can be seen there.
LAST_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAJ the-end'


@pytest.fixture
def blocked(debian: Debian) -> Iterator[Debian]:
    """The guest, whose agent blocks what the one of RHEL 10 does."""
    keys = '/home/tenant/.ssh/authorized_keys'
    restart = f'systemctl restart {UNIT}'
    debian.client.sh(
        'mkdir -p /etc/qemu && printf "[general]\\nblacklist = '
        f'{",".join(BLOCKED)}\\n" >/etc/qemu/qemu-ga.conf\n'
        # It is no child of the agent, which is restarted twice.
        'systemd-run --quiet --unit end-of-block sh -c "'
        f'until grep -qs the-end {keys}; do sleep 1; done; '
        f'rm /etc/qemu/qemu-ga.conf; {restart}"\n'
        f'systemd-run --quiet --on-active=1 {restart}'
    )
    wait_until(lambda: not debian.agent.info().get('guest-exec'))
    yield debian
    if not debian.agent.info().get('guest-exec'):
        do(debian.client, 'ssh-keys-add', user='tenant', keys=[LAST_KEY])
        wait_until(lambda: debian.agent.info().get('guest-exec'))


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for something in the guest, whose agent may be away meanwhile."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(exception.GuestError):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.5)


def start(client: http.Client, kind: str, **arguments: Any) -> str:
    """POST a command of another type; return its uuid."""
    status, body = client.request(
        'POST',
        client.commands,
        {'command': {'type': kind, 'arguments': arguments}},
    )
    assert status == 200, body
    return str(body['command']['uuid'])


def do(client: http.Client, kind: str, **arguments: Any) -> dict[str, Any]:
    """Run a command of another type, and return how it ended."""
    return client.wait(start(client, kind, **arguments))


def ask(client: http.Client, path: str = '') -> Any:
    """GET what is below the guest agent of the server."""
    status, body = client.request(
        'GET', client.commands.removesuffix('/commands') + path
    )
    assert status == 200, body
    return body


def test_guest_that_blocks_programs_and_files(blocked: Debian) -> None:
    """As the agent of RHEL 10 does, by its list."""
    client = blocked.client
    agent = ask(client)['guest_agent']
    assert agent['status'] == 'unavailable'
    assert 'allow-rpcs' in agent['reason'] and 'SELinux' in agent['reason']
    assert sorted(agent['command_types']) == [
        'fstrim',
        'set-password',
        'ssh-keys-add',
        'ssh-keys-remove',
    ]
    refused = client.run('/bin/true')
    assert refused['status'] == 'FAILED'
    assert 'allow-rpcs' in refused['error']

    ended = do(client, 'set-password', user='tenant', password='hush: hush')
    assert (ended['status'], ended['error']) == ('COMPLETED', None)
    assert ended['result'] is None
    assert 'hush' not in str(ended)
    for arguments, kept in (
        ({'keys': [KEY]}, [KEY]),
        # Twice is as once.
        ({'keys': [KEY, KEY + '2']}, [KEY, KEY + '2']),
        ({'keys': [KEY + '3'], 'reset': True}, [KEY + '3']),
    ):
        ended = do(client, 'ssh-keys-add', user='tenant', **arguments)
        assert (ended['status'], ended['error']) == ('COMPLETED', None)
        time.sleep(2.1)
        assert sorted(keys_of(client)) == kept
    ended = do(client, 'ssh-keys-remove', user='tenant', keys=[KEY, KEY + '3'])
    assert ended['status'] == 'COMPLETED'
    refused = do(client, 'ssh-keys-add', user='nobody-here', keys=[KEY])
    assert refused['status'] == 'FAILED' and refused['error']
    trimmed = do(client, 'fstrim')
    assert trimmed['status'] in ('COMPLETED', 'FAILED')
    if trimmed['status'] == 'FAILED':
        # A disk that discards nothing.
        assert '/' in trimmed['error']
    check_details(client)


def keys_of(client: http.Client) -> list[str]:
    told = ask(client, '/details?fields=ssh_keys&user=tenant')
    keys: list[str] = told['guest_agent_details']['ssh_keys']
    return keys


def check_details(client: http.Client) -> None:
    told = ask(client, '/details')['guest_agent_details']
    assert told['unavailable'] == {}
    assert told['os']['id'] == 'debian'
    assert told['host_name'] == 'debian'
    assert abs(told['time']['offset']) < 30
    assert told['timezone']['offset'] == 0
    assert told['users'] == []
    assert 'lo' in [item['name'] for item in told['interfaces']]
    (root,) = [
        item for item in told['filesystems'] if item['mountpoint'] == '/'
    ]
    assert root['type'] == 'ext4'
    assert 0 < root['used_bytes'] < root['total_bytes']
    assert '/dev/vda' in [item['name'] for item in told['disks']]
    assert told['vcpus'][0]['online'] is True


def test_what_the_calls_of_the_agent_change(client: http.Client) -> None:
    """The guest's own tools see it."""

    def hash_of(user: str) -> str:
        found: str = client.sh(f'getent shadow {user}')['result']['out_data']
        return found.split(':')[1]

    before = hash_of('tenant')
    do(client, 'set-password', user='tenant', password='a "word"')
    after = hash_of('tenant')
    assert after != before
    checked = client.run(
        '/usr/bin/python3',
        '-Wignore',
        '-c',
        'import crypt, sys\n'
        'print(crypt.crypt(sys.argv[1], sys.argv[2]) == sys.argv[2])',
        'a "word"',
        after,
    )
    assert checked['result']['out_data'] == 'True\n'
    do(client, 'set-password', user='tenant', password=before, crypted=True)
    assert hash_of('tenant') == before

    do(client, 'ssh-keys-add', user='tenant', keys=[KEY], reset=True)
    path = '/home/tenant/.ssh/authorized_keys'
    result = client.sh(f'stat -c "%U %a" {path}; cat {path}')['result']
    assert result['out_data'].rstrip() == f'tenant 600\n{KEY}'
    do(client, 'ssh-keys-remove', user='tenant', keys=[KEY])
    assert client.sh(f'cat {path}')['result']['out_data'].strip() == ''
    client.sh('rm -r /home/tenant/.ssh')
    assert 'a "word"' not in journal(client)


def test_frozen_file_systems_let_calls_of_the_agent_wait(
    debian: Debian, client: http.Client
) -> None:
    """A quiesced snapshot is Nova's, beside what is ours."""
    debian.agent._call('guest-fsfreeze-freeze', {}, int)
    try:
        waiting = start(
            client, 'set-password', user='tenant', password='later'
        )
        time.sleep(6)
        assert client.show(waiting)['status'] == 'PENDING'
    finally:
        debian.agent._call('guest-fsfreeze-thaw', {}, int)
    assert client.wait(waiting)['status'] == 'COMPLETED'
