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

"""Answers lists of commands and runs, a page at a time."""

from collections.abc import Callable
from typing import Protocol
from typing import TypedDict

import webob.exc

from guest_agent_ext import conf
from guest_agent_ext import nova_types
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import runs

CONF = conf.CONF

#: Parameters that reach beyond the caller's project, or reveal the cloud.
_FOR_ADMINS = ('all_projects', 'project_id', 'host')


class _Row(Protocol):
    id: int


class _Commands(TypedDict):
    commands: list[views.View]


class Page(_Commands, total=False):
    """A page of a list, as in schemas.index_response."""

    commands_links: list[dict[str, str]]


class _Runs(TypedDict):
    runs: list[views.View]


class PageOfRuns(_Runs, total=False):
    """A page of a list, as in schemas.runs_response."""

    runs_links: list[dict[str, str]]


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
    found = read(_limit(req))
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


def page_of_runs(
    req: nova_types.Request, collection: str, read: Callable[[int], runs.Page]
) -> PageOfRuns:
    """Answer one page of runs.

    :param collection: path of the list, below the version
    :param read: function that takes the maximum number of runs and reads those
        behind the marker
    """
    found = read(_limit(req))
    context = wsgi.context_of(req)
    counts = runs.counts_of(found.rows)
    answer: PageOfRuns = {
        'runs': [
            views.run(
                row, views.viewer_of(context, row.project_id), counts[row.id]
            )
            for row in found.rows
        ]
    }
    if found.rows and found.goes_on:
        answer['runs_links'] = views.Links().next_page(
            req, collection, found.rows[-1].uuid
        )
    return answer


def _limit(req: nova_types.Request) -> int:
    maximum: int = CONF.api.max_limit
    return min(int(req.GET.get('limit') or maximum), maximum)


def project_of(req: nova_types.Request) -> str | None:
    """Return the project whose commands or runs are listed.

    :returns: None for all projects, only if the request asks for all
    :raises webob.exc.HTTPForbidden: the caller is no admin, or is in no
        project and names none. This is checked in code: one careless policy
        line must not show every project's commands.
    """
    context = wsgi.context_of(req)
    refused = [name for name in _FOR_ADMINS if name in req.GET]
    if refused and not context.is_admin:
        raise webob.exc.HTTPForbidden(
            explanation='%s is for admins only' % refused[0]
        )
    if 'project_id' in req.GET:
        return req.GET['project_id']
    if req.GET.get('all_projects') == 'true':
        return None
    servers.check_project(context)
    return context.project_id


def marked(
    req: nova_types.Request,
    whose: str,
    find: Callable[[str], _Row | None],
    kind: str = 'command',
) -> int | None:
    """Return the ``id`` of the row that a page begins after.

    :param whose: words for the list in a message
    :param find: function that finds a row of the list by its uuid
    :param kind: word for a row in a message
    :raises webob.exc.HTTPBadRequest: the list has no such row
    """
    marker = req.GET.get('marker')
    if marker is None:
        return None
    row = find(marker)
    if row is None:
        validation.bad_request(
            'marker must be a %s of %s, not %s' % (kind, whose, marker)
        )
    return row.id
