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

"""One command in many servers."""

from typing import Any

from tempest import config
from tempest.lib import decorators
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils
from tempest.lib.common.utils import test_utils

from guest_agent_ext.tempest_plugin.tests import base

CONF = config.CONF

ENDED = ('COMPLETED', 'STOPPED', 'CANCELLED')


class RunsTest(base.GuestAgentTest):
    """What a member does with runs in two servers of the project.

    :cvar servers_of_run: uuids of the servers, in the order of release
    """

    servers_of_run: list[str]

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.servers_of_run = [cls.server_id, cls.boot()]

    def _run(self, *command: str, **run: Any) -> dict[str, Any]:
        """Ask for a run in both servers, and return the run."""
        made: dict[str, Any] = self.client.create_run(
            {'servers': self.servers_of_run}, list(command), **run
        )['run']
        self.addCleanup(
            test_utils.call_and_ignore_notfound_exc, self._remove, made['uuid']
        )
        return made

    def _remove(self, run_id: str) -> None:
        if self.client.show_run(run_id)['run']['status'] not in ENDED:
            self.client.cancel_run(run_id)
            self._wait(run_id)
        self.client.delete_run(run_id)

    def _wait(self, run_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a run has one of several statuses, by default an end."""
        return self._wait_for(
            run_id, lambda run: run['status'] in (statuses or ENDED)
        )

    def _wait_for(self, run_id: str, is_so: Any) -> dict[str, Any]:
        shown: dict[str, Any] = {}

        def look() -> bool:
            shown.update(self.client.show_run(run_id)['run'])
            return bool(is_so(shown))

        if not test_utils.call_until_true(
            look, CONF.guest_agent.command_timeout, 0.5
        ):
            self.fail('Run %s is %s' % (run_id, shown))
        return shown

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a01')
    def test_run(self) -> None:
        name = data_utils.rand_name('run')
        made = self._run('echo', 'hello', name=name)
        self.assertEqual((name, 2), (made['name'], made['targets']))
        ended = self._wait(made['uuid'])
        self.assertEqual('COMPLETED', ended['status'])
        self.assertEqual(
            (0, 2), (ended['errors'], ended['counts']['COMPLETED'])
        )
        listed = self.client.list_run_commands(made['uuid'])['commands']
        self.assertEqual(
            set(self.servers_of_run), {row['instance_uuid'] for row in listed}
        )
        for row in listed:
            self.assertEqual(made['uuid'], row['run_uuid'])
            shown = self.client.show_command(
                row['instance_uuid'], row['uuid']
            )['command']
            self.assertEqual('hello\n', shown['result']['out_data'])
        (one,) = self.client.list_run_commands(
            made['uuid'], server=self.server_id
        )['commands']
        self.assertEqual(self.server_id, one['instance_uuid'])
        self.assertIn(
            made['uuid'],
            [run['uuid'] for run in self.client.list_runs()['runs']],
        )

    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a02')
    def test_targets_by_metadata(self) -> None:
        name = data_utils.rand_name('role')
        self.servers.update_server_metadata(self.server_id, {name: 'web'})
        self.addCleanup(
            self.servers.delete_server_metadata_item, self.server_id, name
        )
        made = self.client.create_run({'metadata': {name: 'web'}}, ['id'])
        self.addCleanup(self._remove, made['run']['uuid'])
        self.assertEqual(1, made['run']['targets'])
        ended = self._wait(made['run']['uuid'])
        self.assertEqual(1, ended['counts']['COMPLETED'])

    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a03')
    def test_errors_stop_a_run(self) -> None:
        made = self._run('false', max_concurrency=1, max_errors=1)
        ended = self._wait(made['uuid'])
        self.assertEqual('STOPPED', ended['status'])
        self.assertEqual(1, ended['errors'])
        self.assertEqual(1, ended['counts']['WAITING'])

    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a04')
    def test_cancel(self) -> None:
        made = self._run('sleep', '600', max_concurrency=1)
        self._wait_for(made['uuid'], lambda run: run['counts']['RUNNING'])
        self.assertRaises(
            exceptions.Conflict, self.client.delete_run, made['uuid']
        )
        self.client.cancel_run(made['uuid'])
        ended = self._wait(made['uuid'])
        self.assertEqual('CANCELLED', ended['status'])
        self.assertEqual(1, ended['counts']['CANCELLED'])
        self.assertEqual(1, ended['counts']['WAITING'])
        self.assertRaises(
            exceptions.Conflict, self.client.cancel_run, made['uuid']
        )

    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a05')
    def test_key(self) -> None:
        headers = {'Idempotency-Key': data_utils.rand_uuid()}
        first = self._run('id', headers=headers)
        again = self._run('id', headers=headers)
        self.assertEqual(first['uuid'], again['uuid'])
        self.assertRaises(
            exceptions.UnprocessableEntity, self._run, 'ls', headers=headers
        )

    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a06')
    def test_delete(self) -> None:
        made = self._run('true')
        self._wait(made['uuid'])
        listed = self.client.list_run_commands(made['uuid'])['commands']
        self.client.delete_run(made['uuid'])
        self.assertRaises(
            exceptions.NotFound, self.client.show_run, made['uuid']
        )
        for row in listed:
            self.assertRaises(
                exceptions.NotFound,
                self.client.show_command,
                row['instance_uuid'],
                row['uuid'],
            )

    @decorators.attr(type='negative')
    @decorators.idempotent_id('5b0a1c9e-7d14-4b58-8e61-0c8b6f7d1a07')
    def test_server_that_is_not_there(self) -> None:
        self.assertRaises(
            exceptions.BadRequest,
            self.client.create_run,
            {'servers': [self.server_id, data_utils.rand_uuid()]},
            ['id'],
        )
