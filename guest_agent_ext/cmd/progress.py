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

"""Shows a person at a terminal how far a program is."""

import sys
from types import TracebackType

WIDTH = 40


class Bar:
    """A progress bar on stderr; nothing where that is no terminal.

    :param total: how much there is to do, as far as is known
    """

    def __init__(self, total: int) -> None:
        self.done = 0
        self._total = total
        self._is_shown = sys.stderr.isatty()

    def __enter__(self) -> None:
        self.advance(0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_shown:
            sys.stderr.write('\n')

    def advance(self, number: int) -> None:
        """Note that so much more is done."""
        self.done += number
        # More may turn up than was known before.
        self._total = max(self._total, self.done)
        if self._is_shown:
            sys.stderr.write('\r' + self._line())
            sys.stderr.flush()

    def _line(self) -> str:
        share = self.done / self._total if self._total else 1.0
        filled = '#' * int(share * WIDTH)
        return '[%-*s] %3d%%  %d of %d' % (
            WIDTH,
            filled,
            share * 100,
            self.done,
            self._total,
        )
