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

from oslo_messaging._drivers import amqpdriver
import pytest

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
