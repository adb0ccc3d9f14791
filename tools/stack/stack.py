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

"""Starts and stops the whole of it."""

from collections.abc import Mapping
from concurrent import futures
import contextlib
import dataclasses
import functools
import http.client
import os
import pathlib
import subprocess
from typing import Any

import openstack

from tools.panel import horizon
from tools.stack import apis
from tools.stack import clients
from tools.stack import layout
from tools.stack import nova
from tools.stack import sections
from tools.stack import seed
from tools.testbed import ini
from tools.testbed import network
from tools.testbed import processes
from tools.testbed.parts import libvirtd
from tools.testbed.parts import mariadb
from tools.testbed.parts import rabbitmq

#: What is noted when it has been made once.
_SECOND_CELL = 'cell2'

# Files go in with a length and out without one; a kept-alive connection that
# uwsgi closes is an error to the client that uses it next.
_UWSGI = (
    '--master',
    '--die-on-term',
    '--processes',
    '1',
    '--threads',
    '8',
    '--enable-threads',
    '--lazy-apps',
    '--http-chunked-input',
    # A snapshot is uploaded in parts of 1 MiB, the default without headers.
    '--chunked-input-limit',
    '2097152',
    '--add-header',
    'Connection: close',
    '--buffer-size',
    '65535',
    '--disable-logging',
    '--need-app',
)


