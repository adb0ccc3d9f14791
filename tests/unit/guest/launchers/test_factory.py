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

"""Which launcher a guest gets, by what its agent says."""

from typing import Any
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import agent
from guest_agent_ext.guest.launchers import direct
from guest_agent_ext.guest.launchers import factory
from guest_agent_ext.guest.launchers import posix
from guest_agent_ext.guest.launchers import windows

ENABLED = {
    'guest-exec': True,
    'guest-exec-status': True,
    'guest-get-osinfo': True,
}
POSIX_PROBE = b'guest boot 100'
WINDOWS_PROBE = b'{"says": "guest", "boot_id": "b", "uptime": 1, "ids": []}'


def guest(
    system: str = 'debian', printed: bytes = b'', **values: Any
) -> mock.Mock:
    """Return an agent whose guest prints that to every exec."""
    return mock.Mock(
        spec=agent.Agent,
        **(
            {
                'info.return_value': ENABLED,
                'osinfo.return_value': {'id': system},
                'exec.return_value': 5,
                'exec_status.return_value': agent.ExecStatus(
                    True, 0, None, printed, b''
                ),
            }
            | values
        ),
    )


@pytest.mark.parametrize(
    ('system', 'kind'),
    [
        ('debian', posix.PosixLauncher),
        ('freebsd', posix.PosixLauncher),
        ('mswindows', windows.WindowsLauncher),
    ],
)
def test_system_decides(system: str, kind: type) -> None:
    posed = guest(system)
    chosen = factory.launcher_for(posed)
    assert type(chosen) is kind
    assert chosen.execution == 'guarded'
    # It costs nothing in the guest.
    posed.exec.assert_not_called()


@pytest.mark.parametrize(
    'values',
    [
        {'info.return_value': ENABLED | {'guest-get-osinfo': False}},
        {'osinfo.side_effect': exception.AgentRefused()},
        {'osinfo.return_value': {}},
    ],
)
def test_guest_that_tells_no_system_is_posix(values: Any) -> None:
    chosen = factory.launcher_for(guest(**values))
    assert isinstance(chosen, posix.PosixLauncher)


@pytest.mark.parametrize(
    ('system', 'printed', 'execution'),
    [
        ('debian', POSIX_PROBE, 'guarded'),
        ('freebsd', b'', 'direct'),
        ('mswindows', WINDOWS_PROBE, 'guarded'),
        ('mswindows', b'', 'direct'),
    ],
)
def test_direct_capture_only_where_no_launcher_works(
    system: str, printed: bytes, execution: str
) -> None:
    chosen = factory.launcher_for(guest(system, printed), allow_direct=True)
    assert chosen.execution == execution
    assert isinstance(chosen, direct.DirectLauncher) == (execution == 'direct')


@pytest.mark.parametrize(
    ('system', 'word'), [('freebsd', '/bin/sh'), ('mswindows', 'PowerShell')]
)
@pytest.mark.parametrize(
    'values',
    [{}, {'exec.side_effect': exception.AgentRefused('No such file')}],
)
def test_guest_without_a_launcher_is_told_what_it_lacks(
    system: str, word: str, values: Any
) -> None:
    chosen = factory.launcher_for(guest(system, **values))
    with pytest.raises(exception.LauncherUnavailable, match=word):
        chosen.probe()


def test_guest_that_does_not_answer_is_not_without_a_launcher() -> None:
    posed = guest(**{'exec.side_effect': exception.AgentUnresponsive()})
    with pytest.raises(exception.AgentUnresponsive):
        factory.launcher_for(posed, allow_direct=True)


@pytest.mark.parametrize('name', ['guest-exec', 'guest-exec-status'])
def test_disabled_call_is_told(name: str) -> None:
    posed = guest(**{'info.return_value': ENABLED | {name: False}})
    posed.is_frozen.return_value = False
    with pytest.raises(exception.AgentCommandDisabled):
        factory.launcher_for(posed, allow_direct=True)


def test_frozen_guest_is_only_busy() -> None:
    posed = guest(**{'info.return_value': {'guest-ping': True}})
    posed.is_frozen.return_value = True
    with pytest.raises(exception.AgentBusy):
        factory.launcher_for(posed)
