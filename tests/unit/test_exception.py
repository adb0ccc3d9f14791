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

import re

from guest_agent_ext import exception


def _lines(kind: type[Exception], depth: int) -> set[tuple[str, int]]:
    return {(kind.__name__, depth)}.union(
        *(_lines(derived, depth + 1) for derived in kind.__subclasses__())
    )


def test_the_module_opens_with_its_tree() -> None:
    tree = (exception.__doc__ or '').split('::')[1]
    drawn = {
        (found[2], len(found[1]) // 4 - 1)
        for found in re.finditer(
            r'^((?:    |│   |├── |└── )+)(\w+)', tree, re.MULTILINE
        )
    }
    assert drawn == _lines(exception.GuestAgentExtError, 0)
