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

"""Files to and from a server, through Horizon."""

from collections.abc import Callable
import os
import pathlib
import threading

from playwright import sync_api
from playwright.sync_api import expect

from tests.panel import cloud as fake
from tests.panel.conftest import part

OpenTab = Callable[..., sync_api.Locator]


def forms(tab: sync_api.Locator) -> tuple[sync_api.Locator, sync_api.Locator]:
    """Return the forms that send and fetch."""
    files = part(tab, 'files')
    return files.locator('form').nth(0), files.locator('form').nth(1)


def test_there_and_back(
    cloud: fake.Cloud,
    open_tab: OpenTab,
    page: sync_api.Page,
    tmp_path: pathlib.Path,
) -> None:
    content = os.urandom(3 * 1024 * 1024 + 7)
    here = tmp_path / 'name with space'
    here.write_bytes(content)
    sending, fetching = forms(open_tab(cloud.add_server()))
    sending.get_by_label('File on this computer').set_input_files(here)
    sending.get_by_label('Path').fill('/tmp/')
    sending.get_by_role('button', name='Send').click()
    expect(sending.get_by_text('Done: 3.0 MiB')).to_be_visible()
    assert cloud.files == {'/tmp/name with space': content}
    fetching.get_by_label('Path').fill('/tmp/name with space')
    with page.expect_download() as download:
        fetching.get_by_role('button', name='Fetch').click()
    assert download.value.suggested_filename == 'name with space'
    assert pathlib.Path(download.value.path()).read_bytes() == content
    expect(fetching.get_by_text('Done: 3.0 MiB')).to_be_visible()


def test_an_empty_file(
    cloud: fake.Cloud, open_tab: OpenTab, tmp_path: pathlib.Path
) -> None:
    here = tmp_path / 'empty'
    here.touch()
    sending, _ = forms(open_tab(cloud.add_server()))
    sending.get_by_label('File on this computer').set_input_files(here)
    sending.get_by_label('Path').fill('/tmp/x')
    sending.get_by_role('button', name='Send').click()
    expect(sending.get_by_text('Done: 0 B')).to_be_visible()
    assert cloud.files == {'/tmp/x': b''}


def test_a_file_that_is_not_there(
    cloud: fake.Cloud, open_tab: OpenTab
) -> None:
    _, fetching = forms(open_tab(cloud.add_server()))
    fetching.get_by_label('Path').fill('/no/{$ 7*7 $}')
    fetching.get_by_role('button', name='Fetch').click()
    expect(fetching.get_by_role('alert')).to_have_text(
        'There is no /no/{$ 7*7 $} in the server'
    )


def test_a_server_that_refuses(
    cloud: fake.Cloud, open_tab: OpenTab, tmp_path: pathlib.Path
) -> None:
    cloud.refusals['POST', '/file-write'] = fake.Refusal(
        409, 'No space left on device', {'Retry-After': '5'}
    )
    here = tmp_path / 'x'
    here.write_bytes(b'x' * 1000)
    sending, _ = forms(open_tab(cloud.add_server()))
    sending.get_by_label('File on this computer').set_input_files(here)
    sending.get_by_label('Path').fill('/tmp/x')
    sending.get_by_role('button', name='Send').click()
    expect(sending.get_by_role('alert')).to_have_text(
        'No space left on device'
    )


def test_a_transfer_is_stopped(
    cloud: fake.Cloud, open_tab: OpenTab, tmp_path: pathlib.Path
) -> None:
    cloud.hold = threading.Event()
    here = tmp_path / 'x'
    here.write_bytes(b'x' * 1000)
    sending, _ = forms(open_tab(cloud.add_server()))
    sending.get_by_label('File on this computer').set_input_files(here)
    sending.get_by_label('Path').fill('/tmp/x')
    sending.get_by_role('button', name='Send').click()
    expect(sending.locator('progress')).to_be_visible()
    sending.get_by_role('button', name='Stop').click()
    expect(sending.get_by_role('alert')).to_have_text('Stopped.')
    expect(sending.get_by_role('button', name='Send')).to_be_enabled()
