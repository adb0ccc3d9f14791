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

"""The pages about runs: their list, the form, and a run that goes on."""

from collections.abc import Callable

from playwright import sync_api
from playwright.sync_api import expect
import pytest

from tests.panel import cloud as fake
from tests.panel.conftest import expect_text
from tests.panel.conftest import Go
from tests.panel.conftest import Site
from tests.panel.test_tab import HOSTILE

HISTORY = '/project/guest_commands/'
RUNS = HISTORY + 'runs/'
NEW = RUNS + 'new/'


def rows(root: sync_api.Locator) -> sync_api.Locator:
    return root.locator('#ga-runs tbody tr')


def targets(root: sync_api.Locator) -> sync_api.Locator:
    return root.locator('#ga-targets tbody tr')


def field(root: sync_api.Locator, name: str) -> sync_api.Locator:
    return root.locator(f'[data-field="{name}"]').first


def legend(root: sync_api.Locator) -> sync_api.Locator:
    return root.locator('.ga-legend li')


def page_of(run: fake.Run) -> str:
    return f'{RUNS}{run.uuid}/'


@pytest.fixture
def three(cloud: fake.Cloud) -> list[str]:
    """The ids of three servers."""
    return [cloud.add_server(f'web-{number}') for number in (1, 2, 3)]


def test_list(
    cloud: fake.Cloud, three: list[str], go: Go, page: sync_api.Page
) -> None:
    done = cloud.add_run(three, 'echo', HOSTILE, name=HOSTILE)
    for server_id, exitcode in zip(three, (0, 0, 3), strict=True):
        cloud.release(done, server_id).end(exitcode)
    done.end()
    stopped = cloud.add_run(three, 'false', error=f'Left out: {HOSTILE}')
    stopped.end('STOPPED')
    root = go(HISTORY)
    root.get_by_role('link', name='Runs').click()
    expect(rows(root)).to_have_count(2)
    expect(rows(root).nth(0)).to_contain_text('STOPPED')
    expect(rows(root).nth(0)).to_contain_text('0 of 3 instances')
    expect_text(rows(root).nth(0).locator('.ga-error'), str(stopped.error))
    shown = rows(root).nth(1)
    expect_text(shown.locator('code'), f"echo '{HOSTILE}'")
    expect_text(shown.locator('.ga-name'), HOSTILE)
    expect(shown).to_contain_text('3 of 3 instances')
    bar = shown.get_by_role('img')
    expect(bar).to_have_attribute(
        'aria-label', '2 succeeded, 1 ended with another exit code'
    )
    expect(bar.locator('rect')).to_have_count(2)
    # The filter is in the URL.
    root.get_by_label('Status').select_option('COMPLETED')
    root.get_by_role('button', name='Filter').click()
    page.wait_for_url('**status=COMPLETED')
    expect(rows(root)).to_have_count(1)
    rows(root).get_by_role('link').first.click()
    page.wait_for_url(f'**{page_of(done)}')
    expect(root.locator('.ga-title')).to_have_text(HOSTILE)


def test_pages_of_the_list(
    cloud: fake.Cloud, three: list[str], go: Go
) -> None:
    for number in range(25):
        cloud.add_run(three, 'true', name=f'number-{number}').end()
    root = go(RUNS + '?status=COMPLETED')
    expect(rows(root)).to_have_count(20)
    root.get_by_role('link', name='Older').click()
    expect(rows(root)).to_have_count(5)
    expect(rows(root).last).to_contain_text('number-0')
    expect(root.get_by_label('Status')).to_have_value('COMPLETED')
    expect(root.get_by_role('link', name='Older')).to_have_count(0)
    root.get_by_role('link', name='Newest').click()
    expect(rows(root).first).to_contain_text('number-24')


def test_no_run(go: Go) -> None:
    expect(go(RUNS)).to_contain_text('There is no run yet.')
    root = go(RUNS + '?status=STOPPED')
    expect(root).to_contain_text('No runs fit.')
    alert = go(RUNS + '?status=LOST').get_by_role('alert').first
    expect(alert).to_contain_text('no status')


