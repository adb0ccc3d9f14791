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

"""Versioned notifications of commands and runs.

Nova's lists of actions and sources are closed, so event type and publisher are
classes of ours. All else is Nova's, also the options that enable notifications
and set their topics.
"""

from collections.abc import Mapping
from typing import TypeVar

from nova import rpc
from nova.notifications.objects import base
from nova.objects import base as nova_base
from nova.objects import fields

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext import run
from guest_agent_ext.db import audit
from guest_agent_ext.db import models

CONF = conf.CONF

SOURCE = 'guest-agent-conductor'

_Function = TypeVar('_Function')

_register = nova_base.NovaObjectRegistry.register_notification

#: Fields that are known only when the command has ended.
_END_FIELDS = {
    'finished_at': fields.DateTimeField(nullable=True),
    'exitcode': fields.IntegerField(nullable=True),
    'signal': fields.IntegerField(nullable=True),
}
_FIELDS = {
    'uuid': fields.UUIDField(),
    'type': fields.StringField(),
    'instance_uuid': fields.UUIDField(),
    'project_id': fields.StringField(),
    'user_id': fields.StringField(),
    'request_id': fields.StringField(nullable=True),
    'host': fields.StringField(),
    'created_at': fields.DateTimeField(),
    'started_at': fields.DateTimeField(nullable=True),
}


#: Fields of a run that are known only when the run has ended.
_RUN_END_FIELDS = {
    'finished_at': fields.DateTimeField(nullable=True),
    'counts': fields.DictOfIntegersField(nullable=True),
    'errors': fields.IntegerField(nullable=True),
}
_RUN_FIELDS = {
    'uuid': fields.UUIDField(),
    'name': fields.StringField(nullable=True),
    'type': fields.StringField(),
    'project_id': fields.StringField(),
    'user_id': fields.StringField(),
    'request_id': fields.StringField(nullable=True),
    'targets': fields.IntegerField(),
    'created_at': fields.DateTimeField(),
}


@nova_base.NovaObjectRegistry.register_if(False)
class _Notification(base.NotificationBase):
    """A notification whose sender does not wait for a dead broker."""

    def _emit(
        self,
        context: nova_types.RequestContext,
        event_type: str,
        publisher_id: str,
        payload: Mapping[str, object],
    ) -> None:
        # Nova's notifier would wait until a dead broker comes back.
        notifier = rpc.get_versioned_notifier(publisher_id)
        notifier.retry = 1
        notifier.info(context, event_type=event_type, payload=payload)


@_register
class GuestAgentEventType(base.EventType):
    """The type of an event.

    Such as ``instance.guest_agent_exec.start`` and ``guest_agent.run.start``.
    """

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {'action': fields.StringField()}


@_register
class GuestAgentPublisher(base.NotificationPublisher):
    """The guest-agent-conductor that sends a notification."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {'source': fields.StringField()}


@_register
class GuestAgentCommandPayload(base.NotificationPayloadBase):
    """A command without its arguments, input, output and error."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {**_FIELDS, **_END_FIELDS, 'status': fields.StringField()}


@_register
class GuestAgentCommandNotification(_Notification):
    """The start or the end of a command."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {
        'event_type': fields.ObjectField('GuestAgentEventType'),
        'publisher': fields.ObjectField('GuestAgentPublisher'),
        'payload': fields.ObjectField('GuestAgentCommandPayload'),
    }


@_register
class GuestAgentRunPayload(base.NotificationPayloadBase):
    """A run without its arguments, input and servers."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {**_RUN_FIELDS, **_RUN_END_FIELDS, 'status': fields.StringField()}


@_register
class GuestAgentRunNotification(_Notification):
    """The start or the end of a run."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {
        'event_type': fields.ObjectField('GuestAgentEventType'),
        'publisher': fields.ObjectField('GuestAgentPublisher'),
        'payload': fields.ObjectField('GuestAgentRunPayload'),
    }


def _if_enabled(function: _Function) -> _Function:
    """Decorate a function that makes notifications only if they are sent."""
    # Nova's decorator is not typed.
    decorated: _Function = rpc.if_notifications_enabled(function)
    return decorated


@_if_enabled
def emit_run_start(
    context: nova_types.RequestContext, row: models.Run
) -> None:
    """Send the notification of a start, even if the run has ended since."""
    ended = dict.fromkeys(_RUN_END_FIELDS)
    _emit_run(
        context,
        fields.NotificationPhase.START,
        _run_payload(row, status=run.RUNNING, **ended),
    )


@_if_enabled
def emit_run_end(context: nova_types.RequestContext, row: models.Run) -> None:
    """Send the notification of an end."""
    ended = {name: getattr(row, name) for name in _RUN_END_FIELDS}
    _emit_run(
        context,
        fields.NotificationPhase.END,
        _run_payload(row, status=row.status, **ended),
    )


def _run_payload(row: models.Run, **values: object) -> GuestAgentRunPayload:
    payload = GuestAgentRunPayload()
    for name in _RUN_FIELDS:
        setattr(payload, name, getattr(row, name))
    for name, value in values.items():
        setattr(payload, name, value)
    return payload


def _emit_run(
    context: nova_types.RequestContext,
    phase: str,
    payload: GuestAgentRunPayload,
) -> None:
    GuestAgentRunNotification(
        priority=fields.NotificationPriority.INFO,
        event_type=GuestAgentEventType('guest_agent', 'run', phase),
        publisher=GuestAgentPublisher(host=CONF.host, source=SOURCE),
        payload=payload,
    ).emit(context)


@_if_enabled
def emit_start(
    context: nova_types.RequestContext, action: str, row: audit.Due
) -> None:
    """Send the notification of a start, even if the command has ended since.

    :param action: name of the command's instance action
    """
    ended = dict.fromkeys(_END_FIELDS)
    _emit(
        context,
        action,
        fields.NotificationPhase.START,
        _payload(row, status=command.RUNNING, **ended),
    )


@_if_enabled
def emit_end(
    context: nova_types.RequestContext, action: str, row: audit.Due
) -> None:
    """Send the notification of an end.

    :param action: name of the command's instance action
    """
    ended = {name: getattr(row, name) for name in _END_FIELDS}
    _emit(
        context,
        action,
        fields.NotificationPhase.END,
        _payload(row, status=row.status, **ended),
    )


def _payload(row: audit.Due, **values: object) -> GuestAgentCommandPayload:
    payload = GuestAgentCommandPayload()
    for name in _FIELDS:
        setattr(payload, name, getattr(row, name))
    for name, value in values.items():
        setattr(payload, name, value)
    return payload


def _emit(
    context: nova_types.RequestContext,
    action: str,
    phase: str,
    payload: GuestAgentCommandPayload,
) -> None:
    GuestAgentCommandNotification(
        priority=fields.NotificationPriority.INFO,
        event_type=GuestAgentEventType('instance', action, phase),
        publisher=GuestAgentPublisher(host=CONF.host, source=SOURCE),
        payload=payload,
    ).emit(context)
