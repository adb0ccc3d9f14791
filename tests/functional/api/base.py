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

"""Nova's API with our filter in it, in this process, on SQLite."""

from collections.abc import Callable
import configparser
from importlib import metadata
import json
import pathlib
from typing import Any

import fixtures
from nova import context as nova_context
from nova import objects
from nova import test
from nova.api import auth as nova_auth
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
import nova.conf
from nova.tests import fixtures as nova_fixtures
from oslo_db.sqlalchemy import enginefacade
from oslo_utils import uuidutils
import requests
import sqlalchemy as sa

from guest_agent_ext import breaker
from guest_agent_ext import command
from guest_agent_ext.api import doorbell
from guest_agent_ext.api import servers
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import migration
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests.functional.api import documented

CONF = nova.conf.CONF

PASTE_SAMPLE = (
    pathlib.Path(__file__).parents[3]
    / 'etc/guest_agent_ext/api-paste.ini.sample'
)
HOST = 'compute1'
OTHER_CELL = '3f1d2c9e-7a60-4b58-9c44-0d1e5b7a8f21'
PROJECT = nova_fixtures.PROJECT_ID
OTHER_PROJECT = 'b' * 32
#: The project of a token that is scoped to a domain, to the system or not at
#: all.
NO_PROJECT = ''


def write_paste_config(path: pathlib.Path) -> None:
    """Write Nova's own api-paste.ini, changed as our sample says."""
    (nova_paste,) = [
        file.locate()
        for file in metadata.files('nova') or ()
        if file.name == 'api-paste.ini'
    ]
    config = configparser.ConfigParser(interpolation=None)
    config.read([str(nova_paste), PASTE_SAMPLE])
    with path.open('w') as file:
        config.write(file)


class Cloud(test.TestCase):
    """A Nova with a server of PROJECT on HOST that a command could run in.

    Nova keeps its fixtures in a test case: start() and stop() make one of it
    that many tests share.
    """

    @classmethod
    def start(cls) -> 'Cloud':
        cloud = cls('stop')
        cloud.setUp()
        return cloud

    def stop(self) -> None:
        self.tearDown()
        self.doCleanups()

    def setUp(self) -> None:
        # It makes errors of warnings that are for Nova to mend.
        self.patch(nova_fixtures, 'WarningsFixture', fixtures.Fixture)
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(nova_fixtures.RealPolicyFixture())
        self._connect()
        self.rung: list[tuple[str, str]] = []
        self.patch(
            doorbell,
            'ring',
            lambda cell, host: self.rung.append((cell.uuid, host)),
        )
        self.patch(servers, '_breaker', breaker.Breaker(5))
        self._start_api()
        self.cell = self.cell_mappings['cell1']
        self._register_host()

    def renew(self) -> None:
        """Forget what an earlier test did."""
        self.rung.clear()
        servers._breaker = breaker.Breaker(5)
        # Tests before it may have taken longer than service_down_time.
        self._register_host()
        self.instance = self.make_instance()
        self.path = commands_of(self.instance.uuid)

    def _register_host(self) -> None:
        hosts.register(
            self.cell.uuid,
            HOST,
            machine_id='machine',
            version='1',
            down_time=60,
        )

    def _connect(self) -> None:
        self.flags(
            connection=f'sqlite:///{self.directory}/api.sqlite',
            group='guest_agent_database',
        )
        self.patch(
            session, '_context_manager', enginefacade.transaction_context()
        )
        session.configure(CONF)
        migration.sync()
        self.addCleanup(session.get_engine().dispose)

    def _start_api(self) -> None:
        paste_config = self.directory / 'api-paste.ini'
        write_paste_config(paste_config)
        self.flags(api_paste_config=str(paste_config), group='wsgi')
        self.flags(response_validation='error', group='api')
        api = self.useFixture(nova_fixtures.OSAPIFixture())
        self.patch(
            nova_auth.NovaKeystoneContext,
            '_create_context',
            _without_project(nova_auth.NovaKeystoneContext._create_context),
        )
        self.app = api.app
        self.endpoint = api.base_url.removesuffix(':80/v2.1')

    def patch(self, module: Any, name: str, value: Any) -> None:
        self.useFixture(fixtures.MockPatchObject(module, name, value))

    def make_silent_host(
        self, name: str, cell_uuid: str | None = None
    ) -> None:
        """Note a service that was not heard for a day."""
        hosts.register(
            cell_uuid or self.cell.uuid,
            name,
            machine_id='gone',
            version='1',
            down_time=0,
        )
        with session.writer() as db:
            db.execute(
                sa.update(models.Host)
                .where(models.Host.host == name)
                .values(last_seen_at=sqltypes.utc_in(-86400))
            )

    def make_instance(
        self,
        project_id: str = PROJECT,
        channel: str = 'yes',
        cell: Any = None,
        **values: Any,
    ) -> Any:
        """Make a server as if Nova had built it."""
        context = nova_context.get_admin_context()
        cell = cell or self.cell
        with nova_context.target_cell(context, cell) as cell_context:
            instance = objects.Instance(
                cell_context,
                **dict(
                    {
                        'uuid': uuidutils.generate_uuid(),
                        'project_id': project_id,
                        'user_id': 'fake',
                        'host': HOST,
                        'vm_state': vm_states.ACTIVE,
                        'task_state': None,
                        'power_state': power_state.RUNNING,
                        'locked': False,
                        'system_metadata': {
                            'image_hw_qemu_guest_agent': channel
                        },
                    },
                    **values,
                ),
            )
            instance.create()
        objects.InstanceMapping(
            context,
            instance_uuid=instance.uuid,
            project_id=project_id,
            cell_mapping=cell,
            user_id='fake',
            queued_for_delete=False,
        ).create()
        return instance

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str = 'fake',
        project_id: str = PROJECT,
        roles: str = 'reader,member',
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        version: str = '/v2.1',
    ) -> Any:
        """Send a request, and hold its answer to what is documented.

        :param body: sent as JSON, unless ``raw`` is
        :param version: what stands before the path
        :returns: requests.Response
        """
        data = json.dumps(body).encode() if body is not None else raw
        answer = requests.request(
            method,
            self.endpoint + version + path,
            data=data,
            headers=dict(
                {
                    'Content-Type': 'application/json',
                    'X-Auth-User': user,
                    'X-Auth-Project-Id': project_id,
                    'X-Roles': roles,
                },
                **headers or {},
            ),
        )
        documented.check(method, path, answer)
        return answer

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.request('GET', path, **kwargs)

    def admin_get(self, path: str, **kwargs: Any) -> Any:
        return self.get(
            path, user='admin', roles='admin,member,reader', **kwargs
        )

    def post(
        self, arguments: Any = None, *, path: str | None = None, **kwargs: Any
    ) -> Any:
        """Ask for a command."""
        if arguments is None:
            arguments = {'command': ['id']}
        return self.request(
            'POST', path or self.path, body_of(arguments), **kwargs
        )

    def end(
        self, uuid: str, status: str = command.COMPLETED, **values: Any
    ) -> None:
        """Have a command started and ended as its host would."""
        self.start_command(uuid)
        self.finish(uuid, status, **values)

    def start_command(self, uuid: str) -> None:
        commands.claim(
            uuid,
            attempt='attempt',
            cell_uuid=self.cell.uuid,
            host=HOST,
            boot_id='boot',
            ticket=1,
            window=1.0,
            grace=600,
        )
        commands.note_started(
            uuid, attempt='attempt', pid=7, started_uptime=1, age=0.0
        )

    def finish(self, uuid: str, status: str, **values: Any) -> None:
        commands.finish(
            uuid,
            attempt='attempt',
            status=status,
            values=dict({'pid': 7, 'exitcode': 0}, **values),
            age=0.0,
        )


