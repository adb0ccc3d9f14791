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

"""How runs are shown: their states, and what became of their targets."""

from collections.abc import Mapping
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from guest_agent_ext.dashboard import words

#: Bootstrap's word for the color of each status of a run.
STATUS_COLORS: Mapping[str, str] = {
    'RUNNING': 'primary',
    'COMPLETED': 'success',
    'STOPPED': 'danger',
    'CANCELLED': 'default',
}
STATUSES = tuple(STATUS_COLORS)

#: What each status means, as the API's reference has it.
STATUS_MEANINGS: Mapping[str, Promise] = {
    'RUNNING': gettext_lazy(
        'Commands are to be released, or released ones have not ended'
    ),
    'COMPLETED': gettext_lazy(
        'Every instance has got its command, or could not take it'
    ),
    'STOPPED': gettext_lazy(
        'There were too many errors, so that some instances got no command'
    ),
    'CANCELLED': gettext_lazy('Cancelled, with all of its commands'),
}

#: Parts of the bar, in their order: what becomes of a target. The API counts
#: what is in capitals.
PARTS: Mapping[str, Promise] = {
    'succeeded': gettext_lazy('succeeded'),
    'nonzero': gettext_lazy('ended with another exit code'),
    'FAILED': gettext_lazy('could not run it'),
    'TIMED_OUT': gettext_lazy('timed out'),
    'LOST': gettext_lazy('lost'),
    'REFUSED': gettext_lazy('refused'),
    'CANCELLED': gettext_lazy('cancelled'),
    'RUNNING': gettext_lazy('running'),
    'PENDING': gettext_lazy('pending'),
    'WAITING': gettext_lazy('waiting'),
}
#: Parts that have not ended.
_UNFINISHED = ('RUNNING', 'PENDING', 'WAITING')
#: Parts of which each target is an error.
_ERRORS = ('FAILED', 'TIMED_OUT', 'LOST', 'REFUSED')
#: Statuses that list the commands of a part, where they are not its name.
_LISTED_BY = {
    'succeeded': 'COMPLETED',
    'nonzero': 'COMPLETED',
    'REFUSED': '',
    'WAITING': '',
}

#: Width of a bar, and of its smallest part, of one target among thousands.
_WIDTH, _MIN_WIDTH = 1000, 8


def counts(run: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of targets in each part of the bar."""
    found = {name: run['counts'].get(name, 0) for name in PARTS}
    completed = run['counts'].get('COMPLETED', 0)
    # The API counts errors a moment after it counts states.
    errors = run['errors'] - sum(found[name] for name in _ERRORS)
    found['nonzero'] = min(max(errors, 0), completed)
    found['succeeded'] = completed - found['nonzero']
    return found


def progress(run: Mapping[str, Any]) -> str:
    """Return how many targets of a run have ended."""
    found = counts(run)
    ended = sum(found[name] for name in PARTS if name not in _UNFINISHED)
    return str(
        _('%(ended)d of %(targets)d instances')
        % {'ended': ended, 'targets': run['targets']}
    )


def bar(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is drawn of a run, and the same in words.

    No part that has a target is too narrow to be seen.
    """
    parts: list[dict[str, Any]] = []
    at = 0
    for name, number in counts(run).items():
        if not number:
            continue
        width = max(_MIN_WIDTH, _WIDTH * number // max(1, run['targets']))
        parts.append(
            {
                'name': name,
                'text': f'{number} {PARTS[name]}',
                'status': _LISTED_BY.get(name, name),
                'x': at,
                'width': width,
            }
        )
        at += width
    return {
        'parts': parts,
        'width': at or _WIDTH,
        'text': ', '.join(part['text'] for part in parts),
    }


def color(run: Mapping[str, Any]) -> str:
    """Return Bootstrap's word for the color of a run's status."""
    if run['status'] == 'COMPLETED' and run['errors']:
        return 'warning'
    return STATUS_COLORS.get(run['status'], 'default')


def summary(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown of a run."""
    return {
        'uuid': run['uuid'],
        'name': run['name'] or '',
        'line': words.line(run),
        'status': run['status'],
        'color': color(run),
        'meaning': str(STATUS_MEANINGS.get(run['status'], '')),
        'error': run.get('error') or '',
        'created': words.shown_time(run['created_at']),
        'finished': words.shown_time(run['finished_at']),
        'duration': words.duration({**run, 'started_at': run['created_at']}),
        'has_ended': run['status'] != 'RUNNING',
        'progress': progress(run),
        'bar': bar(run),
    }
