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

"""Passwords and ssh keys, from the tab of a server."""

from collections.abc import Callable

from playwright import sync_api
from playwright.sync_api import expect

from tests.panel import cloud as fake
from tests.panel.conftest import expect_text
from tests.panel.conftest import part
from tests.panel.conftest import Site
from tests.panel.test_tab import HOSTILE

OpenTab = Callable[..., sync_api.Locator]

KEY = 'ssh-ed25519 AAAAC3Nz somebody@example'


def form(tab: sync_api.Locator, name: str) -> sync_api.Locator:
    return part(tab, 'accounts').locator(f'form[data-do="{name}"]')


def set_password(tab: sync_api.Locator, password: str, again: str) -> None:
    shown = form(tab, 'password')
    shown.get_by_label('New password', exact=True).fill(password)
    shown.get_by_label('New password, again').fill(again)
    shown.get_by_role('button', name='Set the password').click()


def test_a_password(cloud: fake.Cloud, open_tab: OpenTab, site: Site) -> None:
    cloud.on_create = lambda command: command.end(None)
    tab = open_tab(cloud.add_server())
    shown = form(tab, 'password')
    shown.get_by_label('User').fill('debian')
    set_password(tab, 'sesame-1', 'sesame-2')
    expect(shown.get_by_role('alert')).to_have_text(
        'The two passwords differ.'
    )
    assert not cloud.commands
    set_password(tab, 'sesame-1', 'sesame-1')
    expect(shown.get_by_role('status')).to_have_text('COMPLETED')
    (command,) = cloud.commands
    assert command.type == 'set-password'
    assert command.arguments == {'user': 'debian', 'password': 'sesame-1'}
    for label in ('New password', 'New password, again'):
        field = shown.get_by_label(label, exact=True)
        expect(field).to_have_value('')
    expect(part(tab, 'last').locator('tbody')).to_contain_text(
        'set-password debian'
    )
    expect(shown.get_by_role('link')).to_have_attribute(
        'href',
        f'/project/guest_commands/command/{command.server_id}/{command.uuid}/',
    )
    # Horizon's log of operations is on, and its level is DEBUG.
    assert 'sesame' not in site.log.read_text()


def test_keys(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    tab = open_tab(cloud.add_server())
    shown = form(tab, 'keys')
    change = shown.get_by_role('button', name='Change the keys')
    for text in ('# only a comment', '-----BEGIN OPENSSH PRIVATE KEY-----'):
        shown.get_by_label('Public keys').fill(text)
        change.click()
        expect(shown.get_by_role('alert')).to_contain_text('Public keys are')
    assert not cloud.commands
    shown.get_by_label('Public keys').fill(f'# mine\n{KEY}\n\n')
    for how, kind, extra in (
        ('Add them', 'ssh-keys-add', {}),
        ('Add them, and remove all others', 'ssh-keys-add', {'reset': True}),
        ('Remove them', 'ssh-keys-remove', {}),
    ):
        shown.get_by_label('What to do').select_option(label=how)
        with tab.page.expect_response(
            lambda answer: answer.request.method == 'POST'
        ):
            change.click()
        command = cloud.commands[0]
        assert command.type == kind
        assert command.arguments == {'user': 'root', 'keys': [KEY], **extra}
        command.end(None)
        expect(shown.get_by_role('status')).to_have_text('COMPLETED')


def test_what_a_guest_refuses(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    error = f'There is no user root: {HOSTILE}'
    cloud.on_create = lambda command: command.end(None, 'FAILED', error)
    tab = open_tab(cloud.add_server())
    set_password(tab, 'sesame', 'sesame')
    expect_text(form(tab, 'password').locator('[data-field="error"]'), error)
    message = f'Server is locked {HOSTILE}'
    cloud.refusals['POST', '/commands'] = fake.Refusal(409, message)
    set_password(tab, 'sesame', 'sesame')
    expect_text(
        form(tab, 'password').locator('[data-field="refusal"]'), message
    )


def test_what_an_agent_does_not_know(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    server_id = cloud.add_server()
    cloud.agents[server_id]['command_types'] = ['exec', 'set-password']
    tab = open_tab(server_id)
    keys = form(tab, 'keys')
    expect(keys).to_contain_text('The guest agent does not know this call.')
    expect(keys.get_by_role('button', name='Change')).to_be_disabled()
    button = form(tab, 'password').get_by_role('button', name='Set the')
    expect(button).to_be_enabled()
