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
from guest_agent_ext.db import commands
from guest_agent_ext.db import purge
from tests.functional.db import base


class TestPurge:
    def test_purge_removes_the_old_that_have_ended(self) -> None:
        old, recent, _ = base.new(), base.new(), base.new()
        for uuid in (old, recent):
            base.claim(uuid)
            base.finish(uuid, command.LOST)
        base.end_earlier(old, 101)
        base.end_earlier(recent, 90)
        assert purge.count_old(100) == 1
        assert purge.remove_old(100, 10) == 1
        assert commands.get(old) is None
        assert commands.get(recent) is not None
        assert purge.remove_old(100, 10) == 0

    def test_purge_is_bounded_and_takes_the_oldest(self) -> None:
        uuids = [base.new() for _ in range(3)]
        for age, uuid in enumerate(uuids):
            commands.cancel(uuid)
            base.end_earlier(uuid, 200 + age)
        assert purge.remove_old(100, 2) == 2
        assert commands.get(uuids[0]) is not None
        assert purge.remove_old(100, 2) == 1

    def test_purge_of_a_server_leaves_what_has_not_ended(self) -> None:
        ended, waiting = base.new(), base.new()
        other = base.new(instance_uuid='other')
        for uuid in (ended, other):
            commands.cancel(uuid)
        assert purge.servers('', 10) == ['other', 'server']
        assert purge.servers('other', 10) == ['server']
        assert purge.remove_of_servers(['server', 'x'], 10) == 1
        assert commands.get(ended) is None
        assert commands.get(waiting) and commands.get(other)
