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


"""The tables of the metrics in the admin guide, from their declarations.

``python -m tools.samples`` writes them.
"""

from collections.abc import Iterator

from guest_agent_ext import metrics

_SERVICES = (metrics.CONDUCTOR, metrics.COMPUTE, metrics.API)


def document() -> str:
    """Return a table for each service, as reStructuredText."""
    return (
        '\n'.join(line for service in _SERVICES for line in _table(service))
        + '\n'
    )


def _table(service: str) -> Iterator[str]:
    yield from (
        f'.. list-table:: {service}',
        '   :header-rows: 1',
        '   :widths: 45 55',
        '',
        '   * - Metric',
        '     - Meaning',
    )
    for metric in metrics.TABLE:
        if service not in metric.services:
            continue
        yield from (
            f'   * - ``{metric.name}``',
            '',
            f'       {metric.kind}',
            f'     - {metric.summary}',
        )
        for label, values in metric.labels.items():
            yield from (
                '',
                f'       ``{label}``: '
                + ', '.join(f'``{value}``' for value in values),
            )
    yield ''
