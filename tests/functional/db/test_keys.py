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

import concurrent.futures

from oslo_db import exception as db_exc
import pytest

from guest_agent_ext import command
from guest_agent_ext.db import audit
from guest_agent_ext.db import commands
from guest_agent_ext.db import keys
from guest_agent_ext.db import purge
from tests.functional.db import base


class TestKeys:
    def test_one_of_many_with_one_key_is_recorded(self) -> None:
        def record(number: int) -> str | None:
            try:
                return base.new(key=base.key_columns('scope'))
            except db_exc.DBDuplicateEntry:
                return None

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            won = [uuid for uuid in pool.map(record, range(50)) if uuid]
        assert len(won) == 1
        found = keys.find('scope')
        assert found is not None and found.command_uuid == won[0]
        rows = commands.list_of_instance('server', limit=10).rows
        assert [row.uuid for row in rows] == won

    def test_key_is_forgotten_a_day_after_the_end(self) -> None:
        uuid = base.new(key=base.key_columns('ended'))
        base.new(key=base.key_columns('waiting'))
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED)
        assert keys.find('ended') is not None
        base.end_earlier(uuid, 86401)
        assert keys.find('ended') is None
        assert keys.find('waiting') is not None
        base.new(key=base.key_columns('ended'))

    @pytest.mark.parametrize(
        ('seconds', 'is_known'), [(86300, True), (86401, False)]
    )
    def test_key_outlives_its_command(
        self, seconds: int, is_known: bool
    ) -> None:
        uuid = base.new(key=base.key_columns('scope'))
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED)
        base.end_earlier(uuid, seconds)
        audit.note_told(uuid, command.COMPLETED)
        assert commands.delete(uuid)
        assert (keys.find('scope') is not None) is is_known

    def test_expired_keys_are_removed_in_batches(self) -> None:
        for number in range(3):
            uuid = base.new(key=base.key_columns(str(number)))
            base.claim(uuid)
            base.finish(uuid, command.COMPLETED)
            base.end_earlier(uuid, 86401)
        commands.delete(uuid)
        base.new(key=base.key_columns('waiting'))
        assert [keys.remove_expired(2) for _ in range(3)] == [2, 1, 0]
        assert keys.find('waiting') is not None

    def test_same_key_at_once_takes_one_place(self) -> None:
        results = base.together(
            6,
            bounds=commands.Bounds(1, 1),
            key=lambda _: base.key_columns('scope'),
        )
        assert results.count(db_exc.DBDuplicateEntry) == 5

    @pytest.mark.parametrize(
        ('seconds', 'is_known'), [(1000, True), (86401, False)]
    )
    def test_key_outlives_a_purge(self, seconds: int, is_known: bool) -> None:
        uuid = base.new(key=base.key_columns('scope'))
        commands.cancel(uuid)
        base.end_earlier(uuid, seconds)
        assert purge.remove_old(100, 10) == 1
        assert (keys.find('scope') is not None) is is_known
