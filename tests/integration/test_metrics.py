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

"""The dashboard's queries, asked of a Prometheus that scrapes a real cloud."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from http import server
import itertools
import pathlib
import threading
from typing import Any

import pytest
import requests
import yaml

from tools import dashboard
from tools.testbed import cloud as testbed_cloud
from tools.testbed import processes

ROOT = pathlib.Path(__file__).parents[2]

#: Panels that stay empty where nothing has gone wrong, and nothing is old.
QUIET = {
    'Lost within a day',
    'Hosts with most suspect lanes',
    'Agent calls that failed',
    'Breakers of nova-api: failures of cells',
    'RPC errors',
    'Purged',
    'Passes that failed',
}

PANELS = [panel for _, panels in dashboard.ROWS for panel in panels]


class _Relay(server.BaseHTTPRequestHandler):
    """Stands for the operator's timer with a token; see monitoring.rst."""

    ask: Callable[[], str]

    def do_GET(self) -> None:
        body = type(self).ask().encode()
        self.send_response(200)
        self.send_header('Content-Type', 'text/plain; version=0.0.4')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = '-', size: object = '-') -> None:
        """Log nothing: one comes every second."""


@contextlib.contextmanager
def relay(ask: Callable[[], str]) -> Iterator[int]:
    handler = type('Relay', (_Relay,), {'ask': staticmethod(ask)})
    with server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_port
        finally:
            listening.shutdown()
            thread.join()


class Prometheus:
    """A Prometheus that scrapes each second, and has the rules.

    :param targets: port of each service, by its name
    """

    def __init__(
        self, directory: pathlib.Path, targets: dict[str, int]
    ) -> None:
        self._port = processes.free_port()
        configuration = directory / 'prometheus.yaml'
        configuration.write_text(
            yaml.safe_dump(
                {
                    'global': {
                        'scrape_interval': '1s',
                        'evaluation_interval': '1s',
                    },
                    'rule_files': [
                        str(ROOT / 'etc/guest_agent_ext/prometheus-rules.yaml')
                    ],
                    'scrape_configs': [
                        {
                            'job_name': 'guest-agent',
                            'static_configs': [
                                {
                                    'targets': [f'127.0.0.1:{port}'],
                                    'labels': {'service': service},
                                }
                                for service, port in targets.items()
                            ],
                        }
                    ],
                }
            )
        )
        self.process = processes.start(
            'prometheus',
            [
                'prometheus',
                f'--config.file={configuration}',
                f'--storage.tsdb.path={directory / "data"}',
                f'--web.listen-address=127.0.0.1:{self._port}',
            ],
            directory / 'prometheus.log',
        )

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series of a query, none while it does not listen."""
        try:
            answer = requests.get(
                f'http://127.0.0.1:{self._port}/api/v1/query',
                params={'query': query},
                timeout=30,
            )
        except requests.ConnectionError:
            return []
        if answer.status_code == 503:
            return []
        assert answer.status_code == 200, (query, answer.text)
        return list(answer.json()['data']['result'])

    def alerts(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {
            series['metric']['alertname']
            for series in self.ask('ALERTS{alertstate="firing"}')
        }


@pytest.fixture
def prometheus(
    cloud: testbed_cloud.Cloud, tmp_path: pathlib.Path
) -> Iterator[Prometheus]:
    """One that scrapes all three services of a cloud in use."""
    directory = cloud.nova.directory
    ports = {}
    before = {}
    for service, name in (
        ('guest-agent-conductor', 'nova'),
        ('guest-agent-compute', testbed_cloud.HOST),
    ):
        ports[service] = processes.free_port()
        path = directory / f'{name}.conf'
        before[path] = path.read_text()
        path.write_text(
            before[path] + '[guest_agent]\nmetrics_bind = '
            f'127.0.0.1:{ports[service]}\n'
        )

    def metrics_of_api() -> str:
        answer = requests.get(
            f'{cloud.nova.url}/guest-agent/metrics',
            timeout=30,
            headers={'X-Auth-Token': cloud.nova.identities['admin'].token},
        )
        assert answer.status_code == 200
        return answer.text

    def restart() -> None:
        cloud.conductor.stop()
        cloud.compute.stop()
        cloud.mend()

    with contextlib.ExitStack() as stack:
        restart()
        stack.callback(restart)
        for path, text in before.items():
            stack.callback(path.write_text, text)
        ports['nova-api'] = stack.enter_context(relay(metrics_of_api))
        prometheus = Prometheus(tmp_path, ports)
        stack.callback(prometheus.process.stop)
        yield prometheus


def test_panels_of_the_dashboard_show_a_cloud_in_use(
    cloud: testbed_cloud.Cloud, prometheus: Prometheus
) -> None:
    """And no alert fires: nothing is wrong."""
    client = cloud.client()
    for number in itertools.count():
        assert client.sh(f'exit {number % 2}')['status'] == 'COMPLETED'
        empty = [
            panel.title
            for panel in PANELS
            if panel.title not in QUIET
            and not all(
                prometheus.ask(query.replace('$__rate_interval', '1m'))
                for query, _ in panel.queries
            )
        ]
        if not empty:
            break
        assert number < 60, empty
    # Those are queries too.
    for panel in PANELS:
        for query, _ in panel.queries:
            prometheus.ask(query.replace('$__rate_interval', '1m'))
    assert prometheus.alerts() == set()
    assert [
        series['metric']['service'] for series in prometheus.ask('up == 0')
    ] == []
