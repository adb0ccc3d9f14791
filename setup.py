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

import pathlib
import shutil
from typing import Any

import setuptools
from setuptools.command import build_py

#: What client/ and dashboard/ make distributions of: a file must be in one
#: only.
_OTHERS = ('osc', 'sdk', 'progress.py', 'dashboard')


class BuildServer(build_py.build_py):
    """Builds the modules that are in no other distribution."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            # Nothing was copied: the modules are where they always are.
            return
        built = pathlib.Path(self.build_lib, 'guest_agent_ext')
        for path in (built / name for name in _OTHERS):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


class Server(setuptools.Distribution):
    """The distribution. pbr replaces the commands that setup() is given."""

    def get_command_class(self, command: str) -> Any:
        if command == 'build_py':
            return BuildServer
        return super().get_command_class(command)


setuptools.setup(setup_requires=['pbr>=6.1.1'], pbr=True, distclass=Server)