def test_cancel_and_delete_in_the_list(
    cloud: fake.Cloud, three: list[str], go: Go, page: sync_api.Page
) -> None:
    run = cloud.add_run(three, 'sleep', '600')
    command = cloud.release(run, three[0])
    root = go(RUNS)
    page.once('dialog', lambda dialog: dialog.dismiss())
    rows(root).get_by_role('button', name='Cancel').click()
    assert run.status == 'RUNNING'
    asked = []

    def accept(dialog: sync_api.Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.on('dialog', accept)
    rows(root).get_by_role('button', name='Cancel').click()
    expect(rows(root)).to_contain_text('CANCELLED')
    assert command.status == 'CANCELLED'
    rows(root).get_by_role('button', name='Delete').click()
    expect(root).to_contain_text('There is no run yet.')
    assert not cloud.runs and not cloud.commands
    assert all('run' in message for message in asked)


def test_a_run_is_created(
    cloud: fake.Cloud, three: list[str], go: Go, page: sync_api.Page
) -> None:
    cloud.add_server(HOSTILE)
    root = go(RUNS)
    root.get_by_role('link', name='New run').click()
    page.wait_for_url('**' + NEW)
    chosen = root.get_by_role('listbox', name='Instances')
    expect_text(chosen.locator('option').first, HOSTILE)
    chosen.select_option(label=['web-1', 'web-3'])
    root.get_by_label('Tags').fill('web, stage')
    root.get_by_label('Metadata').fill('role=a=b\nempty=')
    root.get_by_label('If a part of the cloud').check()
    root.get_by_role('textbox', name='Command').fill("awk '{$1=1}'")
    root.get_by_text('Options').click()
    root.get_by_label('Timeout').fill('60')
    root.get_by_label('Environment').fill('A=b')
    root.get_by_label('Name of the run').fill('patch web')
    root.get_by_label('Instances at once').fill('25%')
    root.get_by_label('Stop after errors').fill('2')
    root.get_by_role('button', name='Start the run').click()
    page.wait_for_url(f'**{RUNS}*-*/')
    (run,) = cloud.runs
    assert cloud.bodies == [
        {
            'run': {
                'name': 'patch web',
                'targets': {
                    'servers': [three[0], three[2]],
                    'tags': ['web', 'stage'],
                    'metadata': {'role': 'a=b', 'empty': ''},
                },
                'allow_missing_cells': True,
                'max_concurrency': '25%',
                'max_errors': 2,
                'type': 'exec',
                'arguments': {
                    'command': ['/bin/sh', '-c', "awk '{$1=1}'"],
                    'timeout': 60,
                    'env': {'A': 'b'},
                },
            }
        }
    ]
    expect_text(root.locator('.ga-head code'), "awk '{$1=1}'")
    expect(field(root, 'progress')).to_have_text('0 of 2 instances')
    root.get_by_role('link', name='Run again').click()
    text = page.get_by_role('textbox', name='Command')
    expect(text).to_have_value("awk '{$1=1}'")
    expect(root.get_by_label('Environment')).to_have_value('A=')
    expect(root.get_by_label('Name of the run')).to_have_value('patch web')
    expect(field(root, 'note')).to_contain_text('Choose the instances again.')
    assert run.status == 'RUNNING'


def test_what_is_no_run(cloud: fake.Cloud, three: list[str], go: Go) -> None:
    root = go(NEW)
    start = root.get_by_role('button', name='Start the run')
    alert = root.get_by_role('alert')
    root.get_by_role('textbox', name='Command').fill('true')
    start.click()
    expect(alert).to_have_text('Choose instances, or name tags or metadata.')
    root.get_by_label('Metadata').fill('none')
    start.click()
    expect(alert).to_have_text('Metadata: "none" is not NAME=value.')
    assert not cloud.runs
    for status in (400, 403, 409, 429):
        message = f'{status}: {HOSTILE}'
        cloud.refusals['POST', '/runs'] = fake.Refusal(status, message)
        root.get_by_label('Metadata').fill('a=b')
        start.click()
        expect_text(alert, message)
        expect(start).to_be_enabled()


def test_names_that_are_the_same(cloud: fake.Cloud, go: Go) -> None:
    ids = [cloud.add_server('same') for _ in range(2)]
    options = go(NEW).get_by_role('listbox', name='Instances')
    expect(options.locator('option')).to_have_text(
        [f'same ({server_id[:8]})' for server_id in sorted(ids)]
    )


def test_a_run_goes_on(
    cloud: fake.Cloud, three: list[str], go: Go, page: sync_api.Page
) -> None:
    run = cloud.add_run(three, 'make', name='build', max_errors=3)
    root = go(page_of(run))
    expect(field(root, 'status')).to_have_text('RUNNING')
    expect(legend(root)).to_have_text(['3 waiting'])
    expect(root).to_contain_text('No instance has begun yet.')
    first = cloud.release(run, three[0])
    expect(targets(root)).to_have_count(1)
    expect(targets(root)).to_contain_text('web-1')
    expect(legend(root)).to_have_text(['1 running', '2 waiting'])
    # What has the focus keeps it while there are news.
    link = targets(root).get_by_role('link', name='Output and details web-1')
    link.focus()
    second = cloud.release(run, three[1])
    expect(targets(root)).to_have_count(2)
    expect(targets(root).first).to_contain_text('web-2')
    first.end(2)
    expect(targets(root).last).to_contain_text('exit code 2')
    expect(link).to_be_focused()
    second.end(None, 'LOST', f'Rebooted {HOSTILE}')
    expect_text(targets(root).first.locator('.ga-why'), str(second.error))
    run.refused.append((three[2], f'Server is locked {HOSTILE}'))
    refused = root.get_by_role('table', name='could not take')
    expect(refused.locator('tbody tr')).to_have_count(1)
    expect_text(refused.locator('.ga-why'), f'Server is locked {HOSTILE}')
    expect(refused).to_contain_text('web-3')
    run.end()
    expect(field(root, 'status')).to_have_text('COMPLETED')
    expect(field(root, 'progress')).to_have_text('3 of 3 instances')
    words = '1 ended with another exit code, 1 lost, 1 refused'
    expect(root.locator('.ga-large').get_by_role('img')).to_have_attribute(
        'aria-label', words
    )
    # A screen reader is told of the end.
    expect(root.get_by_role('status')).to_contain_text(words)
    asked = len(cloud.requests)
    page.wait_for_timeout(1500)
    assert len(cloud.requests) == asked
    legend(root).get_by_role('link', name='1 refused').click()
    page.wait_for_url('**#ga-refused-title')
    legend(root).get_by_role('link', name='1 lost').click()
    page.wait_for_url('**?status=LOST')
    expect(targets(root)).to_have_count(1)
    targets(root).get_by_role('link', name='Output and details').click()
    page.wait_for_url(f'**/{second.uuid}/')
    root.get_by_role('link', name=run.uuid).click()
    page.wait_for_url(f'**{page_of(run)}')


def test_pages_of_a_run(cloud: fake.Cloud, go: Go) -> None:
    ids = [cloud.add_server(f'number-{number}') for number in range(45)]
    run = cloud.add_run(ids, 'true')
    for server_id in ids:
        cloud.release(run, server_id).end(0)
    run.end()
    root = go(page_of(run))
    for last, is_last in ((25, False), (5, False), (0, True)):
        expect(targets(root).last).to_contain_text(f'number-{last}')
        older = root.get_by_role('link', name='Older')
        if is_last:
            expect(older).to_have_count(0)
        else:
            older.click()
    root.get_by_role('link', name='Newest').click()
    expect(targets(root).first).to_contain_text('number-44')


def test_a_thousand_instances(
    cloud: fake.Cloud, log_in: Callable[..., sync_api.Page], site: Site
) -> None:
    ids = [cloud.add_server(f'number-{number}') for number in range(1000)]
    run = cloud.add_run(ids, 'true')
    for server_id in ids[:500]:
        cloud.release(run, server_id)
    run.refused = [(server_id, 'It is locked') for server_id in ids[500:]]
    page = log_in(is_new=True)
    page.goto(site.url + '/settings/')
    page.get_by_label('Items Per Page').fill('1000')
    page.get_by_role('button', name='Save').click()
    page.get_by_text('Settings saved').first.wait_for()
    page.goto(site.url + page_of(run))
    root = page.locator('.guest-agent')
    expect(targets(root)).to_have_count(500)
    refused = root.get_by_role('table', name='could not take')
    expect(refused.locator('tbody tr')).to_have_count(500)
    # What is new comes into a page of that length, too.
    cloud.commands[-1].end(7)
    expect(targets(root).last).to_contain_text('exit code 7')
    page.goto(site.url + NEW)
    options = root.get_by_role('listbox', name='Instances').locator('option')
    expect(options).to_have_count(1000)
    expect(root).to_contain_text('These are not all instances')


def test_one_of_a_thousand_is_seen(cloud: fake.Cloud, go: Go) -> None:
    server_id = cloud.add_server()
    run = cloud.add_run([server_id] * 1000, 'true')
    cloud.release(run, server_id).end(1)
    rect = go(page_of(run)).locator('.ga-large rect.ga-part-nonzero')
    box = rect.bounding_box()
    assert box is not None and box['width'] >= 5


def test_cancel_and_delete_on_the_page(
    cloud: fake.Cloud, three: list[str], go: Go, page: sync_api.Page
) -> None:
    run = cloud.add_run(three, 'sleep', '600')
    cloud.release(run, three[0])
    root = go(page_of(run))
    cancel = root.get_by_role('button', name='Cancel the run')
    expect(root.get_by_role('button', name='Delete')).to_be_hidden()
    page.on('dialog', lambda dialog: dialog.accept())
    message = f'Not now {HOSTILE}'
    cloud.refusals['POST', '/action'] = fake.Refusal(409, message)
    cancel.click()
    expect_text(field(root, 'refusal'), message)
    del cloud.refusals['POST', '/action']
    cancel.click()
    expect(field(root, 'status')).to_have_text('CANCELLED')
    expect(cancel).to_be_hidden()
    root.get_by_role('button', name='Delete').click()
    page.wait_for_url('**' + RUNS)
    assert not cloud.runs


def test_an_api_that_is_away_for_a_moment(
    cloud: fake.Cloud, three: list[str], go: Go
) -> None:
    run = cloud.add_run(three, 'true')
    root = go(page_of(run))
    expect(field(root, 'status')).to_have_text('RUNNING')
    cloud.refusals['GET', '/commands'] = fake.Refusal(503, 'Come again')
    expect(field(root, 'problem')).to_have_text('Come again')
    cloud.refusals.clear()
    expect(field(root, 'problem')).to_be_hidden()
    # The run was deleted by somebody else.
    cloud.runs.clear()
    expect(field(root, 'problem')).to_contain_text('could not be found')
    expect(root.get_by_role('button', name='Go on watching')).to_be_visible()


def test_a_run_that_is_not_there(go: Go) -> None:
    unknown = '11111111-2222-3333-4444-555555555555'
    root = go(f'{RUNS}{unknown}/')
    expect(root.get_by_role('alert')).to_have_text(
        f'Run {unknown} could not be found.'
    )


def test_a_list_that_is_refused(cloud: fake.Cloud, go: Go) -> None:
    message = f'Policy does not allow it {HOSTILE}'
    cloud.refusals['GET', '/runs'] = fake.Refusal(403, message)
    expect_text(go(RUNS).get_by_role('alert').first, message)


def test_a_reader_sees_no_runs(
    cloud: fake.Cloud, log_in: Callable[..., sync_api.Page], site: Site
) -> None:
    server_id = cloud.add_server()
    run = cloud.add_run([server_id], 'true')
    command = cloud.release(run, server_id)
    page = log_in('reader')
    root = page.locator('.guest-agent')
    page.goto(site.url + HISTORY)
    expect(root.get_by_role('link', name='Runs')).to_have_count(0)
    page.goto(f'{site.url}{HISTORY}command/{server_id}/{command.uuid}/')
    expect(root).to_contain_text(run.uuid)
    expect(root.get_by_role('link', name=run.uuid)).to_have_count(0)
    page.goto(site.url + NEW)
    expect(root.get_by_role('alert')).to_contain_text('Your role may not')
    expect(root.locator('form')).to_have_count(0)


def test_everything_has_a_name(
    cloud: fake.Cloud, three: list[str], go: Go
) -> None:
    """What a screen reader would say of it."""
    run = cloud.add_run(three, 'true')
    cloud.release(run, three[0])
    for path in (RUNS, NEW, page_of(run)):
        root = go(path)
        if path == page_of(run):
            expect(targets(root)).to_have_count(1)
        nameless = root.evaluate(
            """root => Array.from(
                root.querySelectorAll('input, textarea, select, button, a'))
              .filter(node => !(node.textContent.trim() ||
                node.getAttribute('aria-label') ||
                (node.labels && node.labels.length)))
              .map(node => node.outerHTML)"""
        )
        assert nameless == [], path


def test_a_request_of_another_site(
    cloud: fake.Cloud, three: list[str], go: Go
) -> None:
    root = go(NEW)
    root.evaluate('root => { root.dataset.csrf = "x".repeat(64); }')
    root.get_by_label('Tags').fill('web')
    root.get_by_role('textbox', name='Command').fill('true')
    root.get_by_role('button', name='Start the run').click()
    expect(root.get_by_role('alert')).to_contain_text('this page is too old')
    assert not cloud.runs


def test_secrets_of_runs_are_in_no_log(
    cloud: fake.Cloud,
    three: list[str],
    go: Go,
    site: Site,
    page: sync_api.Page,
) -> None:
    root = go(NEW)
    root.get_by_label('Tags').fill('web')
    root.get_by_role('textbox', name='Command').fill('echo open-argv')
    root.get_by_text('Options').click()
    root.get_by_label('Environment').fill('A=open-env')
    root.get_by_label('Input').fill('open-stdin')
    root.get_by_role('button', name='Start the run').click()
    page.wait_for_url(f'**{RUNS}*-*/')
    expect(field(root, 'status')).to_have_text('RUNNING')
    log = site.log.read_text()
    assert 'calls/runs/' in log
    for word in ('open-argv', 'open-env', 'open-stdin'):
        assert word not in log
