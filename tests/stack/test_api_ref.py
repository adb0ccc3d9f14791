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

"""The examples of the API reference, tried."""

import json
import pathlib
import re
from typing import Any

_PAGES = pathlib.Path(__file__).parents[2] / 'api-ref/source'

#: What is different each time.
_VARIES = {
    'uuid',
    'instance_uuid',
    'created_at',
    'updated_at',
    'started_at',
    'finished_at',
    'project_id',
    'user_id',
    'request_id',
    'pid',
    'version',
    'os',
    'supported_commands',
    'command_types',
    'unavailable',
}


def _examples(page: str) -> list[Any]:
    """Return the examples of a page, from top to bottom."""
    text = (_PAGES / f'{page}.inc').read_text()
    blocks = re.findall(r'\.\. code-block:: json\n\n((?:   .*\n|\n)+)', text)
    return [json.loads(block) for block in blocks]


def _comparable(value: Any) -> Any:
    """Replace what is different each time by what kind of thing it is."""
    if not isinstance(value, dict):
        return value
    return {
        name: type(item).__name__ if name in _VARIES else _comparable(item)
        for name, item in value.items()
    }


def test_commands(compute: Any, server: str) -> None:
    request, _, answer, _, cancel = _examples('commands')
    commands = f'/servers/{server}/guest-agent/commands'
    made = compute.post(commands, json=request, headers={'Prefer': 'wait=30'})
    assert _comparable(made.json()) == _comparable(answer)
    running = compute.post(
        commands,
        json={
            'command': {
                'type': 'exec',
                'arguments': {'command': ['sleep', '600']},
            }
        },
    ).json()
    assert (
        compute.post(
            f'{commands}/{running["command"]["uuid"]}/action', json=cancel
        ).status_code
        == 202
    )


def test_runs(compute: Any, server: str) -> None:
    request, cancel = _examples('runs')
    tags, metadata = (
        request['run']['targets'][name] for name in ('tags', 'metadata')
    )
    compute.put(
        f'/servers/{server}/tags', json={'tags': tags}, microversion='2.26'
    )
    compute.post(f'/servers/{server}/metadata', json={'metadata': metadata})
    made = compute.post('/guest-agent/runs', json=request)
    assert made.status_code == 202, made.text
    run = made.json()['run']
    assert (run['name'], run['targets']) == (request['run']['name'], 1)
    # It may have ended: the guest has no such program.
    cancelled = compute.post(
        f'/guest-agent/runs/{run["uuid"]}/action', json=cancel
    )
    assert cancelled.status_code in (202, 409)


def test_agent(compute: Any, server: str) -> None:
    answer, _ = _examples('agent')
    shown = compute.get(f'/servers/{server}/guest-agent').json()
    assert _comparable(shown) == _comparable(answer)
