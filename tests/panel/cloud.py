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

"""A cloud in this process: Keystone, some of Nova, and our API.

It answers what Horizon and the panel ask. What its guests do is what a test
tells them.
"""

import collections
from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import datetime
from http import server
import json
import re
import threading
from typing import Any
import urllib.parse
import uuid

PROJECT, USER = 'a' * 32, 'b' * 32
_PREFIX = 'OpenStack-Guest-Agent-'
_ENDED = ('COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'LOST')
#: What the API counts of a run, beside the statuses of commands that ended.
_UNFINISHED = ('WAITING', 'REFUSED', 'PENDING', 'RUNNING')


def now() -> str:
    """Return the time as the API has it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime(
        '%Y-%m-%dT%H:%M:%SZ'
    )


@dataclasses.dataclass
class Refusal(Exception):
    """An answer that refuses."""

    status: int
    message: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Command:
    """A command, whose guest is the test."""

    server_id: str
    arguments: dict[str, Any]
    type: str = 'exec'
    status: str = 'RUNNING'
    error: str | None = None
    exitcode: int | None = None
    signal: int | None = None
    finished_at: str | None = None
    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = dataclasses.field(default_factory=now)
    out: bytes = b''
    err: bytes = b''
    stdin: bytes = b''
    is_stdin_closed: bool = False
    size: tuple[int, int] | None = None
    host: str = 'compute-1'
    project_id: str = PROJECT
    run_uuid: str | None = None
    dropped: int = 0

    @property
    def is_error(self) -> bool:
        """Whether it counts as an error of its run."""
        return self.status in ('FAILED', 'TIMED_OUT', 'LOST') or bool(
            self.exitcode
        )

    def write(self, data: bytes, stream: str = 'out') -> None:
        """Add to what it has written."""
        setattr(self, stream, getattr(self, stream) + data)

    def end(
        self,
        exitcode: int | None = 0,
        status: str = 'COMPLETED',
        error: str | None = None,
    ) -> None:
        """End it."""
        self.exitcode, self.error = exitcode, error
        self.finished_at = now()
        self.status = status

    def view(self, sees_contents: bool = True) -> dict[str, Any]:
        """Return it as the API shows it."""
        shown: dict[str, Any] = {
            'uuid': self.uuid,
            'type': self.type,
            'instance_uuid': self.server_id,
            'project_id': self.project_id,
            'user_id': USER,
            'request_id': 'req-11111111-2222-3333-4444-555555555555',
            'created_at': self.created_at,
            'updated_at': self.created_at,
            'started_at': self.created_at
            if self.status not in ('PENDING', 'FAILED')
            else None,
            'finished_at': self.finished_at,
            'status': self.status,
            'error': self.error,
            'host': self.host,
            'run_uuid': self.run_uuid,
            'result': None,
        }
        if sees_contents:
            shown['arguments'] = _shown_arguments(self.arguments)
        if (
            self.type == 'exec'
            and self.status in _ENDED
            and self.status != 'FAILED'
        ):
            shown['result'] = {
                'pid': 412,
                'exitcode': self.exitcode,
                'signal': self.signal,
                'out_truncated': bool(self.dropped),
                'err_truncated': False,
                'out_bytes': len(self.out) + self.dropped,
                'err_bytes': len(self.err),
            }
        return shown


@dataclasses.dataclass
class Run:
    """A run, whose commands the test releases.

    :ivar targets: ids of its servers
    :ivar refused: pairs of the id of a server and why it took no command
    """

    targets: list[str]
    arguments: dict[str, Any]
    name: str | None = None
    status: str = 'RUNNING'
    error: str | None = None
    max_concurrency: int = 50
    max_errors: int | None = None
    finished_at: str | None = None
    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = dataclasses.field(default_factory=now)
    refused: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def end(self, status: str = 'COMPLETED') -> None:
        """End it."""
        self.finished_at = now()
        self.status = status

    def view(
        self, commands: list[Command], sees_contents: bool = True
    ) -> dict[str, Any]:
        """Return it as the API shows it in a list.

        :param commands: those of all runs
        """
        own = [each for each in commands if each.run_uuid == self.uuid]
        counts = collections.Counter(each.status for each in own)
        counts['REFUSED'] = len(self.refused)
        counts['WAITING'] = len(self.targets) - sum(counts.values())
        shown: dict[str, Any] = {
            'uuid': self.uuid,
            'name': self.name,
            'type': 'exec',
            'status': self.status,
            'targets': len(self.targets),
            'counts': {name: counts[name] for name in (*_UNFINISHED, *_ENDED)},
            'errors': len(self.refused) + sum(each.is_error for each in own),
            'max_concurrency': self.max_concurrency,
            'max_errors': self.max_errors,
            'created_at': self.created_at,
            'updated_at': self.created_at,
            'finished_at': self.finished_at,
            'error': self.error,
            'project_id': PROJECT,
            'user_id': USER,
            'request_id': 'req-11111111-2222-3333-4444-555555555555',
        }
        if sees_contents:
            shown['arguments'] = _shown_arguments(self.arguments)
        return shown


def _shown_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as the API shows them: without secrets."""
    shown = {
        name: value
        for name, value in arguments.items()
        if name not in ('env', 'input_data', 'password')
    }
    if 'env' in arguments:
        shown['env'] = list(arguments['env'])
    if 'input_data' in arguments:
        shown['input_bytes'] = len(arguments['input_data'])
    return shown


class Cloud:
    """What there is, and who asked what.

    :ivar role: role of the user who logs in
    :ivar agents: status of each server's agent
    :ivar on_create: what a guest does with a command that was accepted
    :ivar refusals: refusals by method and the end of a path
    :ivar requests: method and path of every request of our API
    :ivar hold: what files that are written wait for, if anything
    :ivar held: how many have waited
    :ivar sink: whether files that are written are counted and not kept
    :ivar zeros: size of the file of zeros that every path has, if not 0
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.role = 'member'
        self.servers: dict[str, dict[str, Any]] = {}
        self.commands: list[Command] = []
        self.runs: list[Run] = []
        self.files: dict[str, bytes] = {}
        self.agents: dict[str, dict[str, Any]] = {}
        self.details: dict[str, Any] = {}
        self.hosts: list[dict[str, Any]] = []
        self.on_create: Callable[[Command], None] = lambda command: None
        self.on_input: Callable[[Command, bytes], None] = (
            lambda command, data: None
        )
        self.refusals: dict[tuple[str, str], Refusal] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.hold: threading.Event | None = None
        self.held = 0
        self.page_size: int | None = None
        self.sink = False
        self.sunk = 0
        self.zeros = 0
        self._server = _Server(self)
        threading.Thread(
            target=self._server.serve_forever, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self._server.server_address[1]}'

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_server(self, name: str = 'web-1') -> str:
        """Add a server whose agent is available; return its id."""
        server_id = str(uuid.uuid4())
        self.servers[server_id] = {
            'id': server_id,
            'name': name,
            'status': 'ACTIVE',
            'tenant_id': PROJECT,
            'user_id': USER,
            'created': now(),
            'updated': now(),
            'addresses': {},
            'metadata': {},
            'image': '',
            'flavor': {'id': '1', 'original_name': 'tiny'},
            'security_groups': [],
            'links': [],
            'key_name': None,
            'hostId': '',
            'OS-EXT-STS:power_state': 1,
            'OS-EXT-STS:task_state': None,
            'OS-EXT-STS:vm_state': 'active',
            'OS-EXT-AZ:availability_zone': 'nova',
            'os-extended-volumes:volumes_attached': [],
            'locked': False,
            'description': None,
        }
        self.agents[server_id] = {
            'status': 'available',
            'reason': None,
            'version': '7.2.22',
            'os': 'Debian GNU/Linux 12 (bookworm)',
            'execution': 'guarded',
            'supported_commands': ['guest-exec'],
            'command_types': [
                'exec',
                'set-password',
                'ssh-keys-add',
                'ssh-keys-remove',
            ],
            'unavailable': {},
        }
        return server_id

    def add_command(
        self, server_id: str, *argv: str, **fields: Any
    ) -> Command:
        """Add a command, newer than all others."""
        command = Command(server_id, {'command': list(argv)}, **fields)
        self.commands.insert(0, command)
        return command

    def add_run(self, targets: list[str], *argv: str, **fields: Any) -> Run:
        """Add a run, newer than all others."""
        run = Run(targets, {'command': list(argv)}, **fields)
        self.runs.insert(0, run)
        return run

    def release(self, run: Run, server_id: str) -> Command:
        """Have a server get its command of a run."""
        return self.add_command(
            server_id, *run.arguments['command'], run_uuid=run.uuid
        )

    def run(self, run_id: str) -> Run:
        for run in self.runs:
            if run.uuid == run_id:
                return run
        raise Refusal(404, f'Run {run_id} could not be found.')

    def command(self, server_id: str, command_id: str) -> Command:
        for command in self.commands:
            if (command.server_id, command.uuid) == (server_id, command_id):
                return command
        raise Refusal(404, f'There is no command {command_id}')

    @property
    def sees_contents(self) -> bool:
        return self.role in ('member', 'admin')

    def catalog(self) -> list[dict[str, Any]]:
        """Return the catalog of Keystone."""
        return [
            {
                'type': kind,
                'name': kind,
                'id': kind,
                'endpoints': [
                    {
                        'interface': interface,
                        'url': self.url + path,
                        'region': 'RegionOne',
                        'region_id': 'RegionOne',
                        'id': kind + interface,
                    }
                    for interface in ('public', 'internal', 'admin')
                ],
            }
            for kind, path in (
                ('identity', '/v3'),
                ('compute', '/v2.1'),
                ('image', '/image'),
                ('network', '/network'),
            )
        ]

    def token(self, is_scoped: bool) -> dict[str, Any]:
        """Return what Keystone tells of a token."""
        issued = datetime.datetime.now(datetime.timezone.utc)
        expires = issued + datetime.timedelta(hours=12)
        domain = {'id': 'default', 'name': 'Default'}
        token: dict[str, Any] = {
            'methods': ['password'],
            'user': {
                'id': USER,
                'name': 'demo',
                'domain': domain,
                'password_expires_at': None,
            },
            'audit_ids': ['x'],
            'expires_at': expires.strftime('%Y-%m-%dT%H:%M:%S.000000Z'),
            'issued_at': issued.strftime('%Y-%m-%dT%H:%M:%S.000000Z'),
        }
        if is_scoped:
            roles = {'member': ['member', 'reader'], 'reader': ['reader']}
            token |= {
                'project': {'id': PROJECT, 'name': 'demo', 'domain': domain},
                'is_domain': False,
                'roles': [
                    {'id': name, 'name': name}
                    for name in roles.get(
                        self.role, [self.role, 'member', 'reader']
                    )
                ],
                'catalog': self.catalog(),
            }
        return {'token': token}


@dataclasses.dataclass
class Call:
    """A request of our API."""

    cloud: Cloud
    query: dict[str, str]
    headers: Mapping[str, str]
    read: Callable[[], bytes]
    read_piece: Callable[[], bytes]

    def json(self) -> Any:
        body = json.loads(self.read())
        self.cloud.bodies.append(body)
        return body


@dataclasses.dataclass
class Answer:
    """An answer with bytes."""

    data: bytes
    headers: Mapping[str, str]


@dataclasses.dataclass
class Zeros:
    """An answer with that many zeros."""

    size: int


def _show_agent(call: Call, server_id: str) -> Any:
    return {'guest_agent': call.cloud.agents[server_id]}


def _show_details(call: Call, server_id: str) -> Any:
    return {'guest_agent_details': call.cloud.details}


def _create(call: Call, server_id: str) -> Any:
    body = call.json()['command']
    command = Command(server_id, body['arguments'], body['type'])
    with call.cloud.lock:
        call.cloud.commands.insert(0, command)
    call.cloud.on_create(command)
    return {'command': command.view()}


def _listed(call: Call, commands: list[Command]) -> Any:
    cloud, query = call.cloud, call.query
    known = [command.uuid for command in commands]
    if 'marker' in query:
        commands = commands[known.index(query['marker']) + 1 :]
    for name in ('status', 'host', 'project_id'):
        if name in query:
            commands = [
                each for each in commands if getattr(each, name) == query[name]
            ]
    if 'since' in query:
        commands = [
            each for each in commands if each.created_at >= query['since']
        ]
    return _page(
        call, 'commands', [each.view(cloud.sees_contents) for each in commands]
    )


def _page(call: Call, name: str, views: list[dict[str, Any]]) -> Any:
    """Return the first page of a list, with a link to the next."""
    limit = min(
        int(call.query.get('limit', 1000)), call.cloud.page_size or 1000
    )
    answer: dict[str, Any] = {name: views[:limit]}
    if len(views) > limit:
        answer[f'{name}_links'] = [{'rel': 'next', 'href': 'x'}]
    return answer


def _index(call: Call, server_id: str) -> Any:
    return _listed(
        call, [x for x in call.cloud.commands if x.server_id == server_id]
    )


def _index_all(call: Call) -> Any:
    if 'all_projects' in call.query and call.cloud.role != 'admin':
        raise Refusal(403, 'Only an admin may list those of all projects')
    return _listed(call, list(call.cloud.commands))


def _show(call: Call, server_id: str, command_id: str) -> Any:
    command = call.cloud.command(server_id, command_id)
    return {'command': command.view(call.cloud.sees_contents)}


def _delete(call: Call, server_id: str, command_id: str) -> Any:
    command = call.cloud.command(server_id, command_id)
    if command.status not in _ENDED:
        raise Refusal(409, f'Command {command_id} is {command.status}')
    call.cloud.commands.remove(command)
    return None


def _act(call: Call, server_id: str, command_id: str) -> Any:
    command, body = call.cloud.command(server_id, command_id), call.json()
    if command.status in _ENDED:
        raise Refusal(
            409, f'Command {command_id} has already ended: {command.status}'
        )
    if 'cancel' in body:
        command.end(None, 'CANCELLED', 'Cancelled by the user')
    else:
        size = body['resize']
        command.size = size['columns'], size['rows']
    return None


def _output(call: Call, server_id: str, command_id: str) -> Any:
    command = call.cloud.command(server_id, command_id)
    offset = int(call.query.get('offset', 0))
    written: bytes = getattr(command, call.query.get('stream', 'out'))
    data = written[offset : offset + 100_000]
    is_complete = command.status in _ENDED and not written[offset:][100_000:]
    if command.arguments.get('terminal'):
        is_complete = is_complete and not data
    return Answer(
        data,
        {
            _PREFIX + 'Offset': str(offset),
            _PREFIX + 'Next-Offset': str(offset + len(data)),
            _PREFIX + 'Complete': 'true' if is_complete else 'false',
        },
    )


def _input(call: Call, server_id: str, command_id: str) -> Any:
    command, data = call.cloud.command(server_id, command_id), call.read()
    if command.status in _ENDED:
        raise Refusal(409, 'The command has ended')
    assert int(call.query['offset']) == len(command.stdin)
    command.stdin += data
    call.cloud.on_input(command, data)
    return {'input': {'next_offset': len(command.stdin), 'end': False}}


def _read_file(call: Call, server_id: str) -> Any:
    path = call.query['path']
    if call.cloud.zeros:
        return Zeros(call.cloud.zeros)
    if path not in call.cloud.files:
        raise Refusal(404, f'There is no {path} in the server')
    return Answer(call.cloud.files[path], {})


def _write_file(call: Call, server_id: str) -> Any:
    if call.cloud.hold is not None:
        call.cloud.held += 1
        if not call.cloud.hold.wait(60):
            raise Refusal(500, 'The test has forgotten this transfer')
    if call.cloud.sink:
        while piece := call.read_piece():
            call.cloud.sunk += len(piece)
    else:
        call.cloud.files[call.query['path']] = call.read()
    return None


def _create_run(call: Call) -> Any:
    body = call.json()['run']
    run = Run(
        body['targets'].get('servers', list(call.cloud.servers)),
        body['arguments'],
        body.get('name'),
    )
    call.cloud.runs.insert(0, run)
    return {'run': {**run.view([]), 'refused': []}}


def _list_runs(call: Call) -> Any:
    cloud, query = call.cloud, call.query
    runs = list(cloud.runs)
    if 'marker' in query:
        known = [run.uuid for run in runs]
        runs = runs[known.index(query['marker']) + 1 :]
    if 'status' in query:
        runs = [run for run in runs if run.status == query['status']]
    return _page(call, 'runs', [run.view(cloud.commands) for run in runs])


def _show_run(call: Call, run_id: str) -> Any:
    run = call.cloud.run(run_id)
    refused = [
        {'instance_uuid': server_id, 'error': error}
        for server_id, error in run.refused
    ]
    return {'run': {**run.view(call.cloud.commands), 'refused': refused}}


def _list_of_run(call: Call, run_id: str) -> Any:
    run = call.cloud.run(run_id)
    return _listed(
        call, [x for x in call.cloud.commands if x.run_uuid == run.uuid]
    )


def _act_on_run(call: Call, run_id: str) -> Any:
    run = call.cloud.run(run_id)
    assert call.json() == {'cancel': None}
    if run.status != 'RUNNING':
        raise Refusal(409, f'Run {run_id} has already ended')
    for command in call.cloud.commands:
        if command.run_uuid == run_id and command.status not in _ENDED:
            command.end(None, 'CANCELLED', 'Cancelled with its run')
    run.end('CANCELLED')
    return None


def _delete_run(call: Call, run_id: str) -> Any:
    run = call.cloud.run(run_id)
    if run.status == 'RUNNING':
        raise Refusal(409, f'Run {run_id} has not ended; cancel it first')
    call.cloud.runs.remove(run)
    call.cloud.commands = [
        each for each in call.cloud.commands if each.run_uuid != run_id
    ]
    return None


def _hosts(call: Call) -> Any:
    return {'hosts': call.cloud.hosts}


_AGENT = '/v2.1/servers/([^/]+)/guest-agent'
_COMMAND = _AGENT + '/commands/([^/]+)'
_RUNS = '/v2.1/guest-agent/runs'
_RUN = _RUNS + '/([^/]+)'
#: The calls of our API.
_ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ('GET', _AGENT, _show_agent),
    ('GET', _AGENT + '/details', _show_details),
    ('POST', _AGENT + '/commands', _create),
    ('GET', _AGENT + '/commands', _index),
    ('GET', _COMMAND, _show),
    ('DELETE', _COMMAND, _delete),
    ('POST', _COMMAND + '/action', _act),
    ('GET', _COMMAND + '/output', _output),
    ('POST', _COMMAND + '/input', _input),
    ('GET', _AGENT + '/file-read', _read_file),
    ('POST', _AGENT + '/file-write', _write_file),
    ('GET', '/v2.1/guest-agent/commands', _index_all),
    ('GET', '/v2.1/guest-agent/hosts', _hosts),
    ('POST', _RUNS, _create_run),
    ('GET', _RUNS, _list_runs),
    ('GET', _RUN, _show_run),
    ('DELETE', _RUN, _delete_run),
    ('POST', _RUN + '/action', _act_on_run),
    ('GET', _RUN + '/commands', _list_of_run),
)


def _nova(cloud: Cloud, path: str) -> Any:
    """Answer what Horizon's own pages ask of Nova, Glance and Neutron."""
    server_id = path.split('/')[3] if path.count('/') > 2 else ''
    if re.fullmatch(r'/v2\.1/servers(/detail)?', path):
        return {'servers': list(cloud.servers.values())}
    if path == f'/v2.1/servers/{server_id}':
        if server_id not in cloud.servers:
            raise Refusal(404, f'Instance {server_id} could not be found.')
        return {'server': cloud.servers[server_id]}
    if path.startswith('/v2.1/flavors'):
        flavor = {
            'id': '1', 'name': 'tiny', 'ram': 192, 'vcpus': 1, 'disk': 1,
            'swap': '', 'links': [], 'OS-FLV-EXT-DATA:ephemeral': 0,
        }  # fmt: skip
        if path.endswith('/os-extra_specs'):
            return {'extra_specs': {}}
        is_list = path.rstrip('/').rsplit('/', 1)[1] in ('flavors', 'detail')
        return {'flavors': [flavor]} if is_list else {'flavor': flavor}
    if path.startswith('/network/'):
        return {path.rsplit('/', 1)[1].removesuffix('.json'): []}
    if path in ('/v2.1', '/v2.1/'):
        return {
            'version': {
                'id': 'v2.1', 'status': 'CURRENT', 'version': '2.100',
                'min_version': '2.1', 'links': [],
            }
        }  # fmt: skip
    for end, name in (
        ('os-security-groups', 'security_groups'),
        ('os-volume_attachments', 'volumeAttachments'),
        ('os-interface', 'interfaceAttachments'),
        ('extensions', 'extensions'),
        ('os-instance-actions', 'instanceActions'),
        ('images', 'images'),
    ):
        if path.endswith(end):
            return {name: []}
    raise Refusal(404, f'The fake cloud has no {path}')


def _keystone(cloud: Cloud, method: str, path: str, read: Any) -> Any:
    if (method, path) == ('POST', '/v3/auth/tokens'):
        asked = json.loads(read())['auth']
        return cloud.token(isinstance(asked.get('scope'), dict))
    if path.endswith('/projects'):
        project = {
            'id': PROJECT, 'name': 'demo', 'enabled': True,
            'domain_id': 'default', 'links': {}, 'description': '',
        }  # fmt: skip
        return {'projects': [project], 'links': {}}
    if path.endswith('/domains'):
        return {'domains': [], 'links': {}}
    if path in ('/v3', '/v3/'):
        link = {'rel': 'self', 'href': cloud.url + '/v3/'}
        return {
            'version': {
                'id': 'v3.14', 'status': 'stable', 'links': [link],
                'media-types': [], 'updated': '2020-04-07T00:00:00Z',
            }
        }  # fmt: skip
    raise Refusal(404, f'The fake Keystone has no {path}')


class _Server(server.ThreadingHTTPServer):
    """The server of a cloud.

    :param cloud: cloud whose state the answers show
    """

    daemon_threads = True

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.cloud = cloud


class _Handler(server.BaseHTTPRequestHandler):
    server: '_Server'
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self._left = int(self.headers.get('Content-Length') or 0)
        try:
            answer = self._answer(url.path, url.query)
        except Refusal as refusal:
            body = {'message': refusal.message, 'code': refusal.status}
            self._send(
                refusal.status,
                json.dumps({'fault': body}).encode(),
                refusal.headers,
            )
            return
        if isinstance(answer, Answer):
            self._send(200, answer.data, answer.headers)
        elif isinstance(answer, Zeros):
            self._send_zeros(answer.size)
        elif answer is None:
            self._send(202, b'', {})
        else:
            created = self.command == 'POST' and '/auth/' in self.path
            self._send(
                201 if created else 200, json.dumps(answer).encode(), {}
            )

    def _answer(self, path: str, query: str) -> Any:
        if path.startswith('/v3'):
            return _keystone(self.server.cloud, self.command, path, self._read)
        for method, pattern, handle in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                self.server.cloud.requests.append((method, path))
                for (verb, end), refusal in self.server.cloud.refusals.items():
                    if verb == method and path.endswith(end):
                        raise refusal
                call = Call(
                    self.server.cloud,
                    dict(urllib.parse.parse_qsl(query)),
                    self.headers,
                    self._read,
                    self._read_piece,
                )
                return handle(call, *match.groups())
        return _nova(self.server.cloud, path)

    def _read(self) -> bytes:
        data = self.rfile.read(self._left)
        self._left = 0
        return data

    def _read_piece(self) -> bytes:
        data = self.rfile.read(min(self._left, 1024 * 1024))
        self._left -= len(data)
        return data

    def _send_zeros(self, size: int) -> None:
        self.send_response(200)
        self.send_header('Content-Length', str(size))
        self.end_headers()
        while size:
            piece = bytes(min(size, 1024 * 1024))
            self.wfile.write(piece)
            size -= len(piece)

    def _send(
        self, status: int, data: bytes, headers: Mapping[str, str]
    ) -> None:
        # A body that nobody has read would be the next request.
        if self._left:
            self.close_connection = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('X-Subject-Token', 'token')
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)
