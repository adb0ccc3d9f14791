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

"""The picture of what was measured."""

from collections.abc import Mapping
import pathlib
from typing import Any

import matplotlib
from matplotlib import pyplot

matplotlib.use('svg')
matplotlib.rcParams['svg.hashsalt'] = 'guest_agent_ext'

_BAR = 0.32
_OURS, _TAIL = '#4477aa', '#99bbdd'


def draw(reports: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draw each report's series as bars: the median, and the 95th percentile.

    :param reports: reports by name, as measure.Report.as_json() makes them
    """
    drawn = [report for report in reports.values() if report['series']]
    heights = [len(report['series']) * _BAR + 1 for report in drawn]
    figure, axes = pyplot.subplots(
        len(drawn),
        figsize=(9, sum(heights)),
        squeeze=False,
        height_ratios=heights,
        layout='constrained',
    )
    for report, axis in zip(drawn, axes[:, 0], strict=True):
        _bars(axis, report)
    figure.savefig(path, metadata={'Date': None})
    pyplot.close(figure)


def _bars(axis: Any, report: Mapping[str, Any]) -> None:
    series = report['series'][::-1]
    names = [item['name'] for item in series]
    axis.barh(
        names,
        [item['p95'] for item in series],
        color=_TAIL,
        label='95th percentile',
    )
    axis.barh(
        names,
        [item['median'] for item in series],
        color=_OURS,
        height=0.5,
        label='median',
    )
    for place, item in enumerate(series):
        axis.annotate(
            f' {item["median"]:.3g} {item["unit"]}',
            (max(item['p95'], item['median']), place),
            va='center',
        )
    axis.set_title(report['title'], loc='left')
    axis.margins(x=0.25)
    axis.legend(loc='lower right', fontsize='x-small')
