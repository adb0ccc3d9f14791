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

"""Runs: how they are shown, and the calls about them."""

import json
from typing import Any

import pytest

from guest_agent_ext.dashboard import run_words
from tests.horizon import test_calls

RUN_ID = '99999999-7777-8888-9999-000000000000'
RUN: dict[str, Any] = {
    'uuid': RUN_ID,
    'name': None,
    'type': 'exec',
    'status': 'RUNNING',
    'targets': 10,
    'counts': {'COMPLETED': 4, 'LOST': 1, 'REFUSED': 2, 'WAITING': 3},
    'errors': 5,
    'max_concurrency': 50,
    'max_errors': None,
    'created_at': '2026-03-09T12:13:22Z',
    'finished_at': None,
    'error': None,
    'project_id': 'p',
    'arguments': {'command': ['/bin/sh', '-c', "awk '{$1=1}'"]},
}


def run(**fields: Any) -> dict[str, Any]:
    return {**RUN, **fields}


def test_what_became_of_the_targets() -> None:
    shown = run_words.summary(RUN)
    assert shown['progress'] == '7 of 10 instances'
    assert shown['line'] == "awk '{$1=1}'"
    assert shown['bar']['text'] == (
        '2 succeeded, 2 ended with another exit code, 1 lost, 2 refused, '
        '3 waiting'
    )
    assert [part['status'] for part in shown['bar']['parts']] == [
        'COMPLETED',
        'COMPLETED',
        'LOST',
        '',
        '',
    ]
    assert not shown['has_ended'] and shown['duration'] == ''


@pytest.mark.parametrize('errors', [0, 3, 9])
def test_errors_that_are_counted_late(errors: int) -> None:
    """No number is below 0, and they add up."""
    counts = run_words.counts(run(errors=errors))
    assert min(counts.values()) >= 0
    assert sum(counts.values()) == RUN['targets']


def test_parts_of_a_bar_stand_side_by_side() -> None:
    counts = {'COMPLETED': 990, 'LOST': 1, 'WAITING': 9}
    bar = run_words.bar(run(targets=1000, counts=counts, errors=1))
    at = 0
    for part in bar['parts']:
        assert part['x'] == at and part['width'] >= 8
        at += part['width']
    assert bar['width'] == at


def test_a_bar_of_nothing() -> None:
    bar = run_words.bar(run(targets=0, counts={}, errors=0))
    assert bar == {'parts': [], 'width': 1000, 'text': ''}


@pytest.mark.parametrize(
    'status, errors, color',
    [
        ('RUNNING', 1, 'primary'),
        ('COMPLETED', 0, 'success'),
        ('COMPLETED', 1, 'warning'),
        ('STOPPED', 1, 'danger'),
        ('CANCELLED', 0, 'default'),
        ('NEW', 0, 'default'),
    ],
)
def test_colors(status: str, errors: int, color: str) -> None:
    assert run_words.color(run(status=status, errors=errors)) == color


