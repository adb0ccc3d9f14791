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

"""How commands are shown, and what lists are asked for."""

from typing import Any

from django import test as django_test
from django.utils import timezone
import pytest

from guest_agent_ext.dashboard import listing
from guest_agent_ext.dashboard import transfers
from guest_agent_ext.dashboard import words
from guest_agent_ext.dashboard.templatetags import guest_agent

COMMAND: dict[str, Any] = {
    'uuid': 'u',
    'instance_uuid': 's',
    'type': 'exec',
    'status': 'COMPLETED',
    'created_at': '2026-03-09T12:13:22Z',
    'started_at': '2026-03-09T12:13:23Z',
    'finished_at': '2026-03-09T12:13:33Z',
    'error': None,
    'arguments': {'command': ['ls', '-l', 'a b']},
    'result': {'exitcode': 0, 'signal': None},
}


def command(**fields: Any) -> dict[str, Any]:
    return {**COMMAND, **fields}


@pytest.mark.parametrize(
    'fields, line',
    [
        ({}, "ls -l 'a b'"),
        ({'arguments': {'command': ['/bin/sh', '-c', 'a | b']}}, 'a | b'),
        (
            {'arguments': {'command': ['/bin/sh', '-c', 'a', 'b']}},
            '/bin/sh -c a b',
        ),
        (
            {'type': 'file-read', 'arguments': {'path': '/etc/x'}},
            'file-read /etc/x',
        ),
        ({'type': 'fstrim', 'arguments': {}}, 'fstrim'),
        # A reader sees no arguments.
        ({'arguments': None}, 'exec'),
    ],
)
def test_line(fields: dict[str, Any], line: str) -> None:
    assert words.line(command(**fields)) == line


@pytest.mark.parametrize(
    'fields, outcome, color',
    [
        ({}, 'exit code 0', 'success'),
        ({'result': {'exitcode': 7}}, 'exit code 7', 'warning'),
        ({'result': {'exitcode': None, 'signal': 9}}, 'signal 9', 'success'),
        ({'status': 'LOST', 'result': None}, '', 'danger'),
        ({'status': 'NEW', 'result': None}, '', 'default'),
    ],
)
def test_outcome(fields: dict[str, Any], outcome: str, color: str) -> None:
    shown = words.summary(command(**fields))
    assert (shown['outcome'], shown['color']) == (outcome, color)


def test_times() -> None:
    with timezone.override('UTC'):
        shown = words.summary(COMMAND)
    assert shown['created'] == '2026-03-09 12:13:22'
    assert shown['duration'] == '10 seconds'
    assert (
        words.duration(command(finished_at='2026-03-09T14:13:23Z'))
        == '2:00:00'
    )
    assert words.duration(command(finished_at=None)) == ''


@pytest.mark.parametrize(
    'reason, begins',
    [
        (None, ''),
        ('anything else', ''),
        (
            'The server has no guest agent channel: its image needs the '
            'property hw_qemu_guest_agent=yes when it is created',
            'Set the property',
        ),
        (
            'The guest agent is not connected: qemu-guest-agent must be '
            'installed and running in the server',
            'Install',
        ),
        ('The guest agent does not answer', 'Wait a moment'),
        ('The hypervisor of the server does not answer', 'Tell the operator'),
        ('The server is not running', 'Start the instance'),
        (
            'Server x is being stopped (task_state powering-off)',
            'Wait a moment',
        ),
    ],
)
def test_advice(reason: str | None, begins: str) -> None:
    advice = words.advice(reason)
    assert advice.startswith(begins)
    assert bool(advice) == bool(begins)


@pytest.mark.parametrize(
    'text', ["awk '{$1=1}' {$ x $} {{ x }}", '&amp;', '<b a="x">', None, 7]
)
def test_text_is_exact(text: Any) -> None:
    """Horizon's escape, which tests have in place, changes ``{$``."""
    escaped = guest_agent.exact(text)
    assert not set('<>"') & set(escaped)
    shown = (
        escaped.replace('&lt;', '<')
        .replace('&gt;', '>')
        .replace('&quot;', '"')
        .replace('&#x27;', "'")
        .replace('&amp;', '&')
    )
    assert shown == ('' if text is None else str(text))


def _filters(query: str, **defaults: str) -> listing.Filters:
    request = django_test.RequestFactory().get('/?' + query)
    return listing.Filters.of(request, ('status', 'since'), defaults)


def test_filters_have_defaults_where_there_is_none() -> None:
    assert _filters('', status='LOST').values['status'] == 'LOST'
    assert _filters('status=', status='LOST').values['status'] == ''
    assert _filters('since=', status='LOST').values['status'] == ''


def test_filters_are_kept_on_the_next_page() -> None:
    filters = _filters('status=LOST&since=2026-03-09T12:00')
    assert filters.query('m') == (
        'status=LOST&since=2026-03-09T12%3A00&marker=m'
    )
    # No status is a choice, where another is the default.
    assert _filters('status=').query('') == 'status='


def test_times_are_the_user_s() -> None:
    with timezone.override('Europe/Berlin'):
        filters = _filters('since=2026-03-09T12:00')
    assert filters.since == '2026-03-09T11:00:00Z'


@pytest.mark.parametrize('since', ['x', '2026-02-30T12:00', '2026-13-01T0:0'])
def test_times_that_are_none(since: str) -> None:
    filters = _filters(f'since={since}')
    assert filters.problem and not filters.since


@pytest.mark.parametrize(
    'path, name',
    [
        ('/etc/passwd', 'passwd'),
        ('C:\\Users\\x y', 'x y'),
        ('/', 'file'),
        ('', 'file'),
    ],
)
def test_names_of_files(path: str, name: str) -> None:
    assert transfers.base_name(path) == name


def test_names_that_would_end_a_header() -> None:
    header = transfers.disposition('a"\r\n\u20ac%2F\\')
    assert '\r' not in header and '\n' not in header
    assert header.startswith('attachment; filename="a_____2F_"; ')
    assert header.endswith("filename*=UTF-8''a%22%0D%0A%E2%82%AC%252F%5C")
