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

"""The task of a command that is one call of the guest agent.

It needs no launcher, so it works where guest-exec is blocked. A repeated call
changes nothing more, so a call whose answer was lost is sent again.

    offered -> take -> send ----> finish
             adopt ---^   |
                     <----+  no answer
"""

import base64
from collections.abc import Callable
from collections.abc import Mapping
import threading
from typing import Any

from oslo_log import log as logging

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.compute import session as compute_session
from guest_agent_ext.compute import task
from guest_agent_ext.conductor import rpcapi
from guest_agent_ext.guest import agent as guest_agent
from guest_agent_ext.guest.launchers import base as launcher

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Maximum number of times that a call is sent.
MAX_SENDS = 4
#: Seconds that one trim may take. It has one of the few work connections
#: meanwhile, so a host has one trim under way at a time.
TRIM_TIMEOUT = 60
#: Seconds until a trim asks again whether it is its turn.
TRIM_GAP = 1.0

LATE = 'The guest could not be asked in time'
NO_ANSWER = (
    'The guest did not answer: whether it has carried the call out is not '
    'known'
)
CANCELLED_LATE = (
    'It was cancelled after it was sent to the guest: whether the guest has '
    'carried it out is not known'
)

#: The claim's boot and uptime: no launcher compares them with the guest's.
_NO_BOOT = launcher.Probe('none', 0, ())

#: Held while a trim is under way.
_trimming = threading.Lock()

_Arguments = Mapping[str, Any]


class AgentCallTask(task.Task):
    """One command that is a call of the guest agent.

    :param session: guest of the command's server
    :param work: command, as the conductor handed it out
    """

    def __init__(
        self, session: compute_session.Session, work: rpcapi.Work
    ) -> None:
        super().__init__(
            session, work['uuid'], work['start_in'], work['attempt']
        )
        self._type = work['type']
        self._cancelled = work['cancel_requested']
        # What was handed out before may have been sent before.
        self._sends = 0 if work['attempt'] is None else 1
        self._send_by = float('inf')
        self._sent_at: float | None = None
        self._end: rpcapi.End = {}
        self._next = self._take if work['attempt'] is None else self._adopt

    @property
    def is_offered(self) -> bool:
        return self._next.stage is task.Stage.UNCLAIMED

    def cancel(self) -> None:
        # A call that is under way cannot be stopped.
        self._cancelled = True

    def _abandoned_step(self) -> task.Step:
        return self._forget

    def refuse(self, error: str) -> None:
        if self.is_abandoned:
            return
        if self.is_offered:
            self._session.conductor.refuse(
                self._session.service, self.uuid, error
            )
            self.is_done = True
        else:
            self._end_as(
                command.LOST if self._sends else command.FAILED, error
            )

    def meet_failure(self, error: exception.GuestError) -> None:
        """Ignore the failure: nobody waits for the command to begin."""

    def meet_absence(self, state: str) -> None:
        # Nobody here knows whether the server moves or was stopped.
        outcome = self._session.conductor.not_here(
            self._session.service, self.uuid, self.attempt, state
        )
        if outcome != command.OK:
            self.drop()

    # The steps, in the order in which a command meets them.

    @task.step(task.Stage.UNCLAIMED)
    def _take(self) -> float:
        self._session.agent.check_enabled(command.AGENT_CALLS[self._type])
        self._claim = self._claim_now(_NO_BOOT)
        if self._claim is None:
            return self._stop()
        self._send_by = self._clock.now() + min(
            compute_session.LAUNCH_WINDOW, self._start_by - self._clock.now()
        )
        return self._go(self._send)

    @task.step(task.Stage.INHERITED, needs_guest=False)
    def _adopt(self) -> float:
        self._claim = self._adopt_now()
        return self._stop() if self._claim is None else self._go(self._send)

    @task.step()
    def _send(self) -> float:
        """Send the call, unless the command is to end without it."""
        if self._cancelled and not self._sends:
            return self._end_as(command.CANCELLED, command.NEVER_STARTED)
        if self._cancelled:
            return self._end_as(command.LOST, CANCELLED_LATE)
        if not self._sends and self._clock.now() > self._send_by:
            return self._end_as(command.FAILED, LATE)
        if self._is_exhausted():
            return self._end_as(command.LOST, NO_ANSWER)
        if self._type != command.FSTRIM:
            return self._call()
        if not _trimming.acquire(blocking=False):
            return self._go(self._send, TRIM_GAP)
        try:
            return self._call()
        finally:
            _trimming.release()

    def _is_exhausted(self) -> bool:
        if self._sent_at is None:
            return False
        age = self._clock.now() - self._sent_at
        return self._sends >= MAX_SENDS or age > self._held_claim()['timeout']

    def _call(self) -> float:
        arguments = self._held_claim()['call']
        assert arguments is not None
        asked_at = self._clock.now()
        try:
            error = _CALLS[self._type](self._session.agent, arguments)
        except exception.AgentCommandDisabled:
            # Or the file systems have been frozen meanwhile.
            self._session.agent.check_enabled(command.AGENT_CALLS[self._type])
            raise exception.AgentBusy() from None
        except exception.AgentRefused as refusal:
            return self._end_as(
                command.FAILED, _without_secrets(str(refusal), arguments)
            )
        except exception.GuestError as failure:
            if failure.may_have_run:
                self._sends += 1
                self._sent_at = self._sent_at or asked_at
            raise
        if error is not None:
            return self._end_as(command.FAILED, error)
        return self._end_as(
            command.COMPLETED, age=self._clock.now() - asked_at
        )

    def _end_as(
        self, status: str, error: str | None = None, age: float | None = None
    ) -> float:
        self._end = {'status': status}
        if error is not None:
            self._end['error'] = error
        if age is not None:
            self._end['age'] = age
        return self._go(self._finish)

    @task.step(task.Stage.ENDED, needs_guest=False)
    def _finish(self) -> float:
        outcome = self._session.conductor.finish(
            self._session.service, self.uuid, self.attempt, self._end
        )
        if outcome not in (command.OK, command.MOVED):
            LOG.warning(
                'Command %(uuid)s had ended without its host: %(outcome)s',
                {'uuid': self.uuid, 'outcome': outcome},
            )
        return self._stop()

    @task.step(needs_guest=False)
    def _forget(self) -> float:
        """Leave a command that has ended: the guest keeps nothing of it."""
        return self._stop()


