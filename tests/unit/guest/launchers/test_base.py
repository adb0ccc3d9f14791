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

import dataclasses

import pytest

from guest_agent_ext.guest.launchers import base

KERNEL = '6f1e8a52-7d0c-4d3b-9b7e'


@pytest.mark.parametrize(
    ('before', 'was_rebooted'),
    [
        (f'{KERNEL}-00aa00aa00aa', False),
        # The directory was replaced; what ran may still run.
        (f'{KERNEL}-11bb11bb11bb', False),
        ('0b7e8a52-7d0c-4d3b-9b7e-00aa00aa00aa', True),
    ],
)
def test_new_directory_is_no_reboot(before: str, was_rebooted: bool) -> None:
    probe = base.Probe(f'{KERNEL}-00aa00aa00aa', 5, ())
    assert probe.was_rebooted(before) is was_rebooted


@pytest.mark.parametrize(
    ('before', 'was_rebooted'), [('direct', False), ('other', True)]
)
def test_boot_of_one_part_is_compared_whole(
    before: str, was_rebooted: bool
) -> None:
    assert base.Probe('direct', 5, ()).was_rebooted(before) is was_rebooted


def test_nothing_of_the_tenant_is_shown() -> None:
    launch = base.Launch(
        id='id',
        argv=['secret'],
        env={'A': 'secret'},
        stdin=b'secret',
        cwd='secret',
        user='secret',
        boot_id='b',
        ticket=1,
        keep=2,
        keep_end='head',
    )
    ended = base.Ended(
        pid=1,
        start_ticks=1,
        exitcode=0,
        signal=None,
        never_ran=False,
        error=None,
        out=b'secret',
        err=b'secret',
        out_bytes=6,
        err_bytes=6,
    )
    for shown in (launch, ended, dataclasses.replace(ended, pid=2)):
        assert 'secret' not in repr(shown)