class RunsTest(test_calls.ApiTest):
    def answers(self, *bodies: Any) -> None:
        """Have the API answer these bodies, one after the other."""
        self.api.side_effect = [
            test_calls.answer(200, json.dumps(body).encode())
            for body in bodies
        ]

    def test_a_key_has_a_run_created_once(self) -> None:
        self.answers({'run': RUN})
        asked = {'targets': {'tags': ['web']}, 'type': 'exec'}
        shown = self.post('run_calls', {'run': asked, 'key': 'k'})
        assert shown.status_code == 200, shown.content
        assert shown.json()['url'].endswith(f'/runs/{RUN_ID}/')
        sent = self.api.call_args.kwargs
        assert sent['headers']['Idempotency-Key'] == 'k'
        assert json.loads(sent['data']) == {'run': asked}

    def test_bodies_that_are_no_run(self) -> None:
        for body in ([], {}, {'run': 'x'}, {'run': []}):
            shown = self.post('run_calls', body)
            assert shown.status_code == 400, body
        assert not self.api.called

    def test_refusals_are_handed_on(self) -> None:
        for status in (400, 403, 409, 422, 429, 503):
            self.api.return_value = test_calls.answer(
                status, b'{"x": {"code": 1, "message": "Why {$ not $}"}}'
            )
            shown = self.post('run_calls', {'run': {}})
            assert shown.status_code == status
            assert shown.json() == {'message': 'Why {$ not $}'}

    def progress(self, query: str = '') -> dict[str, Any]:
        refused = [{'instance_uuid': test_calls.SERVER, 'error': 'locked'}]
        command = {
            'uuid': test_calls.COMMAND,
            'instance_uuid': test_calls.SERVER,
            'type': 'exec',
            'status': 'RUNNING',
            'arguments': {'command': ['x' * 60000]},
        }
        self.answers(
            {'run': run(refused=refused)},
            {'commands': [command], 'commands_links': [{}]},
        )
        url = self.url('run_progress', RUN_ID)
        shown = self.client.get(url + query)
        assert shown.status_code == 200, shown.content
        return dict(shown.json())

    def test_progress(self) -> None:
        shown = self.progress('?status=RUNNING&marker=m&other=1&refused=0')
        assert self.api.call_args.kwargs['params'] == {
            'limit': '20',
            'status': 'RUNNING',
            'marker': 'm',
        }
        assert shown['next'] == test_calls.COMMAND
        (target,) = shown['refused']
        assert target['error'] == 'locked'
        assert test_calls.SERVER in target['server_url']
        (command,) = shown['commands']
        assert command['url'].endswith(f'/{test_calls.COMMAND}/')

    def test_progress_has_only_what_is_new(self) -> None:
        """It is asked for again and again."""
        shown = self.progress('?refused=1')
        assert shown['refused'] is None
        assert len(json.dumps(shown)) < 5000

    def test_cancel_and_delete(self) -> None:
        self.api.return_value = test_calls.answer(202, b'')
        assert self.post('cancel_run', {}, RUN_ID).status_code == 202
        sent = self.api.call_args
        assert sent.args[1] == 'POST'
        assert sent.args[2].endswith(f'/guest-agent/runs/{RUN_ID}/action')
        assert json.loads(sent.kwargs['data']) == {'cancel': None}
        url = self.url('run_call', RUN_ID)
        assert self.client.delete(url).status_code == 200
        assert self.api.call_args.args[1] == 'DELETE'

    def test_run_again(self) -> None:
        """Only what is the id of a run is asked for."""
        self.answers({'servers': []})
        shown = self.client.get(self.url('new_run') + '?again=../../x')
        assert shown.status_code == 200
        assert shown.context['config']['again'] == ''
        self.answers({'servers': []})
        shown = self.client.get(self.url('new_run') + '?again=' + RUN_ID)
        assert RUN_ID in shown.context['config']['again']

    def test_pages(self) -> None:
        """Text of tenants is text, and as it is."""
        hostile = '<b>{$ 7*7 $}{{ 7*7 }}</b>'
        shown = '&lt;b&gt;{$ 7*7 $}{{ 7*7 }}&lt;/b&gt;'
        told = run(name=hostile, error=hostile, refused=[])
        told['arguments'] = {'command': [hostile]}
        for name, ids, answers in (
            ('runs', (), [{'runs': [told], 'runs_links': [{}]}]),
            ('run', (RUN_ID,), [{'run': told}, {'servers': []}]),
        ):
            self.answers(*answers)
            page = self.client.get(self.url(name, *ids))
            assert page.status_code == 200
            text = page.content.decode()
            assert '<b>' not in text and shown in text, name
            # What Horizon's own escape makes of an expression.
            assert '{%' not in text, name

    def test_a_filter_that_is_none(self) -> None:
        self.answers({'runs': []})
        page = self.client.get(self.url('runs') + '?status=LOST')
        assert page.context['filters'].problem
        assert 'status' not in self.api.call_args.kwargs['params']
