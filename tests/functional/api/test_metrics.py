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


"""The metrics of nova-api: of one process, and of many that share them."""

import os
import pathlib
import subprocess
import sys

import pytest

from guest_agent_ext import metrics
from tests.functional.api import base

PATH = '/guest-agent/metrics'

#: One process of nova-api: it counts, and waits for its end.
WORKER = """
import sys
from guest_agent_ext import metrics
metrics.ACCEPTED.labels('exec').inc()
metrics.BREAKER_TRIPS.labels('queue').inc(2)
metrics.START_SECONDS.labels('exec').observe(1)
print('ready', flush=True)
sys.stdin.read()
"""
READER = """
from guest_agent_ext import metrics
print(metrics.text(metrics.registry(metrics.API)).decode())
"""


def test_metrics(cloud: base.Cloud) -> None:
    before = cloud.admin_get(PATH).text
    cloud.post()
    response = cloud.admin_get(PATH, headers={'Accept': 'text/plain'})
    assert response.status_code == 200
    assert response.headers['Content-Type'] == metrics.CONTENT_TYPE
    name = 'guest_agent_commands_accepted_total{type="exec"} '
    count, count_before = (
        float(text.split(name)[1].split()[0])
        for text in (response.text, before)
    )
    assert count == count_before + 1
    # What other services count stays there.
    assert 'guest_agent_lanes' not in response.text


def test_metrics_are_for_admins(cloud: base.Cloud) -> None:
    base.message_of(cloud.get(PATH), 403, 'forbidden')


def test_metrics_take_no_query(cloud: base.Cloud) -> None:
    base.message_of(cloud.admin_get(PATH + '?name=x'), 400, 'badRequest')


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    root = str(pathlib.Path(__file__).parents[3])
    return dict(
        os.environ, PROMETHEUS_MULTIPROC_DIR=str(tmp_path), PYTHONPATH=root
    )


def read(environment: dict[str, str]) -> str:
    """Return what a process shows that has counted nothing itself."""
    return subprocess.run(
        [sys.executable, '-c', READER],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_processes_that_share_a_directory_count_together(
    environment: dict[str, str],
) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, '-c', WORKER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b'ready\n'
    shown = read(environment)
    assert 'guest_agent_commands_accepted_total{type="exec"} 2.0' in shown
    assert 'guest_agent_breaker_trips_total{part="queue"} 4.0' in shown
    assert 'guest_agent_command_start_seconds' not in shown
    for worker in workers:
        worker.communicate(timeout=60)
    # A counter must not fall because a process has ended.
    assert read(environment) == shown
