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


"""The Ansible plugins, with the hub played."""

from collections.abc import Callable
import importlib.util
import pathlib
import shlex
import types
from typing import Any
from unittest import mock

from ansible import errors
from ansible.playbook import play_context
from ansible.plugins.become import sudo
from ansible.plugins.shell import sh
import pytest

from guest_agent_ext.sdk import hub_client

_PLUGINS = (
    pathlib.Path(__file__).parents[3]
    / 'client/ansible_collections/guest_agent_ext/guest_agent/plugins'
)


def plugin(kind: str, name: str) -> types.ModuleType:
    path = _PLUGINS / kind / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'{kind}_{name}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


server = plugin('connection', 'server')
guest_user = plugin('become', 'guest_user')
guest_facts = plugin('action', 'guest_facts')
guest_command = plugin('action', 'guest_command')

OPTIONS = {
    'remote_addr': 'web',
    'inventory_name': 'web',
    'remote_user': 'root',
    'cloud': None,
    'region': None,
    'start_timeout': 60,
    'command_timeout': 86400,
    'idle': 60,
    'control_path_dir': '/nowhere',
}
DONE = {'code': 3, 'out': 'b3V0', 'err': 'ZXJy'}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """The calls of the hub."""
    call = mock.Mock(return_value=dict(DONE))
    monkeypatch.setattr(hub_client.HubClient, 'call', call)
    return call


@pytest.fixture
def connect(call: mock.Mock) -> Callable[..., Any]:
    """Makes a connection with some options."""

    def connect(shell: Any = None, **options: Any) -> Any:
        made = server.Connection(
            play_context.PlayContext(), shell=shell or sh.ShellModule()
        )
        made.get_option = {**OPTIONS, **options}.__getitem__
        return made

    return connect


def become(kind: Any, **options: Any) -> Any:
    made = kind.BecomeModule()
    made.get_option = lambda name, *_, **__: options.get(name)
    return made


def test_task_is_one_call(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    connection = connect()
    assert connection.has_pipelining
    line = f'/bin/sh -c {shlex.quote("python3 && sleep 0")}'
    assert connection.exec_command(line, b'in') == (3, b'out', b'err')
    call.assert_called_once()
    assert call.call_args.args == ('run',)
    values = call.call_args.kwargs
    # No second shell, and no wait for the sake of ssh.
    assert values['command'] == ['/bin/sh', '-c', 'python3']
    assert (values['server'], values['stdin']) == ('web', 'aW4=')
    assert (values['user'], values['answer']) == (None, None)
    assert (values['timeout'], values['start_timeout']) == (86400, 60)
    assert values['is_whole']


def test_what_ansible_does_for_itself_prints_little(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    connect().exec_command('echo ~root', sudoable=False)
    assert not call.call_args.kwargs['is_whole']


@pytest.mark.parametrize(
    'line', ['echo $HOME', '/bin/x -c $HOME', "echo '", '/bin/x -c a b', '']
)
def test_other_lines_are_for_a_shell(
    connect: Callable[..., Any], call: mock.Mock, line: str
) -> None:
    connect().exec_command(line)
    assert call.call_args.kwargs['command'] == ['/bin/sh', '-c', line]


def test_signal_is_told_as_by_a_shell(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    call.return_value['code'] = -9
    assert connect().exec_command('true')[0] == 137


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'remote_addr': 'db'}, 'db'),
        # As openstack.cloud's inventory has it.
        ({'remote_addr': '10.0.0.5'}, 'web'),
        ({'remote_addr': '2001:db8::1'}, 'web'),
    ],
)
def test_server_of_a_host(
    connect: Callable[..., Any],
    call: mock.Mock,
    options: dict[str, str],
    expected: str,
) -> None:
    connect(**options).exec_command('true')
    assert call.call_args.kwargs['server'] == expected


