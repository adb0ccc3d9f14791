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

"""A session whose guest and conductor are played, for tests of tasks."""

from typing import Any
from unittest import mock

from guest_agent_ext import command
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest.launchers import base as launcher
from tests.unit import clock as unit_clock

SERVER = '8b1f5b51-6c70-4a53-8d5b-6a7c0e4b7f10'
SERVICE: rpcapi.Service = {'host': 'here', 'incarnation': 'f00d'}


class FakeSession(compute_session.Session):
    """A session that notes what its tasks ask of it.

    :param guest: launcher that the guest has; otherwise one that is played
    :param claim: command, as the conductor hands it to whoever asks
    :ivar clock: clock that shows what the test says
    """

    clock: unit_clock.FakeClock

    def __init__(self, claim: rpcapi.Claim, guest: Any = None) -> None:
        conductor = mock.Mock()
        conductor.claim.return_value = claim
        conductor.adopt.return_value = claim
        for name in ('started', 'finish', 'not_here'):
            getattr(conductor, name).return_value = command.OK
        super().__init__(
            SERVER, mock.Mock(), conductor, SERVICE, unit_clock.FakeClock()
        )
        self._launcher = guest or mock.Mock(
            **{'probe.return_value': launcher.Probe('boot', 1000, ())}
        )
        for name in (
            'acknowledge',
            'clear',
            'forget_probe',
            'first_poll',
            'note_duration',
            'probe',
            'recent_probe',
            'wake',
        ):
            setattr(self, name, mock.Mock(wraps=getattr(self, name)))

    @property
    def end(self) -> rpcapi.End:
        """How the conductor was told that the command ended."""
        self.conductor.finish.assert_called_once()
        end: rpcapi.End = self.conductor.finish.call_args.args[3]
        return end
