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

"""The commands of all servers: the query of an incident."""

from collections.abc import Sequence
import datetime
from typing import Any

import webob.exc

from guest_agent_ext import policies
from guest_agent_ext.api import pages
from guest_agent_ext.api import schemas
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

#: What reaches beyond the caller's project, or tells of the cloud.
_FOR_ADMINS = ('all_projects', 'project_id', 'host')


class AllCommandsController(wsgi.Controller):
    """``/guest-agent/commands``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403)
    @policies.authorized(policies.INDEX_ALL)
    @validation.query_schema(schemas.index_all_query)
    @validation.response_body_schema(schemas.index_response)
    def index(self, req: Any) -> dict[str, Any]:
        """List commands, newest first, without their output."""
        project_id = _project_of(req)
        before = pages.marked(
            req, 'this list', lambda uuid: _find(uuid, project_id)
        )

        def read(limit: int) -> Sequence[models.Command]:
            return commands.list_all(
                limit=limit,
                before=before,
                project_id=project_id,
                statuses=req.GET.getall('status'),
                host=req.GET.get('host'),
                since=_since(req),
            )

        return pages.page(req, 'guest-agent/commands', read)


def _project_of(req: Any) -> str | None:
    """Return the project whose servers are asked about, None for all.

    :raises webob.exc.HTTPForbidden: in code, because one careless policy line
        must not show every project's commands
    """
    context = req.environ['nova.context']
    refused = [name for name in _FOR_ADMINS if name in req.GET]
    if refused and not context.is_admin:
        raise webob.exc.HTTPForbidden(
            explanation='%s is for admins only' % refused[0]
        )
    if req.GET.get('all_projects') == 'true':
        return None
    project_id: str = req.GET.get('project_id', context.project_id)
    return project_id


def _find(uuid: str, project_id: str | None) -> models.Command | None:
    row = commands.get(uuid)
    if row is None or project_id in (None, row.instance_project_id):
        return row
    return None


def _since(req: Any) -> datetime.datetime | None:
    since = req.GET.get('since')
    if since is None:
        return None
    try:
        return datetime.datetime.strptime(since, schemas.TIME_FORMAT)
    except ValueError:
        validation.bad_request('since must be a time, not %s' % since)
