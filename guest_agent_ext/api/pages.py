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

"""Answers lists of commands, a page at a time."""

from collections.abc import Callable
from typing import TypedDict

from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF


class _Commands(TypedDict):
    commands: list[views.View]


class Page(_Commands, total=False):
    """A page of a list, as in schemas.index_response."""

    commands_links: list[dict[str, str]]


def page(
    req: nova_types.Request,
    collection: str,
    read: Callable[[int], commands.Page],
) -> Page:
    """Answer one page of commands.

    :param collection: path of the list, below the version
    :param read: function that takes the maximum number of commands and reads
        those behind the marker
    """
    maximum: int = CONF.api.max_limit
    found = read(min(int(req.GET.get('limit') or maximum), maximum))
    context = wsgi.context_of(req)
    viewers = {
        project_id: views.viewer_of(context, project_id)
        for project_id in {row.instance_project_id for row in found.rows}
    }
    answer: Page = {
        'commands': [
            views.listed(row, viewers[row.instance_project_id])
            for row in found.rows
        ]
    }
    if found.rows and found.goes_on:
        answer['commands_links'] = views.Links().next_page(
            req, collection, found.rows[-1].uuid
        )
    return answer


def marked(
    req: nova_types.Request,
    whose: str,
    find: Callable[[str], models.Command | None],
) -> int | None:
    """Return the ``id`` of the command that a page begins after.

    :param whose: words for the list in a message
    :param find: function that finds a command of the list by its uuid
    :raises webob.exc.HTTPBadRequest: the list has no such command
    """
    marker = req.GET.get('marker')
    if marker is None:
        return None
    row = find(marker)
    if row is None:
        validation.bad_request(
            'marker must be a command of %s, not %s' % (whose, marker)
        )
    return row.id
