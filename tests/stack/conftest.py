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

"""What `make stack-up` started, and the clients that people use.

A stack that does not run is an error, never a skip.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import json
import os
import pathlib
import subprocess
from typing import Any
import uuid

import openstack
from playwright import sync_api
import pytest

from tools.panel import browser as browser_module
from tools.stack import layout
from tools.stack import seed
from tools.stack import stack as stack_module
from tools.testbed import processes

BOOT_TIMEOUT = 180

#: Debian takes 15 seconds to its agent on a machine that does nothing else,
#: and 130 from a reboot to its end beside all other tests.
AGENT_TIMEOUT = 300

#: Milliseconds, for playwright; the machine has other things to do.
BROWSER_TIMEOUT = 120_000

#: Path of the panel in Horizon.
PANEL = '/project/guest_commands/'


class OpenStack:
    """The ``openstack`` command, for one user.

    :param client: the directory with the command
    :param clouds: clouds.yaml
    :param user: whose entry there is used
    """

    def __init__(
        self, client: pathlib.Path, clouds: pathlib.Path, user: str
    ) -> None:
        self.user = user
        self.program = client / 'openstack'
        self.env = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith('OS_')
            },
            'OS_CLIENT_CONFIG_FILE': str(clouds),
            'OS_CLOUD': user,
        }

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command; ``argv`` is what follows ``openstack``."""
        return subprocess.Popen(
            [self.program, *argv],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *argv: str, stdin: bytes = b'') -> tuple[int, bytes, bytes]:
        """Return exit code, stdout and stderr."""
        process = self.start(*argv)
        out, err = process.communicate(stdin, timeout=300)
        return process.returncode, out, err

    def guest(
        self, verb: str, server: str, *argv: str, stdin: bytes = b''
    ) -> tuple[int, bytes, bytes]:
        """Run ``openstack server guest VERB SERVER ...``."""
        return self.run(
            'server', 'guest', *verb.split(), server, *argv, stdin=stdin
        )

    def json(self, *argv: str) -> Any:
        """Run something that succeeds; return what it printed as JSON."""
        code, out, err = self.run(*argv, '-f', 'json')
        assert code == 0, err
        return json.loads(out)

    def do(self, *argv: str) -> str:
        """Run something that succeeds; return what it printed."""
        code, out, err = self.run(*argv)
        assert code == 0, err
        return out.decode()


@pytest.fixture(scope='session')
def stack(pytestconfig: pytest.Config) -> stack_module.Stack:
    """The stack, whose processes can be paused and killed."""
    running = stack_module.Stack(
        layout.default_directory(), pytestconfig.rootpath / '.cache'
    )
    if not running.ledger.is_up():
        raise processes.StartError('Not all of the stack runs: make stack-up')
    return running


@pytest.fixture(scope='session')
def cloud(stack: stack_module.Stack) -> Callable[[str], OpenStack]:
    """The ``openstack`` command of a user of clouds.yaml."""

    def of(user: str) -> OpenStack:
        return OpenStack(
            stack.place.client_bin, stack.place.directory / 'clouds.yaml', user
        )

    return of


@pytest.fixture(scope='session')
def demo(cloud: Callable[[str], OpenStack]) -> OpenStack:
    """A member of the servers' project."""
    return cloud('demo')


@pytest.fixture(scope='session')
def admin(cloud: Callable[[str], OpenStack]) -> OpenStack:
    return cloud('admin')


@pytest.fixture(scope='session')
def sdk(stack: stack_module.Stack) -> Callable[[str], Any]:
    """A connection of openstacksdk, for a user of clouds.yaml."""

    @functools.cache
    def of(user: str) -> Any:
        config = openstack.config.OpenStackConfig(
            config_files=[str(stack.place.directory / 'clouds.yaml')],
            load_envvars=False,
        )
        return openstack.connection.Connection(config=config.get_one(user))

    return of


@pytest.fixture(scope='session')
def compute(sdk: Callable[[str], Any]) -> Any:
    """To ask often: that would take a process each with ``openstack``."""
    return sdk('demo').compute


