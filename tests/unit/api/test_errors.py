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
import webob.exc

from guest_agent_ext import exception
from guest_agent_ext.api import errors


@pytest.mark.parametrize(
    ('kind', 'code'),
    [
        ('missing', 404),
        ('unsuitable', 400),
        ('refused', 409),
        ('busy', 409),
        ('later', 409),
        ('ended', 409),
    ],
)
def test_refusals_are_answered_by_kind(
    kind: exception.RefusalKind, code: int
) -> None:
    refusal = exception.TransferRefused(kind, 'why')
    refusal.command_uuid = 'uuid'
    answer = errors.http_error(refusal)
    assert answer.code == code
    assert answer.explanation == 'why'
    assert answer.headers[errors.UUID_HEADER] == 'uuid'
    assert 'Retry-After' not in answer.headers


@pytest.mark.parametrize(
    ('kind', 'code'),
    [(exception.TooManyTransfers, 429), (exception.CommitUnanswered, 503)],
)
def test_what_is_worth_repeating_says_when(
    kind: type[exception.TransferError], code: int
) -> None:
    answer = errors.http_error(kind('why'))
    assert answer.code == code
    assert answer.headers['Retry-After'] == '5'
    # No command was recorded.
    assert errors.UUID_HEADER not in answer.headers


def test_one_answer_does_not_change_the_next() -> None:
    first = exception.CommitUnanswered('why', 'uuid')
    errors.http_error(first)
    assert errors.RETRY == {'Retry-After': '5'}


def test_errors_without_an_answer_pass() -> None:
    @errors.answered
    def fail(error: Exception) -> None:
        raise error

    for error in (ValueError(), exception.AgentBusy(), webob.exc.HTTPGone()):
        with pytest.raises(type(error)):
            fail(error)
    with pytest.raises(webob.exc.HTTPNotFound, match='none'):
        fail(exception.HostNotFound('none'))


@pytest.mark.parametrize('kind', errors._ANSWERS)
def test_every_error_of_the_table_has_an_answer(
    kind: type[exception.GuestAgentExtError],
) -> None:
    """A class derived from one of the table needs an answer of its own."""
    assert not kind.__subclasses__()
