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


"""What tests see of metrics, as their reader does."""

from collections.abc import Iterator
import contextlib

from guest_agent_ext import metrics


def value(name: str, **labels: str) -> float:
    """Return what a series of a metric shows now."""
    for metric in metrics.TABLE:
        for family in metric.collector.collect():
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return sample.value
    raise LookupError(name, labels)


@contextlib.contextmanager
def grows(name: str, by: float = 1, **labels: str) -> Iterator[None]:
    """Check that a series grows by so much meanwhile, and no less or more."""
    before = value(name, **labels)
    yield
    assert value(name, **labels) - before == by
