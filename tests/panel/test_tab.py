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

"""The tab of a server: run, watch, cancel, details, last commands."""

from collections.abc import Callable

from playwright import sync_api
from playwright.sync_api import expect
import pytest

from tests.panel import cloud as fake
from tests.panel.conftest import expect_text
from tests.panel.conftest import part
from tests.panel.conftest import Site
from tests.panel.conftest import stream

OpenTab = Callable[..., sync_api.Locator]

#: What a guest may write, and how it is shown: as it is.
HOSTILE = '<b>bold</b> {$ 7*7 $} {{ 7*7 }} <script>window.hacked = 1</script>'


def run(tab: sync_api.Locator, text: str) -> None:
    tab.get_by_role('textbox', name='Command').fill(text)
    tab.get_by_role('button', name='Run', exact=True).click()


def status_of(root: sync_api.Locator) -> sync_api.Locator:
    return part(root, 'output').locator('[data-field="status"]')


def test_a_command_is_watched_and_ends(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    tab = open_tab(cloud.add_server())
    run(tab, 'make; echo "$HOME"')
    output = part(tab, 'output')
    expect(status_of(tab)).to_have_text('RUNNING')
    (command,) = cloud.commands
    assert command.arguments == {
        'command': ['/bin/sh', '-c', 'make; echo "$HOME"']
    }
    command.write(b'one\n')
    expect_text(stream(output, 'out'), 'one\n')
    command.write(b'oops\n', 'err')
    expect_text(stream(output, 'err'), 'oops\n')
    command.write(b'two\n')
    expect_text(stream(output, 'out'), 'one\ntwo\n')
    command.end(3)
    expect(status_of(tab)).to_have_text('COMPLETED')
    expect(output.locator('[data-field="outcome"]')).to_have_text(
        'exit code 3'
    )
    expect(output.get_by_role('button', name='Cancel')).to_be_hidden()
    output.get_by_role('button', name='Run again').click()
    expect(status_of(tab)).to_have_text('RUNNING')
    assert cloud.commands[0].arguments == command.arguments
    assert len(cloud.commands) == 2


def test_a_command_is_cancelled(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    tab = open_tab(cloud.add_server())
    run(tab, 'sleep 600')
    part(tab, 'output').get_by_role('button', name='Cancel').click()
    expect(status_of(tab)).to_have_text('CANCELLED')
    expect(part(tab, 'output')).to_contain_text('Cancelled by the user')


def test_options(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    tab = open_tab(cloud.add_server())
    tab.get_by_label('Program and arguments').check()
    tab.get_by_text('Options').click()
    tab.get_by_label('User').first.fill('nobody')
    tab.get_by_label('Directory').fill('/tmp')
    tab.get_by_label('Timeout').fill('60')
    tab.get_by_label('If the output').select_option('tail')
    tab.get_by_label('Environment').fill('A=b c\nB=')
    tab.get_by_label('Input').fill('in\nput')
    run(tab, 'printf\n%s\n\n two ')
    expect(status_of(tab)).to_have_text('RUNNING')
    assert cloud.commands[0].arguments == {
        'command': ['printf', '%s', '', ' two '],
        'user': 'nobody',
        'cwd': '/tmp',
        'timeout': 60,
        'output_keep': 'tail',
        'env': {'A': 'b c', 'B': ''},
        'input_data': 'in\nput',
    }


def test_environment_that_is_none(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    tab = open_tab(cloud.add_server())
    tab.get_by_text('Options').click()
    tab.get_by_label('Environment').fill('no equals sign')
    run(tab, 'true')
    expect(part(tab, 'run').get_by_role('alert').first).to_contain_text(
        '"no equals sign" is not NAME=value'
    )
    assert not cloud.commands


def test_windows_has_another_shell(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    server_id = cloud.add_server()
    cloud.agents[server_id]['os'] = 'Microsoft Windows Server 2022'
    tab = open_tab(server_id)
    expect(part(tab, 'agent')).to_contain_text('Windows')
    run(tab, 'dir & ver')
    expect(status_of(tab)).to_have_text('RUNNING')
    assert cloud.commands[0].arguments['command'] == [
        'cmd.exe',
        '/c',
        'dir & ver',
    ]


@pytest.mark.parametrize('status', [403, 409, 429])
def test_a_refusal_is_shown_verbatim(
    cloud: fake.Cloud, open_tab: OpenTab, status: int
) -> None:
    message = f'Server {HOSTILE} may have 10 unfinished commands'
    cloud.refusals['POST', '/commands'] = fake.Refusal(status, message)
    tab = open_tab(cloud.add_server())
    run(tab, 'true')
    alert = part(tab, 'run').get_by_role('alert').first
    expect_text(alert, message)
    expect(tab.get_by_role('button', name='Run', exact=True)).to_be_enabled()


def test_output_is_text(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    tab = open_tab(cloud.add_server())
    run(tab, "awk '{$1=1; print}' " + HOSTILE)
    output = part(tab, 'output')
    expect(status_of(tab)).to_have_text('RUNNING')
    (command,) = cloud.commands
    command.write(HOSTILE.encode() + b'\n\x1b[1;31mred\x1b[0m \x1b]0;title\a')
    command.write(b'bad \xff\xfe utf-8 \xe2\x82\xac\r\nnext\x00\b')
    command.write(b'x' * 100_000 + b'\x1b[38;5', 'err')
    command.end(0)
    expect_text(
        stream(output, 'out'),
        HOSTILE + '\nred bad \ufffd\ufffd utf-8 \u20ac\nnext\u2400\u2408',
    )
    red = stream(output, 'out').locator('span')
    expect(red).to_have_text('red')
    expect(red).to_have_class('ga-bold ga-fg-1')
    expect_text(stream(output, 'err'), 'x' * 100_000 + '\u241b[38;5')
    assert page.evaluate('window.hacked') is None
    # The line has its place, however long it is.
    assert page.evaluate(
        'document.documentElement.scrollWidth <= window.innerWidth'
    )
    # And so does the command, where it is listed.
    listed = part(tab, 'last').locator('tbody code')
    expect_text(listed, "awk '{$1=1; print}' " + HOSTILE)


def test_a_character_that_comes_in_two_pieces(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    tab = open_tab(cloud.add_server())
    run(tab, 'cat')
    expect(status_of(tab)).to_have_text('RUNNING')
    command = cloud.commands[0]
    command.write(b'1 \xe2\x82')
    expect_text(stream(tab, 'out'), '1 ')
    command.write(b'\xac \x1b[3')
    expect_text(stream(tab, 'out'), '1 \u20ac ')
    command.write(b'2mgreen')
    expect_text(stream(tab, 'out'), '1 \u20ac green')
    expect(stream(tab, 'out').locator('span')).to_have_class('ga-fg-2')


def test_output_that_was_not_kept(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    tab = open_tab(cloud.add_server())
    run(tab, 'yes')
    expect(status_of(tab)).to_have_text('RUNNING')
    command = cloud.commands[0]
    command.write(b'y\n')
    command.dropped = 998
    command.end(0)
    expect(tab.locator('[data-stream="out"]')).to_contain_text(
        '2 of 1000 bytes were kept.'
    )
    expect(tab.locator('[data-stream="err"]')).to_contain_text('Nothing.')


@pytest.mark.parametrize(
    'reason, advice',
    [
        ('The guest agent is not connected: it must run', 'Install'),
        ('image needs the property hw_qemu_guest_agent=yes', 'on the image'),
        ('Server x has vm_state stopped; it must be active', 'Start the'),
    ],
)
def test_an_agent_that_is_not_there(
    cloud: fake.Cloud, open_tab: OpenTab, reason: str, advice: str
) -> None:
    server_id = cloud.add_server()
    agent = cloud.agents[server_id]
    agent.update(status='unavailable', reason=reason + ' {$ 7*7 $}')
    shown = part(open_tab(server_id), 'agent')
    expect_text(shown.locator('[data-field="reason"]'), reason + ' {$ 7*7 $}')
    expect(shown.locator('[data-field="advice"]')).to_contain_text(advice)
    agent.update(status='available', reason=None)
    shown.get_by_role('button', name='Check again').click()
    expect(shown.locator('[data-field="status"]')).to_have_text('Available')
    expect(shown.locator('[data-field="problem"]')).to_be_hidden()


def test_details(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    cloud.details = {
        'os': {'pretty_name': 'Debian <b>12</b>'},
        'host_name': 'web-1 {$ 7*7 $}',
        'time': {'nanoseconds': 1773058402120000000, 'offset': 0.004},
        'users': [{'user': 'root', 'login_time': 1773058311.5}],
        'interfaces': [
            {
                'name': 'eth0',
                'hardware_address': 'fa:16:3e:00:00:01',
                'ip_addresses': [{'ip_address': '10.0.0.5', 'prefix': 24}],
            }
        ],
        'filesystems': [
            {
                'name': 'vda1',
                'mountpoint': '/',
                'type': 'ext4',
                'used_bytes': 1073741824,
                'total_bytes': 2147483648,
            }
        ],
        'vcpus': [{'logical_id': 0}],
        'unavailable': {'disks': 'The guest agent does not know that'},
    }
    shown = part(open_tab(cloud.add_server()), 'agent')
    shown.get_by_text('Details of the guest').click()
    for text in (
        'Debian <b>12</b>',
        'web-1 {$ 7*7 $}',
        '2026-03-09 12:13:22 UTC',
        '10.0.0.5/24',
        '1.0 GiB of 2.0 GiB (50 %)',
        'The guest agent does not know that',
    ):
        expect(shown).to_contain_text(text)


def test_last_commands_are_used_again(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    server_id = cloud.add_server()
    command = cloud.add_command(server_id, 'ls', '-l', 'a b')
    command.arguments['env'] = {'SECRET': 'hidden'}
    command.end(2)
    tab = open_tab(server_id)
    row = part(tab, 'last').locator('tbody tr')
    expect(row).to_contain_text("ls -l 'a b'")
    expect(row).to_contain_text('exit code 2')
    row.get_by_role('button', name='Use again').click()
    text = tab.get_by_role('textbox', name='Command')
    expect(text).to_have_value('ls\n-l\na b')
    expect(tab.get_by_label('Environment')).to_have_value('SECRET=')
    expect(part(tab, 'run')).to_contain_text('are not kept')


def test_no_command_yet(cloud: fake.Cloud, open_tab: OpenTab) -> None:
    tab = open_tab(cloud.add_server())
    expect(part(tab, 'last')).to_contain_text('No command was run')
    expect(part(tab, 'last').locator('table')).to_be_hidden()


def test_only_the_keyboard(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    tab = open_tab(cloud.add_server())
    tab.get_by_role('textbox', name='Command').focus()
    page.keyboard.type('sleep 5')
    page.keyboard.press('Control+Enter')
    expect(status_of(tab)).to_have_text('RUNNING')
    # From the command to the button that cancels it.
    names = []
    for _ in range(12):
        page.keyboard.press('Tab')
        names.append(page.evaluate('document.activeElement.textContent'))
        if 'Cancel' in names[-1]:
            break
    assert 'Cancel' in names[-1], names
    page.keyboard.press('Enter')
    expect(status_of(tab)).to_have_text('CANCELLED')


def test_everything_has_a_name(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    """What a screen reader would say of it."""
    tab = open_tab(cloud.add_server())
    run(tab, 'true')
    expect(status_of(tab)).to_have_text('RUNNING')
    nameless = tab.evaluate(
        """root => Array.from(
            root.querySelectorAll('input, textarea, select, button, a'))
          .filter(node => !(node.textContent.trim() ||
            node.getAttribute('aria-label') ||
            (node.labels && node.labels.length)))
          .map(node => node.outerHTML)"""
    )
    assert nameless == []
    ids = page.evaluate(
        """Array.from(document.querySelectorAll('.guest-agent [id]'))
          .map(node => node.id)"""
    )
    assert len(ids) == len(set(ids))


def test_a_session_that_has_ended(
    cloud: fake.Cloud, log_in: Callable[..., sync_api.Page], site: Site
) -> None:
    """Horizon redirects to its login page, which is no answer."""
    page = log_in(is_new=True)
    page.goto(
        f'{site.url}/project/instances/{cloud.add_server()}/'
        '?tab=instance_details__guest'
    )
    tab = page.locator('[data-guest-agent="tab"]')
    tab.wait_for()
    page.context.clear_cookies()
    run(tab, 'true')
    expect(part(tab, 'run').get_by_role('alert').first).to_contain_text(
        'Your session has ended'
    )
    assert not cloud.commands


def test_a_request_of_another_site(
    cloud: fake.Cloud, open_tab: OpenTab, page: sync_api.Page
) -> None:
    """No token, no command: and the script tells that from an answer."""
    tab = open_tab(cloud.add_server())
    tab.evaluate('root => { root.dataset.csrf = "x".repeat(64); }')
    run(tab, 'true')
    expect(part(tab, 'run').get_by_role('alert').first).to_contain_text(
        'Your session has ended, or this page is too old'
    )
    assert not cloud.commands


def test_secrets_are_in_no_log(
    cloud: fake.Cloud, open_tab: OpenTab, site: Site
) -> None:
    """Not with the operation log on, nor at the level DEBUG."""
    cloud.on_create = lambda command: command.write(b'sesame-out')
    tab = open_tab(cloud.add_server())
    tab.get_by_text('Options').click()
    tab.get_by_label('Environment').fill('A=sesame-env')
    tab.get_by_label('Input').fill('sesame-in')
    run(tab, 'echo sesame-argv')
    expect_text(stream(tab, 'out'), 'sesame-out')
    cloud.commands[0].end(0)
    expect(status_of(tab)).to_have_text('COMPLETED')
    log = site.log.read_text()
    assert 'commands/' in log
    assert 'sesame' not in log
