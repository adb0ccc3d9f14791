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

"""Options that follow Nova's."""

from unittest import mock

import pytest

from guest_agent_ext import conf


@pytest.mark.parametrize(
    ('ours', 'nova_s', 'used'),
    [
        (None, '', 'qemu:///system'),
        (None, 'qemu+tcp://10.0.0.1/system', 'qemu+tcp://10.0.0.1/system'),
        ('qemu:///session', 'qemu+tcp://10.0.0.1/system', 'qemu:///session'),
    ],
)
def test_libvirt_is_nova_compute_s(
    ours: str | None, nova_s: str, used: str
) -> None:
    options = mock.Mock()
    options.guest_agent.connection_uri = ours
    options.libvirt.connection_uri = nova_s
    assert conf.connection_uri(options) == used
