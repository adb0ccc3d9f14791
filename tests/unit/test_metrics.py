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


"""What the table of metrics must be like, and what is shown of it."""

import re

from prometheus_client import parser
import pytest

from guest_agent_ext import exception
from guest_agent_ext import metrics
from guest_agent_ext.guest import connection

SERVICES = (metrics.API, metrics.CONDUCTOR, metrics.COMPUTE)


@pytest.mark.parametrize(
    'metric', metrics.TABLE, ids=lambda metric: metric.name
)
def test_names_are_those_of_prometheus(metric: metrics.Metric) -> None:
    assert re.fullmatch(r'guest_agent_[a-z_]+', metric.name)
    assert metric.name.endswith('_total') == (metric.kind == 'counter')
    if metric.kind == 'histogram':
        assert metric.name.endswith('_seconds')
    assert metric.summary.endswith('.')


@pytest.mark.parametrize(
    'metric', metrics.TABLE, ids=lambda metric: metric.name
)
def test_labels_are_bounded(metric: metrics.Metric) -> None:
    """One by one server, project or host would fill Prometheus."""
    values = [value for values in metric.labels.values() for value in values]
    assert len(values) == len(set(values)) <= 20
    assert (
        not {'host', 'uuid', 'server', 'project', 'cell', 'user'}
        & metric.labels.keys()
    )
    assert metric.services
    assert set(metric.services) <= set(SERVICES)
    # Its processes share what they count, and would sum what they show.
    assert metrics.API not in metric.services or metric.kind == 'counter'


@pytest.mark.parametrize('service', SERVICES)
def test_text_has_what_the_table_says(service: str) -> None:
    shown = metrics.text(metrics.registry(service)).decode()
    names = {
        sample.name
        for family in parser.text_string_to_metric_families(shown)
        for sample in family.samples
    }
    assert names == {
        name
        for metric in metrics.TABLE
        if service in metric.services
        for name in metric.series
    }


def test_every_series_is_there_before_its_first_event() -> None:
    shown = metrics.registry(metrics.CONDUCTOR)
    assert (
        shown.get_sample_value(
            'guest_agent_commands_ended_total',
            {'type': 'file-read', 'status': 'LOST'},
        )
        is not None
    )


def test_every_error_of_an_agent_call_can_be_counted() -> None:
    kinds = {kind for _, _, kind, _ in connection._ERRORS} | {
        exception.HypervisorUnavailable,
        exception.DomainNotRunning,
        exception.DomainMigrating,
        exception.AgentError,
        exception.AgentRefused,
        exception.AgentCommandDisabled,
    }
    (labels,) = (
        metric.labels
        for metric in metrics.TABLE
        if metric.collector is metrics.AGENT_CALL_FAILURES
    )
    assert {kind.__name__ for kind in kinds} <= set(labels['error'])
