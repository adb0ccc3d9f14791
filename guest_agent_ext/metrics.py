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

"""Every metric, in one table.

Code that counts imports its metric from here. The table in the admin guide is
made from this one; the dashboard and the alerts are tested against it. A label
has the declared values and no others, so that neither a tenant nor the size of
the cloud can add series.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import os
from typing import Any
from typing import TypeVar

import prometheus_client
from prometheus_client import metrics_core
from prometheus_client import multiprocess

from guest_agent_ext import command
from guest_agent_ext import exception

API = 'nova-api'
CONDUCTOR = 'guest-agent-conductor'
COMPUTE = 'guest-agent-compute'

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

#: The environment variable with prometheus_client's directory, in which many
#: processes count together.
_SHARED = 'PROMETHEUS_MULTIPROC_DIR'
# It is not typed.
_multiprocess: Any = multiprocess

#: Upper bounds of buckets, in seconds.
_TO_START = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_TO_END = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
_OF_CALL = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_Collector = TypeVar(
    '_Collector',
    prometheus_client.Counter,
    prometheus_client.Gauge,
    prometheus_client.Histogram,
)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    :ivar name: name; the names of a histogram's series begin with it
    :ivar kind: type, in the words of Prometheus
    :ivar summary: help text
    :ivar services: programs that expose the metric
    :ivar labels: all values of each label
    :ivar collector: prometheus_client's object that counts
    """

    name: str
    kind: str
    summary: str
    services: Sequence[str]
    labels: Mapping[str, Sequence[str]]
    collector: (
        prometheus_client.Counter
        | prometheus_client.Gauge
        | prometheus_client.Histogram
    )

    @property
    def series(self) -> Sequence[str]:
        """The names of the series, as queries use them."""
        if self.kind != 'histogram':
            return (self.name,)
        return tuple(
            self.name + suffix for suffix in ('_bucket', '_count', '_sum')
        )


TABLE: list[Metric] = []


def _counter(
    name: str, summary: str, *services: str, **labels: Sequence[str]
) -> prometheus_client.Counter:
    return _declared(
        'counter',
        name,
        prometheus_client.Counter(name, summary, tuple(labels), registry=None),
        summary,
        services,
        labels,
    )


def _gauge(
    name: str, summary: str, *services: str, **labels: Sequence[str]
) -> prometheus_client.Gauge:
    return _declared(
        'gauge',
        name,
        prometheus_client.Gauge(name, summary, tuple(labels), registry=None),
        summary,
        services,
        labels,
    )


def _histogram(
    name: str,
    summary: str,
    buckets: Sequence[float],
    *services: str,
    **labels: Sequence[str],
) -> prometheus_client.Histogram:
    return _declared(
        'histogram',
        name,
        prometheus_client.Histogram(
            name, summary, tuple(labels), registry=None, buckets=buckets
        ),
        summary,
        services,
        labels,
    )


def _declared(
    kind: str,
    name: str,
    collector: _Collector,
    summary: str,
    services: Sequence[str],
    labels: Mapping[str, Sequence[str]],
) -> _Collector:
    TABLE.append(Metric(name, kind, summary, services, labels, collector))
    # Each series begins as 0, so that the first event counts as an increase.
    for values in itertools.product(*labels.values()):
        if values:
            collector.labels(*values)
    return collector


def _agent_errors(kind: type[exception.GuestError]) -> Iterator[str]:
    yield kind.__name__
    for narrower in kind.__subclasses__():
        yield from _agent_errors(narrower)


# Commands.

ACCEPTED = _counter(
    'guest_agent_commands_accepted_total',
    'Commands accepted: by nova-api those that were posted, by '
    'guest-agent-conductor those of runs.',
    API,
    CONDUCTOR,
    type=command.TYPES,
)
ENDED = _counter(
    'guest_agent_commands_ended_total',
    'Commands ended, whoever ended them; each is counted once, after its '
    'audit.',
    CONDUCTOR,
    type=command.TYPES,
    status=command.ENDED,
)
START_SECONDS = _histogram(
    'guest_agent_command_start_seconds',
    'Seconds from the acceptance of a command to its start in the guest.',
    _TO_START,
    CONDUCTOR,
    type=command.TYPES,
)
END_SECONDS = _histogram(
    'guest_agent_command_end_seconds',
    'Seconds from the acceptance of a command to its end.',
    _TO_END,
    CONDUCTOR,
    type=command.TYPES,
)

# The database. Each conductor exposes the same values: take the maximum.