def test_user_is_that_of_the_play(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    connection = connect(remote_user='debian')
    connection.exec_command('true')
    assert call.call_args.kwargs['user'] == 'debian'
    # sudo stands in the line.
    connection.set_become_plugin(become(sudo, become_user='root'))
    connection.exec_command('sudo true')
    assert call.call_args.kwargs['user'] == 'debian'
    connection.set_become_plugin(become(guest_user, become_user='web'))
    connection.exec_command('true')
    assert call.call_args.kwargs['user'] == 'web'
    connection.exec_command('mkdir x', sudoable=False)
    assert call.call_args.kwargs['user'] == 'debian'
    connection.set_become_plugin(become(guest_user, become_user='root'))
    connection.exec_command('true')
    assert call.call_args.kwargs['user'] is None
    connection.fetch_file('/from', '/to')
    assert call.call_args.kwargs['user'] == 'debian'


def test_guest_user_needs_no_program() -> None:
    made = become(guest_user)
    assert made.build_become_command('id -un', mock.Mock()) == 'id -un'


class Sudo:
    """Plays the conversation of a hub with sudo."""

    def __init__(self, *said: bytes) -> None:
        self._said = said
        self.replies: list[tuple[bytes, bool]] = []

    def __call__(
        self, name: str, *, answer: Callable[..., Any], **_: Any
    ) -> dict[str, Any]:
        for said in self._said:
            self.replies.append(answer(b'', said))
        return dict(DONE, err='cHJvbXB0OmVycg==')


@pytest.fixture
def sudoer(connect: Callable[..., Any]) -> Any:
    connection = connect()
    made = become(sudo, become_user='root', become_pass='secret')
    made.prompt, made.success = 'prompt:', 'BECOME-SUCCESS-x'
    connection.set_become_plugin(made)
    return connection


def test_password_is_given_to_who_asks(sudoer: Any, call: mock.Mock) -> None:
    hub = call.side_effect = Sudo(
        b'lecture\n', b'prompt:', b'BECOME-SUCCESS-x\n'
    )
    assert sudoer.exec_command('sudo', b'in') == (3, b'out', b'err')
    assert hub.replies == [(b'', False), (b'secret\n', False), (b'', True)]


def test_password_is_not_given_to_who_does_not(
    sudoer: Any, call: mock.Mock
) -> None:
    """It would be the first line of the module."""
    hub = call.side_effect = Sudo(b'BECOME-SUCCESS-x')
    sudoer.exec_command('sudo', b'in')
    assert hub.replies == [(b'', True)]


def test_wrong_password(sudoer: Any, call: mock.Mock) -> None:
    call.side_effect = Sudo(b'prompt:', b'Sorry, try again.\n')
    with pytest.raises(errors.AnsibleError, match='Incorrect sudo password'):
        sudoer.exec_command('sudo', b'in')


@pytest.mark.parametrize(
    ('kind', 'error'),
    [
        ('unreachable', errors.AnsibleConnectionFailure),
        ('gone', errors.AnsibleConnectionFailure),
        ('failed', errors.AnsibleError),
    ],
)
def test_unreachable_is_not_failed(
    connect: Callable[..., Any],
    call: mock.Mock,
    kind: str,
    error: type[Exception],
) -> None:
    call.side_effect = hub_client.HubError(kind, 'why')
    with pytest.raises(error, match='web: why') as caught:
        connect().exec_command('true')
    assert caught.type is error


def test_files(connect: Callable[..., Any], call: mock.Mock) -> None:
    connection = connect()
    connection.put_file(__file__, '/to')
    assert call.call_args == mock.call(
        'put', server='web', source=__file__, path='/to', user=None
    )
    with pytest.raises(errors.AnsibleFileNotFound):
        connection.put_file('/no/such/file', '/to')
    connection.fetch_file('/from', '/to')
    assert call.call_args == mock.call(
        'get', server='web', path='/from', to='/to', user=None
    )


def test_reset_forgets_the_server(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    connect().reset()
    call.assert_called_once_with('forget', server='web')


def test_agent_is_waited_for(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    call.return_value = {'status': 'unavailable', 'reason': 'no channel'}
    with pytest.raises(errors.AnsibleConnectionFailure, match='no channel'):
        connect().transport_test(5)
    call.return_value = {'status': 'available', 'reason': None}
    connect().transport_test(5)


def test_windows(connect: Callable[..., Any], call: mock.Mock) -> None:
    shell = mock.Mock(
        _IS_WINDOWS=True, **{'_encode_script.return_value': ['PowerShell']}
    )
    connection = connect(shell)
    assert connection.always_pipeline_modules
    assert not connection.allow_executable
    connection.exec_command('Get-Item')
    values = call.call_args.kwargs
    assert (values['command'], values['is_whole']) == (['PowerShell'], False)
    call.return_value['code'] = -1073741510
    assert connection.exec_command('Get-Item')[0] == -1073741510


def test_client_that_is_not_installed(
    connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, 'HAS_CLIENT', False)
    with pytest.raises(errors.AnsibleError, match='python-guestagentclient'):
        connect().exec_command('true')


def test_facts_by_the_names_of_ansible() -> None:
    details = {
        'host_name': 'web-1',
        'os': {
            'name': 'Debian GNU/Linux',
            'version_id': '12',
            'machine': 'x86_64',
            'kernel_release': '6.1.0',
        },
        'interfaces': [
            {'name': 'lo', 'ip_addresses': [{'ip_address': '127.0.0.1'}]},
            {
                'name': 'eth0',
                'ip_addresses': [
                    {'ip_address': '10.0.0.5'},
                    {'ip_address': 'fe80::1%eth0'},
                    {'ip_address': '2001:db8::5'},
                ],
            },
            {'name': 'eth1'},
        ],
        'filesystems': [
            {
                'name': 'vda1',
                'mountpoint': '/',
                'type': 'ext4',
                'total_bytes': 10,
                'used_bytes': 4,
            },
            {'name': 'x', 'mountpoint': '/x', 'type': 'vfat'},
        ],
        'vcpus': [{}, {}],
        'unavailable': {'users': 'why'},
    }
    facts = guest_facts.facts_of(details)
    assert facts.pop('guest_agent') == details
    assert facts == {
        'hostname': 'web-1',
        'distribution': 'Debian',
        'distribution_version': '12',
        'architecture': 'x86_64',
        'kernel': '6.1.0',
        'interfaces': ['lo', 'eth0', 'eth1'],
        'all_ipv4_addresses': ['10.0.0.5'],
        'all_ipv6_addresses': ['2001:db8::5'],
        'processor_vcpus': 2,
        'mounts': [
            {
                'mount': '/',
                'device': 'vda1',
                'fstype': 'ext4',
                'size_total': 10,
                'size_available': 6,
            },
            {'mount': '/x', 'device': 'x', 'fstype': 'vfat'},
        ],
    }


def test_agent_that_tells_nothing() -> None:
    assert guest_facts.facts_of({}) == {'guest_agent': {}}


def act(
    module: types.ModuleType,
    connection: Any,
    check_mode: bool = False,
    **args: Any,
) -> dict[str, Any]:
    """Run an action as a task does."""
    task = mock.Mock(args=args, check_mode=check_mode, async_val=0)
    made = module.ActionModule(task, connection, *[mock.Mock()] * 4)
    return dict(made.run(task_vars={}))


@pytest.mark.parametrize(
    ('args', 'argv'),
    [
        ({'cmd': "echo 'a b'"}, ['echo', 'a b']),
        ({'argv': ['echo', 'a b']}, ['echo', 'a b']),
        ({'shell': 'echo a | cat'}, ['/bin/sh', '-c', 'echo a | cat']),
    ],
)
def test_program_of_a_task(
    connect: Callable[..., Any],
    call: mock.Mock,
    args: dict[str, Any],
    argv: list[str],
) -> None:
    connection = connect(remote_user='debian')
    done = act(
        guest_command,
        connection,
        stdin='in',
        env={'X': 1},
        chdir='/tmp',
        timeout=5,
        **args,
    )
    assert (done['rc'], done['failed'], done['changed']) == (3, True, True)
    assert (done['stdout'], done['stderr_lines']) == ('out', ['err'])
    values = call.call_args.kwargs
    assert values['command'] == argv
    assert (values['stdin'], values['env']) == ('aW4=', {'X': '1'})
    assert (values['cwd'], values['timeout']) == ('/tmp', 5)
    assert values['user'] == 'debian'


def test_user_of_a_program(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    connection = connect(remote_user='debian')
    connection.set_become_plugin(become(sudo, become_user='root'))
    act(guest_command, connection, cmd='id')
    assert call.call_args.kwargs['user'] is None
    act(guest_command, connection, cmd='id', user='web')
    assert call.call_args.kwargs['user'] == 'web'


def test_program_is_not_run_in_check_mode(
    connect: Callable[..., Any], call: mock.Mock
) -> None:
    assert act(guest_command, connect(), True, cmd='id')['skipped']
    call.assert_not_called()


@pytest.mark.parametrize('module', [guest_command, guest_facts])
def test_other_connections_are_refused(module: types.ModuleType) -> None:
    connection = mock.Mock(transport='ssh')
    args = {'cmd': 'id'} if module is guest_command else {}
    done = act(module, connection, **args)
    assert done['failed'] and 'ansible_connection' in done['msg']


def test_facts_of_a_task(connect: Callable[..., Any], call: mock.Mock) -> None:
    call.return_value = {'host_name': 'web'}
    done = act(guest_facts, connect())
    call.assert_called_once_with('show', server='web', call='details')
    assert done['ansible_facts']['hostname'] == 'web'
