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

"""What each program says of itself."""

from collections.abc import Callable
import sys
from unittest import mock

from oslo_config import cfg
import pytest

from guest_agent_ext import version
from guest_agent_ext.cmd import compute
from guest_agent_ext.cmd import conductor
from guest_agent_ext.cmd import manage
from guest_agent_ext.cmd import status


@pytest.mark.parametrize(
    'main', [compute.main, conductor.main, manage.main, status.main]
)
def test_version_is_ours(
    main: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Two of them have an option of the same name in this process.
    monkeypatch.setattr(cfg.ConfigOpts, 'register_cli_opt', mock.Mock())
    monkeypatch.setattr(sys, 'argv', ['program', '--version'])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == version.version_string() + '\n'
