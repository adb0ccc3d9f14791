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

"""Versioned notifications of commands.

Nova's own lists of actions and of sources are closed, so event type and
publisher are classes of ours; the rest is Nova's, and so are the options that
turn notifications on and say where they go.
"""

from typing import Any

from nova import rpc
from nova.notifications.objects import base
from nova.objects import base as nova_base
from nova.objects import fields

from guest_agent_ext import command
from guest_agent_ext import conf
from guest_agent_ext.db import models

CONF = conf.CONF

SOURCE = 'guest-agent-conductor'

_register = nova_base.NovaObjectRegistry.register_notification

#: What is known only when the command has ended.
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


@_register
class GuestAgentEventType(base.EventType):
    """``instance.guest_agent_exec.start``"""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {'action': fields.StringField()}


@_register
class GuestAgentPublisher(base.NotificationPublisher):
    """A guest-agent-conductor."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {'source': fields.StringField()}


@_register
class GuestAgentCommandPayload(base.NotificationPayloadBase):
    """A command, without what was run and what it wrote."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {**_FIELDS, **_END_FIELDS, 'status': fields.StringField()}


@_register
class GuestAgentCommandNotification(base.NotificationBase):
    """The start or the end of a command."""

    # Version 1.0: Initial version
    VERSION = '1.0'

    fields = {
        'event_type': fields.ObjectField('GuestAgentEventType'),
        'publisher': fields.ObjectField('GuestAgentPublisher'),
        'payload': fields.ObjectField('GuestAgentCommandPayload'),
    }

    def _emit(
        self, context: Any, event_type: str, publisher_id: str, payload: Any
    ) -> None:
        # Nova's notifier would wait for a dead broker to come back.
        notifier = rpc.get_versioned_notifier(publisher_id)
        notifier.retry = 1
        notifier.info(context, event_type=event_type, payload=payload)


def emit_start(context: Any, action: str, row: models.Command) -> None:
    """Notify of the start of a command, as it was then."""
    ended = dict.fromkeys(_END_FIELDS)
    _emit(
        context,
        action,
        fields.NotificationPhase.START,
        _payload(row, status=command.RUNNING, **ended),
    )


def emit_end(context: Any, action: str, row: models.Command) -> None:
    """Notify of the end of a command."""
    ended = {name: getattr(row, name) for name in _END_FIELDS}
    _emit(
        context,
        action,
        fields.NotificationPhase.END,
        _payload(row, status=row.status, **ended),
    )


def _payload(row: models.Command, **values: Any) -> GuestAgentCommandPayload:
    payload = GuestAgentCommandPayload()
    for name in _FIELDS:
        setattr(payload, name, getattr(row, name))
    for name, value in values.items():
        setattr(payload, name, value)
    return payload


def _emit(
    context: Any, action: str, phase: str, payload: GuestAgentCommandPayload
) -> None:
    GuestAgentCommandNotification(
        priority=fields.NotificationPriority.INFO,
        event_type=GuestAgentEventType('instance', action, phase),
        publisher=GuestAgentPublisher(host=CONF.host, source=SOURCE),
        payload=payload,
    ).emit(context)
