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

"""Gaps between attempts: the longer the wait so far, the longer the next gap.

Both kinds are bounded and without jitter: each caller here waits for a guest
or a service of its own.
"""

import dataclasses

#: Attempts after which a gap grows no more, so that the power stays a float.
_MAX_EXPONENT = 64


@dataclasses.dataclass(frozen=True)
class Exponential:
    """Gaps that grow by a constant factor.

    :ivar first: seconds of the first gap
    :ivar longest: maximum number of seconds of a gap
    :ivar factor: ratio of a gap to the one before
    """

    first: float
    longest: float
    factor: float = 2.0

    def gap(self, count: int) -> float:
        """Return the seconds until the next attempt.

        :param count: number of gaps there were before this one
        """
        exponent = min(count, _MAX_EXPONENT)
        return min(self.longest, self.first * self.factor**exponent)


@dataclasses.dataclass(frozen=True)
class Proportional:
    """Gaps that are a share of the time that has passed.

    :ivar shortest: minimum number of seconds of a gap
    :ivar longest: maximum number of seconds of a gap
    :ivar share: length of a gap, as a share of the time that has passed
    """

    shortest: float
    longest: float
    share: float

    def gap(self, passed: float) -> float:
        """Return the seconds until the next attempt.

        :param passed: seconds since the beginning
        """
        return max(self.shortest, min(self.longest, passed * self.share))
