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

"""How commands, times and the reasons of an agent are shown."""

from collections.abc import Mapping
import datetime
import shlex
from typing import Any

from django.utils import dateparse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.utils.translation import ngettext

#: Bootstrap's word for the color of each status of a command.
STATUS_COLORS: Mapping[str, str] = {
    'PENDING': 'info',
    'RUNNING': 'primary',
    'COMPLETED': 'success',
    'FAILED': 'danger',
    'TIMED_OUT': 'warning',
    'CANCELLED': 'default',
    'LOST': 'danger',
}
STATUSES = tuple(STATUS_COLORS)
UNFINISHED = ('PENDING', 'RUNNING')

#: What each status means, as the API's reference has it.
STATUS_MEANINGS: Mapping[str, Promise] = {
    'PENDING': gettext_lazy('Accepted, and not known to have started'),
    'RUNNING': gettext_lazy('Known to have started in the server'),
    'COMPLETED': gettext_lazy('Ended by itself'),
    'FAILED': gettext_lazy('Did not run, and will not'),
    'TIMED_OUT': gettext_lazy('Killed, because its timeout passed'),
    'CANCELLED': gettext_lazy('Cancelled, and killed if it was running'),
    'LOST': gettext_lazy('May have run; its end cannot be known'),
}

#: What to do, by words of the reason why commands cannot run. The first that
#: fits is shown.
_ADVICE: tuple[tuple[tuple[str, ...], Promise], ...] = (
    (
        ('hw_qemu_guest_agent',),
        gettext_lazy(
            'Set the property hw_qemu_guest_agent=yes on the image, and '
            'create the instance again from it, or rebuild it.'
        ),
    ),
    (
        ('not connected',),
        gettext_lazy(
            'Install the package qemu-guest-agent in the instance and start '
            'its service. An instance that is booting needs a moment.'
        ),
    ),
    (
        ('does not allow',),
        gettext_lazy(
            'In the instance, change the configuration of qemu-guest-agent '
            'as the reason says, and restart its service.'
        ),
    ),
    (
        ('frozen',),
        gettext_lazy('Wait until the snapshot is done, and check again.'),
    ),
    (
        ('busy', 'another request', 'migrated', 'is being'),
        gettext_lazy('Wait a moment, and check again.'),
    ),
    (('RESCUED',), gettext_lazy('Unrescue the instance.')),
    (
        ('not running', 'vm_state', 'power_state'),
        gettext_lazy('Start the instance.'),
    ),
    (
        ('hypervisor', 'cell', ' host'),
        gettext_lazy('Tell the operator of this cloud.'),
    ),
    (
        ('does not answer',),
        gettext_lazy(
            'Wait a moment, and check again. If that does not help, restart '
            'the service qemu-guest-agent in the instance.'
        ),
    ),
)

_SHELL = ['/bin/sh', '-c']
#: Arguments of commands that are no exec, in the order in which they are
#: shown.
_SHOWN = ('path', 'user', 'keys', 'minimum')


def advice(reason: str | None) -> str:
    """Return what the owner of a server can do about a reason."""
    for parts, text in _ADVICE:
        if any(part in (reason or '') for part in parts):
            return str(text)
    return ''


def line(command: Mapping[str, Any]) -> str:
    """Return what a command does, in one line of a shell's syntax."""
    arguments = command.get('arguments') or {}
    argv = arguments.get('command')
    if argv is None:
        shown = [str(arguments[name]) for name in _SHOWN if name in arguments]
        return ' '.join([command['type'], *shown])
    if argv[:2] == _SHELL and len(argv) == 3:
        return str(argv[2])
    return shlex.join(argv)


def outcome(command: Mapping[str, Any]) -> str:
    """Return how a command has ended, beside its status."""
    result = command.get('result') or {}
    if result.get('exitcode') is not None:
        return str(_('exit code %d') % result['exitcode'])
    if result.get('signal') is not None:
        return str(_('signal %d') % result['signal'])
    return ''


def has_succeeded(command: Mapping[str, Any]) -> bool:
    """Return whether a command has ended well."""
    result = command.get('result') or {}
    return command['status'] == 'COMPLETED' and result.get('exitcode') in (
        0,
        None,
    )


def color(command: Mapping[str, Any]) -> str:
    """Return Bootstrap's word for the color of a command's status."""
    if command['status'] == 'COMPLETED' and not has_succeeded(command):
        return 'warning'
    return STATUS_COLORS.get(command['status'], 'default')


def time(value: str | None) -> datetime.datetime | None:
    """Return a time of the API, in the user's time zone."""
    found = dateparse.parse_datetime(value) if value else None
    return None if found is None else timezone.localtime(found)


def shown_time(value: str | None) -> str:
    """Return a time of the API as text, in the user's time zone."""
    found = time(value)
    return '' if found is None else found.strftime('%Y-%m-%d %H:%M:%S')


def duration(command: Mapping[str, Any]) -> str:
    """Return how long a command has run."""
    start, end = (
        time(command.get(name)) for name in ('started_at', 'finished_at')
    )
    if start is None or end is None:
        return ''
    seconds = max(0, int((end - start).total_seconds()))
    if seconds < 120:
        return str(ngettext('%d second', '%d seconds', seconds) % seconds)
    return str(datetime.timedelta(seconds=seconds))


def summary(command: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list shows of a command."""
    return {
        'uuid': command['uuid'],
        'server_id': command['instance_uuid'],
        'project_id': command.get('project_id'),
        'host': command.get('host'),
        'type': command['type'],
        'status': command['status'],
        'color': color(command),
        'meaning': str(STATUS_MEANINGS.get(command['status'], '')),
        'outcome': outcome(command),
        'line': line(command),
        'error': command.get('error') or '',
        'created': shown_time(command.get('created_at')),
        'duration': duration(command),
        'has_ended': command['status'] not in UNFINISHED,
        'is_attached': any(
            (command.get('arguments') or {}).get(name)
            for name in ('attach', 'terminal')
        ),
    }


def host(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown of a service that runs commands."""
    return {**found, 'last_seen': shown_time(found['last_seen_at'])}
