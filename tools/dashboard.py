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


"""The dashboard for Grafana: its rows and panels, and the JSON of them.

``python -m tools.samples`` writes it.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
import json
from typing import Any

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_QUANTILES = (0.5, 0.95, 0.99)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A graph.

    :ivar unit: that of Grafana
    :ivar queries: pairs of a query and the legend of its series
    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]


def _rate(title: str, metric: str, label: str, unit: str = 'cpm') -> Panel:
    """Return the panel of a counter, by one label."""
    factor = ' * 60' if unit == 'cpm' else ''
    return Panel(
        title,
        unit,
        (
            (
                f'sum by ({label}) (rate({metric}[$__rate_interval])){factor}',
                f'{{{{{label}}}}}',
            ),
        ),
    )


def _quantiles(title: str, metric: str) -> Panel:
    """Return the panel of a histogram."""
    return Panel(
        title,
        's',
        tuple(
            (
                f'histogram_quantile({quantile}, sum by (le) '
                f'(rate({metric}_bucket[$__rate_interval])))',
                f'{quantile:.0%}',
            )
            for quantile in _QUANTILES
        ),
    )


ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        'What ends how',
        (
            _rate(
                'Ends by status', 'guest_agent_commands_ended_total', 'status'
            ),
            _rate('Ends by type', 'guest_agent_commands_ended_total', 'type'),
            Panel(
                'Lost within a day',
                'short',
                (
                    (
                        'sum by (type) (increase(guest_agent_commands_ended'
                        '_total{status="LOST"}[1d]))',
                        '{{type}}',
                    ),
                ),
            ),
            Panel(
                'Unfinished',
                'short',
                (
                    (
                        'max by (status) (guest_agent_commands_unfinished)',
                        '{{status}}',
                    ),
                ),
            ),
            _rate('Accepted', 'guest_agent_commands_accepted_total', 'type'),
        ),
    ),
    (
        'Latency',
        (
            _quantiles(
                'Acceptance to start', 'guest_agent_command_start_seconds'
            ),
            _quantiles('Acceptance to end', 'guest_agent_command_end_seconds'),
            Panel(
                'Age of the oldest that waits',
                's',
                (
                    (
                        'max(guest_agent_commands_oldest_pending_seconds)',
                        'oldest',
                    ),
                ),
            ),
        ),
    ),
    (
        'Lanes and agents',
        (
            Panel(
                'Lanes',
                'short',
                (('sum by (state) (guest_agent_lanes)', '{{state}}'),),
            ),
            Panel(
                'Hosts with most suspect lanes',
                'short',
                (
                    (
                        'topk(10, guest_agent_lanes{state="suspect"} > 0)',
                        '{{instance}}',
                    ),
                ),
            ),
            _rate(
                'Agent calls',
                'guest_agent_agent_call_seconds_count',
                'pool',
                'cps',
            ),
            _quantiles(
                'Seconds of an agent call', 'guest_agent_agent_call_seconds'
            ),
            _rate(
                'Agent calls that failed',
                'guest_agent_agent_call_failures_total',
                'error',
            ),
        ),
    ),
    (
        'API, doorbells, breakers',
        (
            _rate('Doorbells', 'guest_agent_doorbells_total', 'outcome'),
            _rate(
                'Breakers of nova-api: failures of cells',
                'guest_agent_breaker_trips_total',
                'part',
            ),
            _rate('RPC errors', 'guest_agent_rpc_errors_total', 'error'),
        ),
    ),
    (
        'Hosts',
        (
            Panel(
                'Hosts',
                'short',
                (('max by (state) (guest_agent_hosts)', '{{state}}'),),
            ),
            Panel(
                'Seconds since the last report',
                's',
                (
                    (
                        'topk(10, time() - '
                        'guest_agent_report_timestamp_seconds)',
                        '{{instance}}',
                    ),
                ),
            ),
            Panel(
                'Memory of the services',
                'bytes',
                (
                    (
                        'topk(10, process_resident_memory_bytes and on '
                        '(job, instance) '
                        'guest_agent_rpc_errors_total)',
                        '{{instance}}',
                    ),
                ),
            ),
        ),
    ),
    (
        'Conductors and database',
        (
            _rate('Reports', 'guest_agent_reports_total', 'instance', 'cps'),
            _rate(
                'Passes that failed',
                'guest_agent_conductor_pass_failures_total',
                'instance',
            ),
            Panel(
                'Seconds since the database was read',
                's',
                (
                    (
                        'time() - guest_agent_database_read_timestamp_seconds',
                        '{{instance}}',
                    ),
                ),
            ),
            Panel(
                'Rows kept, at most',
                'short',
                (('max(guest_agent_commands_kept)', 'rows'),),
            ),
            _rate('Purged', 'guest_agent_commands_purged_total', 'instance'),
            Panel(
                'Who holds a lease',
                'short',
                (('guest_agent_lease_held', '{{lease}} {{instance}}'),),
            ),
            Panel(
                'Seconds since the last purge',
                's',
                (
                    (
                        'time() - max(guest_agent_purge_timestamp_seconds)',
                        'purge',
                    ),
                ),
            ),
        ),
    ),
)


def document() -> str:
    """Return the dashboard as JSON."""
    return (
        json.dumps(
            {
                'title': 'Guest agent commands',
                'uid': 'guest-agent-ext',
                'tags': ['openstack', 'nova'],
                'schemaVersion': 38,
                'editable': True,
                'refresh': '1m',
                'time': {'from': 'now-6h', 'to': 'now'},
                'templating': {
                    'list': [
                        {
                            'name': 'datasource',
                            'type': 'datasource',
                            'query': 'prometheus',
                            'label': 'Data source',
                        }
                    ]
                },
                'panels': list(_panels()),
            },
            indent=1,
        )
        + '\n'
    )


def _panels() -> Iterator[dict[str, Any]]:
    ids, top = itertools.count(1), 0
    for title, panels in ROWS:
        yield {
            'id': next(ids),
            'type': 'row',
            'title': title,
            'collapsed': False,
            'panels': [],
            'gridPos': {'x': 0, 'y': top, 'h': 1, 'w': 24},
        }
        top += 1
        for number, panel in enumerate(panels):
            line, column = divmod(number, _COLUMNS)
            yield {
                **_graph(panel),
                'id': next(ids),
                'gridPos': {
                    'x': column * _WIDTH,
                    'y': top + line * _HEIGHT,
                    'h': _HEIGHT,
                    'w': _WIDTH,
                },
            }
        top += -(-len(panels) // _COLUMNS) * _HEIGHT


def _graph(panel: Panel) -> dict[str, Any]:
    source = {'type': 'prometheus', 'uid': '${datasource}'}
    return {
        'type': 'timeseries',
        'title': panel.title,
        'datasource': source,
        'fieldConfig': {
            'defaults': {'unit': panel.unit, 'min': 0},
            'overrides': [],
        },
        'options': {
            'legend': {'displayMode': 'list', 'placement': 'bottom'},
            'tooltip': {'mode': 'multi', 'sort': 'desc'},
        },
        'targets': [
            {
                'refId': chr(ord('A') + number),
                'datasource': source,
                'expr': query,
                'legendFormat': legend,
            }
            for number, (query, legend) in enumerate(panel.queries)
        ],
    }
