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

"""The browser of the tests: Debian's Chromium, without a window."""

from collections.abc import Iterator
import contextlib

from playwright import sync_api

_CHROMIUM = '/usr/bin/chromium'
#: As root it has no sandbox of its own, and the machine may have no /dev/shm.
_FLAGS = ('--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu')


@contextlib.contextmanager
def started() -> Iterator[sync_api.Browser]:
    """Start a browser, and stop it."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=list(_FLAGS)
        )
        yield browser
        browser.close()


def log_in(
    page: sync_api.Page, url: str, user: str, password: str, then: str
) -> None:
    """Log in to Horizon.

    :param url: root of Horizon
    :param then: path of the page to go to
    """
    page.goto(f'{url}/auth/login/?next={then}')
    page.fill('#id_username', user)
    page.fill('#id_password', password)
    page.click('#loginBtn')
    page.wait_for_url(f'**{then}*')
