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

"""A RabbitMQ of our own."""

from collections.abc import Sequence
import os
import pathlib
import subprocess

from tools.testbed import network
from tools.testbed import processes

_SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
_CONTROL = '/usr/lib/rabbitmq/bin/rabbitmqctl'

_CONF = """\
listeners.tcp.default = {address}:{port}
default_vhost = {virtual_host}
# Else the account "guest" is for loopback only.
loopback_users = none
log.console = false
log.file.level = warning
"""

# One thread for Erlang and one for its files, which do not spin.
_ERLANG = (
    '-noinput -kernel inet_dist_use_interface {127,0,0,1} '
    '+sbwt none +sbwtdcpu none +sbwtdio none +S 1:1 +SDio 1'
)


class RabbitMQ:
    """A broker on a port of its own, its epmd and its files apart from others.

    Stopped, it refuses connections; started again, it is back on the same
    port with its durable queues.

    :param directory: directory of its files; kept, a second start is quicker
    :param virtual_host: the one that it has
    :param namespace: the network namespace that it is in, if not this one
    :ivar port: port that it listens on
    """

    def __init__(
        self,
        directory: pathlib.Path,
        port: int | None = None,
        virtual_host: str = '/',
        namespace: network.Namespace | None = None,
    ) -> None:
        self._directory = directory
        self.port = port or processes.free_port()
        self._virtual_host = virtual_host
        self._address = namespace.address if namespace else '127.0.0.1'
        self._run: Sequence[str] = namespace.run if namespace else ()
        self._distribution_port = processes.free_port()
        self._epmd_port = processes.free_port()
        self._epmd: processes.Process | None = None
        self._broker: processes.Process | None = None

    def transport_url(self) -> str:
        """Return the broker's URL for oslo.messaging."""
        return (
            f'rabbit://guest:guest@{self._address}:{self.port}'
            f'/{self._virtual_host}'
        )

    @property
    def daemons(self) -> list[processes.Process]:
        """What was started, oldest first."""
        return [process for process in (self._epmd, self._broker) if process]

    @property
    def process(self) -> processes.Process:
        """The broker's process, to be paused or killed."""
        if self._broker is None:
            raise processes.StartError('RabbitMQ has not been started')
        return self._broker

    def start(self, timeout: float = 60) -> None:
        """Start the broker, and wait until connections are accepted.

        :param timeout: seconds
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / 'rabbitmq.conf').write_text(
            _CONF.format(
                address=self._address,
                port=self.port,
                virtual_host=self._virtual_host,
            )
        )
        log = self._directory / 'rabbitmq.log'
        environment = self._environment()
        if self._epmd is None:
            # Otherwise Erlang starts a daemon that nobody would stop.
            self._epmd = processes.start(
                'epmd', [*self._run, 'epmd'], log, environment
            )
        # On one CPU these two wake each other cheaply: a third of the time
        # to start on a small virtual machine.
        cpu = str(min(os.sched_getaffinity(0)))
        self._broker = processes.start(
            'rabbitmq',
            [*self._run, 'taskset', '--cpu-list', cpu, _SERVER],
            log,
            environment,
        )
        processes.wait_for(
            lambda: processes.listening(self.port, self._address),
            timeout,
            'RabbitMQ',
            self._broker,
        )

    def close_connections(self) -> None:
        """Close every connection that the broker has.

        :raises processes.StartError: the broker does not answer
        """
        try:
            subprocess.run(
                [*self._run, _CONTROL, 'close_all_connections', 'a test'],
                env={**os.environ, **self._environment()},
                check=True,
                timeout=30,
                capture_output=True,
            )
        except subprocess.SubprocessError as error:
            raise processes.StartError(str(error)) from None

    def stop(self) -> None:
        """Stop the broker: connections are refused from now on."""
        if self._broker is not None:
            self._broker.stop()

    def close(self) -> None:
        """Stop everything that was started."""
        self.stop()
        if self._epmd is not None:
            self._epmd.stop()

    def _environment(self) -> dict[str, str]:
        return {
            'HOME': str(self._directory),  # the Erlang cookie
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(self._epmd_port),
            # Erlang itself and not a shell is the process that we signal.
            'RABBITMQ_ALLOW_INPUT': 'true',
            'RABBITMQ_SERVER_START_ARGS': _ERLANG,
            'RABBITMQ_CONF_ENV_FILE': '/dev/null',
            'RABBITMQ_CONFIG_FILE': str(self._directory / 'rabbitmq.conf'),
            'RABBITMQ_DIST_PORT': str(self._distribution_port),
            'RABBITMQ_ENABLED_PLUGINS_FILE': '/dev/null',
            'RABBITMQ_LOG_BASE': str(self._directory),
            'RABBITMQ_MNESIA_BASE': str(self._directory),
            'RABBITMQ_NODENAME': f'testbed-{self.port}@localhost',
        }
