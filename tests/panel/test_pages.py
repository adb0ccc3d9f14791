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

"""The pages of the panels: lists, a command, hosts and incidents."""

from collections.abc import Callable
import pathlib
import re

from playwright import sync_api
from playwright.sync_api import expect
import pytest

from tests.panel import cloud as fake
from tests.panel.conftest import expect_text
from tests.panel.conftest import Go
from tests.panel.conftest import Site
from tests.panel.conftest import stream
from tests.panel.test_tab import HOSTILE

HISTORY = '/project/guest_commands/'
INCIDENTS = '/admin/guest_commands/'


def rows(root: sync_api.Locator) -> sync_api.Locator:
    return root.locator('#ga-commands tbody tr')


def test_history(cloud: fake.Cloud, go: Go, page: sync_api.Page) -> None:
    web, data = cloud.add_server(HOSTILE), cloud.add_server('db-1')
    cloud.add_command(web, 'echo', HOSTILE).end(0)
    cloud.add_command(data, 'false').end(1)
    failed = cloud.add_command(data, 'no-such')
    failed.end(None, 'FAILED', f'no-such could not be executed {HOSTILE}')
    root = go(HISTORY)
    expect(rows(root)).to_have_count(3)
    expect_text(rows(root).nth(0).locator('.ga-error'), str(failed.error))
    expect(rows(root).nth(1)).to_contain_text('exit code 1')
    expect_text(rows(root).nth(2).locator('code'), f"echo '{HOSTILE}'")
    expect_text(rows(root).nth(2).locator('.ga-name'), HOSTILE)
    # Filters are in the URL.
    root.get_by_label('Instance').select_option(label='db-1')
    root.get_by_label('Status').select_option('FAILED')
    root.get_by_role('button', name='Filter').click()
    page.wait_for_url('**server=*')
    expect(rows(root)).to_have_count(1)
    expect(root.get_by_label('Status')).to_have_value('FAILED')
    url = page.url
    root.get_by_role('link', name='Clear').click()
    expect(rows(root)).to_have_count(3)
    page.goto(url)
    expect(rows(root)).to_have_count(1)
    rows(root).get_by_role('link', name='no-such').click()
    page.wait_for_url(f'**/{failed.uuid}/')


def test_since(cloud: fake.Cloud, go: Go, page: sync_api.Page) -> None:
    server_id = cloud.add_server()
    for day in (1, 2, 3):
        cloud.add_command(
            server_id, f'{day}', created_at=f'2026-03-0{day}T12:00:00Z'
        )
    for server in ('', server_id):
        root = go(f'{HISTORY}?since=2026-03-02T12:00&server={server}')
        expect(rows(root)).to_have_count(2)
    root = go(f'{HISTORY}?since=yesterday')
    expect(root.get_by_role('alert').first).to_contain_text('The time')
    root = go(f'{HISTORY}?status=NONE')
    expect(root.get_by_role('alert').first).to_contain_text('no status')


def test_pages(cloud: fake.Cloud, go: Go) -> None:
    server_id = cloud.add_server()
    for number in range(45):
        cloud.add_command(server_id, f'number-{number}').end(0)
    root = go(HISTORY + '?status=COMPLETED')
    for last, is_last in ((25, False), (5, False), (0, True)):
        expect(rows(root).last).to_contain_text(f'number-{last}')
        older = root.get_by_role('link', name='Older')
        if is_last:
            expect(older).to_have_count(0)
        else:
            older.click()
    expect(root.get_by_label('Status')).to_have_value('COMPLETED')
    root.get_by_role('link', name='Newest').click()
    expect(rows(root).first).to_contain_text('number-44')


def test_a_thousand_rows(
    cloud: fake.Cloud, log_in: Callable[..., sync_api.Page], site: Site
) -> None:
    server_id = cloud.add_server()
    for number in range(1000):
        cloud.add_command(server_id, 'echo', f'number-{number}').end(0)
    page = log_in(is_new=True)
    page.goto(site.url + '/settings/')
    page.get_by_label('Items Per Page').fill('1000')
    page.get_by_role('button', name='Save').click()
    page.get_by_text('Settings saved').first.wait_for()
    page.goto(site.url + HISTORY)
    expect(rows(page.locator('.guest-agent'))).to_have_count(1000)


