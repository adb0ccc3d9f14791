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


"""The dashboard and the alerts: what they ask for exists, and what they say.

The alerts are tried with Prometheus's own promtool: rules-test.yaml.
"""

from collections.abc import Iterator
import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from guest_agent_ext import metrics

HERE = pathlib.Path(__file__).parent
ETC = HERE.parents[2] / 'etc/guest_agent_ext'
RULES = ETC / 'prometheus-rules.yaml'
CASES = HERE / 'rules-test.yaml'

#: Of every target of Prometheus, and of every process.
OTHERS = {'up', 'process_resident_memory_bytes'}
#: What Prometheus itself gives to series.
OF_TARGETS = {'job', 'instance', 'le'}

METRICS = {name: metric for metric in metrics.TABLE for name in metric.series}
SELECTOR = re.compile(r'\b(guest_agent_\w+|process_\w+|up\b)(?:{([^}]*)})?')
MATCHER = re.compile(r'(\w+)="([^"]*)"')
GROUPING = re.compile(r'\b(?:by|on|ignoring) ?\(([^)]*)\)')


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document['groups'] for rule in group['rules']]


def queries() -> Iterator[tuple[str, str]]:
    """Return what is asked for, by what asks."""
    dashboard = json.loads((ETC / 'grafana-dashboard.json').read_text())
    for panel in dashboard['panels']:
        for target in panel.get('targets', ()):
            yield panel['title'], target['expr']
    for rule in rules():
        yield rule['alert'], rule['expr']


QUERIES = list(queries())


@pytest.mark.parametrize(
    'query',
    [query for _, query in QUERIES],
    ids=[title for title, _ in QUERIES],
)
def test_query_is_of_metrics_that_there_are(query: str) -> None:
    """A metric or a label that was renamed would show nothing for ever."""
    found = SELECTOR.findall(query)
    assert found
    known = set(OF_TARGETS)
    for name, matchers in found:
        assert name in METRICS or name in OTHERS
        labels = METRICS[name].labels if name in METRICS else {}
        known |= labels.keys()
        for label, value in MATCHER.findall(matchers):
            assert label in OF_TARGETS or value in labels[label]
    grouped = {
        label.strip()
        for labels in GROUPING.findall(query)
        for label in labels.split(',')
    }
    assert grouped <= known


def test_every_metric_is_shown() -> None:
    shown = {
        name for _, query in QUERIES for name, _ in SELECTOR.findall(query)
    }
    assert [
        metric.name
        for metric in metrics.TABLE
        if not shown & set(metric.series)
    ] == []


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text())['tests']
        for case in test['alert_rule_test']
    ]
    assert {case['alertname'] for case in cases if 'exp_alerts' in case} == {
        rule['alert'] for rule in rules()
    }
    guide = (HERE.parents[2] / 'doc/source/admin/monitoring.rst').read_text()
    for rule in rules():
        assert rule['annotations'].keys() == {'summary', 'description'}
        assert rule['labels']['severity'] in ('warning', 'critical')
        assert f'``{rule["alert"]}``' in guide


@pytest.fixture
def promtool() -> str:
    found = shutil.which('promtool')
    if found is None and os.environ.get('CI'):
        pytest.fail('promtool is missing; bindep.txt says what has it')
    if found is None:
        pytest.skip('promtool is not installed')
    return found


def run(*command: str | pathlib.Path) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_alerts_fire_when_they_are_to(
    promtool: str, tmp_path: pathlib.Path
) -> None:
    run(promtool, 'check', 'rules', RULES)
    document = yaml.safe_load(RULES.read_text())
    for group in document['groups']:
        for rule in group['rules']:
            # Each case would have to repeat them word by word.
            del rule['annotations']
    (tmp_path / 'rules.yaml').write_text(yaml.safe_dump(document))
    shutil.copy(CASES, tmp_path)
    run(promtool, 'test', 'rules', tmp_path / CASES.name)


def test_queries_of_the_dashboard_are_queries(
    promtool: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / 'rules.yaml'
    path.write_text(
        yaml.safe_dump(
            {
                'groups': [
                    {
                        'name': 'dashboard',
                        'rules': [
                            {
                                'record': f'query:{number}',
                                'expr': query.replace(
                                    '$__rate_interval', '5m'
                                ),
                            }
                            for number, (_, query) in enumerate(QUERIES)
                        ],
                    }
                ]
            }
        )
    )
    run(promtool, 'check', 'rules', path)
