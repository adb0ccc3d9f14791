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

"""How guest-agent-compute is made, and what it ends with."""

from unittest import mock

import pytest

from guest_agent_ext.cmd import compute


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """All that main() calls."""
    made = mock.Mock()
    for name in (
        'CONF',
        'options',
        'logging',
        'logs',
        'connection',
        'oslo_messaging',
        'manager',
        'exposition',
        'service',
    ):
        monkeypatch.setattr(compute, name, getattr(made, name))
    return made


@pytest.mark.parametrize(('is_fenced', 'status'), [(True, 1), (False, 0)])
def test_fenced_service_ends_with_an_error(
    made: mock.Mock, is_fenced: bool, status: int
) -> None:
    """systemd would take a 0 for a service that was stopped on purpose."""
    made.manager.ComputeManager.return_value.is_fenced = is_fenced
    assert compute.main() == status


def test_host_needs_no_database(made: mock.Mock) -> None:
    """Compute hosts hold no credentials of it."""
    compute.main()
    made.options.parse.assert_called_once_with(
        configure_db=False, init_rpc=False
    )


def test_answers_are_hidden_before_the_first_can_come(made: mock.Mock) -> None:
    compute.main()
    names = [call[0] for call in made.mock_calls]
    assert names.index('logs.hide_answers') < names.index('service.serve')
