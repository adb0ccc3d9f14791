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

"""``python -m benchmarks [NAME ...]``: measure, and write the report.

Without names, all benchmarks run. What was measured of the others before stays
in the report. What counts are ratios of things measured side by side;
milliseconds are this machine's.

The report is under ``.bench``, which git ignores: all figures, a picture, and
the table of ratios as the contributor guide has it.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
from concurrent import futures
import json
import multiprocessing
import os
import pathlib
import platform
import sys
import time
import traceback
from typing import Any

from benchmarks import measure
from benchmarks import picture

#: In the order in which they run; each is a module with ``run()``.
NAMES = (
    'command',
    'api',
    'host',
    'conductor',
    'growth',
    'fleet',
    'waiters',
    'files',
    'attach',
    'neighbours',
    'hung',
    'backlog',
    'ansible',
    'runs',
)

DIRECTORY = pathlib.Path(__file__).parents[1] / '.bench'
RESULTS = DIRECTORY / 'benchmarks.json'
PICTURE = DIRECTORY / 'benchmarks.svg'
TABLE = DIRECTORY / 'benchmarks.inc'

_TABLE_HEAD = """\
.. list-table::
   :header-rows: 1
   :widths: 20 60 20

   * - benchmark
     - ratio
     - found, goal
"""
_TABLE_ROW = """\
   * - ``{name}``
     - {what}
     - {found:.2f}, {at} {bound:.2f}{missed}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks')
    parser.add_argument(
        'names',
        nargs='*',
        choices=(*NAMES, []),
        metavar='NAME',
        help=', '.join(NAMES),
    )
    names = parser.parse_args().names or NAMES
    results = (
        json.loads(RESULTS.read_text())['reports'] if RESULTS.exists() else {}
    )
    missed = []
    for name in names:
        began = time.monotonic()
        try:
            report = _run(name)
        except Exception:
            # The others can be measured all the same.
            traceback.print_exc()
            missed.append(f'{name} at all')
            continue
        print(report.as_text())
        print(f'  in {time.monotonic() - began:.0f} s', flush=True)
        missed += [goal.what for goal in report.goals if not goal.holds]
        results[name] = report.as_json()
        _write(results)
    for what in missed:
        print(f'Does not hold: {what}')
    return 1 if missed else 0


def _run(name: str) -> measure.Report:
    # In a process of its own: clients of a cloud that is gone try again and
    # again, which the next is not to feel.
    with futures.ProcessPoolExecutor(
        1, multiprocessing.get_context('spawn')
    ) as pool:
        return pool.submit(measure.run, name).result()


def _write(reports: Mapping[str, Any]) -> None:
    ordered = {name: reports[name] for name in NAMES if name in reports}
    DIRECTORY.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                'machine': f'{os.cpu_count()} CPUs, Python '
                f'{platform.python_version()}, guests under TCG',
                'reports': ordered,
            },
            indent=1,
        )
        + '\n'
    )
    picture.draw(ordered, PICTURE)
    TABLE.write_text(_TABLE_HEAD + ''.join(_rows(ordered)))


def _rows(reports: Mapping[str, Any]) -> Iterator[str]:
    for name, report in reports.items():
        for goal in report['goals']:
            yield _TABLE_ROW.format(
                name=name,
                what=goal['what'],
                found=goal['found'],
                at='at most' if goal['at_most'] else 'at least',
                bound=goal['bound'],
                missed='' if goal['holds'] else ' (missed)',
            )


if __name__ == '__main__':
    sys.exit(main())
