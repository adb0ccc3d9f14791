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

"""Every page as a desk and a phone show it.

The pictures go to the directory that ``PANEL_PICTURES`` names, if it names
one: ``make pictures`` makes those of the user's guide.
"""

from collections.abc import Callable
import os
import pathlib
import re

from playwright import sync_api
from playwright.sync_api import expect
import pytest

from tests.panel import cloud as fake
from tests.panel.conftest import NARROW
from tests.panel.conftest import part
from tests.panel.conftest import Site
from tests.panel.conftest import stream
from tests.panel.conftest import WIDE
from tests.panel.test_pages import HISTORY
from tests.panel.test_pages import INCIDENTS
from tests.panel.test_runs import NEW
from tests.panel.test_runs import page_of
from tests.panel.test_runs import RUNS

_LONG = 'a-name-that-is-longer-than-any-column-' * 6

#: What of ours ends to the right of the window. A table and an output may be
#: wider than their frames, which scroll.
_OVERHANG = """() => Array.from(document.querySelectorAll('.guest-agent *'))
  .filter(node => !node.closest('.ga-scroll *, pre *, .ga-terminal'))
  .filter(node => node.getClientRects().length &&
    !node.closest('.sr-only') &&
    node.getBoundingClientRect().right > window.innerWidth + 1)
  .map(node => node.outerHTML.slice(0, 200))"""


