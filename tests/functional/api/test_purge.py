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
import time

from nova import context as nova_context
from nova import objects
import pytest
import sqlalchemy as sa

from guest_agent_ext import metrics
from guest_agent_ext.cmd import manage
from guest_agent_ext.conductor import purge
from guest_agent_ext.db import commands
from guest_agent_ext.db import leases
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from guest_agent_ext.db import sqltypes
from tests import counted
from tests.functional.api import base


@pytest.fixture(autouse=True)
def empty(cloud: base.Cloud) -> Iterator[None]:
    yield
    with session.writer() as db:
        db.execute(sa.delete(models.Command))


def new(cloud: base.Cloud, seconds: int | None = None) -> str:
    """Record a command, which ended ``seconds`` ago, if at all."""
    uuid: str = cloud.post().json()['command']['uuid']
    if seconds is not None:
        cloud.end(uuid)
        with session.writer() as db:
            db.execute(
                sa.update(models.Command)
                .where(models.Command.uuid == uuid)
                .values(finished_at=sqltypes.utc_in(-seconds))
            )
    return uuid


def status_of(cloud: base.Cloud, uuid: str) -> int:
    status: int = cloud.get(f'{cloud.path}/{uuid}').status_code
    return status


def test_a_day_after_the_end(cloud: base.Cloud) -> None:
    old, recent, waiting = new(cloud, 86401), new(cloud, 86300), new(cloud)
    assert sum(purge.run()) == 1
    assert status_of(cloud, old) == 404
    assert status_of(cloud, recent) == status_of(cloud, waiting) == 200


def test_option(cloud: base.Cloud) -> None:
    uuid = new(cloud, 1000)
    base.CONF.set_override('retention', 900, group='guest_agent')
    try:
        assert sum(purge.run()) == 1
    finally:
        base.CONF.clear_override('retention', group='guest_agent')
    assert status_of(cloud, uuid) == 404


def set_bound(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Set an option, and have the bounds looked after at once."""
    base.CONF.set_override(name, value, group='guest_agent')
    monkeypatch.setattr(purge, 'BOUNDS_INTERVAL', -1)
    with session.writer() as db:
        db.execute(sa.delete(models.Lease))


@pytest.fixture
def _options() -> Iterator[None]:
    yield
    for owner in ('server', 'project'):
        for name in ('max_kept_per', 'max_kept_bytes_per'):
            base.CONF.clear_override(f'{name}_{owner}', group='guest_agent')


@pytest.mark.usefixtures('_options')
@pytest.mark.parametrize(
    'option', ['max_kept_per_server', 'max_kept_per_project']
)
def test_oldest_go_where_too_many_are_kept(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    waiting = new(cloud)
    ended = [new(cloud, 1) for _ in range(5)]
    set_bound(monkeypatch, option, 4)
    monkeypatch.setattr(purge, 'BATCH', 1)
    assert sum(purge.run()) == 2
    assert [status_of(cloud, uuid) for uuid in ended] == [
        404,
        404,
        200,
        200,
        200,
    ]
    assert status_of(cloud, waiting) == 200
    assert sum(purge.run()) == 0


@pytest.mark.usefixtures('_options')
@pytest.mark.parametrize(
    'option', ['max_kept_bytes_per_server', 'max_kept_bytes_per_project']
)
def test_oldest_go_where_too_much_is_kept(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    small = new(cloud, 1)
    large = [cloud.post().json()['command']['uuid'] for _ in range(3)]
    for uuid in large:
        cloud.end(uuid, out_data=b'x' * 10_000)
    set_bound(monkeypatch, option, 25_000)
    assert sum(purge.run()) == 2
    assert [status_of(cloud, uuid) for uuid in (small, *large)] == [
        404,
        404,
        200,
        200,
    ]


def test_what_has_not_ended_is_kept(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch, _options: None
) -> None:
    waiting = [new(cloud) for _ in range(3)]
    set_bound(monkeypatch, 'max_kept_per_server', 1)
    assert sum(purge.run()) == 0
    assert [status_of(cloud, uuid) for uuid in waiting] == [200] * 3


def test_with_the_server_that_nova_forgot(cloud: base.Cloud) -> None:
    kept = new(cloud, 1)
    cloud.instance = cloud.make_instance()
    cloud.path = base.commands_of(cloud.instance.uuid)
    ended, waiting = new(cloud, 1), new(cloud)
    assert sum(purge.run()) == 0
    objects.InstanceMapping.get_by_instance_uuid(
        nova_context.get_admin_context(), cloud.instance.uuid
    ).destroy()
    assert sum(purge.run()) == 1
    assert commands.get(ended) is None
    assert commands.get(waiting) and commands.get(kept)


def test_batch_by_batch(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, 'BATCH', 2)
    for _ in range(5):
        new(cloud, 86401)
    assert [number for number in purge.run() if number] == [2, 2, 1]


def test_one_process_at_a_time(cloud: base.Cloud) -> None:
    new(cloud, 86401), new(cloud, 86401)
    assert leases.take('purge', 'another', 60)
    assert list(purge.run()) == []
    leases.release('purge', 'another')
    assert sum(purge.run()) == 2
    # It was given back.
    assert leases.take('purge', 'another', -1)


def test_who_has_lost_its_lease_stops(
    cloud: base.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, 'BATCH', 1)
    monkeypatch.setattr(purge, 'LEASE', -1)
    new(cloud, 86401), new(cloud, 86401)
    batches = purge.run()
    assert next(batches) == 1
    assert leases.take('purge', 'another', 60)
    assert list(batches) == []
    leases.release('purge', 'another')
    assert purge.count() == 1


def test_program_says_what_it_did(
    cloud: base.Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    new(cloud, 86401)
    assert manage.purge() == 0
    assert capsys.readouterr() == ('Removed commands: 1\n', '')


def test_what_was_removed_is_counted(cloud: base.Cloud) -> None:
    for _ in range(3):
        new(cloud, 86401)
    begun = time.time()
    with counted.grows('guest_agent_commands_purged_total', 3):
        for _ in purge.run():
            assert counted.value('guest_agent_lease_held', lease='purge') == 1
    assert counted.value('guest_agent_lease_held', lease='purge') == 0
    assert counted.value('guest_agent_purge_timestamp_seconds') >= begun


def test_purge_of_another_is_not_counted(cloud: base.Cloud) -> None:
    metrics.PURGED_AT.set(0)
    assert leases.take('purge', 'another', 60)
    assert not list(purge.run())
    assert counted.value('guest_agent_lease_held', lease='purge') == 0
    assert counted.value('guest_agent_purge_timestamp_seconds') == 0
    leases.release('purge', 'another')