def test_empty(go: Go) -> None:
    expect(go(HISTORY)).to_contain_text('No commands fit.')


def test_an_api_that_refuses(cloud: fake.Cloud, go: Go) -> None:
    cloud.refusals['GET', '/guest-agent/commands'] = fake.Refusal(
        403, f'Policy does not allow it {HOSTILE}'
    )
    alert = go(HISTORY).get_by_role('alert').first
    expect_text(alert, f'Policy does not allow it {HOSTILE}')


def test_cancel_and_delete(
    cloud: fake.Cloud, go: Go, page: sync_api.Page
) -> None:
    server_id = cloud.add_server()
    command = cloud.add_command(server_id, 'sleep', '600')
    root = go(HISTORY)
    row = rows(root).first
    page.once('dialog', lambda dialog: dialog.dismiss())
    row.get_by_role('button', name='Cancel').click()
    assert command.status == 'RUNNING'
    page.on('dialog', lambda dialog: dialog.accept())
    row.get_by_role('button', name='Cancel').click()
    expect(row).to_contain_text('CANCELLED')
    row.get_by_role('button', name='Delete').click()
    expect(root).to_contain_text('No commands fit.')
    assert not cloud.commands


def test_cancel_of_what_has_ended(
    cloud: fake.Cloud, go: Go, page: sync_api.Page
) -> None:
    command = cloud.add_command(cloud.add_server(), 'sleep', '1')
    root = go(HISTORY)
    command.end(0)
    page.on('dialog', lambda dialog: dialog.accept())
    rows(root).get_by_role('button', name='Cancel').click()
    expect(root.get_by_role('alert').first).to_have_text(
        f'Command {command.uuid} has already ended: COMPLETED'
    )


def test_commands_are_deleted_together(
    cloud: fake.Cloud, go: Go, page: sync_api.Page
) -> None:
    server_id = cloud.add_server()
    for number in range(4):
        cloud.add_command(server_id, 'echo', f'number-{number}').end(0)
    running = cloud.add_command(server_id, 'sleep', '600')
    root = go(HISTORY)
    delete = root.get_by_role('button', name='Delete the chosen')
    expect(delete).to_be_disabled()
    boxes = rows(root).get_by_role('checkbox')
    # What runs cannot be chosen.
    expect(boxes).to_have_count(4)
    every = root.get_by_role('checkbox', name='All that have ended')
    every.check()
    expect(delete).to_have_text('Delete the chosen (4)')
    root.get_by_role('checkbox', name='number-1').uncheck()
    expect(every).not_to_be_checked()
    expect(delete).to_have_text('Delete the chosen (3)')
    page.once('dialog', lambda dialog: dialog.dismiss())
    delete.click()
    assert len(cloud.commands) == 5
    # Another was faster with one, and one cannot be deleted now.
    gone, refused = cloud.commands[1], cloud.commands[2]
    cloud.commands.remove(gone)
    message = f'Not now {HOSTILE}'
    cloud.refusals['DELETE', refused.uuid] = fake.Refusal(409, message)
    page.on('dialog', lambda dialog: dialog.accept())
    delete.click()
    expect_text(root.locator('[data-field="refusal"]'), message)
    expect(delete).to_have_text('Delete the chosen (2)')
    cloud.refusals.clear()
    delete.click()
    expect(rows(root)).to_have_count(2)
    assert [
        command.arguments['command'][-1] for command in cloud.commands
    ] == [running.arguments['command'][-1], 'number-1']


