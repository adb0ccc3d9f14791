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

"""The API alone: what a request takes, beside one of Nova's own.

GET of a server's metadata is the least that Nova's API does for a server that
it knows. No command gets to a guest: the compute service only reports.
"""

from collections.abc import Callable

from benchmarks import clouds
from benchmarks import measure
from benchmarks import reporting
from tools.testbed import client as http

ROUNDS = 120


def run() -> measure.Report:
    report = measure.Report('The API')
    with clouds.running() as cloud, reporting.host(cloud):
        report.series = measure.side_by_side(
            ways(cloud.client()), ROUNDS, warm_up=10
        )
    report.goals = [
        measure.Goal(
            f'{name} by GET metadata',
            report.ratio(name, 'GET metadata'),
            bound,
        )
        for name, bound in (('GET command', 0.8), ('POST', 1.3))
    ]
    return report


def ways(client: http.Client) -> dict[str, Callable[[], object]]:
    """Return the requests; the commands that they make are ended by them."""
    posted: list[str] = []
    known = client.start('/bin/true')
    client.cancel(known)

    def expect(status: int, method: str, path: str) -> None:
        found, body = client.request(method, path)
        assert found == status, body

    return {
        'GET metadata': lambda: expect(
            200, 'GET', f'/servers/{client.server_id}/metadata'
        ),
        'GET command': lambda: expect(
            200, 'GET', f'{client.commands}/{known}'
        ),
        'list': lambda: expect(200, 'GET', client.commands),
        'POST': lambda: posted.append(client.start('/bin/true')),
        'cancel': lambda: client.cancel(posted.pop()),
    }


if __name__ == '__main__':
    print(run().as_text())
