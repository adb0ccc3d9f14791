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

"""What Python imports first where this directory is in PYTHONPATH.

Sets the traps of traps.py in a program that knows nothing of them: each as
soon as the program imports the module that it stands in.
"""

from collections.abc import Sequence
from importlib import machinery
import importlib.abc
import sys
import types
from typing import Any

from tools.faults.traps import traps


class Finder(importlib.abc.MetaPathFinder):
    """Finds modules as usual, and sets traps in those that have some."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> machinery.ModuleSpec | None:
        if fullname not in traps.MODULES:
            return None
        spec = machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            _add_to(spec.loader)
        return spec


def _add_to(loader: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: types.ModuleType) -> None:
        execute(module)
        traps.set_in(module)

    loader.exec_module = exec_module


sys.meta_path.insert(0, Finder())
