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

from guest_agent_ext import command
from guest_agent_ext.db import audit
from guest_agent_ext.db import commands
from tests.functional.db import base


class TestAudit:
    def test_audit_is_told_once(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        assert not audit.due(base.CELL, 10)
        commands.note_started(
            uuid, attempt='first', pid=1, started_uptime=1, age=0.0
        )
        assert [row.uuid for row in audit.due(base.CELL, 10)] == [uuid]
        assert audit.take(uuid, 60)
        assert not audit.take(uuid, 60)
        assert not audit.due(base.CELL, 10)
        base.finish(uuid, command.COMPLETED)
        # The one that tells of the start has not finished yet.
        assert not audit.due(base.CELL, 10)
        audit.note_told(uuid, command.RUNNING)
        (row,) = audit.due(base.CELL, 10)
        assert (row.audited, row.status) == (
            command.RUNNING,
            command.COMPLETED,
        )
        assert audit.take(uuid, 60)
        audit.note_told(uuid, command.COMPLETED)
        assert not audit.due(base.CELL, 10)

    def test_deleted_before_it_was_told_is_told(self) -> None:
        uuid = base.new()
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED, out_data=b'out')
        assert commands.delete(uuid)
        assert not commands.delete(uuid)
        assert commands.get(uuid) is None
        assert not commands.list_of_instance('server', limit=10).rows
        (row,) = audit.due(base.CELL, 10)
        assert row.uuid == uuid
        assert audit.take(uuid, 60)
        audit.note_told(uuid, command.COMPLETED)
        assert not commands.states([uuid])

    def test_audit_that_was_not_told_is_due_again(self) -> None:
        uuid = base.new()
        commands.end(
            uuid, source=command.PENDING, status=command.FAILED, error='error'
        )
        assert audit.take(uuid, -1)
        assert len(audit.due(base.CELL, 10)) == 1
        assert not audit.due('other', 10)
