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

import logging
from typing import Any

from oslo_log import log as oslo_logging
from oslo_messaging._drivers import amqpdriver
import pytest

from guest_agent_ext import exception
from guest_agent_ext import logs

SECRET = 'hunter2'


def test_answer_that_came_too_late_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    logs.hide_answers()
    logs.hide_answers()
    amqpdriver.ReplyWaiters().put('id', {'result': SECRET})
    assert 'No calling threads waiting for msg_id : id' in caplog.text
    assert SECRET not in caplog.text


def unhandled(
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    traceback: Any = None,
) -> list[logging.LogRecord]:
    """Have oslo.log tell of an exception that nobody handles."""
    logs.quiet_broken_connections()
    caplog.clear()
    oslo_logging._create_logging_excepthook('nova')(
        type(error), error, traceback
    )
    return caplog.records


def test_client_that_has_gone_is_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # What uwsgi raises, from no code.
    (record,) = unhandled(caplog, OSError('write error'))
    assert (record.levelno, record.exc_info) == (logging.INFO, None)
    assert 'The client closed the connection' in record.getMessage()


def test_answer_that_broke_is_not_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert unhandled(caplog, exception.AnswerBroken('why')) == []


def test_what_else_nobody_handles_is_critical(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise OSError('write error')
    except OSError as error:
        raised = error
    for error in (raised, OSError('read error'), ValueError('write error')):
        (record,) = unhandled(caplog, error, error.__traceback__)
        assert record.levelno == logging.CRITICAL
        assert record.exc_info is not None


def test_trouble_is_logged_once_when_it_changes_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    trouble = logs.Trouble(logging.getLogger(__name__), logging.INFO)
    trouble.end('over')
    for kind in ('away', 'away', 'hung', 'hung', 'away'):
        trouble.note(kind, 'is %s', kind)
    for _ in range(2):
        trouble.end('over')
    trouble.note('away', 'is %s', 'away')
    assert caplog.messages == [
        'is away',
        'is hung',
        'is away',
        'over',
        'is away',
    ]