class Unscheduled:
    """A server that Nova has been asked for and not scheduled yet.

    :ivar uuid: uuid of the server
    """

    def __init__(
        self, cloud: Cloud, channel: str = 'yes', project_id: str = PROJECT
    ) -> None:
        self.uuid = uuidutils.generate_uuid()
        self._cloud = cloud
        self._context = nova_context.get_admin_context()
        self.mapping = objects.InstanceMapping(
            self._context,
            instance_uuid=self.uuid,
            project_id=project_id,
            user_id='fake',
            queued_for_delete=False,
        )
        self.mapping.create()
        # What Nova's API sets, of what is looked at.
        instance = objects.Instance(
            self._context,
            uuid=self.uuid,
            project_id=project_id,
            user_id='fake',
            vm_state=vm_states.BUILDING,
            task_state=task_states.SCHEDULING,
            power_state=power_state.NOSTATE,
            locked=False,
            system_metadata={'image_hw_qemu_guest_agent': channel},
        )
        self.request = objects.BuildRequest(
            self._context,
            instance=instance,
            instance_uuid=self.uuid,
            project_id=project_id,
            block_device_mappings=objects.BlockDeviceMappingList(),
            tags=objects.TagList(),
        )
        self.request.create()

    def put_into(self, cell: Any, **values: Any) -> Any:
        """Do what Nova's conductor does when it has found a place."""
        instance = self.request.get_new_instance(self._context)
        with nova_context.target_cell(self._context, cell) as context:
            instance._context = context
            instance.update(values)
            instance.create()
        self.mapping.cell_mapping = cell
        self.mapping.save()
        self.request.destroy()
        return instance

    def post(self, **arguments: Any) -> Any:
        return self._cloud.post(
            {'command': ['id'], **arguments}, path=commands_of(self.uuid)
        )


def _without_project(create: Callable[..., Any]) -> Any:
    """Let a request without a project have a context without one.

    Nova's fixture would make the empty text of it.
    """

    def create_context(*args: Any, **kwargs: Any) -> Any:
        context = create(*args, **kwargs)
        context.project_id = context.project_id or None
        return context

    return staticmethod(create_context)


def commands_of(uuid: str) -> str:
    return f'/servers/{uuid}/guest-agent/commands'


def body_of(arguments: Any) -> dict[str, Any]:
    return {'command': {'type': 'exec', 'arguments': arguments}}


def message_of(response: Any, code: int, name: str) -> str:
    """Return the message of a fault that must be this one."""
    fault = response.json()
    assert response.status_code == code, (response.status_code, fault)
    assert fault[name]['code'] == code
    message: str = fault[name]['message']
    return message
