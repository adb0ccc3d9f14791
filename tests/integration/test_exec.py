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

"""Commands in a real guest, through ``make up``'s one process."""

import base64
import hashlib
import time
import uuid as uuid_module

import pytest

from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest import connection
from guest_agent_ext.guest.launchers import base as launcher
from guest_agent_ext.guest.launchers import posix
from tools.testbed import client as http
from tools.testbed import demo
from tools.testbed import processes

KEPT = 102400


def test_both_streams_exit_code_and_pid(client: http.Client) -> None:
    ended = client.sh('echo out $$; echo err >&2; exit 3')
    result = ended['result']
    assert (ended['status'], ended['error']) == ('COMPLETED', None)
    assert result['exitcode'] == 3
    assert result['signal'] is None
    assert result['out_data'] == f'out {result["pid"]}\n'
    assert result['err_data'] == 'err\n'
    assert (result['out_bytes'], result['err_bytes']) == (
        len(result['out_data']),
        4,
    )
    assert not result['out_truncated'] and not result['err_truncated']


@pytest.mark.parametrize('signal', [9, 15, 1])
def test_signal_is_no_exit_code(client: http.Client, signal: int) -> None:
    result = client.sh(f'kill -{signal} $$')['result']
    assert (result['signal'], result['exitcode']) == (signal, None)


def test_exit_code_137_is_no_signal(client: http.Client) -> None:
    result = client.sh('exit 137')['result']
    assert (result['signal'], result['exitcode']) == (None, 137)


@pytest.mark.parametrize(
    'argv', [('/no/such/binary', 'x'), ('no-such-binary',), ('/etc',)]
)
def test_what_cannot_be_executed_failed(
    client: http.Client, argv: tuple[str, ...]
) -> None:
    ended = client.run(*argv)
    assert ended['status'] == 'FAILED'
    assert argv[0] in ended['error']
    assert ended['result'] is None
    assert ended['started_at'] is None


def test_command_that_exits_127_by_itself_completed(
    client: http.Client,
) -> None:
    ended = client.sh('no-such-binary')
    assert ended['status'] == 'COMPLETED'
    assert ended['result']['exitcode'] == 127


