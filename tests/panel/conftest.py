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

"""A browser, a Horizon with the panel, and a cloud that the tests play.

Horizon is real, and a process of its own. Whoever is slow to answer here is
one of these three, so waits have bounds that only a failure reaches.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import pathlib

from playwright import sync_api
import pytest

from tests.panel import cloud as fake
from tools.panel import browser as browser_module
from tools.panel import horizon
from tools.testbed import processes

#: Milliseconds, for playwright.
TIMEOUT = 120_000
#: Widths of a desk and of a phone.
WIDE, NARROW = 1280, 400
_TAB = '?tab=instance_details__guest'


@dataclasses.dataclass(frozen=True)
class Site:
    """The Horizon.

    :ivar url: its root
    :ivar log: file of what it logs
    """

    url: str
    log: pathlib.Path
    process: processes.Process


@pytest.fixture(scope='session')
def the_cloud() -> Iterator[fake.Cloud]:
    cloud = fake.Cloud()
    yield cloud
    cloud.close()


@pytest.fixture(scope='session')
def site(
    the_cloud: fake.Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    state = tmp_path_factory.mktemp('horizon')
    port = processes.free_port()
    log = state / 'horizon.log'
    process = horizon.start(state, the_cloud.url + '/v3', port, log)
    yield Site(f'http://127.0.0.1:{port}', log, process)
    process.stop()


@pytest.fixture
def cloud(the_cloud: fake.Cloud) -> Iterator[fake.Cloud]:
    """The cloud, empty and with its defaults."""
    fresh = fake.Cloud()
    fresh.close()
    kept = ('_server', 'lock')
    the_cloud.__dict__.update(
        {k: v for k, v in fresh.__dict__.items() if k not in kept}
    )
    yield the_cloud
    if the_cloud.hold is not None:
        the_cloud.hold.set()


@pytest.fixture(scope='session')
def chromium() -> Iterator[sync_api.Browser]:
    with browser_module.started() as started:
        yield started


@pytest.fixture(scope='session')
def windows(
    chromium: sync_api.Browser, site: Site, the_cloud: fake.Cloud
) -> Iterator[Callable[..., sync_api.BrowserContext]]:
    """Windows in which a user with a role is logged in."""
    opened: list[sync_api.BrowserContext] = []

    def new(role: str) -> sync_api.BrowserContext:
        the_cloud.role = role
        context = chromium.new_context(accept_downloads=True)
        opened.append(context)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        browser_module.log_in(
            page, site.url, 'demo', 'secret', '/project/guest_commands/'
        )
        page.close()
        return context

    sync_api.expect.set_options(timeout=TIMEOUT)
    # What the browser has of Horizon's files it keeps from test to test.
    known = functools.cache(new)

    def of(role: str, is_new: bool = False) -> sync_api.BrowserContext:
        return new(role) if is_new else known(role)

    yield of
    for context in opened:
        context.close()


@pytest.fixture
def log_in(
    windows: Callable[..., sync_api.BrowserContext], cloud: fake.Cloud
) -> Iterator[Callable[..., sync_api.Page]]:
    """Opens a page of a user with a role; no script of it may fail.

    ``is_new`` is for tests that end or change the session.
    """
    pages: list[sync_api.Page] = []
    failures: list[str] = []

    def as_role(role: str = 'member', is_new: bool = False) -> sync_api.Page:
        context = windows(role, is_new)
        cloud.role = role
        page = context.new_page()
        page.set_viewport_size({'width': WIDE, 'height': 900})
        page.on('pageerror', lambda error: failures.append(str(error)))
        pages.append(page)
        return page

    yield as_role
    for page in pages:
        page.close()
    assert not failures


@pytest.fixture
def page(log_in: Callable[..., sync_api.Page]) -> sync_api.Page:
    """A page of a member."""
    return log_in()


@pytest.fixture
def open_tab(
    page: sync_api.Page, site: Site
) -> Callable[..., sync_api.Locator]:
    """Opens the tab of a server."""

    def go(server_id: str, query: str = '') -> sync_api.Locator:
        page.goto(f'{site.url}/project/instances/{server_id}/{_TAB}{query}')
        tab = page.locator('[data-guest-agent="tab"]')
        tab.wait_for()
        return tab

    return go


@pytest.fixture
def go(page: sync_api.Page, site: Site) -> Callable[[str], sync_api.Locator]:
    """Goes to a page, and returns what is ours of it."""

    def to(path: str) -> sync_api.Locator:
        page.goto(site.url + path)
        root = page.locator('.guest-agent')
        root.wait_for()
        return root

    return to


Go = Callable[[str], sync_api.Locator]


def part(tab: sync_api.Locator, name: str) -> sync_api.Locator:
    """Return a part of the tab."""
    return tab.locator(f'[data-part="{name}"]').first


def stream(root: sync_api.Locator, name: str) -> sync_api.Locator:
    """Return where a stream of a command is shown."""
    return root.locator(f'[data-stream="{name}"] [data-field="text"]')


def expect_text(locator: sync_api.Locator, text: str) -> None:
    """Wait until an element has exactly a text, spaces and all."""
    try:
        processes.wait_for(
            lambda: locator.text_content() == text, TIMEOUT / 1000, 'the text'
        )
    except processes.StartError:
        assert locator.text_content() == text