def _set_password(
    agent: guest_agent.Agent, arguments: _Arguments
) -> str | None:
    agent.set_user_password(
        arguments['user'],
        arguments['password'],
        is_crypted=arguments.get('crypted', False),
    )
    return None


def _add_keys(agent: guest_agent.Agent, arguments: _Arguments) -> str | None:
    agent.add_authorized_keys(
        arguments['user'],
        arguments['keys'],
        reset=arguments.get('reset', False),
    )
    return None


def _remove_keys(
    agent: guest_agent.Agent, arguments: _Arguments
) -> str | None:
    agent.remove_authorized_keys(arguments['user'], arguments['keys'])
    return None


def _trim(agent: guest_agent.Agent, arguments: _Arguments) -> str | None:
    errors = agent.fstrim(arguments.get('minimum', 0), TRIM_TIMEOUT)
    if not errors:
        return None
    return 'Not all file systems were trimmed: %s' % '; '.join(errors)


#: Sends the call of each type. What it returns is the guest's error, of a
#: call that the guest has carried out in part.
_CALLS: Mapping[str, Callable[[guest_agent.Agent, _Arguments], str | None]] = {
    command.SET_PASSWORD: _set_password,
    command.SSH_KEYS_ADD: _add_keys,
    command.SSH_KEYS_REMOVE: _remove_keys,
    command.FSTRIM: _trim,
}


def _without_secrets(text: str, arguments: _Arguments) -> str:
    """Return an error without the password, which a guest may repeat."""
    password = arguments.get('password')
    if not password:
        return text
    encoded = base64.b64encode(password.encode()).decode()
    for secret in (password, encoded):
        text = text.replace(secret, '***')
    return text
