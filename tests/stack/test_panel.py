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

"""The panel in a browser, with servers that Nova booted."""

from collections.abc import Callable
import hashlib
import os
import pathlib
from typing import Any

from playwright import sync_api
from playwright.sync_api import expect

from tests.panel.conftest import part
from tests.panel.conftest import stream

HISTORY = '/project/guest_commands/'
INCIDENTS = '/admin/guest_commands/'


LogIn = Callable[..., sync_api.Page]


def opened(page: sync_api.Page, server: str) -> sync_api.Locator:
    page.goto(f'/project/instances/{server}/?tab=instance_details__guest')
    tab = page.locator('[data-guest-agent="tab"]')
    tab.wait_for()
    return tab


def run(tab: sync_api.Locator, text: str) -> None:
    tab.get_by_role('textbox', name='Command').fill(text)
    tab.get_by_role('button', name='Run', exact=True).click()


def status_of(tab: sync_api.Locator) -> sync_api.Locator:
    return part(tab, 'output').locator('[data-field="status"]')


def test_run_watch_and_cancel(log_in: LogIn, server: str) -> None:
    page = log_in('demo')
    tab = opened(page, server)
    expect(part(tab, 'agent').locator('[data-field="status"]')).to_have_text(
        'Available'
    )
    run(tab, 'echo "$((6 * 7))"; echo {$ 1 $} >&2; sleep 600')
    # While it runs.
    expect(stream(tab, 'out')).to_have_text('42\n')
    expect(stream(tab, 'err')).to_have_text('{$ 1 $}\n')
    expect(status_of(tab)).to_have_text('RUNNING')
    part(tab, 'output').get_by_role('button', name='Cancel').click()
    expect(status_of(tab)).to_have_text('CANCELLED')
    run(tab, 'cd /; pwd; exit 3')
    expect(stream(tab, 'out')).to_have_text('/\n')
    expect(part(tab, 'output')).to_contain_text('exit code 3')
    row = part(tab, 'last').locator('tbody tr').first
    row.get_by_role('link', name='cd /').click()
    root = page.locator('[data-guest-agent="command"]')
    expect(root).to_contain_text('exit code 3')
    expect(stream(root, 'out')).to_have_text('/\n')


def test_files(
    log_in: LogIn, server: str, tmp_path: pathlib.Path, compute: Any
) -> None:
    here = tmp_path / 'here'
    here.write_bytes(os.urandom(1024 * 1024 + 7))
    page = log_in('demo')
    tab = opened(page, server)
    sending, fetching = part(tab, 'files').locator('form').all()
    sending.get_by_label('File on this computer').set_input_files(here)
    sending.get_by_label('Path').fill('/tmp/from the panel/')
    sending.get_by_role('button', name='Send').click()
    # The guest's words, verbatim.
    expect(sending.get_by_role('alert')).to_contain_text('from the panel')
    sending.get_by_label('Path').fill('/tmp/from-the-panel')
    sending.get_by_role('button', name='Send').click()
    expect(sending.get_by_text('Done: 1.0 MiB')).to_be_visible()
    run(tab, 'sha256sum < /tmp/from-the-panel')
    digest = hashlib.sha256(here.read_bytes()).hexdigest()
    expect(stream(tab, 'out')).to_contain_text(digest)
    fetching.get_by_label('Path').fill('/tmp/from-the-panel')
    with page.expect_download() as download:
        fetching.get_by_role('button', name='Fetch').click()
    back = pathlib.Path(download.value.path())
    assert back.read_bytes() == here.read_bytes()


def test_details(log_in: LogIn, server: str) -> None:
    agent = part(opened(log_in('demo'), server), 'agent')
    agent.get_by_text('Details of the guest').click()
    expect(agent.locator('[data-field="details"]')).to_contain_text('lo')


def test_a_server_that_is_shut_off(
    log_in: LogIn, boot: Callable[..., str], compute: Any
) -> None:
    server = boot()
    compute.stop_server(server)
    compute.wait_for_server(compute.get_server(server), status='SHUTOFF')
    tab = opened(log_in('demo'), server)
    agent = part(tab, 'agent')
    expect(agent.locator('[data-field="advice"]')).to_have_text(
        'Start the instance.'
    )
    run(tab, 'true')
    expect(part(tab, 'run').get_by_role('alert').first).to_contain_text(
        'has vm_state stopped'
    )


def test_history(log_in: LogIn, demo: Any, server: str) -> None:
    demo.guest('exec', server, '--', 'echo', 'from the {$ client $}')
    page = log_in('demo')
    root = page.locator('.guest-agent')
    expect(root.locator('#ga-commands')).to_contain_text(
        "echo 'from the {$ client $}'"
    )
    root.get_by_label('Status').select_option('LOST')
    root.get_by_role('button', name='Filter').click()
    page.wait_for_url('**status=LOST*')


def test_a_reader(log_in: LogIn, demo: Any, server: str) -> None:
    demo.guest('exec', server, '--', 'true')
    page = log_in('reader')
    tab = opened(page, server)
    expect(tab.get_by_role('button')).to_have_text(['Check again'])
    expect(part(tab, 'last').locator('tbody tr').first).to_be_visible()


def test_another_project(log_in: LogIn, server: str) -> None:
    page = log_in('other')
    expect(page.locator('.guest-agent')).to_contain_text('No commands fit.')
    answer = page.request.get(f'{HISTORY}servers/{server}/commands/')
    assert answer.status == 404
    assert server in answer.json()['message']


def test_a_run(log_in: LogIn, server: str, compute: Any) -> None:
    page = log_in('demo', f'{HISTORY}runs/new/')
    root = page.locator('.guest-agent')
    name = compute.get_server(server).name
    root.get_by_role('listbox', name='Instances').select_option(server)
    root.get_by_role('textbox', name='Command').fill('echo {$ 1 $}; exit 3')
    root.get_by_label('Name of the run').fill('of the panel')
    root.get_by_role('button', name='Start the run').click()
    page.wait_for_url(f'**{HISTORY}runs/*-*/')
    target = root.locator('#ga-targets tbody tr')
    expect(target).to_contain_text(name)
    expect(target).to_contain_text('exit code 3')
    expect(root.locator('.ga-legend')).to_have_text(
        '1 ended with another exit code'
    )
    target.get_by_role('link', name='Output and details').click()
    expect(stream(root, 'out')).to_have_text('{$ 1 $}\n')
    page.goto(f'{HISTORY}runs/')
    row = root.locator('#ga-runs tbody tr').first
    expect(row).to_contain_text('of the panel')
    page.on('dialog', lambda dialog: dialog.accept())
    row.get_by_role('button', name='Delete').click()
    expect(root).not_to_contain_text('of the panel')


def test_an_admin(log_in: LogIn, server: str) -> None:
    page = log_in('admin', INCIDENTS)
    hosts = page.get_by_role('table', name='Hosts')
    expect(hosts).to_contain_text('compute-1')
    root = page.locator('.guest-agent')
    page.goto(f'{INCIDENTS}?status=&host=compute-1')
    root.locator('#ga-commands tbody tr').first.wait_for()
