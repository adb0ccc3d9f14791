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

"""A schedule: which fault when, to what, for how long. The seed decides."""

from collections.abc import Sequence
import dataclasses
import random

from tools.faults import kinds
from tools.faults.traps import traps

#: Seconds that faults are done, and how many there are.
LENGTH = 16.0
FAULTS = 4
#: Traps armed beside them. They take turns, so that each has its turn in as
#: few runs as can be.
TRAPS = 4


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault.

    :ivar at: seconds from the start
    :ivar kind: a name in kinds.KINDS, or ``trap``
    :ivar target: one of what the kind can be done to
    :ivar seconds: duration
    """

    at: float
    kind: str
    target: str
    seconds: float = 0.0


def make(
    seed: int, run: int, targets: dict[str, Sequence[str]]
) -> list[Fault]:
    """Return a schedule; the same seed and run give the same one.

    :param targets: names of programs, hosts and guests by what kinds call
        them
    """
    chosen = random.Random(f'{seed}/{run}')
    faults = []
    for _ in range(FAULTS):
        name = chosen.choice(sorted(kinds.KINDS))
        kind = kinds.KINDS[name]
        faults.append(
            Fault(
                chosen.uniform(1, LENGTH),
                name,
                chosen.choice(sorted(targets[kind.target])),
                chosen.uniform(*kind.seconds),
            )
        )
    faults += [
        Fault(chosen.uniform(0, LENGTH / 2), 'trap', trap)
        for trap in _traps_of(seed, run)
    ]
    return sorted(faults, key=lambda fault: fault.at)


def _traps_of(seed: int, run: int) -> list[str]:
    names = traps.names()
    random.Random(seed).shuffle(names)
    first = run * TRAPS
    return [
        names[number % len(names)] for number in range(first, first + TRAPS)
    ]
