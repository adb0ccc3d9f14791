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

"""``openstack server guest wait``: until commands can be run."""

import argparse
import math
import time
from typing import Any

from keystoneauth1 import adapter
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from guest_agent_ext.osc import base
from guest_agent_ext.osc import exec as guest_exec
from guest_agent_ext.osc import interrupts
from guest_agent_ext.osc import resources
from guest_agent_ext.sdk import retries

#: Seconds until the server is asked again, and seconds to wait by default.
GAP, TIMEOUT = 2.0, 600
#: States of a server in which no command will ever run.
_HOPELESS = ('ERROR', 'DELETED', 'SOFT_DELETED')

#: Exit codes of the script: those of cloud-init, where 2 says that it has
#: ended with warnings, and one of ours.
_DONE, _WARNED, _NOT_INSTALLED = 0, 2, 127
_CLOUD_INIT = (
    'command -v cloud-init >/dev/null || exit 127; '
    'exec cloud-init status --wait --long'
)


class Wait(base.ServerCommand):
    """Wait until commands can be run in a server

    stderr says meanwhile what is missing. This command exits with 0 when
    commands can be run, with 124 if that takes too long, and with 1 at once if
    it will never be: the server is in ERROR or deleted, or cloud-init has
    failed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--timeout',
            metavar='<seconds>',
            type=int,
            default=TIMEOUT,
            help='Maximum number of seconds to wait (default: %(default)s)',
        )
        parser.add_argument(
            '--cloud-init',
            action='store_true',
            help='Wait until cloud-init has finished, too; its warnings and '
            'errors are told on stderr',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        waiting = _Waiting(
            self.compute(),
            self.app.client_manager.sdk_connection.compute,
            self.server_id(parsed_args),
            parsed_args.timeout,
        )
        with interrupts.raised():
            try:
                return waiting.run(parsed_args.cloud_init)
            except interrupts.Interrupted as error:
                return 128 + error.number


class _Waiting:
    """Asks a server again and again what it lacks.

    :param compute: proxy of the calls about guests
    :param nova: proxy of Nova's own calls
    :param server_id: UUID of the server
    :param timeout: maximum number of seconds to wait
    """

    def __init__(
        self,
        compute: adapter.Adapter,
        nova: Any,
        server_id: str,
        timeout: float,
    ) -> None:
        self._compute = compute
        self._nova = nova
        self._server_id = server_id
        self._end = time.monotonic() + timeout
        self._told: str | None = None

    def run(self, with_cloud_init: bool) -> int:
        """Wait, and return the exit code.

        :param with_cloud_init: whether cloud-init must have finished
        :raises osc_lib.exceptions.CommandError: to wait is in vain
        """
        while True:
            missing = self._missing_for_commands()
            if missing is None and with_cloud_init:
                missing = self._missing_for_cloud_init()
            if missing is None:
                return 0
            self._tell(missing)
            left = self._left()
            if left <= 0:
                return guest_exec.CODES['TIMED_OUT']
            time.sleep(min(GAP, left))

    def _missing_for_commands(self) -> str | None:
        """Return why no command can be run now, or None."""
        found = resources.GuestAgent.new(server_id=self._server_id)
        retries.repeated(lambda: found.fetch(self._compute, requires_id=False))
        if found.status == 'available':
            return None
        server = retries.repeated(
            lambda: self._nova.get_server(self._server_id)
        )
        if server.status in _HOPELESS:
            fault = (server.fault or {}).get('message')
            raise exceptions.CommandError(
                f'The server is in {server.status}'
                + (f': {fault}' if fault else '')
            )
        return str(found.reason)

    def _missing_for_cloud_init(self) -> str | None:
        """Wait for cloud-init; return why that has to be done again, or None.

        :raises osc_lib.exceptions.CommandError: cloud-init has failed, or is
            not there
        """
        seconds = max(1, math.ceil(self._left()))
        run = guest_exec.Execution(
            self._compute,
            self._server_id,
            {
                'command': ['/bin/sh', '-c', _CLOUD_INIT],
                'timeout': seconds,
                'start_timeout': seconds,
            },
        )
        run.followers = []
        self._tell('cloud-init has not finished')
        try:
            code = guest_exec.interruptible(run, detach=False)
        except sdk_exceptions.ConflictException as error:
            # The server has been shut off, say.
            return str(error.details or error)
        found = run.found
        if found is None or found.status == 'CANCELLED':
            raise interrupts.Interrupted(code - 128)
        if found.status == 'FAILED' and self._left() > 0:
            raise exceptions.CommandError(
                f'cloud-init cannot be asked: {found.error}'
            )
        if found.status != 'COMPLETED':
            # The server was rebooted, perhaps by cloud-init.
            self._told = found.error
            return str(found.error)
        report = found.kept('out') or b''
        _judge(code, report.decode(errors='replace'))
        return None

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _tell(self, missing: str) -> None:
        if missing != self._told:
            interrupts.tell(missing)
        self._told = missing


def _judge(code: int, report: str) -> None:
    """Tell what cloud-init has reported.

    :param code: exit code of the script
    :param report: output of ``cloud-init status``
    :raises osc_lib.exceptions.CommandError: cloud-init has failed, or is not
        there
    """
    # Dots say that it waited.
    report = report.lstrip('.\n').rstrip()
    if code == _NOT_INSTALLED:
        raise exceptions.CommandError(
            'cloud-init is not installed in the server'
        )
    if code not in (_DONE, _WARNED):
        raise exceptions.CommandError(f'cloud-init has failed:\n{report}')
    if code == _WARNED:
        interrupts.tell(f'cloud-init has finished with warnings:\n{report}')
