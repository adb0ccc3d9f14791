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

"""In which order guest-agent-conductor is made."""

from unittest import mock

import pytest

from guest_agent_ext.cmd import conductor


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """All that main() calls, in one order."""
    made = mock.Mock()
    for name in (
        'CONF',
        'options',
        'logging',
        'objects',
        'session',
        'exposition',
        'service',
        'cells',
    ):
        monkeypatch.setattr(conductor, name, getattr(made, name))
    return made


def test_conductor_serves_once_all_is_configured(made: mock.Mock) -> None:
    assert conductor.main() == 0
    names = [call[0] for call in made.mock_calls]
    assert names.index('options.parse') < names.index('session.configure')
    assert names.index('objects.register_all') < names.index('cells.Conductor')
    assert names[-1] == 'service.serve'


def test_pool_of_nova_conf_is_left_as_it_is(made: mock.Mock) -> None:
    """A default, set before nova.conf is read: an override would win."""
    conductor.main()
    assert made.mock_calls[0] == mock.call.CONF.set_default(
        'max_pool_size', conductor.POOL_SIZE, group='database'
    )
    made.CONF.set_override.assert_not_called()
