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

"""The panel for a role that the policy of the cloud lets run no commands."""

from collections.abc import Callable
from collections.abc import Iterator
import json
from typing import Any

from playwright.sync_api import expect
import pytest

from tests.panel.conftest import stream
from tests.stack import test_panel
from tools.stack import stack as stack_module

#: The role of the policy's documented line, and that line.
ROLE = 'guest_exec'
RESTRICTED = {
    'os_compute_api:guest-agent:use': f'(role:{ROLE} and '
    'project_id:%(project_id)s) or rule:context_is_admin'
}


@pytest.fixture
def restricted(
    stack: stack_module.Stack, sdk: Callable[[str], Any]
) -> Iterator[None]:
    """A policy that requires a role, which "second" has and "demo" has not.

    It is in Nova's policy file, of which Horizon has a copy. Both take note of
    a file that changes.
    """
    identity = sdk('admin').identity
    role = identity.find_role(ROLE) or identity.create_role(name=ROLE)
    project, user = (
        identity.find_project('demo'),
        identity.find_user('second'),
    )
    identity.assign_project_role_to_user(project, user, role)
    paths = (
        stack.place.etc('nova') / 'policy.yaml',
        stack.place.state('horizon') / 'nova_policy.yaml',
    )

    def write(rules: dict[str, str]) -> None:
        for path in paths:
            # JSON is YAML too.
            path.write_text(json.dumps(rules))

    write(RESTRICTED)
    yield
    write({})
    identity.unassign_project_role_from_user(project, user, role)


def test_a_role_that_may_not_run_commands(
    log_in: test_panel.LogIn, demo: Any, server: str, restricted: None
) -> None:
    page = log_in('demo')
    expect(page.locator('.guest-agent')).to_be_visible()
    expect(page.get_by_role('link', name='Runs')).to_have_count(0)
    page.goto(f'{test_panel.HISTORY}runs/new/')
    expect(page.locator('.guest-agent form')).to_have_count(0)
    tab = test_panel.opened(page, server)
    expect(tab.get_by_role('button')).to_have_text(['Check again'])
    expect(tab.locator('form')).to_have_count(0)
    # The API decides nevertheless.
    code, _, err = demo.guest('exec', server, '--', 'true')
    assert code != 0 and b'olicy' in err
    tab = test_panel.opened(log_in('second'), server)
    test_panel.run(tab, 'echo "$((6 * 7))"')
    expect(stream(tab, 'out')).to_have_text('42\n')
