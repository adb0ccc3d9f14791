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

"""What benchmarks have in common: times, their ratios, and what must hold."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import importlib
import statistics
import threading
import time
from typing import Any


@dataclasses.dataclass(frozen=True)
class Series:
    """One thing, measured some times.

    :ivar unit: unit of the values: ``ms``, ``MiB/s``, ``1/s``
    """

    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def quantile(self, percent: int) -> float:
        if len(self.values) < 2:
            return self.median
        return statistics.quantiles(self.values, n=100, method='inclusive')[
            percent - 1
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            'name': self.name,
            'unit': self.unit,
            'runs': len(self.values),
            'median': round(self.median, 3),
            'p95': round(self.quantile(95), 3),
            'p99': round(self.quantile(99), 3),
        }


@dataclasses.dataclass(frozen=True)
class Goal:
    """What must hold: a ratio of two things of one run.

    :ivar at_most: whether it is to be that or less; else, that or more
    """

    what: str
    found: float
    bound: float
    at_most: bool = True

    @property
    def holds(self) -> bool:
        return (
            self.found <= self.bound
            if self.at_most
            else self.found >= self.bound
        )

    def as_json(self) -> dict[str, Any]:
        return {
            'what': self.what,
            'found': round(self.found, 3),
            'bound': self.bound,
            'at_most': self.at_most,
            'holds': self.holds,
        }


@dataclasses.dataclass
class Report:
    """What a benchmark found.

    :ivar facts: numbers that are no times and stand for themselves
    """

    title: str
    series: list[Series] = dataclasses.field(default_factory=list)
    goals: list[Goal] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Series:
        return next(item for item in self.series if item.name == name)

    def ratio(self, name: str, base: str) -> float:
        """Return how one median stands to another."""
        return self[name].median / self[base].median

    def as_json(self) -> dict[str, Any]:
        return {
            'title': self.title,
            'series': [item.as_json() for item in self.series],
            'goals': [item.as_json() for item in self.goals],
            'facts': self.facts,
        }

    def as_text(self) -> str:
        lines = [self.title]
        lines += [
            f'  {item.name:42} median {item.median:9.2f} {item.unit}, '
            f'p95 {item.quantile(95):9.2f} ({len(item.values)} runs)'
            for item in self.series
        ]
        lines += [f'  {name}: {value}' for name, value in self.facts.items()]
        lines += [
            f'  {"holds" if item.holds else "DOES NOT HOLD":14}'
            f'{item.what}: {item.found:.2f}, '
            f'{"at most" if item.at_most else "at least"} {item.bound}'
            for item in self.goals
        ]
        return '\n'.join(lines)


def run(name: str) -> Report:
    """Run a benchmark, which is a module with ``run()``."""
    report: Report = importlib.import_module(f'benchmarks.{name}').run()
    return report


@contextlib.contextmanager
def every(seconds: float, run: Callable[[], object]) -> Iterator[None]:
    """Do something every now and then, beside the block."""
    stopping = threading.Event()

    def repeat() -> None:
        while not stopping.wait(seconds):
            run()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def timed(run: Callable[[], object]) -> float:
    """Return how long something took, in milliseconds."""
    began = time.monotonic()
    run()
    return (time.monotonic() - began) * 1000


def side_by_side(
    ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> list[Series]:
    """Do some things in turns, each once in every round.

    So that what else this machine does falls upon all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-warm_up, rounds):
        for name, run in ways.items():
            milliseconds = timed(run)
            if number >= 0:
                taken[name].append(milliseconds)
    return [Series(name, 'ms', values) for name, values in taken.items()]