@pytest.mark.parametrize('size', [5_000_000, 50_000_000])
def test_large_output_is_cut_in_the_guest(
    client: http.Client, size: int
) -> None:
    ended = client.sh(f'yes 0123456 | head -c {size}; exit 4')
    result = ended['result']
    assert ended['status'] == 'COMPLETED'
    assert result['exitcode'] == 4
    assert result['out_data'] == '0123456\n' * (KEPT // 8)
    assert result['out_truncated']
    assert result['out_bytes'] == size
    assert client.sh('echo next')['result']['out_data'] == 'next\n'


def test_streams_share_what_a_result_holds(client: http.Client) -> None:
    result = client.sh('yes e | head -c 200000 >&2; yes o | head -c 1000')[
        'result'
    ]
    assert len(result['err_data']) == 101400 and result['err_truncated']
    assert len(result['out_data']) == 1000 and not result['out_truncated']
    assert (result['out_bytes'], result['err_bytes']) == (1000, 200000)


def test_tail_keeps_the_other_end(client: http.Client) -> None:
    result = client.sh(
        'yes x | head -c 300000; printf end', output_keep='tail'
    )['result']
    assert len(result['out_data']) == KEPT
    assert result['out_data'].endswith('x\nend')
    assert (result['out_bytes'], result['out_truncated']) == (300003, True)


def test_bytes_that_are_no_text_come_as_base64(client: http.Client) -> None:
    result = client.sh(r"printf '\377\000a'; printf 'grün' >&2")['result']
    assert result['out_encoding'] == 'base64'
    assert base64.b64decode(result['out_data']) == b'\xff\0a'
    assert (result['err_encoding'], result['err_data']) == ('utf-8', 'grün')


def test_kill_0_ends_only_the_command(client: http.Client) -> None:
    result = client.sh('kill -TERM 0; sleep 60')['result']
    assert result['signal'] == 15
    assert client.sh('echo alive')['result']['out_data'] == 'alive\n'


def test_arguments_arrive_as_they_were_sent(client: http.Client) -> None:
    awkward = ['', ' ', '-n', "it's", '"$HOME" `id` \\', 'a\nb', 'grün', '*']
    ended = client.run('/bin/sh', '-c', r'printf "%s\0" "$@"', 'sh', *awkward)
    shown = ended['result']['out_data']
    assert shown.split('\0')[:-1] == awkward
    assert ended['arguments']['command'][-1] == '*'


def test_stdin_environment_and_directory(client: http.Client) -> None:
    stdin = bytes(range(256)) * 160
    ended = client.sh(
        'printf "%s|%s|" "$PWD" "$SECRET"; cat',
        cwd='/tmp',
        env={'SECRET': "a'b $x"},
        input_encoding='base64',
        input_data=base64.b64encode(stdin).decode(),
    )
    result = ended['result']
    assert base64.b64decode(result['out_data']) == (b"/tmp|a'b $x|" + stdin)
    assert ended['arguments']['env'] == ['SECRET']


def test_directory_that_is_not_there_failed(client: http.Client) -> None:
    ended = client.run('/bin/true', cwd='/no/such/directory')
    assert ended['status'] == 'FAILED'
    assert '/no/such/directory' in ended['error']


def test_commands_of_one_server_run_side_by_side(client: http.Client) -> None:
    waits = client.start(
        '/bin/sh', '-c', 'until rm /tmp/beside; do sleep 0.1; done'
    )
    assert client.wait(waits, 'RUNNING')['started_at']
    assert client.run('/bin/touch', '/tmp/beside')['status'] == 'COMPLETED'
    assert client.wait(waits)['result']['exitcode'] == 0


def test_background_child_that_keeps_stdout_holds_nothing_up(
    client: http.Client,
) -> None:
    began = time.monotonic()
    ended = client.sh('sleep 4320 & echo mine; exit 7')
    waited = time.monotonic() - began
    assert (ended['status'], ended['error']) == ('COMPLETED', None)
    result = ended['result']
    assert (result['exitcode'], result['out_data']) == (7, 'mine\n')
    # It was given background_grace, and lives on as a daemon should.
    assert waited > 5
    left = client.sh(
        'grep -l sleep /proc/[0-9]*/comm | wc -l; '
        'pkill -f "sleep 4320" || killall sleep'
    )
    assert left['result']['out_data'] == '1\n'


def test_timeout_kills_the_whole_tree_and_keeps_the_output(
    client: http.Client,
) -> None:
    ended = client.sh(
        'echo before; setsid sleep 4321 & (env -i sleep 4321) & '
        "trap '' TERM; sleep 4321",
        timeout=2,
    )
    assert ended['status'] == 'TIMED_OUT'
    assert '2' in ended['error']
    assert ended['result']['out_data'] == 'before\n'
    left = client.sh('grep -l sleep /proc/[0-9]*/comm | wc -l')
    assert left['result']['out_data'] == '0\n'


def test_cancel_kills_the_whole_tree_and_keeps_the_output(
    client: http.Client,
) -> None:
    uuid = client.start(
        '/bin/sh',
        '-c',
        'echo before; setsid sleep 4322 & (env -i sleep 4322) & '
        "trap '' TERM; sleep 4322; sleep 4322",
    )
    client.wait(uuid, 'RUNNING')
    assert client.cancel(uuid) == 202
    ended = client.wait(uuid)
    assert (ended['status'], ended['result']['out_data']) == (
        'CANCELLED',
        'before\n',
    )
    left = client.sh('grep -l sleep /proc/[0-9]*/comm | wc -l')
    assert left['result']['out_data'] == '0\n'
    assert client.cancel(uuid) == 409


def test_command_that_kills_its_parent_keeps_its_timeout(
    client: http.Client,
) -> None:
    """Its end is LOST: only the parent could have told it."""
    ended = client.sh('echo out; setsid sleep 4324 & kill -9 $PPID; sleep 2')
    assert ended['status'] == 'LOST'
    assert ended['result']['out_data'] == 'out\n'
    ended = client.sh(
        'setsid sleep 4324 & kill -9 $PPID; sleep 4324', timeout=2
    )
    assert ended['status'] == 'TIMED_OUT'
    client.sh('killall sleep')


#: What a tenant's command does, and how it ends all the same.
ACTS = [
    ('killall sh; sleep 1; exit 7', (None, 15)),
    ('trap "" TERM; killall sh; sleep 1; exit 7', (7, None)),
    ('killall tee; sleep 1; exit 7', (7, None)),
    ('killall -9 tee; sleep 1; exit 7', (7, None)),
    ('kill -CONT $PPID; sleep 1; exit 7', (7, None)),
    ('kill -TERM $PPID; sleep 1; exit 7', (7, None)),
    ('kill -STOP $PPID; sleep 1; exit 7', (7, None)),
    ('killall -STOP tee; yes | head -c 300000; exit 7', (7, None)),
    ('rm -rf /run/guest-agent; exit 7', (7, None)),
    ('rm -rf /run/guest-agent; sleep 7; exit 7', (7, None)),
    ('rm -rf /run/*; sleep 7; exit 7', (7, None)),
    ('mount -t tmpfs none /run; sleep 7; umount -l /run; exit 7', (7, None)),
    (
        'cd /run; mv guest-agent x; sleep 7; mv x guest-agent; exit 7',
        (7, None),
    ),
    ('chmod 0 /run/guest-agent; sleep 1; exit 7', (7, None)),
    ('setsid sh -c "exit 7"', (0, None)),
    ('kill -9 $$', (None, 9)),
]


@pytest.mark.parametrize(('script', 'end'), ACTS)
def test_ordinary_acts_in_a_guest(
    client: http.Client, script: str, end: tuple[int | None, int | None]
) -> None:
    """It runs once, ends soon, and as it does by itself."""
    path = f'/tmp/ran-{time.monotonic_ns()}'
    ended = client.sh(f'echo x >>{path}; echo out; {script}', timeout=30)
    result = ended['result']
    assert (ended['status'], ended['error']) == ('COMPLETED', None)
    assert (result['exitcode'], result['signal']) == end
    assert result['out_data'].startswith('out\n')
    assert client.run('/bin/cat', path)['result']['out_data'] == 'x\n'


def test_cleaner_of_the_directory_harms_no_neighbour(
    client: http.Client,
) -> None:
    path = f'/tmp/ran-{time.monotonic_ns()}'
    neighbour = client.start(
        '/bin/sh', '-c', f'echo x >>{path}; sleep 8; echo out'
    )
    client.wait(neighbour, 'RUNNING')
    client.sh(
        'for f in /run/guest-agent/*; do case $f in '
        '*$GUEST_AGENT_COMMAND*) ;; *) rm -f $f ;; esac; done'
    )
    assert client.wait(neighbour)['result']['out_data'] == 'out\n'
    assert client.run('/bin/cat', path)['result']['out_data'] == 'x\n'


@pytest.mark.parametrize(
    'script',
    [
        '(trap "" TERM; exec sleep 4325) >/tmp/log 2>&1; echo end',
        'for i in 1 2 3; do setsid sh -c "trap : TERM; while :; do sleep '
        '4325; '
        'done" >/dev/null 2>&1 & done; sleep 4325',
        '(env -i setsid sleep 4325 >/dev/null 2>&1 &); sleep 4325',
        '(GUEST_AGENT_COMMAND=x setsid sleep 4325 >/dev/null 2>&1 &); sleep '
        '4325',
        '(env -i setsid sleep 4325 &); sleep 4325',
        'kill -STOP $$',
        'kill -STOP $PPID; sleep 4325',
    ],
)
def test_nothing_of_a_tree_outlives_its_timeout(
    client: http.Client, script: str
) -> None:
    ended = client.sh(script, timeout=1, env={'GUEST_AGENT_COMMAND': 'mine'})
    assert ended['status'] == 'TIMED_OUT'
    assert 'processes: ' in ended['error']
    left = client.sh('grep -l sleep /proc/[0-9]*/comm | wc -l')
    assert left['result']['out_data'] == '0\n'


def test_ninth_command_starts_beside_eight_that_cannot_be_told(
    client: http.Client,
) -> None:
    path = f'/tmp/eight-{time.monotonic_ns()}'
    eight = [
        client.start(
            '/bin/sh', '-c', f'kill -STOP $PPID; echo >>{path}; sleep 4326'
        )
        for _ in range(8)
    ]
    processes.wait_for(
        lambda: client.cancel(eight[0]) in (202, 409), 10, 'a cancel'
    )
    assert client.sh('echo ninth')['result']['out_data'] == 'ninth\n'
    for command in eight[1:]:
        client.cancel(command)
    for command in eight:
        assert client.wait(command)['status'] == 'CANCELLED'


def test_word_of_an_environment_stands_on_no_command_line(
    client: http.Client,
) -> None:
    """There is no pgrep in this guest; see test_debian.py."""
    ended = client.sh(
        'for file in /proc/[0-9]*/cmdline; do read -r line <$file; '
        'case $line in *"$WORD"*) echo $file $line ;; esac; done',
        env={'WORD': 'no-such-service-zq9'},
    )
    assert ended['result']['out_data'] == ''


def test_largest_command_of_control_characters(client: http.Client) -> None:
    """As JSON it would be six times as long, and jam the agent."""
    argument, stdin = '\x01' * 60000, bytes(range(256)) * 4096
    result = client.run(
        '/bin/sh',
        '-c',
        'printf %s "$0" | md5sum; md5sum',
        argument,
        input_data=base64.b64encode(stdin).decode(),
        input_encoding='base64',
    )['result']
    assert [line.split()[0] for line in result['out_data'].splitlines()] == [
        hashlib.md5(data, usedforsecurity=False).hexdigest()
        for data in (argument.encode(), stdin)
    ]


def test_user_of_the_guest(client: http.Client) -> None:
    result = client.sh('id -un; echo $HOME $USER; pwd', user='1000')['result']
    assert result['out_data'] == 'tenant\n/home/tenant tenant\n/\n'
    ended = client.run('/bin/id', user='nobody-here')
    assert (ended['status'], ended['error']) == (
        'FAILED',
        'The command could not be executed: There is no user nobody-here',
    )


def test_launch_starts_few_processes(embedded: demo.Demo) -> None:
    """Six, of which two are the agent's own way to start one."""
    guests = connection.Connection(embedded.libvirt_uri)
    agent = guest_agent.Agent(guests, embedded.settings()['SERVER_ID'])
    guest = posix.PosixLauncher(agent)
    handle = agent.file_open('/proc/stat', 'r')

    def started() -> int:
        agent.file_seek(handle, 0, 'set')
        text = agent.file_read(handle, 65536).decode()
        return int(text.partition('processes ')[2].split()[0])

    def starts_of_a_launch() -> int:
        probe = guest.probe()
        before = started()
        order = launcher.Launch(
            id=str(uuid_module.uuid4()),
            argv=['/bin/true'],
            env={'A': 'b'},
            stdin=b'in',
            cwd='/tmp',
            user=None,
            boot_id=probe.boot_id,
            ticket=probe.uptime + 6000,
            keep=KEPT,
            keep_end='head',
        )
        pid = guest.launch(order)
        processes.wait_for(lambda: guest.poll(pid) is not None, 20, 'its end')
        starts = started() - before
        guest.release([order.id])
        return starts

    # The service may remove what others left meanwhile.
    starts = min(starts_of_a_launch() for _ in range(5))
    agent.file_close(handle)
    guests.close()
    assert 0 < starts <= 6


def test_cancel_at_any_moment_ends_it_once(client: http.Client) -> None:
    """Also between its claim and its start in the guest."""
    for delay in range(0, 200, 20):
        path = f'/tmp/cancelled-{time.monotonic_ns()}'
        uuid = client.start(
            '/bin/sh', '-c', f'echo >{path}; sleep 4323; echo >{path}.end'
        )
        time.sleep(delay / 1000)
        assert client.cancel(uuid) == 202
        ended = client.wait(uuid)
        assert ended['status'] == 'CANCELLED'
        if ended['started_at'] is None:
            assert client.run('/bin/cat', path)['result']['exitcode'] == 1
    left = client.sh('grep -l sleep /proc/[0-9]*/comm | wc -l')
    assert left['result']['out_data'] == '0\n'


def test_running_command_tells_pid_and_start(client: http.Client) -> None:
    uuid = client.start('/bin/sleep', '3')
    shown = client.wait(uuid, 'RUNNING')
    assert shown['started_at'] is not None
    assert client.wait(uuid)['result']['exitcode'] == 0


def test_list_is_newest_first_without_output(client: http.Client) -> None:
    uuids = [client.sh(f'echo {number}')['uuid'] for number in range(3)]
    status, body = client.request('GET', f'{client.commands}?limit=2')
    assert status == 200
    assert [item['uuid'] for item in body['commands']] == uuids[:0:-1]
    assert 'out_data' not in body['commands'][0]['result']
    assert body['commands'][0]['result']['exitcode'] == 0
    assert body['commands_links'][0]['rel'] == 'next'


def test_output_while_it_runs_and_after_its_end(client: http.Client) -> None:
    uuid = client.start(
        '/bin/sh',
        '-c',
        'printf abc; '
        'while [ ! -e /tmp/go-on ]; do sleep 0.1; done; '
        'rm /tmp/go-on; printf def',
    )
    client.wait(uuid, 'RUNNING')
    path = f'{client.commands}/{uuid}/output?stream=out&offset='
    deadline = time.monotonic() + 30
    while (answer := client.send('GET', path + '1')).body != b'bc':
        assert (answer.status, answer.body) == (200, b'')
        assert time.monotonic() < deadline
    assert answer.headers['OpenStack-Guest-Agent-Next-Offset'] == '3'
    assert answer.headers['OpenStack-Guest-Agent-Complete'] == 'false'
    assert client.send('GET', path + '3').body == b''
    client.sh('touch /tmp/go-on')
    client.wait(uuid, 'COMPLETED')
    answer = client.send('GET', path + '3')
    assert answer.body == b'def'
    assert answer.headers['OpenStack-Guest-Agent-Complete'] == 'true'
