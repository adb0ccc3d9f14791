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

"""A cell and a command that has run in it."""

import datetime
from unittest import mock

import pytest

from guest_agent_ext import command
from guest_agent_ext.db import models

CREATED = datetime.datetime(2026, 1, 1, 12, 0, 0)


@pytest.fixture
def cell() -> mock.Mock:
    return mock.Mock(
        uuid='cell', transport_url='queue', database_connection='database'
    )


@pytest.fixture
def row() -> models.Command:
    """A command that has started and ended, and was not told of."""
    return models.Command(
        uuid='aff4e8c9-4d07-4d4e-9d1e-5f0c8c1b7a01',
        type=command.EXEC,
        instance_uuid='0b0a2b5e-16a5-4a0a-b2a5-b4d1d3a5d1aa',
        status=command.COMPLETED,
        project_id='project',
        user_id='user',
        instance_project_id='owner',
        request_id='req-1',
        host='host',
        arguments={'command': ['id', 'secret']},
        inputs=None,
        created_at=CREATED,
        started_at=CREATED + datetime.timedelta(seconds=2),
        finished_at=CREATED + datetime.timedelta(seconds=5),
        audited=None,
        error=None,
        exitcode=3,
        signal=None,
    )
