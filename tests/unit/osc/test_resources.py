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


from unittest import mock

from openstack import exceptions
import pytest

from guest_agent_ext import command
from guest_agent_ext.osc import resources
from tests.unit.osc import fakes


@pytest.fixture
def found() -> resources.Command:
    made: resources.Command = resources.Command.new(
        id='command-id', server_id=fakes.SERVER
    )
    return made


def test_final_states_are_those_of_the_service() -> None:
    # The client does not import them: it may be installed alone.
    assert set(resources.Command.ENDED) == set(command.ENDED)


@pytest.mark.parametrize('status', command.STATUSES)
def test_command_has_ended(status: str) -> None:
    assert resources.Command.new(status=status).has_ended == (
        status in command.ENDED
    )


def test_wait_takes_over_what_the_server_answers(
    compute: mock.Mock, found: resources.Command
) -> None:
    compute.get.return_value = fakes.Response(
        body=fakes.shown('COMPLETED', result={'exitcode': 3})
    )
    found.wait(compute, 5)
    assert compute.get.call_args == mock.call(
        f'/servers/{fakes.SERVER}/guest-agent/commands/command-id',
        headers={'Prefer': 'wait=5'},
    )
    assert found.has_ended and found.result == {'exitcode': 3}


@pytest.mark.parametrize('is_complete', [True, False])
def test_output_tells_where_to_read_on(
    compute: mock.Mock, found: resources.Command, is_complete: bool
) -> None:
    compute.get.return_value = fakes.output(b'abc', 5, is_complete)
    assert found.output(compute, 'err', 5) == (b'abc', 8, is_complete)
    assert compute.get.call_args.kwargs['params'] == {
        'stream': 'err',
        'offset': 5,
    }


def test_refusals_are_raised(
    compute: mock.Mock, found: resources.Command
) -> None:
    refusal = fakes.Response(409, {'conflictingRequest': {'message': 'no'}})
    compute.get.return_value = compute.post.return_value = refusal
    for ask in (
        lambda: found.cancel(compute),
        lambda: found.wait(compute, 1),
        lambda: found.output(compute, 'out', 0),
    ):
        with pytest.raises(exceptions.ConflictException):
            ask()


@pytest.mark.parametrize(
    ('cell', 'params'), [('c', {'cell': 'c'}), (None, {})]
)
def test_host_is_named_in_one_part_of_the_path(
    compute: mock.Mock, cell: str | None, params: dict[str, str]
) -> None:
    compute.delete.return_value = fakes.Response(204)
    resources.Host.remove(compute, 'a/b?c', cell)
    compute.delete.assert_called_once_with(
        '/guest-agent/hosts/a%2Fb%3Fc', params=params
    )