@pytest.fixture
def furnished(cloud: fake.Cloud) -> str:
    """A cloud with something of everything; the id of a server."""
    server_id = cloud.add_server('web-1')
    long = cloud.add_server(_LONG)
    cloud.details = {
        'os': {'pretty_name': 'Debian GNU/Linux 12 (bookworm)'},
        'host_name': 'web-1',
        'timezone': {'zone': 'UTC'},
        'time': {'nanoseconds': 1773058402120000000, 'offset': 0.004},
        'vcpus': [{}],
        'interfaces': [
            {
                'name': 'eth0',
                'hardware_address': 'fa:16:3e:00:00:01',
                'ip_addresses': [
                    {'ip_address': '10.0.0.5', 'prefix': 24},
                    {'ip_address': 'fe80::f816:3eff:fe00:1', 'prefix': 64},
                ],
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
        'unavailable': {'users': 'The guest agent does not know it'},
    }
    cloud.hosts = [
        {
            'host': host,
            'cell': '11111111-2222-3333-4444-555555555555',
            'state': state,
            'version': '1.2.3',
            'last_seen_at': '2026-03-09T12:13:22Z',
            'running': 3,
            'pending': 12,
        }
        for host, state in (('compute-1', 'up'), (_LONG, 'down'))
    ]
    for argv, status, error in (
        (('apt-get', '-y', 'upgrade'), 'RUNNING', None),
        (('/bin/sh', '-c', 'df -h / | tail -1'), 'COMPLETED', None),
        (('no-such',), 'FAILED', 'no-such could not be executed: not found'),
        (('/bin/sh', '-c', 'x' * 3000), 'TIMED_OUT', 'The timeout passed'),
        (('reboot',), 'LOST', 'The guest rebooted while it ran ' + _LONG),
        (('sleep', '600'), 'CANCELLED', 'Cancelled by the user'),
    ):
        command = cloud.add_command(
            server_id if status != 'TIMED_OUT' else long, *argv
        )
        if status != 'RUNNING':
            command.end(0 if status == 'COMPLETED' else None, status, error)
    return server_id


@pytest.fixture(params=[WIDE, NARROW], ids=['wide', 'narrow'])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def look(width: int) -> Callable[[sync_api.Page, str], None]:
    """Takes a picture of a page, and measures it."""

    def take(page: sync_api.Page, name: str) -> None:
        directory = os.environ.get('PANEL_PICTURES')
        # What sticks to the top of the window is on top of the picture then.
        page.evaluate('window.scrollTo(0, 0)')
        if directory:
            path = pathlib.Path(directory, f'{name}-{width}.png')
            page.screenshot(path=path, full_page=True)
        assert page.evaluate(_OVERHANG) == []

    return take


Look = Callable[[sync_api.Page, str], None]


@pytest.fixture
def visit(
    log_in: Callable[..., sync_api.Page], site: Site, width: int
) -> Callable[..., sync_api.Page]:
    """Goes to a page in a window of that width."""

    def to(path: str, role: str = 'member') -> sync_api.Page:
        page = log_in(role)
        page.set_viewport_size({'width': width, 'height': 900})
        page.goto(site.url + path)
        page.locator('.guest-agent').wait_for()
        return page

    return to


Visit = Callable[..., sync_api.Page]


def tab_of(server_id: str) -> str:
    return f'/project/instances/{server_id}/?tab=instance_details__guest'


def test_tab(
    cloud: fake.Cloud, furnished: str, visit: Visit, look: Look
) -> None:
    page = visit(tab_of(furnished))
    tab = page.locator('[data-guest-agent="tab"]')
    tab.get_by_text('Details of the guest').click()
    expect(tab).to_contain_text('10.0.0.5')
    tab.get_by_role('textbox', name='Command').fill('make check')
    tab.get_by_role('button', name='Run', exact=True).click()
    expect(stream(tab, 'out')).to_be_visible()
    command = cloud.commands[0]
    command.write(b'\x1b[32mPASS\x1b[0m test-one\n\x1b[31mFAIL\x1b[0m two\n')
    command.write(b'warning: something is odd\n', 'err')
    command.end(2)
    expect(part(tab, 'output')).to_contain_text('exit code 2')
    expect(part(tab, 'last')).to_contain_text('make check')
    look(page, 'tab')


def test_tab_with_nothing_but_problems(
    cloud: fake.Cloud, visit: Visit, look: Look
) -> None:
    server_id = cloud.add_server(_LONG)
    cloud.agents[server_id].update(
        status='unavailable',
        reason='The guest agent is not connected: ' + _LONG,
        os=None,
        version=None,
    )
    for call in ('/commands', '/file-read'):
        for method in ('GET', 'POST'):
            cloud.refusals[method, call] = fake.Refusal(409, 'No: ' + _LONG)
    page = visit(tab_of(server_id))
    tab = page.locator('[data-guest-agent="tab"]')
    tab.get_by_text('Options').click()
    tab.get_by_role('textbox', name='Command').fill('x' * 500)
    tab.get_by_role('button', name='Run', exact=True).click()
    tab.get_by_role('button', name='Open a terminal').click()
    fetching = part(tab, 'files').locator('form').last
    fetching.get_by_label('Path').fill('/etc/passwd')
    fetching.get_by_role('button', name='Fetch').click()
    expect(tab.get_by_role('alert').filter(has_text='No: ')).to_have_count(3)
    expect(part(tab, 'agent')).to_contain_text('Install the package')
    look(page, 'problems')


def test_terminal(
    cloud: fake.Cloud, furnished: str, visit: Visit, look: Look
) -> None:
    cloud.on_create = lambda command: command.write(
        b'\x1b[1;32mroot@web-1\x1b[0m:\x1b[1;34m~\x1b[0m# '
    )
    page = visit(tab_of(furnished))
    terminal = part(page.locator('[data-guest-agent="tab"]'), 'terminal')
    terminal.get_by_role('button', name='Open a terminal').click()
    expect(terminal.locator('.xterm-rows')).to_contain_text('root@web-1')
    look(page, 'terminal')


def test_history(furnished: str, visit: Visit, look: Look) -> None:
    page = visit(HISTORY)
    expect(page.locator('#ga-commands tbody tr')).to_have_count(6)
    look(page, 'history')


def test_empty_history(cloud: fake.Cloud, visit: Visit, look: Look) -> None:
    look(visit(HISTORY), 'empty')


def test_command(
    cloud: fake.Cloud, furnished: str, visit: Visit, look: Look
) -> None:
    command = cloud.add_command(
        furnished, '/bin/sh', '-c', 'for i in a b; do echo "$i"; done; ' * 20
    )
    command.arguments |= {'timeout': 60, 'env': {'LANG': 'C'}, 'cwd': '/tmp'}
    command.write(b'a line\n' * 50 + b'\x1b[44;97mcolors\x1b[0m\n')
    command.write(b'x' * 5000, 'err')
    command.end(0)
    page = visit(f'{HISTORY}command/{furnished}/{command.uuid}/')
    expect(page.locator('[data-field="status"]')).to_have_text('COMPLETED')
    look(page, 'command')


def test_incidents(
    cloud: fake.Cloud, furnished: str, visit: Visit, look: Look
) -> None:
    page = visit(INCIDENTS, 'admin')
    page.clock.install()
    page.goto(page.url + '?status=')
    plot = page.get_by_role('table', name='Hosts').get_by_role('img').first
    # Some minutes pass.
    for running, pending in zip(
        (3, 3, 8, 14, 20, 20, 20, 17, 9, 4, 2, 2, 3, 3, 3, 6),
        (0, 0, 2, 9, 24, 30, 22, 11, 3, 0, 0, 0, 0, 1, 4, 12),
        strict=True,
    ):
        cloud.hosts[0].update(running=running, pending=pending)
        text = f' {running} running .* {pending} pending'
        page.clock.fast_forward(15000)
        expect(plot).to_have_attribute('aria-label', re.compile(text))
    expect(page.locator('#ga-commands tbody tr')).to_have_count(6)
    look(page, 'incidents')


@pytest.fixture
def run(cloud: fake.Cloud) -> fake.Run:
    """A run with targets of every kind."""
    ids = [cloud.add_server(f'web-{number}') for number in range(1, 41)]
    run = cloud.add_run(ids, 'apt-get', '-y', 'upgrade', name='patch web')
    ends = iter(ids)
    for status, exitcode, error, number in (
        ('COMPLETED', 0, None, 14),
        ('COMPLETED', 100, None, 2),
        ('FAILED', None, 'apt-get could not be executed: not found', 1),
        ('TIMED_OUT', None, 'The timeout of 3600 s passed', 1),
        ('LOST', None, 'The server was rebooted while it ran', 1),
        ('CANCELLED', None, 'Cancelled by the user', 1),
        ('RUNNING', None, None, 6),
        ('PENDING', None, None, 2),
    ):
        for _ in range(number):
            command = cloud.release(run, next(ends))
            if status in ('PENDING', 'RUNNING'):
                command.status = status
            else:
                command.end(exitcode, status, error)
    run.refused.append(
        (next(ends), 'Server has vm_state stopped; it must be active')
    )
    return run


def test_run(run: fake.Run, visit: Visit, look: Look) -> None:
    page = visit(page_of(run))
    expect(page.locator('.ga-legend li')).to_have_count(10)
    expect(page.locator('#ga-targets tbody tr')).to_have_count(20)
    look(page, 'run')


def test_run_of_long_names(
    cloud: fake.Cloud, visit: Visit, look: Look
) -> None:
    server_id = cloud.add_server(_LONG)
    run = cloud.add_run([server_id] * 2, 'x' * 3000, name=_LONG)
    run.error = 'Left out: ' + _LONG
    cloud.release(run, server_id).end(None, 'LOST', 'Rebooted ' + _LONG)
    run.refused.append((server_id, 'Locked ' + _LONG))
    cloud.refusals['POST', '/action'] = fake.Refusal(409, 'No: ' + _LONG)
    page = visit(page_of(run))
    page.on('dialog', lambda dialog: dialog.accept())
    page.get_by_role('button', name='Cancel the run').click()
    expect(page.get_by_role('alert').filter(has_text='No: ')).to_be_visible()
    look(page, 'run-long')


def test_runs(
    cloud: fake.Cloud, run: fake.Run, visit: Visit, look: Look
) -> None:
    cloud.add_run(run.targets, 'x' * 3000, name=_LONG, error=_LONG)
    for number, status in enumerate(
        ('COMPLETED', 'STOPPED', 'CANCELLED'), start=1
    ):
        other = cloud.add_run(run.targets[:number], 'uptime')
        for server_id in other.targets[1:]:
            cloud.release(other, server_id).end(0)
        other.end(status)
    page = visit(RUNS)
    expect(page.locator('#ga-runs tbody tr')).to_have_count(5)
    look(page, 'runs')


def test_no_runs(cloud: fake.Cloud, visit: Visit, look: Look) -> None:
    look(visit(RUNS), 'no-runs')


def test_new_run(
    cloud: fake.Cloud, run: fake.Run, visit: Visit, look: Look
) -> None:
    cloud.add_server(_LONG)
    cloud.refusals['POST', '/runs'] = fake.Refusal(409, 'No: ' + _LONG)
    page = visit(NEW)
    page.get_by_label('Tags').fill('web, stage')
    page.get_by_role('textbox', name='Command').fill('apt-get -y upgrade')
    page.get_by_text('Options').click()
    page.get_by_role('button', name='Start the run').click()
    expect(page.get_by_role('alert')).to_contain_text('No: ')
    look(page, 'new-run')


def test_accounts(cloud: fake.Cloud, visit: Visit, look: Look) -> None:
    server_id = cloud.add_server()
    cloud.agents[server_id]['command_types'] = ['exec', 'set-password']
    cloud.on_create = lambda command: command.end(
        None, 'FAILED', 'There is no such user: ' + _LONG
    )
    page = visit(tab_of(server_id))
    accounts = part(page.locator('[data-guest-agent="tab"]'), 'accounts')
    for label in ('New password', 'New password, again'):
        accounts.get_by_label(label, exact=True).fill('secret')
    accounts.get_by_role('button', name='Set the password').click()
    expect(accounts.get_by_role('alert')).to_contain_text('no such user')
    expect(accounts).to_contain_text('does not know this call')
    look(page, 'accounts')


def test_deletion_that_is_refused(
    cloud: fake.Cloud, furnished: str, visit: Visit, look: Look
) -> None:
    page = visit(HISTORY)
    page.on('dialog', lambda dialog: dialog.accept())
    for command in cloud.commands:
        cloud.refusals['DELETE', command.uuid] = fake.Refusal(
            409, 'No: ' + _LONG
        )
    page.get_by_label('All that have ended').check()
    page.get_by_role('button', name='Delete the chosen').click()
    expect(page.get_by_role('alert')).to_contain_text('No: ')
    look(page, 'not-deleted')


def test_runs_that_are_refused(
    cloud: fake.Cloud, visit: Visit, look: Look
) -> None:
    cloud.refusals['GET', '/runs'] = fake.Refusal(403, 'No: ' + _LONG)
    page = visit(RUNS)
    expect(page.get_by_role('alert')).to_contain_text('No: ')
    look(page, 'runs-refused')
    page = visit(NEW, 'reader')
    expect(page.get_by_role('alert')).to_contain_text('Your role may not')
    look(page, 'new-run-refused')
