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

from typing import Any
from unittest import mock

import pytest
import webob
import webob.exc

from guest_agent_ext.api import pages
from guest_agent_ext.api import views
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


def request(query: str) -> Any:
    req = webob.Request.blank('/?' + query)
    req.environ['nova.context'] = mock.Mock()
    return req


@pytest.mark.parametrize(
    ('query', 'limit'),
    [('', 1000), ('limit=7', 7), ('limit=0', 0), ('limit=5000', 1000)],
)
def test_limit_is_bounded_by_the_option(query: str, limit: int) -> None:
    read = mock.Mock(return_value=commands.Page([], False))
    assert pages.page(request(query), 'list', read) == {'commands': []}
    read.assert_called_once_with(limit)


def test_each_row_is_shown_as_its_project_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        models.Command(uuid=uuid, instance_project_id=project)
        for uuid, project in (('1', 'a'), ('2', 'b'), ('3', 'a'))
    ]
    viewer_of = mock.Mock(side_effect=lambda context, project: project)
    monkeypatch.setattr(views, 'viewer_of', viewer_of)
    monkeypatch.setattr(
        views, 'listed', lambda row, viewer: {row.uuid: viewer}
    )
    page = pages.page(
        request(''), 'list', lambda limit: commands.Page(rows, False)
    )
    assert page['commands'] == [{'1': 'a'}, {'2': 'b'}, {'3': 'a'}]
    # The policy is asked once for each project.
    assert viewer_of.call_count == 2


def test_marker_must_be_in_the_list() -> None:
    row = models.Command(id=3)
    assert pages.marked(request(''), 'this list', lambda uuid: row) is None
    assert (
        pages.marked(request('marker=x'), 'this list', lambda uuid: row) == 3
    )
    with pytest.raises(webob.exc.HTTPBadRequest, match='this list, not x'):
        pages.marked(request('marker=x'), 'this list', lambda uuid: None)
