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

from collections.abc import Iterator
import concurrent.futures
import time
from typing import Any

import pytest

from guest_agent_ext.api import slots
from guest_agent_ext.api import waiting
from tests.functional.api import base


@pytest.fixture(autouse=True)
def slot(cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One may wait at once."""
    # What stands in for the server says that it has no threads.
    monkeypatch.setattr(slots, 'threads', lambda environ: 2)
    base.CONF.set_override('max_waiters', 1, group='guest_agent')
    yield
    base.CONF.clear_override('max_waiters', group='guest_agent')


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        yield executor


def show(cloud: base.Cloud, uuid: str, seconds: int) -> Any:
    return cloud.get(
        f'{cloud.path}/{uuid}', headers={'Prefer': f'wait={seconds}'}
    )


def wait_for_waiter() -> None:
    deadline = time.monotonic() + 10
    while not waiting._slots._taken:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_get_is_answered_at_the_end(
    cloud: base.Cloud, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    delays = []
    for _ in range(5):
        uuid = cloud.post().json()['command']['uuid']
        response = pool.submit(show, cloud, uuid, 20)
        wait_for_waiter()
        time.sleep(0.3)  # until the gap has grown
        cloud.end(uuid, out_data=b'out', out_bytes=3)
        ended_at = time.monotonic()
        shown = response.result().json()['command']
        delays.append(time.monotonic() - ended_at)
        assert shown['status'] == 'COMPLETED'
        assert shown['result']['out_data'] == 'out'
        assert response.result().headers['Preference-Applied'] == 'wait=20'
    # And not when the wait is over; the unit tests know how soon.
    assert max(delays) < 10, delays


def test_beyond_the_slots_the_answer_comes_at_once(
    cloud: base.Cloud, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    uuid = cloud.post().json()['command']['uuid']
    first = pool.submit(show, cloud, uuid, 20)
    wait_for_waiter()
    second = show(cloud, uuid, 20)
    assert not first.done()
    assert second.json()['command']['status'] == 'PENDING'
    assert 'Preference-Applied' not in second.headers
    cloud.end(uuid)
    assert 'Preference-Applied' in first.result().headers
    assert 'Preference-Applied' in show(cloud, uuid, 20).headers


def test_post_waits_as_long_as_it_prefers(cloud: base.Cloud) -> None:
    began = time.monotonic()
    response = cloud.post(headers={'Prefer': 'wait=1'})
    assert time.monotonic() - began >= 1
    assert response.json()['command']['status'] == 'PENDING'
    assert response.headers['Preference-Applied'] == 'wait=1'


def test_option_bounds_the_wait(cloud: base.Cloud) -> None:
    base.CONF.set_override('max_wait', 0, group='guest_agent')
    try:
        response = cloud.post(headers={'Prefer': 'wait=600'})
    finally:
        base.CONF.clear_override('max_wait', group='guest_agent')
    assert response.headers['Preference-Applied'] == 'wait=0'


def test_without_a_preference_nobody_waits(cloud: base.Cloud) -> None:
    assert 'Preference-Applied' not in cloud.post().headers