@pytest.fixture(scope='session')
def boot(sdk: Callable[[str], Any]) -> Iterator[Callable[..., str]]:
    """Boots servers, which are deleted in the end.

    By openstacksdk: to start ``openstack`` for it takes as long as the boot.
    """
    booted = []

    def create(
        user: str = 'demo',
        host: str | None = None,
        image: str = seed.IMAGE,
        flavor: str = seed.FLAVOR,
    ) -> str:
        """Boot a server of a user, on a host if one is named."""
        cloud = sdk(user)
        server = cloud.compute.create_server(
            name=f'test-{uuid.uuid4().hex[:8]}',
            networks='none',
            flavor_id=cloud.compute.find_flavor(flavor).id,
            image_id=cloud.image.find_image(image).id,
            **({'host': host} if host else {}),
        )
        booted.append((cloud.compute, server))
        cloud.compute.wait_for_server(server, wait=BOOT_TIMEOUT)
        wait_for_agent(cloud.compute, server.id)
        return str(server.id)

    yield create
    for compute, server in booted:
        compute.delete_server(server)


@pytest.fixture(scope='session')
def server(boot: Callable[..., str]) -> str:
    """A server that all tests use, and that none breaks."""
    return boot()


@pytest.fixture(scope='session')
def chromium() -> Iterator[sync_api.Browser]:
    with browser_module.started() as started:
        yield started


@pytest.fixture
def log_in(
    chromium: sync_api.Browser, stack: stack_module.Stack
) -> Iterator[Callable[[str], sync_api.Page]]:
    """Logs in as a user of the stack."""
    contexts = []

    def as_user(user: str, path: str = PANEL) -> sync_api.Page:
        context = chromium.new_context(
            base_url=stack.place.url('horizon'),
            viewport={'width': 1280, 'height': 900},
            accept_downloads=True,
        )
        contexts.append(context)
        context.set_default_timeout(BROWSER_TIMEOUT)
        page = context.new_page()
        browser_module.log_in(
            page, stack.place.url('horizon'), user, stack.place.password, path
        )
        return page

    sync_api.expect.set_options(timeout=BROWSER_TIMEOUT)
    yield as_user
    for context in contexts:
        context.close()


def wait_for_agent(compute: Any, server_id: str) -> None:
    """Wait until the guest agent of a server answers.

    :param compute: openstacksdk's: to start ``openstack`` again and again
        would keep a processor busy
    """
    try:
        processes.wait_for(
            lambda: (
                compute.get(f'/servers/{server_id}/guest-agent').json()[
                    'guest_agent'
                ]['status']
                == 'available'
            ),
            AGENT_TIMEOUT,
            'the agent',
            gap=0.5,
        )
    except processes.StartError as error:
        # It goes with the server.
        console = compute.get_server_console_output(server_id, length=100)
        raise processes.StartError(f'{error}\n{console["output"]}') from error


def wait_for_server(compute: Any, server_id: str, status: str) -> None:
    processes.wait_for(
        lambda: compute.get_server(server_id).status == status,
        120,
        status,
        gap=0.5,
    )


def start(demo: OpenStack, compute: Any, server_id: str, script: str) -> str:
    """Start a shell script, and return the command's uuid when it runs."""
    code, out, err = demo.guest(
        'exec', server_id, '--no-wait', '--', 'sh', '-c', script
    )
    assert code == 0, err
    uuid = out.decode().split()[1]
    wait(compute, server_id, uuid, 'RUNNING')
    return uuid


def wait(
    compute: Any,
    server_id: str,
    uuid: str,
    status: str,
    timeout: float = AGENT_TIMEOUT,
) -> dict[str, Any]:
    """Wait until a command has a status, and return the command.

    :param timeout: seconds
    """
    shown: dict[str, Any] = {}

    def has_status() -> bool:
        shown.update(
            compute.get(
                f'/servers/{server_id}/guest-agent/commands/{uuid}'
            ).json()['command']
        )
        return bool(shown['status'] == status)

    processes.wait_for(has_status, timeout, f'{uuid} {status}', gap=0.2)
    return shown
