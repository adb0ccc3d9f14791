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

import pytest
import sqlalchemy as sa

from guest_agent_ext import command
from guest_agent_ext import exception
from guest_agent_ext.db import commands
from guest_agent_ext.db import hosts
from guest_agent_ext.db import models
from guest_agent_ext.db import session
from tests.functional.db import base


class TestHosts:
    def test_newer_start_of_a_service_fences_the_older(self) -> None:
        first, second = base.register('machine'), base.register('machine')
        assert first and second and first != second
        assert hosts.heartbeat(base.CELL, 'host', first, 10) is None
        assert base.work_of(second) == []
        uuid = base.new(host='another')
        assert base.server_for(uuid, incarnation=second) == 'server'
        assert base.server_for(uuid, incarnation=first) is None
        assert (
            base.server_for(uuid, incarnation=second, cell_uuid='another')
            is None
        )
        assert (
            base.server_for(uuid, incarnation=second, host='another') is None
        )
        assert base.server_for('no such', incarnation=second) is None

    def test_incarnation_cannot_be_guessed_or_read(self) -> None:
        incarnation = base.register('machine')
        assert incarnation is not None and len(incarnation) == 32
        with session.reader() as db:
            kept = db.scalars(sa.select(models.Host.incarnation)).one()
        assert kept != incarnation
        assert hosts.heartbeat(base.CELL, 'host', kept, 10) is None

    def test_service_that_was_removed_is_fenced_by_the_next(self) -> None:
        first = base.register('machine')
        assert first is not None
        hosts.remove('host', None, -1)
        assert hosts.heartbeat(base.CELL, 'host', first, 10) is None
        assert base.register('other')
        assert hosts.heartbeat(base.CELL, 'host', first, 10) is None

    def test_only_what_is_down_and_idle_is_removed(self) -> None:
        base.register('machine')
        with pytest.raises(exception.HostInUse, match='is up'):
            hosts.remove('host', base.CELL, 60)
        uuid = base.new()
        with pytest.raises(exception.HostInUse, match='unfinished'):
            hosts.remove('host', base.CELL, -1)
        base.claim(uuid)
        base.finish(uuid, command.COMPLETED)
        base.new(host='another'), base.new(cell_uuid='another')
        hosts.remove('host', base.CELL, -1)
        assert hosts.list_all() == []
        with pytest.raises(exception.HostNotFound, match='not known'):
            hosts.remove('host', base.CELL, -1)

    def test_name_in_two_cells_needs_its_cell(self) -> None:
        base.register('machine')
        hosts.register(
            'another', 'host', machine_id='other', version='1', down_time=60
        )
        with pytest.raises(exception.HostInUse, match=f'another, {base.CELL}'):
            hosts.remove('host', None, -1)
        hosts.remove('host', 'another', -1)
        assert [state.cell_uuid for state in hosts.list_all()] == [base.CELL]

    def test_other_machine_is_refused_while_the_first_lives(self) -> None:
        assert base.register('machine')
        assert base.register('other') is None
        assert base.register('other', down_time=-1)

    def test_host_is_up_while_it_is_heard(self) -> None:
        assert not hosts.is_up(base.CELL, 'host', 60)
        base.register('machine')
        assert hosts.is_up(base.CELL, 'host', 60)
        assert not hosts.is_up(base.CELL, 'host', -1)
        assert not hosts.is_up('other cell', 'host', 60)

    def test_hosts_count_what_users_see(self) -> None:
        base.register('machine')
        _, handed_out, running = base.new(), base.new(), base.new()
        for uuid in (handed_out, running):
            base.claim(uuid)
        commands.note_started(
            running, attempt='first', pid=1, started_uptime=1, age=0
        )
        (state,) = hosts.list_all()
        assert (state.running, state.pending) == (1, 2)
        assert state.silent_for < 60
