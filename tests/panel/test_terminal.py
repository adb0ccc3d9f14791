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

"""The terminal of a server's tab."""

from collections.abc import Callable

from playwright import sync_api
from playwright.sync_api import expect

from tests.panel import cloud as fake
from tests.panel.conftest import part
from tests.panel.conftest import WIDE
from tools.testbed import processes

OpenTab = Callable[..., sync_api.Locator]


def echo(command: fake.Command, data: bytes) -> None:
    command.write(b'[' + data.replace(b'\r', b'\r\n') + b']')


def opened(tab: sync_api.Locator) -> sync_api.Locator:
    terminal = part(tab, 'terminal')
    terminal.get_by_role('button', name='Open a terminal').click()
    expect(terminal.locator('.xterm-rows')).to_be_visible()
    return terminal


def test_a_terminal(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    cloud.on_create = lambda command: command.write(b'\x1b[32mhello\x1b[0m $ ')
    cloud.on_input = echo
    tab = open_tab(cloud.add_server())
    terminal = opened(tab)
    rows = terminal.locator('.xterm-rows')
    expect(rows).to_contain_text('hello $')
    (command,) = cloud.commands
    asked = command.arguments['terminal']
    assert asked['term'] == 'xterm-256color'
    assert 80 <= asked['columns'] <= 200
    # The keys go there at once.
    page.keyboard.type('ls')
    expect(rows).to_contain_text('[l][s]')
    page.keyboard.press('Control+c')
    processes.wait_for(lambda: command.stdin == b'ls\x03', 60, 'the input')
    command.write(b'<b>{$ 7*7 $}</b>')
    expect(rows).to_contain_text('<b>{$ 7*7 $}</b>')
    # Another size of the window is one of the terminal.
    page.set_viewport_size({'width': 700, 'height': 900})
    processes.wait_for(lambda: command.size is not None, 60, 'the size')
    assert command.size is not None
    assert 20 < command.size[0] < asked['columns']
    page.set_viewport_size({'width': WIDE, 'height': 900})
    command.end(0)
    expect(terminal.locator('[data-field="state"]')).to_contain_text(
        'COMPLETED exit code 0'
    )
    expect(
        terminal.get_by_role('button', name='Open a terminal')
    ).to_be_visible()


def test_no_key_is_lost_while_others_are_sent(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    cloud.on_create = lambda command: command.write(b'$ ')
    tab = open_tab(cloud.add_server())
    terminal = opened(tab)
    expect(terminal.locator('.xterm-rows')).to_contain_text('$')
    typed = 'abcdefghijklmnopqrstuvwxyz' * 8
    page.keyboard.type(typed)
    (command,) = cloud.commands
    processes.wait_for(
        lambda: len(command.stdin) >= len(typed), 60, 'the input'
    )
    assert command.stdin == typed.encode()


def test_the_keyboard_gets_out_and_closes(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    terminal = opened(open_tab(cloud.add_server()))
    page.keyboard.press('Tab')
    (command,) = cloud.commands
    processes.wait_for(lambda: command.stdin == b'\t', 60, 'the input')
    page.keyboard.press('Control+Shift+F6')
    closer = terminal.get_by_role('button', name='Close the terminal')
    expect(closer).to_be_focused()
    page.keyboard.press('Enter')
    expect(terminal.locator('[data-field="state"]')).to_have_text('Closed.')
    processes.wait_for(
        lambda: command.status == 'CANCELLED', 60, 'the end of it'
    )
    # The focus is not lost with the button.
    expect(
        terminal.get_by_role('button', name='Open a terminal')
    ).to_be_focused()


def test_a_page_that_goes_takes_its_terminal_along(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    cloud.on_create = lambda command: command.write(b'$ ')
    terminal = opened(open_tab(cloud.add_server()))
    expect(terminal.locator('[data-field="state"]')).to_have_text('Connected.')
    page.goto('about:blank')
    processes.wait_for(
        lambda: cloud.commands[0].status == 'CANCELLED', 60, 'the end of it'
    )


def test_a_guest_that_is_known_not_to_be_able(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    server_id = cloud.add_server()
    cloud.agents[server_id]['unavailable'] = {
        'terminal': 'The guest has no script and no python3'
    }
    terminal = part(open_tab(server_id), 'terminal')
    expect(terminal.locator('[data-field="lacks"]')).to_have_text(
        'The guest has no script and no python3'
    )
    expect(
        terminal.get_by_role('button', name='Open a terminal')
    ).to_be_disabled()


def test_a_guest_that_cannot(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    cloud.on_create = lambda command: command.end(
        None, 'FAILED', 'A terminal needs script or python3 in the guest'
    )
    terminal = part(open_tab(cloud.add_server()), 'terminal')
    terminal.get_by_role('button', name='Open a terminal').click()
    expect(terminal.get_by_role('alert')).to_have_text(
        'A terminal needs script or python3 in the guest'
    )


def test_another_client(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    cloud.refusals['GET', '/output'] = fake.Refusal(
        409, 'Another client is attached'
    )
    terminal = opened(open_tab(cloud.add_server()))
    expect(terminal.get_by_role('alert')).to_have_text(
        'Another client is attached'
    )


def test_a_host_that_is_away_for_a_moment(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    cloud.on_input = echo
    tab = open_tab(cloud.add_server())
    terminal = opened(tab)
    cloud.refusals['GET', '/output'] = fake.Refusal(
        503, 'The host does not answer', {'Retry-After': '1'}
    )
    cloud.refusals['POST', '/input'] = cloud.refusals['GET', '/output']
    page.keyboard.type('ls')
    expect(terminal.locator('[data-field="state"]')).to_have_text(
        'The host does not answer'
    )
    cloud.refusals.clear()
    expect(terminal.locator('.xterm-rows')).to_contain_text('ls')
    assert cloud.commands[0].stdin == b'ls'
