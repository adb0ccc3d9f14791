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

import logging

import pytest

from guest_agent_ext.db import commands
from tests.functional.db import base


class TestSession:
    def test_no_log_has_what_a_row_holds(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger='sqlalchemy.engine')
        uuid = base.new()
        assert commands.get(uuid, with_inputs=True) is not None
        assert 'SELECT guest_agent_commands' in caplog.text
        assert 'secret' not in caplog.text