def test_a_command(
    cloud: fake.Cloud, go: Go, page: sync_api.Page, tmp_path: pathlib.Path
) -> None:
    server_id = cloud.add_server('web <b>1</b>')
    command = cloud.add_command(server_id, 'printf', '%s', HOSTILE, 'a\nb')
    command.write(b'\x1b[31mred\x1b[0m\xff')
    root = go(f'{HISTORY}command/{server_id}/{command.uuid}/')
    expect_text(root.locator('.ga-argv li').nth(2), HOSTILE)
    # With its newline.
    assert root.locator('.ga-argv li').nth(3).inner_text() == 'a\nb'
    expect(root).to_contain_text('req-11111111-2222-3333-4444-555555555555')
    expect(root).to_contain_text('web <b>1</b>')
    expect(root.get_by_role('button', name='Delete')).to_be_hidden()
    expect_text(stream(root, 'out'), 'red\ufffd')
    command.end(0)
    expect(root.locator('[data-field="status"]')).to_have_text('COMPLETED')
    with page.expect_download() as download:
        root.get_by_role('link', name='stdout').click()
    assert download.value.suggested_filename == f'{command.uuid}.out'
    assert pathlib.Path(download.value.path()).read_bytes() == command.out
    root.get_by_role('link', name='Run again').click()
    text = page.get_by_role('textbox', name='Command')
    expect(text).to_have_value(f'printf\n%s\n{HOSTILE}\na\nb')
    page.go_back()
    page.on('dialog', lambda dialog: dialog.accept())
    root.get_by_role('button', name='Delete').click()
    page.wait_for_url(f'**{HISTORY}')
    assert not cloud.commands


def test_a_command_that_is_not_there(cloud: fake.Cloud, go: Go) -> None:
    unknown = '11111111-2222-3333-4444-555555555555'
    root = go(f'{HISTORY}command/{cloud.add_server()}/{unknown}/')
    expect(root.get_by_role('alert')).to_have_text(
        f'There is no command {unknown}'
    )


def test_output_of_an_attached_command_is_left_to_its_client(
    cloud: fake.Cloud, go: Go
) -> None:
    command = cloud.add_command(cloud.add_server(), 'cat')
    command.arguments['attach'] = True
    command.write(b'not mine')
    root = go(f'{HISTORY}command/{command.server_id}/{command.uuid}/')
    expect(root.locator('[data-field="status"]')).to_have_text('RUNNING')
    assert not any(path.endswith('/output') for _, path in cloud.requests)
    command.end(0)
    expect_text(stream(root, 'out'), 'not mine')


@pytest.fixture
def as_admin(
    log_in: Callable[..., sync_api.Page], site: Site
) -> Callable[[str], sync_api.Page]:
    """Goes to a page as an admin."""
    page = log_in('admin')

    def to(path: str) -> sync_api.Page:
        page.goto(site.url + path)
        page.locator('.guest-agent').wait_for()
        return page

    return to


AsAdmin = Callable[[str], sync_api.Page]


def test_hosts_and_incidents(cloud: fake.Cloud, as_admin: AsAdmin) -> None:
    server_id = cloud.add_server()
    cloud.hosts = [
        {
            'host': f'compute-{number}',
            'cell': '11111111-2222-3333-4444-555555555555',
            'state': state,
            'version': '1.2.3',
            'last_seen_at': '2026-03-09T12:13:22Z',
            'running': number,
            'pending': 0,
        }
        for number, state in ((1, 'up'), (2, 'down'))
    ]
    cloud.add_command(server_id, 'one').end(None, 'LOST', 'The guest rebooted')
    cloud.add_command(server_id, 'two', host='compute-2').end(
        None, 'FAILED', 'The host did not start it'
    )
    page = as_admin(INCIDENTS)
    hosts = page.get_by_role('table', name='Hosts').locator('tbody tr')
    expect(hosts.nth(1)).to_contain_text('down')
    root = page.locator('.guest-agent')
    # What operators look for first.
    expect(rows(root)).to_have_count(1)
    expect(rows(root)).to_contain_text('The guest rebooted')
    root.get_by_role('link', name='FAILED').click()
    expect(rows(root)).to_contain_text('The host did not start it')
    hosts.get_by_role('link', name='compute-1').click()
    page.wait_for_url('**host=compute-1')
    expect(rows(root)).to_have_count(1)
    expect(root.get_by_role('combobox', name='Host')).to_have_value(
        'compute-1'
    )
    root.get_by_label('Project ID').fill('none')
    root.get_by_role('button', name='Filter').click()
    expect(root).to_contain_text('No commands fit.')


