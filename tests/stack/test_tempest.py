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

"""The tempest plugin, run by tempest as an operator runs it."""

import pathlib
import re
import shutil
import subprocess

from guest_agent_ext import tempest_plugin
from tools.stack import seed
from tools.stack import stack as stack_module
from tools.testbed import ini

_OURS = ('--regex', r'^guest_agent_ext\.')


def test_all_that_tempest_finds_passes(stack: stack_module.Stack) -> None:
    """And it finds all: what is not loaded, or skipped, would not fail."""
    workspace = stack.place.directory / 'tempest'
    shutil.rmtree(workspace, ignore_errors=True)
    _in(stack, workspace.parent, 'tempest', 'init', workspace.name)
    _configure(stack, workspace)
    listed = _in(stack, workspace, 'tempest', 'run', '--list-tests', *_OURS)
    tests = len(re.findall(rb'^guest_agent_ext\.', listed.stdout, re.M))
    ran = _in(stack, workspace, 'tempest', 'run', '--concurrency', '2', *_OURS)
    (workspace / 'result.subunit').write_bytes(
        _in(stack, workspace, 'stestr', 'last', '--subunit').stdout
    )
    printed = ran.stdout.decode(errors='replace')
    print(printed)
    # Which test, and why, stands in the assertion: the last lines of a run
    # have room for it.
    assert not re.findall(r'^\{\d+\} .* FAILED$', printed, re.M), re.findall(
        r'^ +(\w\S*(?:Error|Exception|Failure|Timeout)\S*: .*)', printed, re.M
    )
    assert ran.returncode == 0
    assert tests == _declared()
    assert re.search(rb' - Passed: (\d+)', ran.stdout)[1] == b'%d' % tests


def _declared() -> int:
    """Count the tests that the plugin has, without tempest."""
    package = pathlib.Path(tempest_plugin.__file__).parent
    return sum(
        len(re.findall(r'@decorators\.idempotent_id', path.read_text()))
        for path in package.rglob('test_*.py')
    )


def _in(
    stack: stack_module.Stack,
    directory: pathlib.Path,
    program: str,
    *arguments: str,
) -> 'subprocess.CompletedProcess[bytes]':
    client = stack.place.client_bin
    return subprocess.run(
        [client / program, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
        env={
            'HOME': str(stack.place.state('home')),
            'PATH': f'{client}:/usr/bin:/bin',
        },
    )


def _configure(stack: stack_module.Stack, workspace: pathlib.Path) -> None:
    admin = stack.as_admin()
    ini.write(
        workspace / 'etc/tempest.conf',
        {
            'DEFAULT': {'log_file': workspace / 'tempest.log'},
            'oslo_concurrency': {'lock_path': workspace / 'locks'},
            'auth': {
                'use_dynamic_credentials': True,
                'admin_username': 'admin',
                'admin_password': stack.place.password,
                'admin_project_name': 'admin',
                'admin_domain_name': 'Default',
                'create_isolated_networks': False,
            },
            'identity': {
                'uri_v3': stack.place.url('keystone', '/v3'),
                'auth_version': 'v3',
                'region': 'RegionOne',
            },
            'compute': {
                'image_ref': admin.image.find_image(seed.IMAGE).id,
                'flavor_ref': admin.compute.find_flavor(seed.FLAVOR).id,
            },
            'service_available': {
                'cinder': False,
                'swift': False,
                'neutron': False,
                'guest_agent': True,
            },
            # How quick it is, is not what is tested.
            'guest_agent': {'command_timeout': 300, 'boot_timeout': 600},
        },
    )