UNFINISHED = _gauge(
    'guest_agent_commands_unfinished',
    'Commands that have not ended, by the status that users see.',
    CONDUCTOR,
    status=command.UNFINISHED,
)
OLDEST_PENDING = _gauge(
    'guest_agent_commands_oldest_pending_seconds',
    'Age of the oldest command that has not started.',
    CONDUCTOR,
)
KEPT = _gauge(
    'guest_agent_commands_kept',
    'Maximum number of commands in the database, computed from the first and '
    'the last id: rows that users deleted count until older ones are purged.',
    CONDUCTOR,
)
HOSTS = _gauge(
    'guest_agent_hosts',
    'Hosts with guest-agent-compute; down after service_down_time without a '
    'report.',
    CONDUCTOR,
    state=('up', 'down'),
)
DATABASE_READ_AT = _gauge(
    'guest_agent_database_read_timestamp_seconds',
    'When this conductor last read the gauges of the database, in Unix time.',
    CONDUCTOR,
)

# The conductor.

REPORTS = _counter(
    'guest_agent_reports_total',
    'Reports of hosts answered by this conductor.',
    CONDUCTOR,
)
PASS_FAILURES = _counter(
    'guest_agent_conductor_pass_failures_total',
    "Failed passes of the conductor's periodic work and failed attempts to "
    'serve a cell; each is repeated.',
    CONDUCTOR,
)
LEASE_HELD = _gauge(
    'guest_agent_lease_held',
    'Whether this conductor holds a lease now.',
    CONDUCTOR,
    lease=('purge',),
)
PURGED = _counter(
    'guest_agent_commands_purged_total',
    'Commands removed after their retention.',
    CONDUCTOR,
)
PURGED_AT = _gauge(
    'guest_agent_purge_timestamp_seconds',
    'When this conductor last completed a purge, in Unix time.',
    CONDUCTOR,
)

# Guests.

LANES = _gauge(
    'guest_agent_lanes',
    'Servers that guest-agent-compute works for; suspect if the guest did not '
    'answer its last call.',
    COMPUTE,
    state=('well', 'suspect'),
)
AGENT_CALL_SECONDS = _histogram(
    'guest_agent_agent_call_seconds',
    'Seconds of a call to a guest agent, including the wait for a connection.',
    _OF_CALL,
    COMPUTE,
    pool=('work', 'probe', 'suspect'),
)
AGENT_CALL_FAILURES = _counter(
    'guest_agent_agent_call_failures_total',
    'Failed calls to guest agents, by the error of exception.py.',
    COMPUTE,
    error=(
        *_agent_errors(exception.AgentError),
        *(
            kind.__name__
            for kind in (
                exception.HypervisorUnavailable,
                exception.DomainNotFound,
                exception.DomainNotRunning,
                exception.DomainMigrating,
            )
        ),
    ),
)
REPORTED_AT = _gauge(
    'guest_agent_report_timestamp_seconds',
    'When a conductor last answered a report of this host, in Unix time.',
    COMPUTE,
)

# Between the services.

DOORBELLS = _counter(
    'guest_agent_doorbells_total',
    'Doorbells rung for hosts that have work. A lost doorbell delays its '
    'command by up to report_interval.',
    API,
    CONDUCTOR,
    outcome=('rung', 'lost'),
)
BREAKER_TRIPS = _counter(
    'guest_agent_breaker_trips_total',
    'Failures of the database or the message queue of a cell. The cell is '
    'left alone for some seconds after each failure.',
    API,
    CONDUCTOR,
    part=('database', 'queue'),
)
RPC_ERRORS = _counter(
    'guest_agent_rpc_errors_total',
    'Failed RPC messages.',
    API,
    CONDUCTOR,
    COMPUTE,
    error=('timeout', 'delivery', 'remote', 'other'),
)


class _Shown:
    """Collects the metrics of one service for prometheus_client."""

    def __init__(self, service: str) -> None:
        # For nova-api alone, which has many processes and only counters: the
        # last value of a gauge would outlive its process.
        self._is_shared = service == API and _SHARED in os.environ
        self._metrics = [
            metric for metric in TABLE if service in metric.services
        ]

    def collect(self) -> Iterable[metrics_core.Metric]:
        families = (
            self._shared_families()
            if self._is_shared
            else self._own_families()
        )
        for family in families:
            # The time at which each series began doubles the lines, and is of
            # no use.
            family.samples = [
                sample
                for sample in family.samples
                if not sample.name.endswith('_created')
            ]
            yield family

    def _own_families(self) -> Iterable[metrics_core.Metric]:
        return itertools.chain.from_iterable(
            metric.collector.collect() for metric in self._metrics
        )

    def _shared_families(self) -> Iterable[metrics_core.Metric]:
        mine = {
            family.name
            for metric in self._metrics
            for family in metric.collector.describe()
        }
        found = _multiprocess.MultiProcessCollector(
            prometheus_client.CollectorRegistry()
        )
        return [family for family in found.collect() if family.name in mine]


def registry(service: str) -> prometheus_client.CollectorRegistry:
    """Return a registry with the metrics of one service."""
    found = prometheus_client.CollectorRegistry()
    found.register(_Shown(service))
    return found


def text(shown: prometheus_client.CollectorRegistry) -> bytes:
    """Return the metrics of a registry in the text format of Prometheus."""
    return bytes(prometheus_client.generate_latest(shown))