def test_what_hosts_run_now(cloud: fake.Cloud, as_admin: AsAdmin) -> None:
    """The numbers follow, and the plot says in words what it shows."""
    host = {
        'host': HOSTILE,
        'cell': None,
        'state': 'up',
        'version': '1.2.3',
        'last_seen_at': '2026-03-09T12:13:22Z',
        'running': 1,
        'pending': 0,
    }
    cloud.hosts = [host, {**host, 'host': 'other', 'running': 7}]
    page = as_admin(INCIDENTS)
    row = page.get_by_role('table', name='Hosts').locator('tbody tr').first
    plot = row.get_by_role('img')
    text = f'{HOSTILE}: 1 running (at most 1), 0 pending (at most 0), in '
    expect(plot).to_have_attribute(
        'aria-label', re.compile(re.escape(text) + r'\d+ s')
    )
    host.update(running=0, pending=12, state='down')
    expect(row.locator('[data-field="pending"]')).to_have_text('12')
    expect(row.locator('[data-field="state"]')).to_have_class(
        'label label-danger'
    )
    expect(plot).to_have_attribute(
        'aria-label',
        re.compile(r'0 running \(at most 1\), 12 pending \(at most 12\)'),
    )
    points = plot.locator('polyline').nth(1).get_attribute('points')
    assert points is not None and len(points.split()) >= 3
    assert page.evaluate('window.hacked') is None
    # Without the host's service there is something to be said, too.
    cloud.refusals['GET', '/hosts'] = fake.Refusal(403, f'No {HOSTILE}')
    expect_text(page.locator('[data-field="problem"]'), f'No {HOSTILE}')
    expect(page.get_by_role('button', name='Go on watching')).to_be_visible()
    cloud.refusals.clear()
    page.get_by_role('button', name='Go on watching').click()
    expect(page.locator('[data-field="problem"]')).to_be_hidden()


def test_a_command_as_an_admin(cloud: fake.Cloud, as_admin: AsAdmin) -> None:
    server_id = cloud.add_server()
    command = cloud.add_command(server_id, 'true')
    command.end(None, 'LOST', 'The guest rebooted')
    page = as_admin(INCIDENTS)
    page.get_by_role('link', name='true').click()
    page.wait_for_url(f'**/admin/**/{command.uuid}/')
    expect(page.locator('.guest-agent')).to_contain_text('compute-1')
    page.get_by_role('link', name='web-1').click()
    page.locator('[data-guest-agent="tab"]').wait_for()
    assert '/admin/instances/' in page.url


def test_no_hosts(cloud: fake.Cloud, as_admin: AsAdmin) -> None:
    expect(as_admin(INCIDENTS).locator('.guest-agent')).to_contain_text(
        'No guest-agent-compute has reported yet.'
    )


def test_a_reader(
    cloud: fake.Cloud, log_in: Callable[..., sync_api.Page], site: Site
) -> None:
    """What the policy hides is not shown."""
    server_id = cloud.add_server()
    command = cloud.add_command(server_id, 'cat', '/etc/shadow')
    page = log_in('reader')
    page.goto(
        f'{site.url}/project/instances/{server_id}/'
        '?tab=instance_details__guest'
    )
    tab = page.locator('[data-guest-agent="tab"]')
    parts = tab.locator('[data-part]')
    expect(parts).to_have_count(2)
    expect(tab.locator('[data-part="last"] tbody tr')).to_have_count(1)
    expect(tab.get_by_role('button')).to_have_text(['Check again'])
    page.goto(site.url + HISTORY)
    root = page.locator('.guest-agent')
    expect(rows(root)).to_have_count(1)
    expect(root.get_by_role('button')).to_have_text(['Filter'])
    expect(root.get_by_role('checkbox')).to_have_count(0)
    command.end(0)
    page.goto(f'{site.url}{HISTORY}command/{server_id}/{command.uuid}/')
    expect(root.locator('[data-field="status"]')).to_have_text('COMPLETED')
    assert root.locator('pre:visible, button:visible').count() == 0
    assert 'shadow' not in page.content()
    assert not any(path.endswith('/output') for _, path in cloud.requests)


def test_members_see_no_admin_panel(page: sync_api.Page, site: Site) -> None:
    page.goto(site.url + HISTORY)
    assert page.locator(f'a[href="{HISTORY}"]').count()
    assert page.locator(f'a[href="{INCIDENTS}"]').count() == 0