class Stack:
    """An OpenStack on this machine.

    :param directory: absolute path of the directory of its files
    :param cache: directory of the guest's image
    """

    def __init__(self, directory: pathlib.Path, cache: pathlib.Path) -> None:
        self.place = layout.Layout(directory)
        self.ledger = processes.Ledger(directory / 'processes.json')
        self._cache = cache

    @functools.cached_property
    def database(self) -> mariadb.MariaDB:
        return mariadb.MariaDB(
            self.place.directory / 'mariadb', self.place.port('mariadb')
        )

    @functools.cached_property
    def cells(self) -> Mapping[int, nova.Cell]:
        """The cells that there may be, by their numbers."""
        return {
            1: self._cell(1, None),
            2: self._cell(2, network.Namespace.of(self.place.directory)),
        }

    def process(self, name: str) -> processes.Process:
        """Return the newest process of a name, to be paused or killed."""
        return [
            process
            for process in self.ledger.processes()
            if process.name == name
        ][-1]

    def up(self) -> None:
        """Start everything; on failure stop everything again.

        :raises: processes.StartError
        """
        self.down()
        self.place.log.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as failed:
            failed.callback(self.down)
            self._up(self.cells[1])
            if self._is_done(_SECOND_CELL):
                # Nova knows of its host, and would send servers there.
                self.add_cell()
            failed.pop_all()

    def add_cell(self) -> None:
        """Start the second cell, unless that runs already."""
        cell = self.cells[2]
        if any(
            process.name == f'nova-compute-{cell.host}' and process.alive
            for process in self.ledger.processes()
        ):
            return
        _say('Starting the second cell ...')
        assert cell.namespace is not None
        cell.namespace.create()
        self._start_machinery(cell)
        self.database.provide(cell.database)
        nova.configure(self.place, self.database, cell)
        self._once(_SECOND_CELL, self._make_second_cell, cell)
        self._together(
            functools.partial(self._start_conductors, cell),
            functools.partial(self._start_host, cell),
        )
        self._finish(cell)

    def down(self) -> None:
        """Stop what runs, guests too."""
        self.ledger.stop()
        for cell in self.cells.values():
            cell.hypervisor.end_guests()
            if cell.namespace is not None:
                cell.namespace.delete()

    def start_broker(self, cell: nova.Cell) -> None:
        """Start a cell's RabbitMQ, and wait until connections are accepted."""
        cell.broker.start()
        for daemon in cell.broker.daemons:
            self.ledger.note(
                dataclasses.replace(daemon, name=f'{daemon.name}-{cell.name}')
            )

    def start(
        self, name: str, program: str, configuration: pathlib.Path
    ) -> processes.Process:
        """Start one of Nova's programs or of ours, without waiting.

        :param name: its name here
        """
        return self._start(
            name, [self.place.bin / program, '--config-file', configuration]
        )

    def start_nova_api(self) -> None:
        """Start nova-api, and wait for its first answer."""
        self._serve('nova', 'nova.wsgi.osapi_compute')

    def as_admin(self) -> Any:
        """Return a connection of openstacksdk for the admin."""
        return openstack.connect(
            **clients.account(self.place, 'admin', 'admin')
        )

    def _cell(
        self, number: int, namespace: network.Namespace | None
    ) -> nova.Cell:
        directory = self.place.directory
        broker = rabbitmq.RabbitMQ(
            directory / f'rabbitmq-{number}',
            self.place.port(f'rabbitmq-{number}'),
            f'cell{number}',
            namespace,
        )
        hypervisor = libvirtd.Libvirtd(
            directory / f'libvirt-{number}', self._cache, f'compute-{number}'
        )
        return nova.Cell(number, broker, hypervisor, namespace)

    def _up(self, cell: nova.Cell) -> None:
        _say('Starting MariaDB, RabbitMQ and libvirtd ...')
        self._together(
            self._start_database,
            functools.partial(self._start_machinery, cell),
        )
        _say('Preparing the databases ...')
        self._prepare(cell)
        _say('Starting the APIs ...')
        self._together(
            *(functools.partial(self._start_api, api) for api in apis.ALL)
        )
        self._seed()
        _say('Starting Nova and the extension ...')
        self._together(
            self.start_nova_api,
            self._start_guest_agent_api,
            self._start_horizon,
            functools.partial(self._start_conductors, cell),
            functools.partial(self._start_host, cell),
            functools.partial(seed.guest_image, self.as_admin(), self._cache),
        )
        self._finish(cell)
        clients.write(self.place)

    def _start_database(self) -> None:
        self.database.start()
        self.ledger.note(self.database.process)
        self.database.provide(
            *(api.name for api in apis.ALL),
            nova.API_DATABASE,
            nova.CELL0_DATABASE,
            self.cells[1].database,
        )

    def _start_machinery(self, cell: nova.Cell) -> None:
        self.start_broker(cell)
        self.ledger.note(cell.hypervisor.start())

    def _prepare(self, cell: nova.Cell) -> None:
        for api in apis.ALL:
            path = self.place.etc(api.name) / api.configuration
            ini.write(
                path,
                ini.merge(
                    sections.common(self.place, api.name),
                    api.contents(self.place, self.database),
                ),
            )
        nova.configure(self.place, self.database, cell)
        self._together(
            *(
                functools.partial(self._once, api.name, self._prepare_api, api)
                for api in apis.ALL
            ),
            functools.partial(self._once, 'nova', self._prepare_nova, cell),
        )
        # Each time: the extension may be newer than it was.
        self._run(
            'nova',
            'guest-agent-manage',
            '--config-file',
            self._nova_conf,
            'db',
            'sync',
        )

    def _prepare_api(self, api: apis.Api) -> None:
        for line in api.prepare:
            self._run(
                api.name,
                *line.format(
                    etc=self.place.etc(api.name),
                    password=self.place.password,
                    region=sections.REGION,
                    url=self.place.url(api.name, api.path),
                ).split(),
            )

    def _prepare_nova(self, cell: nova.Cell) -> None:
        manage = self._nova_manage
        manage('api_db', 'sync')
        manage(
            'cell_v2',
            'map_cell0',
            '--database_connection',
            self.database.url(nova.CELL0_DATABASE),
        )
        self._make_cell(cell)
        manage('db', 'sync')

    def _make_cell(self, cell: nova.Cell) -> None:
        self._nova_manage(
            'cell_v2',
            'create_cell',
            '--name',
            cell.name,
            '--transport-url',
            cell.broker.transport_url(),
            '--database_connection',
            self.database.url(cell.database),
        )

    def _make_second_cell(self, cell: nova.Cell) -> None:
        self._make_cell(cell)
        self._run(
            'nova',
            'nova-manage',
            '--config-file',
            self.place.etc('nova') / f'{cell.conductor}.conf',
            'db',
            'sync',
            '--local_cell',
        )
        # These two of Nova's read what cells there are when they start.
        for name in ('nova-scheduler', 'nova-api'):
            self.process(name).stop()
        self._together(self.start_nova_api, self._start_scheduler)

    def _start_api(self, api: apis.Api) -> None:
        self._serve(api.name, api.module)

    def _start_guest_agent_api(self) -> None:
        self._serve('guest-agent', 'guest_agent_ext.wsgi.api')

    def _start_horizon(self) -> None:
        self.ledger.note(
            horizon.start(
                self.place.state('horizon'),
                self.place.url('keystone', '/v3'),
                self.place.port('horizon'),
                self.place.log / 'horizon.log',
            )
        )

    def _start_conductors(self, cell: nova.Cell) -> None:
        etc = self.place.etc('nova')
        self.start(
            f'nova-conductor-{cell.name}',
            'nova-conductor',
            etc / f'{cell.conductor}.conf',
        )
        if cell.number == 1:
            self._start_scheduler()
            self.start(
                'guest-agent-conductor',
                'guest-agent-conductor',
                self._nova_conf,
            )

    def _start_scheduler(self) -> None:
        self.start('nova-scheduler', 'nova-scheduler', self._nova_conf)

    def _start_host(self, cell: nova.Cell) -> None:
        configuration = self.place.etc('nova') / f'{cell.host}.conf'
        for program in ('nova-compute', 'guest-agent-compute'):
            self.start(f'{program}-{cell.host}', program, configuration)

    def _seed(self) -> None:
        self._once('accounts', seed.accounts, self.as_admin(), self.place)
        seed.guest_agent_endpoint(self.as_admin(), self.place)
        # Neutron 29 fails to list ports, as Nova asks it to, until something
        # else has had SQLAlchemy complete its models.
        list(self.as_admin().network.networks())

    def _finish(self, cell: nova.Cell) -> None:
        cloud = self.as_admin()
        processes.wait_for(
            lambda: _has_hypervisor(cloud, cell.host),
            120,
            f'nova-compute on {cell.host}',
            self.process(f'nova-compute-{cell.host}'),
        )
        seed.flavor(cloud)
        processes.wait_for(
            lambda: _guest_agent_host(cloud, cell.host),
            60,
            f'guest-agent-compute on {cell.host}',
            self.process(f'guest-agent-compute-{cell.host}'),
        )

    @property
    def _nova_conf(self) -> pathlib.Path:
        return self.place.etc('nova') / 'nova.conf'

    def _nova_manage(self, *arguments: str) -> None:
        self._run(
            'nova', 'nova-manage', '--config-file', self._nova_conf, *arguments
        )

    def _serve(self, name: str, module: str) -> None:
        """Start an API under uwsgi, and wait for its first answer."""
        port = self.place.port(name)
        # guest-agent-api has the configuration of Nova.
        owner = 'nova' if name == 'guest-agent' else name
        variable = f'OS_{owner.upper()}_CONFIG'
        process = self._start(
            f'{name}-api',
            [
                self.place.bin / 'uwsgi',
                '--http-socket',
                f'127.0.0.1:{port}',
                '--virtualenv',
                self.place.prefix,
                '--module',
                f'{module}:application',
                *_UWSGI,
            ],
            {
                f'{variable}_DIR': str(self.place.etc(owner)),
                'OS_NEUTRON_CONFIG_FILES': 'neutron.conf',
            },
        )
        processes.wait_for(
            lambda: _answers(port), 120, f'the {name} API', process
        )

    def _start(
        self,
        name: str,
        argv: list[str | os.PathLike[str]],
        env: Mapping[str, str] | None = None,
    ) -> processes.Process:
        path = f'{self.place.bin}:{os.environ["PATH"]}'
        return self.ledger.note(
            processes.start(
                name,
                argv,
                self.place.log / f'{name}.log',
                {'PATH': path, **(env or {})},
            )
        )

    def _run(
        self, name: str, program: str, *arguments: str | pathlib.Path
    ) -> None:
        log = self.place.log / f'{name}-manage.log'
        with log.open('ab') as output:
            ended = subprocess.run(
                [self.place.bin / program, *arguments],
                stdout=output,
                stderr=output,
            )
        if ended.returncode:
            raise processes.StartError(f'{program} failed, see {log}')

    def _once(self, name: str, action: Any, *arguments: Any) -> None:
        """Do what a stack's first start does and later ones do not."""
        if not self._is_done(name):
            action(*arguments)
            (self.place.state('done') / name).touch()

    def _is_done(self, name: str) -> bool:
        return (self.place.state('done') / name).exists()

    def _together(self, *actions: Any) -> None:
        with futures.ThreadPoolExecutor() as pool:
            running = [pool.submit(action) for action in actions]
            for future in running:
                future.result()


def _say(text: str) -> None:
    print(text, flush=True)


def _answers(port: int) -> bool:
    # uwsgi listens before the application is loaded.
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    try:
        connection.request('GET', '/')
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _has_hypervisor(cloud: Any, host: str) -> bool:
    return any(
        hypervisor.service_details['host'] == host and hypervisor.state == 'up'
        for hypervisor in cloud.compute.hypervisors(details=True)
    )


def _guest_agent_host(cloud: Any, host: str) -> bool:
    answer = cloud.compute.get('/guest-agent/hosts')
    return answer.status_code == 200 and any(
        item['host'] == host and item['state'] == 'up'
        for item in answer.json()['hosts']
    )
